package vhd_test

import (
	"bytes"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/vhd"
)

// takenAway is memory that can't be touched.
func takenAway(t *testing.T, n int) []byte {
	t.Helper()
	p, err := unix.Mmap(-1, 0, n, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Munmap(p)) })
	return p
}

// panics tells whether f does, and lives on.
func panics(f func()) (did bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { did = recover() != nil }()
	f()
	return false
}

// TestAWriteOfMemoryThatIsNotThereLeavesTheImageUsable: a ring's page can be
// taken away under a request. Nothing stays locked, and the space that was found
// for the write serves the next one.
func TestAWriteOfMemoryThatIsNotThereLeavesTheImageUsable(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img := open(t, r, "/disk.vhd")
		must(t, write(img, "held", 5*4096)) // a block that is there
		bad := takenAway(t, 8192)
		for _, off := range []int64{0, 4096 + 100, 5*4096 + 7, 5*4096 + 512} {
			for name, f := range map[string]func([]byte, int64) (int, error){"WriteAt": img.WriteAt, "WriteAtNowait": img.WriteAtNowait, "ReadAt": img.ReadAt} {
				panics(func() { f(bad[:4096], off) })
				panics(func() { f(bad[:100], off) })
				want := bytes.Repeat([]byte(name[:1]), 4096)
				must(t, write(img, string(want), off))
				if got := readAt(t, img, off, 4096); !bytes.Equal(got, want) {
					t.Errorf("%s at %d, and a write after it: other bytes", name, off)
				}
			}
		}
		if !panics(func() { img.WriteAt(bad[:4096], 9*4096) }) {
			t.Error("nothing panicked: the memory is there")
		}
		closed := make(chan error, 1)
		go func() { closed <- flushAndClose(img) }()
		select {
		case err := <-closed:
			must(t, err)
		case <-time.After(20 * time.Second):
			t.Fatal("the image can't be closed")
		}
		checkClean(t, r, "/disk.vhd")
	}
}

// flushAndClose flushes and closes an image.
func flushAndClose(img *vhd.Image) error {
	if err := img.Flush(); err != nil {
		return err
	}
	return img.Close()
}
