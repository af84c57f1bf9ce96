package vhd

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// stripes is how many locks the writers of blocks share.
const stripes = 256

// Image is an open VHD with its parents: a blockdev.Device, a Discarder, a
// ZeroWriter, an ExtentMapper, a NowaitReader, a NowaitWriter and a Usage. It is
// safe for concurrent use.
type Image struct {
	leaf       *layer
	under      *chain // the parents; nil where there are none
	layers     []Layer
	warnings   []string
	readOnly   bool
	durability Durability

	bitmaps *bitmapCache
	alloc   allocator
	mapped  bitset       // blocks of the disk that a parent holds some of
	usage   atomic.Int64 // blocks that some layer holds some of

	// gate is held shared by every operation, and whole to close and to make
	// sure that none is still using space that was given up.
	gate   sync.RWMutex
	closed bool // guarded by gate

	// stripe[b%stripes] is held shared by those who write whole sectors of an
	// allocated block b, and whole by those who allocate it, give it up or
	// read a sector of it to change a part.
	stripe [stripes]sync.RWMutex

	commits committer
	failed  atomic.Pointer[error] // set once: why writing ended
}

var (
	_ blockdev.Device       = (*Image)(nil)
	_ blockdev.Discarder    = (*Image)(nil)
	_ blockdev.ZeroWriter   = (*Image)(nil)
	_ blockdev.ExtentMapper = (*Image)(nil)
	_ blockdev.NowaitReader = (*Image)(nil)
	_ blockdev.NowaitWriter = (*Image)(nil)
	_ blockdev.Usage        = (*Image)(nil)
	_ blockdev.RangeUsage   = (*Image)(nil)
)

func newImage(c *opener) *Image {
	leaf := c.layers[0]
	m := &Image{leaf: leaf, readOnly: c.ReadOnly, durability: c.Durability}
	// What a killed process wrote is shown, and so must be in the next flush.
	m.commits.unsynced.Store(!c.ReadOnly)
	if len(c.layers) > 1 {
		m.under = newChain(c.layers[1:])
	}
	for i, l := range c.layers {
		m.layers = append(m.layers, l.describe(c.parents[i]))
		m.warnings = append(m.warnings, l.warnings...)
	}
	if leaf.blocks != nil {
		m.bitmaps = newBitmapCache(leaf.blocks.bitmapSize)
		m.alloc.init(leaf, c.ReadOnly)
		m.commits.dirtyBAT = newBitset(int64(len(leaf.blocks.bat)+batPerSector-1) / batPerSector)
		m.countUsage()
	}
	return m
}

// Size is the disk's size in bytes.
func (m *Image) Size() int64 { return m.leaf.size }

// Layers describes the image and its parents, the image first, as they were at
// open; what grows with the image is of now.
func (m *Image) Layers() []Layer {
	layers := append([]Layer(nil), m.layers...)
	if m.enter(0, 0) != nil {
		return layers
	}
	defer m.leave()
	if m.leaf.blocks != nil {
		layers[0].Allocated = m.leaf.blocks.allocated()
	}
	if info, err := m.leaf.file.Stat(); err == nil {
		layers[0].FileSize, layers[0].FileAllocated = info.Size, info.Allocated
	}
	return layers
}

// Warnings are what was odd at open but no reason to refuse: a line each.
func (m *Image) Warnings() []string { return append([]string(nil), m.warnings...) }

// ReadOnly tells whether writes are refused: from the start, or since Err.
func (m *Image) ReadOnly() bool { return m.readOnly || m.Err() != nil }

// Err is why an image that could be written to no longer can; else nil.
func (m *Image) Err() error {
	if p := m.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail ends writing for good. The first cause stays.
func (m *Image) fail(cause error) error {
	err := m.leaf.errorf("", fmt.Errorf("%w since a sync failed, and what was written before it may be lost: %w", blockdev.ErrReadOnly, cause))
	m.failed.CompareAndSwap(nil, &err)
	return m.Err()
}

// enter begins an operation on [off, off+n); leave ends it.
func (m *Image) enter(off, n int64) error { return m.enterNow(off, n, false) }

// enterNow is enter; with nowait blockdev.ErrWouldBlock while somebody waits for
// the operations under way to end.
func (m *Image) enterNow(off, n int64, nowait bool) error {
	if !nowait {
		m.gate.RLock()
	} else if !m.gate.TryRLock() {
		return blockdev.ErrWouldBlock
	}
	var err error
	if m.closed {
		err = m.leaf.errorf("", blockdev.ErrClosed)
	} else {
		err = blockdev.CheckRange(m.leaf.size, off, n)
	}
	if err != nil {
		m.gate.RUnlock()
	}
	return err
}

func (m *Image) leave() { m.gate.RUnlock() }

// enterWrite is enter for an operation that changes the image.
func (m *Image) enterWrite(off, n int64) error { return m.enterWriteNow(off, n, false) }

// enterWriteNow is enterNow for an operation that changes the image.
func (m *Image) enterWriteNow(off, n int64, nowait bool) error {
	if m.readOnly {
		return m.leaf.errorf("", fmt.Errorf("opened read-only: %w", blockdev.ErrReadOnly))
	}
	if err := m.Err(); err != nil {
		return err
	}
	if err := m.enterNow(off, n, nowait); err != nil {
		return err
	}
	if err := m.endWithFooter(nowait); err != nil {
		m.leave()
		return err
	}
	return nil
}

// leaveWrite ends an operation that changed the image, with its outcome.
func (m *Image) leaveWrite(err error) error {
	// After the bytes have been handed to the file and before the caller is
	// told: a Flush that comes later sees it, one that came before need not.
	m.commits.unsynced.Store(true)
	m.gate.RUnlock()
	if err != nil {
		return err
	}
	if m.durability == Writethrough || m.bitmaps != nil && m.bitmaps.crowded() {
		return m.commit()
	}
	return nil
}

// countUsage finds which blocks of the disk some layer holds.
func (m *Image) countUsage() {
	blocks := m.leaf.blocks
	m.mapped = newBitset(blocks.count)
	if m.under != nil {
		for _, l := range m.under.layers {
			m.markMapped(l)
		}
	}
	var n int64
	for b := range blocks.count {
		if m.mapped.has(b) || blocks.entry(b) != format.UnallocatedBlock {
			n++
		}
	}
	m.usage.Store(n)
}

// markMapped marks the blocks of the disk that layer l of the chain holds.
func (m *Image) markMapped(l *layer) {
	mark := func(from, to int64) {
		size := m.leaf.blocks.blockSize
		for b := from / size; b < (min(to, m.leaf.size)+size-1)/size; b++ {
			m.mapped.add(b)
		}
	}
	if l.blocks == nil {
		mark(0, l.size)
		return
	}
	for b := range l.blocks.count {
		if l.blocks.entry(b) != format.UnallocatedBlock {
			mark(b*l.blocks.blockSize, (b+1)*l.blocks.blockSize)
		}
	}
}

// Allocated is the bytes of the disk in blocks that some layer holds; of a
// fixed disk, the bytes that the file system keeps for it.
func (m *Image) Allocated() int64 {
	if m.leaf.blocks != nil {
		return min(m.usage.Load()*m.leaf.blocks.blockSize, m.leaf.size)
	}
	info, err := m.leaf.file.Stat()
	if err != nil {
		return m.leaf.size
	}
	return min(info.Allocated, m.leaf.size)
}

// AllocatedIn implements blockdev.RangeUsage; of a fixed disk, what Allocated
// says, as far as the range can hold it.
func (m *Image) AllocatedIn(off, n int64) int64 {
	blocks := m.leaf.blocks
	if blocks == nil {
		return min(n, m.Allocated())
	}
	var sum int64
	for n > 0 {
		b, in := off/blocks.blockSize, off%blocks.blockSize
		c := min(n, blocks.blockSize-in)
		if m.mapped.has(b) || blocks.entry(b) != format.UnallocatedBlock {
			sum += c
		}
		off, n = off+c, n-c
	}
	return sum
}

// Close flushes, cuts the file back to its exact end, and lets go of the files
// and their locks. What could not be flushed is its error; the files are
// closed all the same.
func (m *Image) Close() error {
	m.gate.Lock()
	closed := m.closed
	m.closed = true
	m.gate.Unlock()
	if closed {
		return nil
	}
	err := m.finish()
	for _, l := range m.chainLayers() {
		if e := l.file.Close(); err == nil && e != nil {
			err = l.errorf("", e)
		}
	}
	return err
}

func (m *Image) chainLayers() []*layer {
	if m.under == nil {
		return []*layer{m.leaf}
	}
	return append([]*layer{m.leaf}, m.under.layers...)
}

// sync makes what the file was handed stable; in mode Unsafe only at the end.
// The first time it does so for the parents, too: what is shown of them may have
// been written by a process that was killed. Nobody writes to them since.
// commits.syncMu is held.
func (m *Image) sync() error {
	if m.durability == Unsafe && !m.commits.final.Load() {
		return nil
	}
	if m.under != nil && !m.commits.parents {
		if err := syncAll(m.under.layers); err != nil {
			return err
		}
		m.commits.parents = true
	}
	return m.leaf.file.Sync()
}

// syncAll makes what is in the files of layers stable, whoever wrote it.
func syncAll(layers []*layer) error {
	for _, l := range layers {
		if err := l.file.Sync(); err != nil {
			return l.errorf("", translate(err))
		}
	}
	return nil
}

// ioError is a failed operation on the leaf's file.
func (m *Image) ioError(place string, err error) error {
	return m.leaf.errorf(place, translate(err))
}
