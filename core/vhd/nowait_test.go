package vhd_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// A read that must not wait answers only where the maps that lead to the data
// are in memory, and the file says that the data is.
func TestNowaitReadsNoMap(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	must(t, write(img, "part", 4096+512)) // a block with a bitmap
	must(t, img.Close())
	img = open(t, r, "/disk.vhd")
	defer img.Close()
	got, want := make([]byte, 4096), make([]byte, 4096)
	for _, off := range []int64{0, 4096} { // the parents' map; a bitmap of its own
		r.take()
		if _, err := img.ReadAtNowait(got, off); !errors.Is(err, blockdev.ErrWouldBlock) {
			t.Errorf("at %d before anything was read: %v", off, err)
		}
		if n := count(r.take(), "read"); n != 0 {
			t.Errorf("at %d: the file was read %d times by a call that must not wait", off, n)
		}
		_, err := img.ReadAt(want, off)
		must(t, err)
		r.take()
		if _, err := img.ReadAtNowait(got, off); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d after it was read: %v, or the wrong bytes", off, err)
		}
		if calls := r.take(); count(calls, "read") != 0 || count(calls, "nowait") == 0 {
			t.Errorf("at %d: %s", off, story(calls))
		}
	}
}

func TestNowaitOfHolesAndFullBlocks(t *testing.T) {
	r, img := filled(t, 2)
	defer img.Close()
	got := noise(8192)
	if _, err := img.ReadAtNowait(got, 4096); err != nil || got[0] != 2 || !bytes.Equal(got[4096:], zeros(4096)) {
		t.Errorf("a full block and a hole: %v", err)
	}
	if n := count(r.take(), "read"); n != 0 {
		t.Errorf("%d reads that could wait", n)
	}
	r.before = func(c call) error {
		if c.op == "nowait" {
			return storage.ErrWouldBlock
		}
		return nil
	}
	if _, err := img.ReadAtNowait(got, 4096); !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("data that is not in memory: %v", err)
	}
	if _, err := img.ReadAtNowait(got, 2*4096); err != nil || !bytes.Equal(got, zeros(8192)) {
		t.Errorf("a hole needs no data: %v", err)
	}
	failNth(r, 1, unix.EIO, opIs("nowait"))
	if _, err := img.ReadAtNowait(got, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a bad sector: %v", err)
	}
}

func TestNowaitChecksItsRange(t *testing.T) {
	fsys := storagetest.NewMemory()
	sample().write(t, fsys, "/disk.vhd")
	img := open(t, fsys, "/disk.vhd")
	if _, err := img.ReadAtNowait(make([]byte, 2), img.Size()-1); !errors.Is(err, blockdev.ErrOutOfRange) {
		t.Errorf("past the end: %v", err)
	}
	must(t, img.Close())
	if _, err := img.ReadAtNowait(make([]byte, 2), 0); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
