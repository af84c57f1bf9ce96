package storagetest_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

func TestHolesCostNothing(t *testing.T) {
	m := storagetest.NewMemory()
	p := program{t, m}
	f := p.create("a", "")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.must(f.Truncate(2 << 40))
	for i := range int64(100) {
		p.write(f, "A", i<<24)
	}
	p.must(f.PunchHole(1<<30, 1<<20))
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes of memory for 100 sectors in 2 TiB", used)
	}
	info, err := f.Stat()
	if err != nil || info.Size != 2<<40 || info.Allocated != 100*512 {
		t.Errorf("%+v, %v", info, err)
	}
	runs, off := 0, int64(0)
	for {
		start, end, err := f.(storage.HoleFinder).NextData(off)
		if err != nil {
			break
		}
		if start%(512<<24) != 0 || end != start+512 {
			t.Fatalf("data from %d to %d", start, end)
		}
		runs, off = runs+1, end
	}
	if runs != 100 {
		t.Errorf("%d runs of data", runs)
	}
}

func TestSpaceReturns(t *testing.T) {
	f := program{t, storagetest.NewMemory()}.create("a", "ABCDEFGH")
	allocated := func() int64 {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info.Allocated / 512
	}
	steps := []struct {
		name string
		do   func() error
		want int64 // sectors
	}{
		{"written", func() error { return nil }, 8},
		{"a hole within sectors", func() error { return f.PunchHole(100, 300) }, 8},
		{"a hole of a sector and two halves", func() error { return f.PunchHole(256, 1024) }, 7},
		{"allocated", func() error { return f.Allocate(0, 10*512) }, 10},
		{"cut off", func() error { return f.Truncate(600) }, 2},
		{"the last, partial sector", func() error { return f.PunchHole(512, 88) }, 1},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := allocated(); got != step.want {
			t.Errorf("%s: %d sectors have space, want %d", step.name, got, step.want)
		}
	}
}

func TestDirectoriesAreImplied(t *testing.T) {
	m := storagetest.NewMemory()
	program{t, m}.create("/d/e/a", "A")
	for _, dir := range []string{"/", "/d", "d/e", "/d/e/"} {
		if info, err := m.Stat(dir); err != nil || !info.Mode.IsDir() {
			t.Errorf("%s: %v, %v", dir, info.Mode, err)
		}
		if err := m.SyncDir(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
		if err := m.Remove(dir); !errors.Is(err, storage.ErrNotRegular) {
			t.Errorf("Remove of %s: error %v", dir, err)
		}
	}
	if _, err := m.Stat("/d/e/a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: error %v", err)
	}
	if _, err := m.Create("/d/e/a/b", 0o600); err == nil {
		t.Error("a file can be created below a file")
	}
	if err := m.Remove("/d/e/a"); err != nil {
		t.Error(err)
	}
	if _, err := m.Stat("/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory of nothing: error %v", err)
	}
}

// TestDropGoesBackToTheSync compares a Memory, over which syncs fail now and
// then, with one that is told only what is to be left.
func TestDropGoesBackToTheSync(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := storagetest.NewFault(storagetest.NewMemory())
		p := program{t, c}
		f := p.stable("a", "....................")
		const size = 20
		synced, now := make([]byte, size), make([]byte, size)
		for i := range now {
			synced[i], now[i] = '.', '.'
		}
		for range 100 {
			switch i := r.IntN(size); r.IntN(6) {
			case 0:
				p.must(f.Sync())
				copy(synced, now)
			case 1:
				c.Add(storagetest.Rule{Op: storagetest.OpSync, Times: 1})
				_ = f.Sync()
				c.Heal()
				copy(now, synced)
			case 2:
				p.must(f.PunchHole(int64(i)*512, 512))
				now[i] = '.'
			default:
				now[i] = byte('A' + r.IntN(26))
				p.write(f, string(now[i]), int64(i))
			}
			if got := letters(t, c, "a"); got != string(now) {
				t.Fatalf("seed %d: %q, want %q\n%s", seed, got, now, c.Log(20))
			}
		}
	}
}

func TestMemoryDataPathAllocatesNothing(t *testing.T) {
	f := program{t, storagetest.NewMemory()}.create("a", "ABCDEFGH")
	buf := make([]byte, 4096)
	n := testing.AllocsPerRun(100, func() {
		if _, err := f.ReadAt(buf, 0); err != nil {
			t.Error(err)
		}
		if _, err := f.WriteAt(buf, 0); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a read and a write", n)
	}
}
