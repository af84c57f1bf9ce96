package blktaptest

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Disk is a block device as one who opened it sees it. Like a block device
// behind a page cache it takes any bytes, and makes whole sectors of them. A
// failed request is EIO. Where the module has no flush, Flush does nothing.
//
// It is a blockdev.Device. Where the module has TRIM, OpenDisk's result is a
// blockdev.Discarder too.
type Disk struct {
	t    *tap
	info gendisk

	// life is held to read by each call, and to write to close.
	life   sync.RWMutex
	closed bool

	// sectors is held to read by writes of whole sectors, and to write by
	// those that must read a sector first.
	sectors sync.RWMutex
}

// trimDisk is a Disk whose module has TRIM.
type trimDisk struct{ *Disk }

var (
	_ blockdev.Device    = (*Disk)(nil)
	_ blockdev.Discarder = trimDisk{}
)

// OpenDisk opens the block device of that path, like open(2).
func (k *Kernel) OpenDisk(path string) (blockdev.Device, error) {
	t, err := k.byPath(path)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hidden {
		return nil, fmt.Errorf("%s: %w", path, unix.ENOENT)
	}
	if t.disk == nil {
		return nil, fmt.Errorf("%s: %w", path, unix.ENXIO)
	}
	t.openers++
	d := &Disk{t: t, info: *t.disk}
	if d.info.flags&flagTrim != 0 {
		return trimDisk{d}, nil
	}
	return d, nil
}

// Size implements blockdev.Device.
func (d *Disk) Size() int64 { return int64(d.info.capacity) * sectorSize }

// enter begins a call on a range. If it returns nil, the caller ends by
// d.life.RUnlock.
func (d *Disk) enter(off, n int64) error {
	d.life.RLock()
	err := blockdev.ErrClosed
	if !d.closed {
		if err = blockdev.CheckRange(d.Size(), off, n); err == nil {
			return nil
		}
	}
	d.life.RUnlock()
	return err
}

// ReadAt implements blockdev.Device.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.life.RUnlock()
	if off%sectorSize == 0 && len(p)%sectorSize == 0 {
		return transferred(p, d.t.transfer(opRead, uint64(off/sectorSize), p))
	}
	b, head := around(p, off)
	if err := d.t.transfer(opRead, uint64(off/sectorSize), b); err != nil {
		return 0, err
	}
	return copy(p, b[head:]), nil
}

// WriteAt implements blockdev.Device.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.life.RUnlock()
	if d.info.flags&flagRO != 0 {
		return 0, blockdev.ErrReadOnly
	}
	if off%sectorSize == 0 && len(p)%sectorSize == 0 {
		d.sectors.RLock()
		defer d.sectors.RUnlock()
		return transferred(p, d.t.transfer(opWrite, uint64(off/sectorSize), p))
	}
	return transferred(p, d.writePart(p, off))
}

// writePart writes a range that begins or ends within a sector.
func (d *Disk) writePart(p []byte, off int64) error {
	d.sectors.Lock()
	defer d.sectors.Unlock()
	b, head := around(p, off)
	if err := d.t.transfer(opRead, uint64(off/sectorSize), b); err != nil {
		return err
	}
	copy(b[head:], p)
	return d.t.transfer(opWrite, uint64(off/sectorSize), b)
}

// around is a buffer for the whole sectors of a range, and where that begins
// in it.
func around(p []byte, off int64) (b []byte, head int) {
	head = int(off % sectorSize)
	return make([]byte, (head+len(p)+sectorSize-1)/sectorSize*sectorSize), head
}

func transferred(p []byte, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush implements blockdev.Device.
func (d *Disk) Flush() error {
	if err := d.enter(0, 0); err != nil {
		return err
	}
	defer d.life.RUnlock()
	return d.flush()
}

func (d *Disk) flush() error {
	if d.info.flags&flagFlush == 0 {
		return nil
	}
	return d.t.call(func(r *request) { r.op = opFlush })
}

// Close implements blockdev.Device: it flushes, and gives the block device up.
func (d *Disk) Close() error {
	d.life.Lock()
	defer d.life.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	err := d.flush()
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	d.t.openers--
	if d.t.openers == 0 {
		d.t.closed = true
		d.t.wakePoll()
	}
	return err
}

// Discard implements blockdev.Discarder.
func (d trimDisk) Discard(off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.life.RUnlock()
	if d.info.flags&flagRO != 0 {
		return blockdev.ErrReadOnly
	}
	first := (off + sectorSize - 1) / sectorSize
	end := (off + n) / sectorSize
	if first >= end {
		return nil
	}
	d.sectors.RLock()
	defer d.sectors.RUnlock()
	return d.t.call(func(r *request) { r.op, r.sector, r.trim = opTrim, uint64(first), uint64(end-first) })
}

// transfer reads or writes whole sectors, by as many requests as that takes.
func (t *tap) transfer(op uint8, sector uint64, p []byte) error {
	t.mu.Lock()
	if t.disk == nil {
		t.mu.Unlock()
		return unix.EIO
	}
	var all *request
	for len(p) > 0 {
		r := t.get()
		r.op, r.sector, r.first = op, sector, t.sched.pick(pageSectors)
		n := min(len(p), (segmentMax*pageSectors-r.first)*sectorSize)
		r.data = p[:n:n]
		p, sector = p[n:], sector+uint64(n/sectorSize)
		r.sibling, all = all, r
		t.enqueue(r)
	}
	t.wakePoll()
	t.mu.Unlock()
	return t.wait(all)
}

// call does one request without data.
func (t *tap) call(fill func(*request)) error {
	t.mu.Lock()
	if t.disk == nil {
		t.mu.Unlock()
		return unix.EIO
	}
	r := t.get()
	fill(r)
	t.enqueue(r)
	t.wakePoll()
	t.mu.Unlock()
	return t.wait(r)
}

// wait waits for a request and its siblings.
func (t *tap) wait(all *request) error {
	failed := false
	for r := all; r != nil; r = r.sibling {
		<-r.done
		failed = failed || r.status != 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for all != nil {
		r := all
		all = r.sibling
		t.put(r)
	}
	if failed {
		return unix.EIO
	}
	return nil
}

// Info is what the module was told of a block device, and what it makes of it.
type Info struct {
	Sectors               uint64
	PhysicalSectorSize    uint32 // bytes
	ReadOnly, Flush, Trim bool
}

// Info describes the block device of that path.
func (k *Kernel) Info(path string) (Info, error) {
	t, err := k.byPath(path)
	if err != nil {
		return Info{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.disk == nil {
		return Info{}, unix.ENXIO
	}
	flags := t.disk.flags
	return Info{
		Sectors:            t.disk.capacity,
		PhysicalSectorSize: t.disk.physical,
		ReadOnly:           flags&flagRO != 0,
		Flush:              flags&flagFlush != 0,
		Trim:               flags&flagTrim != 0,
	}, nil
}
