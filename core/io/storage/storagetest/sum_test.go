package storagetest_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// sums goes both ways between the bytes of files and their sums.
type sums struct {
	ofBytes map[string]uint64
	bytesOf map[uint64]string
}

// expect fails unless the file "a" has the sum of every other file of its
// bytes, and of no other.
func (s sums) expect(t *testing.T, m *storagetest.Memory, what string) {
	t.Helper()
	b, err := readFile(m, "a")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := m.Sum("a")
	if err != nil {
		t.Fatal(err)
	}
	if was, ok := s.ofBytes[string(b)]; ok && was != sum {
		t.Fatalf("%s: the sum of %d bytes is %x, and was %x", what, len(b), sum, was)
	}
	if other, ok := s.bytesOf[sum]; ok && other != string(b) {
		t.Fatalf("%s: the sum of %d bytes is that of %d others", what, len(b), len(other))
	}
	s.ofBytes[string(b)], s.bytesOf[sum] = sum, string(b)
}

// TestSumsTellFilesApart: a state of a cut has the sum of the same bytes
// written to a file of their own, and so has what is written to it after.
func TestSumsTellFilesApart(t *testing.T) {
	s := sums{map[string]uint64{}, map[uint64]string{}}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 6))
		c := storagetest.NewCrash()
		f := program{t, c}.stable("a", "ABC.EF")
		first := c.Points()
		for range 30 {
			change(t, r, f)
		}
		for point := first; point <= c.Points(); point++ {
			for n := range uint64(10) {
				state := c.State(point, storagetest.Random(n))
				s.expect(t, state, c.Describe(point))
				b, err := readFile(state, "a")
				if err != nil {
					t.Fatal(err)
				}
				again := storagetest.NewMemory()
				g := program{t, again}.create("a", "")
				if _, err := g.WriteAt(b, 0); err != nil {
					t.Fatal(err)
				}
				s.expect(t, again, "written anew")
				g, err = state.Open("a", storage.ReadWrite)
				if err != nil {
					t.Fatal(err)
				}
				before := allocated(t, g)
				if err := g.Truncate(int64(len(b))); err != nil { // changes nothing, but is measured again
					t.Fatal(err)
				}
				if after := allocated(t, g); after != before {
					t.Fatalf("%s: %d bytes have space, the state says %d", c.Describe(point), after, before)
				}
				change(t, r, g)
				s.expect(t, state, "changed after "+c.Describe(point))
			}
		}
	}
	if len(s.ofBytes) < 1000 {
		t.Errorf("%d different files", len(s.ofBytes))
	}
}

func allocated(t *testing.T, f storage.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Allocated
}

// change changes a file at random.
func change(t *testing.T, r *rand.Rand, f storage.File) {
	t.Helper()
	at := r.Int64N(8)
	err := error(nil)
	switch r.IntN(8) {
	case 0:
		err = f.Truncate(r.Int64N(9 * 512))
	case 1:
		err = f.PunchHole(at*512, 1024)
	case 2:
		err = f.Sync()
	case 3:
		err = f.Allocate(at*512, 512)
	case 4:
		_, err = f.WriteAt(sectors("."), at*512)
	default:
		_, err = f.WriteAt(sectors(string(rune('A'+r.IntN(4)))), at*512)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSumOfNoFile(t *testing.T) {
	m := storagetest.NewMemory()
	program{t, m}.create("d/a", "A")
	if _, err := m.Sum("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name that isn't there: error %v", err)
	}
	if _, err := m.Sum("d"); !errors.Is(err, storage.ErrNotRegular) {
		t.Errorf("a directory: error %v", err)
	}
}

// TestACrashRecordsEveryCall looks at each kind of call.
func TestACrashRecordsEveryCall(t *testing.T) {
	c := storagetest.NewCrash()
	p := program{t, c}
	f := p.create("a", "AB")
	p.must(f.Truncate(700))
	p.must(f.PunchHole(512, 100))
	p.must(f.Allocate(0, 800))
	p.must(f.Sync())
	p.must(c.Link("a", "b"))
	p.must(c.Rename("b", "d/c"))
	p.must(c.Remove("a"))
	p.must(c.SyncDir("d"))
	want := []storagetest.Call{
		{Op: storagetest.OpCreate, Path: "a"},
		{Op: storagetest.OpWrite, Path: "a", Len: 1024},
		{Op: storagetest.OpTruncate, Path: "a", Off: 700},
		{Op: storagetest.OpPunchHole, Path: "a", Off: 512, Len: 100},
		{Op: storagetest.OpAllocate, Path: "a", Len: 800},
		{Op: storagetest.OpSync, Path: "a"},
		{Op: storagetest.OpLink, Path: "a", NewPath: "b"},
		{Op: storagetest.OpRename, Path: "b", NewPath: "d/c"},
		{Op: storagetest.OpRemove, Path: "a"},
		{Op: storagetest.OpSyncDir, Path: "d"},
	}
	if c.Points() != len(want) {
		t.Fatalf("%d calls, want %d", c.Points(), len(want))
	}
	for i, call := range want {
		if got := c.Call(i + 1); got != call {
			t.Errorf("call %d is %+v, want %+v", i+1, got, call)
		}
	}
}
