package blockdev

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
)

var (
	// ErrPaused is a Pause of a Gate that is paused.
	ErrPaused = errors.New("device is paused")
	// ErrNotPaused is a Resume of one that isn't.
	ErrNotPaused = errors.New("device is not paused")
	// ErrSizeChanged is a Resume with a device of another size.
	ErrSizeChanged = errors.New("a disk in use can't change its size")
)

const (
	// barrier is added to Gate.users while the gate is shut, which makes it
	// negative whatever the number of users.
	barrier = -1 << 62
	// gateExtents is how many extents a Gate takes from its device at a time.
	gateExtents = 256
)

// Gate is a Device before another that can be paused and exchanged while
// others use it: how the chain of an image is opened afresh under a running
// guest. Whoever shows the Gate notices nothing but that requests take longer.
//
// While it is paused ReadAt, WriteAt, Discard, WriteZeroes and Extents wait,
// ReadAtNowait and WriteAtNowait are ErrWouldBlock, and Flush has nothing to do: all that was
// acknowledged was flushed. Usage is what it was at the pause.
//
// It forwards every optional ability, falling back as the package functions do
// where the device lacks one. An error of the device's Extents ends the
// sequence; one that spans a pause goes on with the new device.
//
// Close closes the device that is behind the gate. A paused Gate lets go of
// the device at Pause: it is the pauser's until Resume.
type Gate struct {
	size int64

	// users is the number of operations on dev, with barrier added while the
	// gate is shut. Whoever made it positive may use dev until it leaves.
	users atomic.Int64
	// drained has a token when the last user left a gate that is shut.
	drained chan struct{}
	// dev changes only while the gate is shut and nobody uses it.
	dev Device

	// turn lets one Pause, Resume or Close run at a time. It is held while
	// Pause waits for the users and flushes.
	turn chan struct{}

	// mu guards the fields below. It is a leaf.
	mu        sync.Mutex
	paused    bool
	closed    bool
	allocated int64         // what Allocated says while paused
	settled   chan struct{} // closed when it is known whether a pause comes of shutting the gate
	opened    chan struct{} // closed when a gate that is shut opens, or for good by Close
}

var (
	_ Device       = (*Gate)(nil)
	_ Discarder    = (*Gate)(nil)
	_ ZeroWriter   = (*Gate)(nil)
	_ ExtentMapper = (*Gate)(nil)
	_ NowaitReader = (*Gate)(nil)
	_ NowaitWriter = (*Gate)(nil)
	_ RangeUsage   = (*Gate)(nil)
)

// NewGate returns an open gate before dev, which it takes the place of.
func NewGate(dev Device) *Gate {
	return &Gate{
		size:    dev.Size(),
		dev:     dev,
		drained: make(chan struct{}, 1),
		turn:    make(chan struct{}, 1),
		settled: make(chan struct{}),
		opened:  make(chan struct{}),
	}
}

// Pause makes new requests wait, waits for those that are under way, and
// flushes. When it returns nil nothing uses the device, which is the caller's
// until Resume. When it fails, or ctx ends before the last request does, the
// requests go on as if nothing had been. A paused gate is ErrPaused.
func (g *Gate) Pause(ctx context.Context) error {
	if err := g.take(ctx); err != nil {
		return err
	}
	defer g.give()
	if err := g.shut(); err != nil {
		return err
	}
	err := g.drain(ctx)
	if err == nil {
		err = g.dev.Flush()
	}
	if err != nil {
		g.open()
		return err
	}
	allocated := Allocated(g.dev)
	g.mu.Lock()
	g.paused, g.allocated = true, allocated
	close(g.settled)
	g.mu.Unlock()
	return nil
}

// Resume lets the requests go on, with dev, or with the same device where dev
// is nil. A device of another size is an error, and a gate that isn't paused is
// ErrNotPaused; then nothing has changed, and dev stays the caller's.
func (g *Gate) Resume(dev Device) error {
	if err := g.take(context.Background()); err != nil {
		return err
	}
	defer g.give()
	g.mu.Lock()
	paused, closed := g.paused, g.closed
	g.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case !paused:
		return ErrNotPaused
	case dev == nil:
	case dev.Size() != g.size:
		return fmt.Errorf("%w from %d to %d bytes", ErrSizeChanged, g.size, dev.Size())
	default:
		g.dev = dev
	}
	g.open()
	return nil
}

// Paused tells whether the gate is paused.
func (g *Gate) Paused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

// take waits for the turn to shut or open the gate.
func (g *Gate) take(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Gate) give() { <-g.turn }

// shut makes requests wait from now on. The turn is held.
func (g *Gate) shut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return ErrClosed
	case g.paused:
		return ErrPaused
	}
	g.settled, g.opened = make(chan struct{}), make(chan struct{})
	select { // of a Pause that gave up
	case <-g.drained:
	default:
	}
	g.users.Add(barrier)
	return nil
}

// drain waits until nobody uses the device behind a gate that is shut.
func (g *Gate) drain(ctx context.Context) error {
	for g.users.Load() != barrier {
		select {
		case <-g.drained:
		case <-ctx.Done():
			return fmt.Errorf("requests are under way still: %w", ctx.Err())
		}
	}
	return nil
}

// open ends what shut began. The turn is held.
func (g *Gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused { // a Pause that failed
		close(g.settled)
	}
	g.paused = false
	g.users.Add(-barrier)
	close(g.opened)
}

// enter begins a use of the device, after a pause if there is one. An error is
// ErrClosed, and nothing has begun.
func (g *Gate) enter() error {
	for !g.tryEnter() {
		g.mu.Lock()
		opened, closed := g.opened, g.closed
		g.mu.Unlock()
		if closed {
			return ErrClosed
		}
		<-opened
	}
	return nil
}

// tryEnter begins a use of the device unless the gate is shut.
func (g *Gate) tryEnter() bool {
	if g.users.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

// leave ends a use of the device.
func (g *Gate) leave() {
	if g.users.Add(-1) == barrier {
		select {
		case g.drained <- struct{}{}:
		default:
		}
	}
}

// ReadAt implements Device.
func (g *Gate) ReadAt(p []byte, off int64) (int, error) {
	if err := g.enter(); err != nil {
		return 0, err
	}
	defer g.leave()
	return g.dev.ReadAt(p, off)
}

// WriteAt implements Device.
func (g *Gate) WriteAt(p []byte, off int64) (int, error) {
	if err := g.enter(); err != nil {
		return 0, err
	}
	defer g.leave()
	return g.dev.WriteAt(p, off)
}

// Size implements Device: that of the first device, and so of all.
func (g *Gate) Size() int64 { return g.size }

// Flush implements Device. What was acknowledged before a pause the pause has
// flushed.
func (g *Gate) Flush() error {
	paused, err := g.enterUnlessPaused()
	if paused || err != nil {
		return err
	}
	defer g.leave()
	return g.dev.Flush()
}

// enterUnlessPaused begins a use of the device unless the gate is paused. It
// waits for a pause that is being made.
func (g *Gate) enterUnlessPaused() (paused bool, err error) {
	for !g.tryEnter() {
		g.mu.Lock()
		settled, paused, closed := g.settled, g.paused, g.closed
		g.mu.Unlock()
		switch {
		case closed:
			return false, ErrClosed
		case paused:
			return true, nil
		}
		<-settled
	}
	return false, nil
}

// Close implements Device. Requests that a pause held back are ErrClosed, and
// the device of a paused gate stays as it is: its pauser's.
func (g *Gate) Close() error {
	if err := g.take(context.Background()); err != nil {
		return err
	}
	defer g.give()
	g.mu.Lock()
	paused, closed := g.paused, g.closed
	g.closed = true
	if paused && !closed {
		close(g.opened)
	}
	g.mu.Unlock()
	if paused || closed {
		return nil
	}
	return g.dev.Close()
}

// Discard implements Discarder.
func (g *Gate) Discard(off, n int64) error {
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	_, err := Discard(g.dev, off, n)
	return err
}

// WriteZeroes implements ZeroWriter.
func (g *Gate) WriteZeroes(off, n int64) error {
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	return WriteZeroes(g.dev, off, n)
}

// ReadAtNowait implements NowaitReader. A gate that is shut would wait.
func (g *Gate) ReadAtNowait(p []byte, off int64) (int, error) {
	if !g.tryEnter() {
		return 0, ErrWouldBlock
	}
	defer g.leave()
	return ReadAtNowait(g.dev, p, off)
}

// WriteAtNowait implements NowaitWriter. A gate that is shut would wait.
func (g *Gate) WriteAtNowait(p []byte, off int64) (int, error) {
	if !g.tryEnter() {
		return 0, ErrWouldBlock
	}
	defer g.leave()
	return WriteAtNowait(g.dev, p, off)
}

// Extents implements ExtentMapper. No pause waits for whoever iterates: the
// device is asked for some extents at a time.
func (g *Gate) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		end, batch := off+n, make([]Extent, 0, gateExtents)
		for first := true; first || off < end; first = false {
			var err error
			batch, err = g.someExtents(batch[:0], off, end-off)
			for _, e := range batch {
				if !yield(e, nil) {
					return
				}
				off = e.End()
			}
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if len(batch) == 0 {
				return
			}
		}
	}
}

// someExtents appends the first extents of a range.
func (g *Gate) someExtents(to []Extent, off, n int64) ([]Extent, error) {
	if err := g.enter(); err != nil {
		return to, err
	}
	defer g.leave()
	for e, err := range Extents(g.dev, off, n) {
		if err != nil {
			return to, err
		}
		if to = append(to, e); len(to) == cap(to) {
			break
		}
	}
	return to, nil
}

// Allocated implements Usage.
func (g *Gate) Allocated() int64 {
	if paused, err := g.enterUnlessPaused(); paused || err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.allocated
	}
	defer g.leave()
	return Allocated(g.dev)
}

// AllocatedIn implements RangeUsage. While the gate is shut it is the whole
// range, and so never too few.
func (g *Gate) AllocatedIn(off, n int64) int64 {
	if !g.tryEnter() {
		return n
	}
	defer g.leave()
	return AllocatedIn(g.dev, off, n)
}
