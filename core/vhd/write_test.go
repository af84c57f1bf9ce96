package vhd_test

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// giveWay starts f, whose outcome goes to done, and lets it run as far as it
// gets by itself.
func giveWay(done chan<- error, f func() error) {
	var ended atomic.Bool
	go func() {
		err := f()
		ended.Store(true)
		done <- err
	}()
	for i := 0; i < 10000 && !ended.Load(); i++ {
		runtime.Gosched()
	}
}

func write(img *vhd.Image, s string, off int64) error {
	_, err := img.WriteAt([]byte(s), off)
	return err
}

// Two writes of different bytes of one sector at the same time are both kept,
// whatever is known of the block's bitmap when they begin.
func TestWritesToOneSectorAtOnceAreBothKept(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/disk.vhd", format.Dynamic, 64<<10, 64<<10)
	fill(t, r, "/disk.vhd", bytes.Repeat([]byte{1}, 64<<10))
	img := open(t, r, "/disk.vhd") // the bitmap is not in memory now
	defer img.Close()

	// When the first write has read the sector that it completes, and is about
	// to write it whole, the second one comes: it is done, or waits.
	second := make(chan error, 1)
	var once sync.Once
	r.before = func(c call) error {
		if c.op == "write" && c.n == format.SectorSize {
			once.Do(func() { giveWay(second, func() error { return write(img, "second", 200) }) })
		}
		return nil
	}
	must(t, write(img, "first", 100))
	once.Do(func() { second <- write(img, "second", 200) })
	must(t, <-second)
	got := make([]byte, 512)
	_, err := img.ReadAt(got, 0)
	must(t, err)
	if string(got[100:105]) != "first" || string(got[200:206]) != "second" {
		t.Errorf("a write was lost: %q, %q", got[100:105], got[200:206])
	}
}

// The same where the first write makes the block whole before it comes to the
// sector that both touch.
func TestWriteThatFillsABlockKeepsWhatOthersWrite(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/base.vhd", format.Dynamic, 4096, 4096)
	fill(t, r, "/base.vhd", noise(4096))
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: r}))
	img := open(t, r, "/disk.vhd")
	defer img.Close()
	must(t, write(img, string(make([]byte, 512)), 0))     // sector 0 is present
	must(t, write(img, string(make([]byte, 512)), 7*512)) // and sector 7

	second := make(chan error, 1)
	var once sync.Once
	r.before = func(c call) error {
		if c.op == "write" && c.n == format.SectorSize && c.off%4096 == 7*512 {
			once.Do(func() { giveWay(second, func() error { return write(img, "second", 7*512+200) }) })
		}
		return nil
	}
	must(t, write(img, string(bytes.Repeat([]byte{1}, 7*512-100+50)), 100))
	once.Do(func() { second <- write(img, "second", 7*512+200) })
	must(t, <-second)
	got := make([]byte, 512)
	_, err := img.ReadAt(got, 7*512)
	must(t, err)
	if got[49] != 1 || string(got[200:206]) != "second" {
		t.Errorf("a write was lost: %d, %q", got[49], got[200:206])
	}
}
