package blockdevtest

import (
	"slices"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// memory is the device that is right.
func memory(_ *testing.T, size int64) blockdev.Device { return blockdev.NewMemory(size) }

// plain has nothing but what every device has.
type plain struct{ blockdev.Device }

// disk is a device that can be opened again. It keeps what it was told in a
// cache until it is flushed or closed.
type disk struct {
	faults
	platter []byte

	// mu guards the rest and what platter holds.
	mu            sync.Mutex
	cache         []byte
	dirty, closed bool
}

// faults are how a disk may be wrong.
type faults struct{ flushForgets, closeForgets, discardReturns bool }

func newDisk(initial []byte) *disk {
	return &disk{platter: slices.Clone(initial), cache: slices.Clone(initial)}
}

// reopenDisk is the function of WithReopen for disks.
func reopenDisk(t *testing.T, dev blockdev.Device) blockdev.Device {
	d := dev.(*disk)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	next := newDisk(d.platter)
	next.faults = d.faults
	return next
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return copy(p, d.cache[off:]), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	d.dirty = true
	return copy(d.cache[off:], p), nil
}

func (d *disk) Size() int64 { return int64(len(d.platter)) }

func (d *disk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return blockdev.ErrClosed
	}
	if !d.flushForgets {
		copy(d.platter, d.cache)
	}
	d.dirty = false
	return nil
}

func (d *disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirty && !d.closeForgets {
		copy(d.platter, d.cache)
	}
	d.dirty, d.closed = false, true
	return nil
}

// Discard keeps the bytes, as it may. If discardReturns, it hides them until
// the disk is opened again, as it may not.
func (d *disk) Discard(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, n); err != nil {
		return err
	}
	if first, end := wholeSectors(off, n); d.discardReturns && first < end {
		copy(d.platter, d.cache)
		d.dirty = false
		clear(d.cache[first:end])
	}
	return nil
}

func (d *disk) check(off, n int64) error {
	if d.closed {
		return blockdev.ErrClosed
	}
	return blockdev.CheckRange(d.Size(), off, n)
}
