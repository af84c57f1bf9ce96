package vhd_test

import (
	"runtime"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// small is a disk of 64 KiB in blocks of 4 KiB, in a recorder: dynamic, or
// differencing over noise.
func small(t *testing.T, differencing bool) *recorder {
	t.Helper()
	r := &recorder{FS: storagetest.NewMemory()}
	if !differencing {
		create(t, r, "/disk.vhd", format.Dynamic, 64<<10, 4096)
		return r
	}
	create(t, r, "/base.vhd", format.Dynamic, 64<<10, 4096)
	fill(t, r, "/base.vhd", noise(64<<10))
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: r}))
	return r
}

// grownImage opens /disk.vhd and has it grow the file, so that what a test
// looks at next is free of that.
func grownImage(t *testing.T, r *recorder, o vhd.Options) *vhd.Image {
	t.Helper()
	o.FS = r
	img, err := vhd.Open("/disk.vhd", o)
	must(t, err)
	for b := int64(15); b > 12; b-- { // the first time it may grow by little
		must(t, write(img, "grow", b*4096))
	}
	must(t, img.Flush())
	r.take()
	return img
}

func TestFlushOfNewBlocksWithoutAParentIsOneSync(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	defer img.Close()
	for b := range int64(5) {
		must(t, write(img, "data", b*4096+100))
	}
	if calls := r.changes(); count(calls, "sync") != 0 {
		t.Errorf("writing to new blocks: %s", story(calls))
	}
	must(t, img.Flush())
	calls := r.changes()
	if story(calls) != "write sync" || calls[0].off != 1536 {
		t.Errorf("flush: %v, want the BAT and one sync", calls)
	}
}

func TestFlushOfADifferencingDiskOrdersBitmapsAfterData(t *testing.T) {
	r := small(t, true)
	img := grownImage(t, r, vhd.Options{})
	defer img.Close()
	must(t, write(img, "data", 100))         // a new block
	must(t, write(img, "data", 4096))        // another
	must(t, write(img, "data", 15*4096+600)) // one that is there
	must(t, img.Flush())
	calls := r.changes()
	syncs := 0
	for i, c := range calls {
		bitmap := c.n == 512 && c.off%4096 == 4096-512
		switch {
		case c.op == "sync":
			syncs++
		case c.op != "write":
			t.Errorf("call %d is a %s", i, c.op)
		case syncs == 0 && c.off == 1536:
			t.Errorf("the BAT is written before the data is stable: %v", calls)
		case syncs == 1 && c.off != 1536 && !bitmap:
			t.Errorf("data is written after it was made stable: %v", calls)
		case syncs == 2:
			t.Errorf("something is written after the last sync: %v", calls)
		}
	}
	tail := story(calls[len(calls)-6:])
	if syncs != 2 || tail != "sync write write write write sync" {
		t.Errorf("flush ends %q, want a sync, three bitmaps, the BAT, a sync", tail)
	}
	if bat := calls[len(calls)-2]; bat.off != 1536 {
		t.Errorf("the BAT is not what is written last: %v", bat)
	}
}

func TestFlushWithNothingToDoSyncsNothing(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img := open(t, r, "/disk.vhd")
		r.take()
		must(t, img.Flush())
		// Who had it before may have been killed before a sync, and who had its
		// parent.
		want := "sync"
		if differencing {
			want = "sync sync"
		}
		if calls := r.take(); story(calls) != want {
			t.Errorf("flush of an image just opened: %v", calls)
		}
		must(t, write(img, "data", 0))
		must(t, img.Flush())
		r.take()
		must(t, img.Flush())
		if calls := r.changes(); len(calls) > 0 {
			t.Errorf("second flush: %v", calls)
		}
		must(t, img.Close())
	}
}

func TestOverwritesCostOneSync(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img := grownImage(t, r, vhd.Options{})
		must(t, write(img, string(noise(4096)), 0))
		must(t, img.Flush())
		r.take()
		must(t, write(img, "over", 17))
		must(t, write(img, "over", 1000))
		if img.Dirty() {
			t.Error("an overwrite made metadata dirty")
		}
		must(t, img.Flush())
		if calls := r.changes(); story(calls) != "write write sync" {
			t.Errorf("two overwrites and a flush: %v", calls)
		}
		must(t, img.Close())
	}
}

func TestFlushesThatComeDuringAFlushShareTheNext(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	defer img.Close()
	must(t, write(img, "data", 0))
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.before = func(c call) error {
		if c.op == "sync" {
			once.Do(func() { close(held); <-release })
		}
		return nil
	}
	var wg sync.WaitGroup
	flush := func() {
		if err := img.Flush(); err != nil {
			t.Error(err)
		}
	}
	wg.Go(flush)
	<-held
	must(t, write(img, "more", 100)) // what the others' flush is for
	var began sync.WaitGroup
	for range 8 {
		began.Add(1)
		wg.Go(func() { began.Done(); flush() })
	}
	began.Wait()
	for range 10000 { // they run into the flush that is held
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if n := count(r.changes(), "sync"); n != 2 {
		t.Errorf("nine flushes made %d syncs, want 2", n)
	}
}

// A write that was acknowledged before a Flush began is stable after it, also
// where the Flush is served by another.
func TestFlushDuringAFlushCoversWhatCameBetween(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	defer img.Close()
	must(t, write(img, "data", 0))
	var once sync.Once
	done := make(chan error, 1)
	r.before = func(c call) error {
		if c.op == "sync" {
			once.Do(func() {
				giveWay(done, func() error {
					if err := write(img, "late", 4096); err != nil {
						return err
					}
					return img.Flush()
				})
			})
		}
		return nil
	}
	must(t, img.Flush())
	must(t, <-done)
	calls := r.changes()
	last := -1
	for i, c := range calls {
		if c.op == "write" {
			last = i
		}
	}
	if last < 0 || count(calls[last:], "sync") == 0 || img.Dirty() {
		t.Errorf("nothing made the late write stable: %v", calls)
	}
}

func TestWritethroughIsStableBeforeItIsAcknowledged(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img := grownImage(t, r, vhd.Options{Durability: vhd.Writethrough})
		changes := map[string]func() error{
			"a new block":  func() error { return write(img, "data", 0) },
			"an overwrite": func() error { return write(img, "data", 0) },
			"zeroes":       func() error { return img.WriteZeroes(0, 1024) },
			"discard":      func() error { return img.Discard(0, 4096) },
		}
		for name, change := range changes {
			must(t, change())
			if calls := r.changes(); len(calls) > 0 && calls[len(calls)-1].op != "sync" || img.Dirty() {
				t.Errorf("%s: %v", name, calls)
			}
		}
		must(t, write(img, "data", 0))
		if calls := r.changes(); count(calls, "sync") == 0 {
			t.Errorf("a write: %v", calls)
		}
		must(t, img.Close())
	}
}

func TestUnsafeSyncsAtCloseAlone(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img, err := vhd.Open("/disk.vhd", vhd.Options{FS: r, Durability: vhd.Unsafe})
		must(t, err)
		r.take()
		for b := range int64(16) {
			must(t, write(img, "data", b*4096))
			must(t, img.Flush())
		}
		if calls := r.changes(); count(calls, "sync") != 0 {
			t.Errorf("%d syncs before Close", count(calls, "sync"))
		}
		must(t, img.Close())
		calls := r.changes()
		if len(calls) == 0 || calls[len(calls)-1].op != "sync" {
			t.Errorf("Close: %v, want a sync at its end", calls)
		}
		checkClean(t, r, "/disk.vhd")
	}
}

// The disk is set to work early on long writes, and on those alone; what is
// promised, a sync still has to do.
func TestLongWritesBeginTheirSync(t *testing.T) {
	for _, test := range []struct {
		name  string
		n     int64
		o     vhd.Options
		begun bool
	}{
		{"long", 256 << 10, vhd.Options{}, true},
		{"short", 128 << 10, vhd.Options{}, false},
		{"long, unsafe", 256 << 10, vhd.Options{Durability: vhd.Unsafe}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &recorder{FS: storagetest.NewMemory()}
			create(t, r, "/disk.vhd", format.Dynamic, 4<<20, 0)
			test.o.FS = r
			img, err := vhd.Open("/disk.vhd", test.o)
			must(t, err)
			_, err = img.WriteAt(noise(test.n), 0)
			must(t, err)
			calls := r.take("begin sync")
			switch {
			case !test.begun && len(calls) > 0:
				t.Errorf("begun: %v", calls)
			case test.begun && (len(calls) != 1 || calls[0].n != test.n):
				t.Errorf("begun: %v, want the write's %d bytes", calls, test.n)
			}
			must(t, img.Close())
		})
	}
}
