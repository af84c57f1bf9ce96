package vhd_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
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
	must(t, write(img, "grow", 15*4096))
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
		if calls := r.changes(); len(calls) > 0 {
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

func TestGrowthSyncsOnceAChunk(t *testing.T) {
	const blocks = 300
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/disk.vhd", format.Dynamic, blocks*4096, 4096)
	img := open(t, r, "/disk.vhd")
	r.take()
	for b := range int64(blocks) {
		must(t, write(img, "data", b*4096))
	}
	calls := r.changes()
	if n := count(calls, "sync"); n < 2 || n > blocks/50 {
		t.Errorf("%d new blocks made %d syncs", blocks, n)
	}
	for i, c := range calls {
		// Extended, the footer at the new end, the old one zeroed, all stable.
		if c.op != "truncate" {
			continue
		}
		if got := story(calls[i : i+4]); got != "truncate write write sync" {
			t.Fatalf("growth: %s", got)
		}
		footer, zero := calls[i+1], calls[i+2]
		if footer.off != c.off-512 || footer.n != 512 || zero.n != 512 || zero.off >= footer.off {
			t.Errorf("growth to %d: footer at %d, old one at %d", c.off, footer.off, zero.off)
		}
	}
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
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

func TestAFailedSyncEndsWriting(t *testing.T) {
	sync := opIs("sync")
	tests := map[string]struct {
		nth int // sync that fails, counted from when the file has grown
		do  func(img *vhd.Image) error
	}{
		"in a flush":           {1, func(img *vhd.Image) error { return img.Flush() }},
		"at a flush's end":     {2, func(img *vhd.Image) error { return img.Flush() }},
		"in a growing write":   {1, func(img *vhd.Image) error { return growMore(img) }},
		"in a write-back":      {1, func(img *vhd.Image) error { return img.Flush() }},
		"in Close":             {1, func(img *vhd.Image) error { return img.Close() }},
		"at the end of Close":  {3, func(img *vhd.Image) error { return img.Close() }},
		"after the first sync": {2, func(img *vhd.Image) error { return img.Close() }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &recorder{FS: storagetest.NewMemory()}
			chainOf(1, 4096)(t, r, 1<<20)
			img := grownImage(t, r, vhd.Options{})
			must(t, write(img, "data", 0))
			failNth(r, test.nth, unix.EIO, sync)
			err := test.do(img)
			if !errors.Is(err, unix.EIO) || !errors.Is(err, blockdev.ErrReadOnly) {
				t.Fatalf("error %v, want EIO and ErrReadOnly", err)
			}
			if !img.ReadOnly() || !errors.Is(img.Err(), unix.EIO) {
				t.Errorf("ReadOnly %v, Err %v", img.ReadOnly(), img.Err())
			}
			if strings.HasSuffix(name, "Close") || strings.HasPrefix(name, "after") {
				return
			}
			refusesWrites(t, img, unix.EIO)
			got := make([]byte, 4)
			if _, err := img.ReadAt(got, 0); err != nil || string(got) != "data" {
				t.Errorf("reading: %q, %v", got, err)
			}
			failNth(r, 1, unix.ENOSPC, everyCall)
			refusesWrites(t, img, unix.EIO) // the first cause stays
			r.before = nil
			if err := img.Close(); !errors.Is(err, unix.EIO) {
				t.Errorf("Close: %v, want the cause", err)
			}
			must(t, img.Close())
			must(t, open(t, r, "/disk.vhd").Close())
		})
	}
}

// growMore writes to new blocks until the file grows.
func growMore(img *vhd.Image) error {
	for off := int64(4096); off < img.Size(); off += 4096 {
		if err := write(img, "data", off); err != nil {
			return err
		}
	}
	return nil
}

func refusesWrites(t *testing.T, img *vhd.Image, cause error) {
	t.Helper()
	for name, err := range map[string]error{
		"write":   write(img, "x", 0),
		"discard": img.Discard(0, 4096),
		"zeroes":  img.WriteZeroes(0, 4096),
		"flush":   img.Flush(),
	} {
		if !errors.Is(err, cause) || !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("%s: %v, want %v and ErrReadOnly", name, err, cause)
		}
	}
}

// program is a few operations that come to every part of the engine that
// writes: new blocks, growth, parts of sectors, zeros, discards, flushes.
func program(model []byte) []func(img *vhd.Image) error {
	var steps []func(img *vhd.Image) error
	put := func(off int64, n int, fill byte) {
		p := bytes.Repeat([]byte{fill}, n)
		copy(model[off:], p)
		steps = append(steps, func(img *vhd.Image) error { _, err := img.WriteAt(p, off); return err })
	}
	zero := func(off, n int64) {
		clear(model[off:][:n])
		steps = append(steps, func(img *vhd.Image) error { return img.WriteZeroes(off, n) })
	}
	flush := func() { steps = append(steps, (*vhd.Image).Flush) }
	put(0, 4096, 1)
	put(5*4096+100, 1000, 2)
	flush()
	put(5*4096+512, 512, 3)
	put(2*4096, 3*4096, 4)
	zero(0, 4096)
	zero(3*4096+700, 2000)
	flush()
	for b := int64(6); b < 12; b++ {
		put(b*4096+b*10, 4000, byte(b))
	}
	zero(7*4096, 4096)
	flush()
	put(0, 4096, 5)
	put(1*4096, 100, 6)
	zero(6*4096, 4096)
	put(15*4096, 4096, 7)
	return steps
}

// A call to the file that fails fails what it was made for, and nothing else:
// once it succeeds, all is as if it always had.
func TestAFailedCallHarmsNothing(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO} {
			t.Run(fmt.Sprintf("differencing=%v/%v", differencing, errno), func(t *testing.T) {
				t.Parallel()
				seen := map[call]bool{}
				for _, c := range runProgram(t, differencing, errno, call{}, 0) {
					if c.op == "sync" || seen[c] {
						continue
					}
					seen[c] = true
					for times := 1; times <= 2; times++ {
						runProgram(t, differencing, errno, c, times)
					}
				}
				if len(seen) < 20 {
					t.Errorf("the program makes %d different calls only", len(seen))
				}
			})
		}
	}
}

// runProgram runs program on a new disk, where a call fails so many times, and
// returns the calls there were. A step that fails is tried again.
func runProgram(t *testing.T, differencing bool, errno unix.Errno, fails call, times int) []call {
	t.Helper()
	r := small(t, differencing)
	model := zeros(64 << 10)
	if differencing {
		model = noise(64 << 10)
	}
	steps := program(model)
	img := open(t, r, "/disk.vhd")
	r.take()
	left := times
	r.before = func(c call) error {
		if c == fails && left > 0 {
			left--
			return asStorage(errno)
		}
		return nil
	}
	for i, step := range steps {
		err := step(img)
		for try := 0; err != nil && try < 3; try++ {
			if errno == unix.ENOSPC && !errors.Is(err, blockdev.ErrNoSpace) {
				t.Errorf("%v fails %d times: step %d: %v is not ErrNoSpace", fails, times, i, err)
			}
			if !errors.Is(err, errno) || img.Err() != nil || img.ReadOnly() {
				t.Fatalf("%v fails %d times: step %d: %v, Err %v", fails, times, i, err, img.Err())
			}
			err = step(img)
		}
		must(t, err)
	}
	if !bytes.Equal(readAll(t, img), model) {
		t.Errorf("%v fails %d times: wrong bytes before Close", fails, times)
	}
	before := left
	closing := img.Close()
	if closing != nil && left == before {
		t.Errorf("%v fails %d times: Close: %v", fails, times, closing)
	}
	calls := r.changes()
	r.before = nil
	checkClean(t, r, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: r, ReadOnly: true})
	must(t, err)
	if closing == nil && !bytes.Equal(readAll(t, img), model) {
		t.Errorf("%v fails %d times: wrong bytes after Close", fails, times)
	}
	must(t, img.Close())
	return calls
}

// asStorage is errno as a file of the operating system reports it.
func asStorage(errno unix.Errno) error {
	if errno == unix.ENOSPC {
		return fmt.Errorf("%w: %w", storage.ErrNoSpace, errno)
	}
	return errno
}
