package vhdtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// shows is what the image Name shows.
func shows(m *storagetest.Memory, readOnly bool) ([]Tag, error) {
	disk, err := openAndRead(m, Name, readOnly, nil)
	if err != nil {
		return nil, err
	}
	return Decode(disk)
}

func TestEveryKindOpensAndIsUnlike(t *testing.T) {
	names := map[string]bool{}
	for _, k := range Kinds() {
		m := storagetest.NewMemory()
		if err := k.Make(m); err != nil {
			t.Fatalf("%s: %v", k.Name, err)
		}
		content, err := shows(m, false)
		if err != nil {
			t.Fatalf("%s: %v", k.Name, err)
		}
		for i, v := range content {
			if v >= Whole(firstTag) {
				t.Errorf("%s: sector %d holds %v, a tag that programs write", k.Name, i, v)
			}
		}
		if names[k.Name] {
			t.Errorf("two kinds are called %q", k.Name)
		}
		names[k.Name] = true
	}
}

// TestAStaleFooterCopyIsOfAShorterDisk: the disk is as long as the end footer
// says; by the copy, which is as good, it would not be.
func TestAStaleFooterCopyIsOfAShorterDisk(t *testing.T) {
	kinds, m := Kinds(), storagetest.NewMemory()
	k := kinds[slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == onStaleCopy })]
	if err := k.Make(m); err != nil {
		t.Fatal(err)
	}
	content, err := shows(m, true)
	if err != nil || len(content) != sectors || content[4] != Whole(104) {
		t.Errorf("by the end footer: %v, %v; want %d sectors", content, err, sectors)
	}
	b, err := readFile(m, Name)
	if err != nil {
		t.Fatal(err)
	}
	end, err := format.DecodeFooter(b[len(b)-format.FooterSize:])
	if err != nil {
		t.Fatal(err)
	}
	front, err := format.DecodeFooter(b[:format.FooterSize])
	if err != nil {
		t.Fatal(err)
	}
	if front.ID != end.ID || front.Type != end.Type {
		t.Errorf("the copy is another image's: %v %v, footer %v %v", front.Type, front.ID, end.Type, end.ID)
	}
	if err := m.Remove(Name); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(m, Name, b[:len(b)-format.FooterSize]); err != nil {
		t.Fatal(err)
	}
	if content, err = shows(m, true); err != nil || len(content) != staleSectors {
		t.Errorf("by the copy: %v, %v; want %d sectors", content, err, staleSectors)
	}
}

func TestAKilledProcessLeavesItsWritesAndNoLock(t *testing.T) {
	m := storagetest.NewMemory()
	if err := writeFile(m, "/f", make([]byte, 2048)); err != nil {
		t.Fatal(err)
	}
	p := newProcess(m)
	f, err := p.FS.Open("/f", storage.ReadWrite)
	if err == nil {
		err = f.Lock(storage.Exclusive)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.dieAfter(2)
	for i := range int64(4) {
		_, err := f.WriteAt(Encode(tagged(1, 7)), i*512)
		if lives := i < 2; lives != (err == nil) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, errKilled) {
		t.Errorf("a dead process reads: %v", err)
	}
	p.kill()
	if got, want := content(t, m), fmt.Sprint([]Tag{Whole(7), Whole(7), 0, 0}); got != want {
		t.Errorf("left %s, want %s", got, want)
	}
	g, err := newProcess(m).FS.Open("/f", storage.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Lock(storage.Exclusive), g.Close()); err != nil {
		t.Errorf("the lock is left: %v", err)
	}
}

// order runs three tasks of three calls each and returns the calls' order.
func order(t *testing.T, seed uint64) string {
	t.Helper()
	var mu sync.Mutex
	var calls []string
	below := Intercept(storagetest.NewMemory(), func(c *Call, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, strings.TrimPrefix(c.Name, "/"))
		return do()
	})
	s := newScheduler(below)
	var tasks []func()
	for i := range 3 {
		tasks = append(tasks, func() {
			for k := range 3 {
				if _, err := s.FS.Create(fmt.Sprintf("/%c%d", 'a'+i, k), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	s.run(seed, tasks)
	for i := range 3 {
		mine := slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return c[0] != byte('a'+i) })
		if len(mine) != 3 || !slices.IsSorted(mine) {
			t.Fatalf("the calls of task %d come as %v", i, mine)
		}
	}
	return strings.Join(calls, " ")
}

func TestSchedulesDifferByTheirSeed(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(40) {
		seen[order(t, seed)] = true
	}
	if len(seen) < 20 {
		t.Errorf("40 seeds give %d schedules", len(seen))
	}
}

func TestQEMUGoesByTheBATAlone(t *testing.T) {
	s := newSketch(format.Dynamic, sectors, block).block(1, map[int]Tag{0: Whole(7), 2: Whole(9)})
	b := s.bytes()
	// A bit is taken away: qemu sees what lies there all the same.
	at := int(s.bat[1]) * format.SectorSize
	b[at] &^= 0x80
	m := storagetest.NewMemory()
	if err := writeFile(m, Name, b); err != nil {
		t.Fatal(err)
	}
	tags, err := new(qemu).reads(m, Name, tagged(sectors, 1))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]Tag, sectors)
	want[block], want[block+2] = Whole(7), Whole(9)
	if !slices.Equal(tags, want) {
		t.Errorf("reads %v, want %v", tags, want)
	}
}

func TestShortProgramsAreAllThereAndEndInWhatIsNew(t *testing.T) {
	g := newGenerator(Kind{Block: block}, sectors, Options{})
	n := len(g.letters)
	seen := map[string]bool{}
	for range n + n*n {
		seen[Program{Before: g.short[len(seen)]}.String()] = true
	}
	if len(seen) != n+n*n || len(g.short) != n+n*n+n*n*n {
		t.Errorf("%d programs up to length 2, %d in all, of %d letters", len(seen), len(g.short), n)
	}
	for range 2000 {
		j := g.next()
		if j.short && j.prefix != len(j.program.Before)-1 {
			t.Fatalf("%v: %d steps are explored elsewhere", j.program, j.prefix)
		}
		for _, s := range slices.Concat(append(j.program.Beside, j.program.Before, j.program.After)...) {
			if s.Op.Ranged && (s.Count < 1 || s.First < 0 || s.First+s.Count > sectors) {
				t.Fatalf("%v: out of the disk", s)
			}
		}
		for _, s := range slices.Concat(j.program.Beside...) {
			if !s.Op.Concurrent {
				t.Fatalf("%v goes beside others", s)
			}
		}
	}
}

// A further operation joins by its entry.
func TestAnOperationJoinsByOneEntry(t *testing.T) {
	ran := false
	ops := append(Operations(), Operation{Name: "read-only look", Run: func(d *Disk, _ Step) error {
		ran = true
		if err := d.Close(); err != nil {
			return err
		}
		img, err := vhd.Open(d.Name, vhd.Options{FS: d.FS(), ReadOnly: true})
		if err != nil {
			return err
		}
		return img.Close()
	}})
	if _, err := Explore(Kinds()[2], Options{States: 300, Operations: ops}); err != nil {
		t.Error(err)
	}
	if !ran {
		t.Error("it was not run")
	}
}

func TestAFailureTellsHowToFindItAgain(t *testing.T) {
	_, err := Explore(Kinds()[0], Options{States: enough, Workers: 1, Wrap: func(fsys storage.FS) storage.FS { return Intercept(fsys, skip(isSync)) }})
	if err == nil {
		t.Fatal("nothing is synced, and that is not found")
	}
	for _, part := range []string{"fixed\n", "program: ", "power cut after ", "rule "} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
}
