package storagetest_test

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// brokenEnv names the broken file system that TestBroken runs the suite on.
const brokenEnv = "STORAGETEST_BROKEN"

// brokenFS has files with one flaw, or one of its own.
type brokenFS struct {
	storage.FS
	spoil      func(storage.File) storage.File
	overwrites bool // Create takes a name that is taken
	copies     bool // Link makes another file
	escapes    bool // OpenBeneath is Open
}

func (b brokenFS) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := b.FS.Open(name, flag)
	if err != nil || b.spoil == nil {
		return f, err
	}
	return b.spoil(f), nil
}

func (b brokenFS) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	if b.escapes {
		return b.Open(filepath.Join(dir, name), flag)
	}
	f, err := b.FS.OpenBeneath(dir, name, flag)
	if err != nil || b.spoil == nil {
		return f, err
	}
	return b.spoil(f), nil
}

func (b brokenFS) Create(name string, perm fs.FileMode) (storage.File, error) {
	if b.overwrites {
		_ = b.FS.Remove(name)
	}
	f, err := b.FS.Create(name, perm)
	if err != nil || b.spoil == nil {
		return f, err
	}
	return b.spoil(f), nil
}

func (b brokenFS) Link(oldname, newname string) error {
	if !b.copies {
		return b.FS.Link(oldname, newname)
	}
	f, err := b.FS.Create(newname, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

type (
	noEOF       struct{ storage.File }
	noGrowth    struct{ storage.File }
	noPunch     struct{ storage.File }
	noLock      struct{ storage.File }
	overcutting struct{ storage.File }
	dataLoser   struct{ storage.File }
	waiting     struct{ storage.File }
)

func (f noEOF) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (f noGrowth) Allocate(off, n int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if err := f.File.Allocate(off, n); err != nil {
		return err
	}
	return f.Truncate(size)
}

func (noPunch) PunchHole(int64, int64) error { return nil }

func (noLock) Lock(storage.Access) error { return nil }

func (f overcutting) Truncate(size int64) error {
	if err := f.File.Truncate(size / 512 * 512); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (dataLoser) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }

func (f waiting) ReadAtNowait(p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	clear(p[:n])
	return n, err
}

// broken are file systems, and the test of the suite that each must fail.
var broken = map[string]struct {
	fs    brokenFS
	fails string
}{
	"no EOF":            {brokenFS{spoil: func(f storage.File) storage.File { return noEOF{f} }}, "ReadsAreShortAtTheEnd"},
	"no growth":         {brokenFS{spoil: func(f storage.File) storage.File { return noGrowth{f} }}, "AllocateKeepsDataAndGrows"},
	"no holes":          {brokenFS{spoil: func(f storage.File) storage.File { return noPunch{f} }}, "PunchHoleZeroesAndKeepsTheSize"},
	"no locks":          {brokenFS{spoil: func(f storage.File) storage.File { return noLock{f} }}, "LocksExclude"},
	"cuts too much":     {brokenFS{spoil: func(f storage.File) storage.File { return overcutting{f} }}, "RandomProgramsMatchTheModel"},
	"loses data":        {brokenFS{spoil: func(f storage.File) storage.File { return dataLoser{f} }}, "NextDataFindsAllData"},
	"reads other bytes": {brokenFS{spoil: func(f storage.File) storage.File { return waiting{f} }}, "NowaitReadsAreReads"},
	"overwrites":        {brokenFS{overwrites: true}, "CreateIsExclusive"},
	"copies":            {brokenFS{copies: true}, "LinkSharesTheFile"},
	"escapes":           {brokenFS{escapes: true}, "NothingOutsideIsOpenedBeneath"},
}

// TestBroken runs the suite on a broken file system, as TestTheSuiteFinds
// asks.
func TestBroken(t *testing.T) {
	b, ok := broken[os.Getenv(brokenEnv)]
	if !ok {
		return
	}
	storagetest.Run(t, func(t *testing.T) (storage.FS, string) {
		b.fs.FS = storagetest.NewMemory()
		return b.fs, "/dir"
	})
}

// TestTheSuiteFindsWhatIsBroken has this test binary fail.
func TestTheSuiteFindsWhatIsBroken(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBroken$")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if want := "--- FAIL: TestBroken/" + b.fails + " "; err == nil || !strings.Contains(string(out), want) {
				t.Errorf("%v, without %q:\n%s", err, want, out)
			}
		})
	}
}
