package blockdev_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
)

func TestGateConforms(t *testing.T) {
	open := func(t *testing.T, size int64) blockdev.Device { return blockdev.NewGate(blockdev.NewMemory(size)) }
	sizes := blockdevtest.WithSizes(512, 9*512, 160<<10)
	t.Run("open", func(t *testing.T) { blockdevtest.Run(t, open, sizes, blockdevtest.WithBlockSize(pageSize)) })
	t.Run("paused again and again", func(t *testing.T) {
		blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
			g := open(t, size).(*blockdev.Gate)
			keepPausing(t, g)
			return patient{g}
		}, sizes, blockdevtest.WithBlockSize(pageSize))
	})
}

// patient is a Gate whose nowait reads may be refused by a pause, which the
// suite takes for a device that never answers them.
type patient struct{ *blockdev.Gate }

func (p patient) ReadAtNowait(b []byte, off int64) (int, error) {
	n, err := p.Gate.ReadAtNowait(b, off)
	if errors.Is(err, blockdev.ErrWouldBlock) {
		return p.ReadAt(b, off)
	}
	return n, err
}

// keepPausing pauses g and lets it go on, until the test ends or g is closed.
func keepPausing(t *testing.T, g *blockdev.Gate) {
	var pausing sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	pausing.Go(func() {
		for ctx.Err() == nil {
			if g.Pause(ctx) == nil {
				g.Resume(nil)
			}
		}
	})
	t.Cleanup(func() { cancel(); pausing.Wait() })
}

// slow is a device whose reads last until they are let go, and whose flush may
// fail.
type slow struct {
	*blockdev.Memory
	reads   chan struct{} // nil: at once
	flush   error
	flushes atomic.Int32
}

func (s *slow) ReadAt(p []byte, off int64) (int, error) {
	if s.reads != nil {
		<-s.reads
	}
	return s.Memory.ReadAt(p, off)
}

func (s *slow) Flush() error {
	s.flushes.Add(1)
	return s.flush
}

func TestAPausedGateHoldsRequestsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &slow{Memory: blockdev.NewMemory(8192)}
		write(t, below, 0, 8192)
		g := blockdev.NewGate(below)
		noError(t, g.Pause(t.Context()))
		if n := below.flushes.Load(); n != 1 || !g.Paused() {
			t.Errorf("%d flushes, paused %v", n, g.Paused())
		}

		var done atomic.Int32
		var users sync.WaitGroup
		for _, f := range []func() error{
			func() error { return second(g.ReadAt(make([]byte, 512), 0)) },
			func() error { return second(g.WriteAt(make([]byte, 512), 0)) },
			func() error { return g.Discard(512, 512) },
			func() error { return g.WriteZeroes(1024, 512) },
			func() error {
				for _, err := range g.Extents(0, 8192) {
					return err
				}
				return nil
			},
		} {
			users.Go(func() {
				if err := f(); err != nil {
					t.Error(err)
				}
				done.Add(1)
			})
		}
		synctest.Wait()
		if n := done.Load(); n != 0 {
			t.Errorf("%d requests were let through", n)
		}

		if _, err := g.ReadAtNowait(make([]byte, 512), 0); !errors.Is(err, blockdev.ErrWouldBlock) {
			t.Errorf("ReadAtNowait: %v", err)
		}
		noError(t, g.Flush())
		if n := below.flushes.Load(); n != 1 {
			t.Errorf("Flush of a paused gate reached the device (%d flushes)", n)
		}
		if all, some := g.Allocated(), g.AllocatedIn(512, 1024); all != below.Allocated() || some != 1024 {
			t.Errorf("allocated %d in all, %d in 1024", all, some)
		}

		noError(t, g.Resume(nil))
		users.Wait()
		if done.Load() != 5 || g.Paused() {
			t.Errorf("%d requests done, paused %v", done.Load(), g.Paused())
		}
	})
}

func TestResumeGoesOnWithAnotherDevice(t *testing.T) {
	first, other := blockdev.NewMemory(4096), blockdev.NewMemory(4096)
	write(t, other, 0, 4096)
	g := blockdev.NewGate(first)
	noError(t, g.Pause(t.Context()))
	if err := g.Resume(blockdev.NewMemory(8192)); !errors.Is(err, blockdev.ErrSizeChanged) || !strings.Contains(err.Error(), "from 4096 to 8192 bytes") {
		t.Errorf("another size: %v", err)
	}
	if !g.Paused() {
		t.Error("a Resume that was refused ended the pause")
	}
	noError(t, g.Resume(other))
	if got := string(content(t, g)); got != strings.Repeat("x", 4096) {
		t.Error("reads don't come from the new device")
	}
	write(t, g, 0, 512)
	if got := string(content(t, first)); got != strings.Repeat("\x00", 4096) {
		t.Error("a write reached the old device")
	}
	noError(t, g.Close())
	if _, err := other.ReadAt(make([]byte, 1), 0); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("Close left the new device open: %v", err)
	}
	noError(t, first.Close())
}

func TestPauseWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &slow{Memory: blockdev.NewMemory(4096), reads: make(chan struct{})}
		g := blockdev.NewGate(below)
		var users sync.WaitGroup
		users.Go(func() { g.ReadAt(make([]byte, 512), 0) })
		synctest.Wait()

		// One that gives up leaves the gate open.
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- g.Pause(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("Pause that gave up: %v", err)
		}
		noError(t, second(g.WriteAt(make([]byte, 512), 0)))

		// Meanwhile a Flush waits for what becomes of the pause, no longer.
		paused, flushed := make(chan error, 1), make(chan error, 1)
		go func() { paused <- g.Pause(t.Context()) }()
		synctest.Wait()
		go func() { flushed <- g.Flush() }()
		synctest.Wait()
		if len(paused) > 0 || len(flushed) > 0 {
			t.Error("paused while a read was under way")
		}
		close(below.reads)
		noError(t, <-paused)
		noError(t, <-flushed)
		users.Wait()
		noError(t, g.Resume(nil))
	})
}

func TestAPauseThatCannotFlushIsNone(t *testing.T) {
	below := &slow{Memory: blockdev.NewMemory(4096), flush: errors.New("the disk is gone")}
	g := blockdev.NewGate(below)
	if err := g.Pause(t.Context()); !errors.Is(err, below.flush) || g.Paused() {
		t.Errorf("Pause: %v, paused %v", err, g.Paused())
	}
	noError(t, second(g.ReadAt(make([]byte, 512), 0)))
	if err := g.Flush(); !errors.Is(err, below.flush) {
		t.Errorf("Flush after it: %v", err)
	}
}

func TestAGateIsPausedOnce(t *testing.T) {
	g := blockdev.NewGate(blockdev.NewMemory(512))
	if err := g.Resume(nil); !errors.Is(err, blockdev.ErrNotPaused) {
		t.Errorf("Resume of an open gate: %v", err)
	}
	noError(t, g.Pause(t.Context()))
	if err := g.Pause(t.Context()); !errors.Is(err, blockdev.ErrPaused) {
		t.Errorf("second Pause: %v", err)
	}
	noError(t, g.Close())
	if err := g.Resume(nil); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("Resume after Close: %v", err)
	}
	if err := g.Pause(t.Context()); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("Pause after Close: %v", err)
	}
}

func TestClosingAPausedGateEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := blockdev.NewMemory(4096)
		g := blockdev.NewGate(below)
		noError(t, g.Pause(t.Context()))
		read := make(chan error, 1)
		go func() { read <- second(g.ReadAt(make([]byte, 512), 0)) }()
		synctest.Wait()
		noError(t, g.Close())
		if err := <-read; !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("a read that waited: %v", err)
		}
		if err := g.Flush(); !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("Flush: %v", err)
		}
		noError(t, g.Close())
		noError(t, second(below.ReadAt(make([]byte, 512), 0))) // it was the pauser's to close
		noError(t, below.Close())
	})
}

func TestExtentsOfAGateGoOnAfterABatch(t *testing.T) {
	const n = 1000 // more than a gate takes at a time
	below := blockdev.NewMemory(n * 2 * pageSize)
	for i := range int64(n) {
		write(t, below, i*2*pageSize, 512)
	}
	g := blockdev.NewGate(below)
	var at, data int64
	for e, err := range g.Extents(0, g.Size()) {
		noError(t, err)
		if e.Offset != at {
			t.Fatalf("extent at %d, want %d", e.Offset, at)
		}
		at = e.End()
		if e.Kind == blockdev.Data {
			data++
		}
		if data%100 == 0 { // whoever iterates holds no pause up
			noError(t, g.Pause(t.Context()))
			noError(t, g.Resume(nil))
		}
	}
	if at != g.Size() || data != n {
		t.Errorf("extents reach %d of %d, %d with data, want %d", at, g.Size(), data, n)
	}
}

func BenchmarkGate(b *testing.B) {
	g := blockdev.NewGate(blockdev.NewMemory(1 << 20))
	p := make([]byte, 512)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.ReadAtNowait(p, 0)
		}
	})
}
