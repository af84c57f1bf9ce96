package vhd_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/vhd"
)

func TestWritebackFlushesWithinItsInterval(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img := grownImage(t, r, vhd.Options{})
		synctest.Test(t, func(t *testing.T) {
			w := vhd.StartWriteback(img, 5*time.Second)
			for _, wait := range []time.Duration{0, time.Second, 4999 * time.Millisecond} {
				time.Sleep(wait)
				must(t, write(img, "data", int64(wait/time.Second)*4096))
				if !img.Dirty() {
					t.Fatal("a new block leaves no metadata dirty")
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if img.Dirty() {
					t.Errorf("still dirty five seconds later")
				}
			}
			must(t, w.Stop())
		})
		if calls := r.changes(); calls[len(calls)-1].op != "sync" {
			t.Errorf("differencing %v: %s, want a sync at the end", differencing, story(calls))
		}
		must(t, img.Close())
	}
}

func TestWritebackLeavesACleanImageAlone(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	defer img.Close()
	synctest.Test(t, func(t *testing.T) {
		w := vhd.StartWriteback(img, time.Second)
		time.Sleep(time.Minute)
		must(t, write(img, "over", 15*4096)) // data alone: the kernel's business
		time.Sleep(time.Minute)
		must(t, w.Stop())
	})
	if calls := r.changes(); story(calls) != "write" {
		t.Errorf("calls %s, want the one write", story(calls))
	}
}

func TestWritebackStopsAndReportsItsFirstFailure(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	synctest.Test(t, func(t *testing.T) {
		must(t, write(img, "data", 0))
		failNth(r, 1, unix.EIO, opIs("sync"))
		w := vhd.StartWriteback(img, time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if img.Err() == nil {
			t.Error("the failure is not known")
		}
		for range 2 {
			if err := w.Stop(); !errors.Is(err, unix.EIO) {
				t.Errorf("Stop: %v", err)
			}
		}
		if n := count(r.take(), "sync"); n != 0 {
			t.Errorf("%d syncs after the one that failed", n)
		}
	}) // and its goroutine is gone, or the bubble fails
	if err := img.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v", err)
	}
}

// A passing failure doesn't end it: what could not be written then is later.
func TestWritebackTriesAgainAfterAFullDisk(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	defer img.Close()
	synctest.Test(t, func(t *testing.T) {
		must(t, write(img, "data", 0))
		failNth(r, 1, asStorage(unix.ENOSPC), func(c call) bool { return c.op == "write" && c.off == 1536 })
		w := vhd.StartWriteback(img, time.Second)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if !img.Dirty() || img.ReadOnly() {
			t.Errorf("dirty %v, read-only %v", img.Dirty(), img.ReadOnly())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if img.Dirty() {
			t.Error("it did not try again")
		}
		if err := w.Stop(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Stop: %v", err)
		}
	})
}

func TestWritebackStopWaitsForItsFlush(t *testing.T) {
	r := small(t, false)
	img := grownImage(t, r, vhd.Options{})
	synctest.Test(t, func(t *testing.T) {
		must(t, write(img, "data", 0))
		held, release := make(chan struct{}), make(chan struct{})
		r.before = func(c call) error {
			if c.op == "sync" {
				close(held)
				<-release
			}
			return nil
		}
		w := vhd.StartWriteback(img, time.Second)
		<-held
		stopped := make(chan error, 1)
		go func() { stopped <- w.Stop() }()
		synctest.Wait()
		select {
		case <-stopped:
			t.Error("Stop returned while a flush was under way")
		default:
		}
		close(release)
		must(t, <-stopped)
	})
	r.before = nil
	must(t, img.Close())
}
