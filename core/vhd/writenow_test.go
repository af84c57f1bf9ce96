package vhd_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// wouldBlock sees that a write which must not wait says so, and does nothing.
func wouldBlock(t *testing.T, r *recorder, img *vhd.Image, n, off int64) {
	t.Helper()
	r.take()
	if _, err := img.WriteAtNowait(noise(n), off); !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("%d bytes at %d: %v", n, off, err)
	}
	if calls := r.take(); len(calls) > 0 {
		t.Errorf("%d bytes at %d: %s", n, off, story(calls))
	}
}

// A write that must not wait is one call of the file, in a block that is there;
// the flush after it makes it stable.
func TestNowaitWritesOneBlockThatIsThere(t *testing.T) {
	r, img := filled(t, 2)
	for _, off := range []int64{0, 1000, 4096 + 512} {
		r.take()
		if _, err := img.WriteAtNowait(noise(512), off); err != nil {
			t.Errorf("at %d: %v", off, err)
		}
		if calls := r.take(); len(calls) != 1 || calls[0].op != "write now" {
			t.Errorf("at %d: %s", off, story(calls))
		}
		must(t, img.Flush())
		if calls := r.take(); count(calls, "sync") == 0 {
			t.Errorf("a flush after it: %s", story(calls))
		}
	}
	wouldBlock(t, r, img, 512, 2*4096)    // no block
	wouldBlock(t, r, img, 1024, 4096-512) // two
	r.before = func(c call) error {
		if c.op == "write now" {
			return storage.ErrWouldBlock
		}
		return nil
	}
	if _, err := img.WriteAtNowait(noise(512), 0); !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("a file that would block: %v", err)
	}
	failNth(r, 1, unix.EIO, opIs("write now"))
	if _, err := img.WriteAtNowait(noise(512), 0); !errors.Is(err, unix.EIO) || errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("a bad sector: %v", err)
	}
	r.before = nil
	must(t, img.Close())
	if _, err := img.WriteAtNowait(noise(512), 0); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// In a block that is held in part the bits have to be known, and are set.
func TestNowaitSetsBits(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	must(t, write(img, "part", 4096+512))
	must(t, img.Close())
	img = open(t, r, "/disk.vhd")
	wouldBlock(t, r, img, 512, 4096) // its bitmap would have to be read
	must(t, write(img, "more", 4096+512))
	wouldBlock(t, r, img, 100, 4096) // part of a sector
	want := noise(1024)
	if _, err := img.WriteAtNowait(want, 4096+1024); err != nil {
		t.Fatal(err)
	}
	must(t, img.Close())
	img = open(t, r, "/disk.vhd")
	defer img.Close()
	if got := readAt(t, img, 4096+1024, 1024); !bytes.Equal(got, want) {
		t.Error("what was written does not read back")
	}
}

// Where every write is to be stable, none is quick; where none may be made, that
// is said.
func TestNowaitWhereItNeverWrites(t *testing.T) {
	fsys := storagetest.NewMemory()
	sample().write(t, fsys, "/disk.vhd")
	through, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, Durability: vhd.Writethrough})
	must(t, err)
	if _, err := through.WriteAtNowait(noise(512), 0); !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("write-through: %v", err)
	}
	must(t, through.Close())
	still, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer still.Close()
	if _, err := still.WriteAtNowait(noise(512), 0); !errors.Is(err, blockdev.ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
	if _, err := still.WriteAtNowait(noise(512), still.Size()); !errors.Is(err, blockdev.ErrReadOnly) {
		t.Errorf("read-only, past the end: %v", err)
	}
}
