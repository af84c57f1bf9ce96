package storagetest_test

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// outcome runs the call a few times and writes "." for each that succeeds and
// "x" for each that fails.
func outcome(times int, call func() error) string {
	s := ""
	for range times {
		if call() == nil {
			s += "."
		} else {
			s += "x"
		}
	}
	return s
}

func TestRulesChooseCalls(t *testing.T) {
	tests := []struct {
		name string
		rule storagetest.Rule
		want string // of five writes to d/a at 4096
	}{
		{"everything", storagetest.Rule{}, "xxxxx"},
		{"of the kind", storagetest.Rule{Op: storagetest.OpWrite}, "xxxxx"},
		{"of another kind", storagetest.Rule{Op: storagetest.OpRead}, "....."},
		{"by name", storagetest.Rule{Path: "/d/a"}, "xxxxx"},
		{"by last element", storagetest.Rule{Path: "a"}, "xxxxx"},
		{"by pattern", storagetest.Rule{Path: "/d/*"}, "xxxxx"},
		{"another file", storagetest.Rule{Path: "b"}, "....."},
		{"once", storagetest.Rule{Op: storagetest.OpWrite, Times: 1}, "x...."},
		{"the third", storagetest.Rule{Op: storagetest.OpWrite, Skip: 2, Times: 1}, "..x.."},
		{"from the fourth on", storagetest.Rule{Op: storagetest.OpWrite, Skip: 3}, "...xx"},
		{"touching the range", storagetest.Rule{Op: storagetest.OpWrite, Off: 4096 + 511, Len: 1}, "xxxxx"},
		{"behind the range", storagetest.Rule{Op: storagetest.OpWrite, Off: 0, Len: 4096}, "....."},
		{"before the range", storagetest.Rule{Op: storagetest.OpWrite, Off: 4096 + 512, Len: 1000}, "....."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := storagetest.NewFault(storagetest.NewMemory())
			f := program{t, c}.create("/d/a", "")
			c.Add(test.rule)
			write := func() error { _, err := f.WriteAt(sectors("A"), 4096); return err }
			if got := outcome(5, write); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			c.Heal()
			if err := write(); err != nil {
				t.Errorf("after Heal: %v", err)
			}
		})
	}
}

func TestEveryCallCanFail(t *testing.T) {
	c := storagetest.NewFault(storagetest.NewMemory())
	p := program{t, c}
	f := p.create("/a", "AB")
	buf := make([]byte, 512)
	calls := map[storagetest.Op]func() error{
		storagetest.OpOpen:       func() error { _, err := c.Open("/a", 0); return err },
		storagetest.OpCreate:     func() error { _, err := c.Create("/b", 0o600); return err },
		storagetest.OpStat:       func() error { _, err := c.Stat("/a"); return err },
		storagetest.OpResolve:    func() error { _, err := c.Resolve("/a"); return err },
		storagetest.OpRename:     func() error { return c.Rename("/a", "/c") },
		storagetest.OpLink:       func() error { return c.Link("/a", "/c") },
		storagetest.OpRemove:     func() error { return c.Remove("/a") },
		storagetest.OpSyncDir:    func() error { return c.SyncDir("/") },
		storagetest.OpRead:       func() error { _, err := f.ReadAt(buf, 0); return err },
		storagetest.OpReadNowait: func() error { _, err := f.(storage.NowaitReaderAt).ReadAtNowait(buf, 0); return err },
		storagetest.OpWrite:      func() error { _, err := f.WriteAt(buf, 0); return err },
		storagetest.OpSize:       func() error { _, err := f.Size(); return err },
		storagetest.OpTruncate:   func() error { return f.Truncate(0) },
		storagetest.OpSync:       f.Sync,
		storagetest.OpAllocate:   func() error { return f.Allocate(0, 4096) },
		storagetest.OpPunchHole:  func() error { return f.PunchHole(0, 512) },
		storagetest.OpNextData:   func() error { _, _, err := f.(storage.HoleFinder).NextData(0); return err },
		storagetest.OpLock:       func() error { return f.Lock(storage.Shared) },
		storagetest.OpClose:      f.Close,
	}
	p.must(f.Sync()) // so that the one that fails drops nothing
	for op, call := range calls {
		c.Add(storagetest.Rule{Op: op, Times: 1})
		if err := call(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: error %v", op, err)
		}
		last := c.Calls()[len(c.Calls())-1]
		if last.Op != op || !last.Injected || !errors.Is(last.Err, syscall.EIO) {
			t.Errorf("%s is recorded as %+v", op, last)
		}
	}
	if got := letters(t, c, "/a"); got != "AB" {
		t.Errorf("calls that failed left %q", got)
	}
	for _, name := range []string{"/b", "/c"} {
		if _, err := c.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestInjectedErrorsAreLikeRealOnes(t *testing.T) {
	tests := []struct {
		err  error
		want []error
	}{
		{nil, []error{syscall.EIO}},
		{syscall.ENOSPC, []error{syscall.ENOSPC, storage.ErrNoSpace}},
		{syscall.EINTR, []error{syscall.EINTR}},
		{storage.ErrReadOnly, []error{storage.ErrReadOnly}},
	}
	for _, test := range tests {
		c := storagetest.NewFault(storagetest.NewMemory())
		f := program{t, c}.create("/a", "A")
		c.Add(storagetest.Rule{Err: test.err})
		_, err := f.WriteAt(sectors("B"), 0)
		for _, want := range test.want {
			if !errors.Is(err, want) {
				t.Errorf("%v is not %v", err, want)
			}
		}
		var path *fs.PathError
		if !errors.As(err, &path) || path.Op != "write" || path.Path != "/a" {
			t.Errorf("%#v", err)
		}
	}
}

func TestShortTransfers(t *testing.T) {
	c := storagetest.NewFault(storagetest.NewMemory())
	f := program{t, c}.create("/a", "AAA")
	c.Add(storagetest.Rule{Op: storagetest.OpWrite, Short: 1024, Err: syscall.ENOSPC})
	if n, err := f.WriteAt(sectors("BBB"), 0); n != 1024 || !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("WriteAt = %d, %v", n, err)
	}
	if got := letters(t, c, "/a"); got != "BBA" {
		t.Errorf("a short write left %q", got)
	}
	if n, err := f.WriteAt(sectors("C"), 0); n != 0 || err == nil {
		t.Errorf("a write of no more than the short one = %d, %v", n, err)
	}
	c.Add(storagetest.Rule{Op: storagetest.OpRead, Short: 700, Err: io.EOF})
	buf := make([]byte, 1024)
	if n, err := f.ReadAt(buf, 0); n != 700 || err != io.EOF || buf[699] != 'B' || buf[700] != 0 {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
}

func TestFailureAfterTheFact(t *testing.T) {
	c := storagetest.NewFault(storagetest.NewMemory())
	program{t, c}.create("/a", "A")
	c.Add(storagetest.Rule{Op: storagetest.OpRename, After: true})
	if err := c.Rename("/a", "/b"); !errors.Is(err, syscall.EIO) {
		t.Errorf("error %v", err)
	}
	if got := letters(t, c, "/b"); got != "A" {
		t.Errorf("the rename was not done: %q", got)
	}
	if err := c.Rename("/a", "/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failure of its own: error %v", err)
	}
}

func TestFailedSyncDropsWhatWasNotSynced(t *testing.T) {
	crash := storagetest.NewCrash()
	for name, inner := range map[string]storage.FS{
		"Memory": storagetest.NewMemory(), "Crash": crash, "Fault": storagetest.NewFault(storagetest.NewMemory()),
	} {
		c := storagetest.NewFault(inner)
		p := program{t, c}
		f := p.stable("a", "AAAAAA")
		p.write(f, "B", 1)
		p.must(f.PunchHole(2*512, 512))
		p.must(f.Truncate(5 * 512))
		p.must(f.Truncate(6 * 512))
		p.write(f, "C", 6)
		c.Add(storagetest.Rule{Op: storagetest.OpSync, Times: 1})
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%s: error %v", name, err)
		}
		// Pages are lost; sizes are not pages.
		if got := letters(t, c, "a"); got != "AAAAA.." {
			t.Errorf("%s: %q is left", name, got)
		}
		p.write(f, "D", 0)
		p.must(f.Sync())
		if got := letters(t, c, "a"); got != "DAAAA.." {
			t.Errorf("%s: %q after another write", name, got)
		}
	}
	failed := crash.Points() - 2
	if got := crash.Describe(failed); got != "sync a (failed)" {
		t.Fatalf("point %d is %q", failed, got)
	}
	if got := letters(t, crash.State(failed, storagetest.All), "a"); got != "AB.AA.C" {
		t.Errorf("the disk may have had everything, not %q", got)
	}
	if got := letters(t, crash.State(failed, storagetest.None), "a"); got != "AAAAAA" {
		t.Errorf("the disk may have had nothing, not %q", got)
	}
	if got := outcomes(t, crash, "a"); !slices.Equal(got, []string{"DAAAA.."}) {
		t.Errorf("after the next sync: %q", got)
	}
}

func TestSyncThatFailsBelowDropsNothing(t *testing.T) {
	c := storagetest.NewFault(storagetest.NewMemory())
	p := program{t, c}
	f := p.create("a", "A")
	p.must(f.Close())
	if err := f.Sync(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("error %v", err)
	}
	if got := letters(t, c, "a"); got != "A" {
		t.Errorf("%q is left", got)
	}
}

func TestCallsAreRecorded(t *testing.T) {
	c := storagetest.NewFault(storagetest.NewMemory(), storagetest.Rule{Op: storagetest.OpTruncate, Err: syscall.ENOSPC})
	p := program{t, c}
	f := p.create("a", "AB")
	_ = f.Truncate(99)
	p.must(c.Rename("a", "b"))
	p.must(f.Close())
	_, _ = c.Open("a", 0)
	want := []string{
		"create a",
		"write a 0+1024",
		"truncate a 99 (injected): truncate a: no space left: no space left on device",
		"rename a to b",
		"close a",
		"open a: open a: file does not exist",
	}
	if got := strings.Split(strings.TrimSuffix(c.Log(100), "\n"), "\n"); !slices.Equal(got, want) {
		t.Errorf("the log is %q", got)
	}
	if got := c.Log(1); got != want[5]+"\n" {
		t.Errorf("its last line is %q", got)
	}
}

// plainFS has files without optional abilities.
type plainFS struct{ storage.FS }

type plainFile struct{ storage.File }

func (p plainFS) Create(name string, perm fs.FileMode) (storage.File, error) {
	f, err := p.FS.Create(name, perm)
	return plainFile{f}, err
}

func TestFaultOverPlainFiles(t *testing.T) {
	f := program{t, storagetest.NewFault(plainFS{storagetest.NewMemory()})}.create("a", "AB")
	if n, err := f.(storage.NowaitReaderAt).ReadAtNowait(make([]byte, 5), 0); n != 0 || err != storage.ErrWouldBlock {
		t.Errorf("ReadAtNowait = %d, %v", n, err)
	}
	if start, end, err := f.(storage.HoleFinder).NextData(10); start != 10 || end != 1024 || err != nil {
		t.Errorf("NextData(10) = %d, %d, %v", start, end, err)
	}
	if _, _, err := f.(storage.HoleFinder).NextData(1024); err != io.EOF {
		t.Errorf("NextData(1024): error %v", err)
	}
}
