package vhd

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// growAhead is how many bytes the file grows by beyond what is needed, where
	// that costs no space. Each time costs a sync, which waits for all that was
	// written since the last.
	growAhead = 1 << 30
	// growDense is the same in blocks, where the file system has no holes.
	growDense = 16
	// minProbe is the space, in bytes, that growing may take without a file
	// system being taken for one without holes: footers and its own records.
	minProbe = 64 << 10
	// dataAlign is where a new block's data begins, in bytes: on a page, as
	// tapdisk places it.
	dataAlign = 4096
)

// allocator hands out space for new blocks. All that it hands out is known to
// read as zeros and to be so on stable storage, whatever crash comes: so a new
// block's BAT entry may become stable before its data, for what the crash
// leaves reads as zeros, which is what the block was (on a differencing disk:
// its bitmap reads as zeros, so the parent shows).
//
// The file is grown ahead of need: extended, the footer written at its new
// end, the old footer's sector zeroed, all synced, and only then used. A
// reader that comes by a crash in between has the footer's copy at the start.
type allocator struct {
	layer *layer
	align int64 // of a block's data, bytes

	// mu guards what follows, down to growMu. It is a leaf; no I/O is done
	// under it.
	mu      sync.Mutex
	next    int64   // bytes: the end of the last block
	limit   int64   // bytes: up to where the file is stable zeros from next on
	free    []int64 // offsets of blocks given up that are stable zeros now
	retired []int64 // offsets of blocks given up since the last commit
	untidy  bool    // the file may not end where its last block does

	// noFooter: the file has no footer at its end. It is set at open alone.
	noFooter atomic.Bool

	// growMu serialises changes of the file's end, and guards what follows.
	growMu  sync.Mutex
	settled bool  // the footers are as settleFooters leaves them
	probed  bool  // the file was grown before, by one block
	holes   bool  // and that took no space
	most    int64 // bytes: the size beyond which no disk of this size needs to grow
}

func (a *allocator) init(l *layer, readOnly bool) {
	a.layer = l
	if readOnly {
		return
	}
	a.noFooter.Store(l.footerAt == FromCopy)
	a.align = min(dataAlign, l.blocks.blockSize)
	a.next = l.dataEnd()
	a.limit = a.next
	unallocated := l.blocks.count - l.blocks.allocated()
	a.most = a.next + unallocated*roundUp(l.blocks.stride(), a.align) + dataAlign
}

// take hands out the offset of a block's bitmap, if there is space.
func (a *allocator) take() (int64, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.free); n > 0 {
		off := a.free[n-1]
		a.free = a.free[:n-1]
		return off, true
	}
	off := a.place(a.next)
	if off+a.layer.blocks.stride() > a.limit {
		return 0, false
	}
	a.next = off + a.layer.blocks.stride()
	return off, true
}

// place is the first offset from end on where a block can begin.
func (a *allocator) place(end int64) int64 {
	bitmap := a.layer.blocks.bitmapSize
	return roundUp(end+bitmap, a.align) - bitmap
}

// retire gives a block's space back; it can be used again after the next
// commit.
func (a *allocator) retire(off int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retired = append(a.retired, off)
	a.untidy = true
}

func (a *allocator) setUntidy() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.untidy = true
}

func (a *allocator) isUntidy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.untidy
}

func (a *allocator) hasRetired() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.retired) > 0
}

func (a *allocator) takeRetired() []int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.retired
	a.retired = nil
	return list
}

func (a *allocator) addFree(list []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = append(a.free, list...)
}

// allocate is the offset of a new block's bitmap, growing the file if it must.
func (m *Image) allocate() (int64, error) {
	for {
		if off, ok := m.alloc.take(); ok {
			return off, nil
		}
		if err := m.grow(); err != nil {
			return 0, err
		}
	}
}

// grow extends the file by some blocks of stable zeros; by one where that is
// refused for lack of room.
func (m *Image) grow() error {
	a := &m.alloc
	a.growMu.Lock()
	defer a.growMu.Unlock()
	a.mu.Lock()
	next, limit := a.next, a.limit
	a.mu.Unlock()
	need := a.place(next) + a.layer.blocks.stride()
	if need <= limit {
		return nil // another did it meanwhile
	}
	if need/format.SectorSize >= math.MaxUint32 {
		return m.leaf.errorf("", fmt.Errorf("%w: the format's 2 TiB of file are used up", blockdev.ErrNoSpace))
	}
	if err := m.settleFooters(); err != nil {
		return err
	}
	ahead := min(need+a.ahead(), a.most, math.MaxUint32*int64(format.SectorSize))
	err := m.growTo(limit, max(need, ahead))
	if errors.Is(err, storage.ErrNoSpace) && ahead > need && m.Err() == nil {
		err = m.growTo(limit, need)
	}
	return err
}

// ahead is how many bytes to grow by beyond the next block: none at first.
func (a *allocator) ahead() int64 {
	stride := roundUp(a.layer.blocks.stride(), a.align)
	switch {
	case !a.probed:
		return 0
	case a.holes:
		return max(growAhead, stride)
	default:
		return growDense * stride
	}
}

// endWithFooter gives a file that has no footer at its end one, before anything
// is written to a block: the last sector of the last block would be taken for
// it, and is the guest's to write. With nowait it is blockdev.ErrWouldBlock where
// there is something to do.
func (m *Image) endWithFooter(nowait bool) error {
	a := &m.alloc
	if !a.noFooter.Load() {
		return nil
	}
	if nowait {
		return blockdev.ErrWouldBlock
	}
	a.growMu.Lock()
	defer a.growMu.Unlock()
	if !a.noFooter.Load() {
		return nil // another did it meanwhile
	}
	a.setUntidy()
	if err := m.endAfterBlocks(); err != nil {
		return err
	}
	a.noFooter.Store(false)
	return nil
}

// endAfterBlocks has the file end right behind its last block, with a footer, and
// syncs. What else was there is nobody's, and may look like a footer. Nobody
// else changes the file's end meanwhile.
func (m *Image) endAfterBlocks() error {
	if err := m.settleFooters(); err != nil {
		return err
	}
	end := m.leaf.dataEnd()
	if err := m.leaf.file.Truncate(end + format.FooterSize); err != nil {
		return m.ioError("", err)
	}
	if err := m.writeFooter(end); err != nil {
		return err
	}
	return m.syncOrFail()
}

// settleFooters makes sure, once, before the footer at the end moves, that the
// one at the start is there and stable: until the move is, it is all there is.
// That it was read from the file says nothing: its writer may have been killed
// before a sync. A footer of 511 bytes is made whole on the way.
func (m *Image) settleFooters() error {
	l := m.leaf
	if m.alloc.settled {
		return nil
	}
	if l.copyBad {
		if err := m.writeFooter(0); err != nil {
			return err
		}
	}
	if l.footerAt == FromShortEnd {
		if err := m.writeFooter(l.footerStart()); err != nil {
			return err
		}
	}
	if err := m.syncOrFail(); err != nil {
		return err
	}
	m.alloc.settled = true
	return nil
}

// growTo moves the footer from one end of the file to another and syncs. What
// is behind the old footer, left by a crash or by a growth that failed, is in
// no block and not known to be zero: it is cut off first.
func (m *Image) growTo(from, to int64) error {
	f := m.leaf.file
	m.alloc.setUntidy()
	before, err := f.Stat()
	if err == nil && before.Size > from+format.FooterSize {
		err = f.Truncate(from + format.FooterSize)
	}
	if err != nil {
		return m.ioError("growing the file", err)
	}
	if err := f.Truncate(to + format.FooterSize); err != nil {
		return m.ioError("growing the file", err)
	}
	if err := m.writeFooter(to); err != nil {
		return err
	}
	var zeros [format.FooterSize]byte
	if _, err := f.WriteAt(zeros[:], from); err != nil {
		return m.ioError("growing the file", err)
	}
	if err := m.syncOrFail(); err != nil {
		return err
	}
	if after, err := f.Stat(); err == nil && !m.alloc.probed {
		m.alloc.probed = true
		m.alloc.holes = after.Allocated-before.Allocated < max(to-from, minProbe)
	}
	m.alloc.mu.Lock()
	m.alloc.limit = to
	m.alloc.mu.Unlock()
	return nil
}

func (m *Image) writeFooter(off int64) error {
	var b [format.FooterSize]byte
	m.leaf.footer.Encode(b[:])
	if _, err := m.leaf.file.WriteAt(b[:], off); err != nil {
		return m.ioError("footer", err)
	}
	return nil
}
