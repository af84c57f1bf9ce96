package check

import (
	"errors"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// TestFailedReads fails each read of a check of a chain in turn: that is an
// error, never a finding, and no file stays open.
func TestFailedReads(t *testing.T) {
	mem, o := family(t)
	for n := 0; ; n++ {
		broken := &brokenFS{FS: mem, left: n}
		o.FS = broken
		report, err := Run("/vm/child.vhd", o)
		if broken.open != 0 {
			t.Fatalf("read %d failed: %d files left open", n, broken.open)
		}
		if broken.left >= 0 {
			if err != nil || len(report.Findings) > 0 || n < 15 {
				t.Errorf("after %d reads, none of which failed: %v, %v", n, report, err)
			}
			return
		}
		if !errors.Is(err, errBroken) || report != nil {
			t.Fatalf("read %d failed: Run = %v, %v", n, report, err)
		}
	}
}

// TestFailedClose: a file that can't be closed is an error, and the others are
// closed all the same.
func TestFailedClose(t *testing.T) {
	mem, o := family(t)
	for _, name := range []string{"/vm/child.vhd", "/vm/base.vhd"} {
		broken := &brokenFS{FS: mem, left: 1000, noClose: name}
		o.FS = broken
		if report, err := Run("/vm/child.vhd", o); !errors.Is(err, errBroken) || report != nil || broken.open != 0 {
			t.Errorf("%s can't be closed: Run = %v, %v, files left open: %d", name, report, err, broken.open)
		}
	}
}

// TestParentThatDoesNotFitIsClosed goes through the ways in which a chain ends
// at a parent.
func TestParentThatDoesNotFitIsClosed(t *testing.T) {
	mem, o := family(t)
	writeRaw(t, mem, "/vm/raw.img", 4096)
	broken := &brokenFS{FS: mem, left: 1000}
	o.FS, o.Parent = broken, "/vm/raw.img"
	expect(t, run(t, "/vm/child.vhd", o).Findings, want{Damage, "parent", "not a VHD image"})
	if broken.open != 0 {
		t.Errorf("files left open: %d", broken.open)
	}
	if _, err := Run("/vm/raw.img", o); !errors.Is(err, ErrNotVHD) || broken.open != 0 {
		t.Errorf("Run = %v, files left open: %d", err, broken.open)
	}
	o.Parent, o.Parents = "", false
	expect(t, run(t, "/vm/child.vhd", o).Findings)
	if broken.open != 0 {
		t.Errorf("without Parents, files left open: %d", broken.open)
	}
	r := childDisk(t, footerOf(t, mem, "/vm/base.vhd"), "self.vhd", testNow)
	r.write(t, mem, "/vm/self.vhd")
	o.IgnoreTimestamps = true
	expect(t, run(t, "/vm/self.vhd", o).Findings, want{Damage, "parent", "a loop"})
	if broken.open != 0 {
		t.Errorf("after a loop, files left open: %d", broken.open)
	}
}

var errBroken = errors.New("input/output error")

// brokenFS has files of which one read fails, and counts those open.
type brokenFS struct {
	storage.FS
	left    int    // reads until one fails; below 0 it has
	noClose string // the file whose Close fails
	open    int
}

func (b *brokenFS) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := b.FS.Open(name, flag)
	return b.opened(f, err)
}

func (b *brokenFS) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := b.FS.OpenBeneath(dir, name, flag)
	return b.opened(f, err)
}

func (b *brokenFS) opened(f storage.File, err error) (storage.File, error) {
	if err != nil {
		return nil, err
	}
	b.open++
	return &brokenFile{f, b}, nil
}

type brokenFile struct {
	storage.File
	fs *brokenFS
}

func (f *brokenFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.left--
	if f.fs.left == -1 {
		return 0, errBroken
	}
	return f.File.ReadAt(p, off)
}

func (f *brokenFile) Close() error {
	f.fs.open--
	err := f.File.Close()
	if f.Name() == f.fs.noClose {
		err = errBroken
	}
	return err
}
