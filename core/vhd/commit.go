package vhd

import (
	"sync"
	"sync/atomic"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// batPerSector is how many BAT entries a sector holds: the unit in which the
// BAT is written, but for the last.
const batPerSector = format.SectorSize / 4

// committer makes writes stable: the state of Flush.
type committer struct {
	// mu serialises commits; it is the first lock in the order. ok is the
	// number of the last commit that succeeded, guarded by mu.
	mu sync.Mutex
	ok uint64
	// begun numbers the commits: a Flush is served by any that begins after it.
	begun atomic.Uint64

	// syncMu serialises syncs. It is a leaf, and held across one.
	syncMu  sync.Mutex
	parents bool // they were synced; guarded by syncMu

	unsynced atomic.Bool // something was handed to the file since the last sync began
	dirtyBAT bitset      // sectors of the BAT that differ from the file
	dirty    atomic.Bool // dirtyBAT has any
	final    atomic.Bool // Close's commit: it syncs in every mode
}

// markBAT notes that block b's entry differs from the file.
func (c *committer) markBAT(b int64) {
	c.dirtyBAT.add(b / batPerSector)
	c.dirty.Store(true)
}

// Flush makes all that was written before the call stable. Callers that come
// while a commit runs share the next one.
func (m *Image) Flush() error {
	if err := m.enter(0, 0); err != nil {
		return err
	}
	m.leave()
	return m.commit()
}

func (m *Image) commit() error {
	if m.readOnly {
		return nil
	}
	c := &m.commits
	seen := c.begun.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ok > seen {
		return nil // one began and ended well since this call
	}
	if err := m.Err(); err != nil {
		return err
	}
	number := c.begun.Add(1)
	if err := m.commitOnce(); err != nil {
		return err
	}
	c.ok = number
	return nil
}

// commitOnce is the order that the promises rest on:
//
//  1. The sector bitmaps as they are now are set aside: every bit in them is
//     of data that the file has been handed.
//  2. Sync: that data is stable. (Skipped where no bitmap has changed: new
//     blocks of a disk without a parent need no order, see allocator.)
//  3. The bitmaps and the BAT are written.
//  4. Sync: they are stable, and the caller is told.
//
// A power cut between any two leaves bits and entries that lead to stable data
// or to stable zeros. A write that comes in meanwhile is the next commit's.
func (m *Image) commitOnce() error {
	c := &m.commits
	if !c.unsynced.Swap(false) && !m.Dirty() {
		return nil
	}
	if m.bitmaps == nil {
		return m.syncOrFail()
	}
	retired := m.drainRetired()
	pending := m.bitmaps.pending()
	if len(pending) > 0 {
		if err := m.syncOrFail(); err != nil {
			return err
		}
		if err := m.writeBitmaps(pending); err != nil {
			return m.again(retired, err)
		}
	}
	if err := m.writeBAT(); err != nil {
		return m.again(retired, err)
	}
	if err := m.syncOrFail(); err != nil {
		return err
	}
	m.bitmaps.committed(pending)
	m.alloc.addFree(retired)
	return nil
}

// syncOrFail syncs the file; a failure ends writing, for the kernel may have
// dropped what it could not write. It tells of a failure once: of two syncs at
// the same time only one would see it. So they go one by one, and one that
// comes after a failure fails.
func (m *Image) syncOrFail() error {
	m.commits.syncMu.Lock()
	defer m.commits.syncMu.Unlock()
	if err := m.Err(); err != nil {
		return err
	}
	if err := m.sync(); err != nil {
		return m.fail(err)
	}
	return nil
}

// again leaves to a later commit what one that failed, but for a sync, did not
// get to.
func (m *Image) again(retired []int64, err error) error {
	m.commits.unsynced.Store(true)
	for _, off := range retired {
		m.alloc.retire(off)
	}
	return err
}

// drainRetired takes the space given up since the last commit, waits until no
// operation can still be writing to it, and makes it zeros. What can't be made
// so waits for another commit: nothing that was promised is in it.
func (m *Image) drainRetired() []int64 {
	if !m.alloc.hasRetired() {
		return nil
	}
	m.gate.Lock() // nobody holds a place that was given up before
	retired := m.alloc.takeRetired()
	m.gate.Unlock()
	zeroed := retired[:0]
	for _, off := range retired {
		if err := m.zeroFile(off, m.leaf.blocks.stride()); err != nil {
			m.alloc.retire(off)
			continue
		}
		zeroed = append(zeroed, off)
	}
	return zeroed
}

func (m *Image) writeBitmaps(pending []pendingBitmap) error {
	for _, p := range pending {
		if _, err := m.leaf.file.WriteAt(p.bits, m.leaf.blocks.bitmapOffset(p.of.sector)); err != nil {
			return m.ioError(blockName(p.of.block)+": sector bitmap", err)
		}
	}
	return nil
}

// writeBAT writes the sectors of the BAT that have changed, neighbours in one
// write. An entry may be newer than the commit: any entry may become stable at
// any time.
func (m *Image) writeBAT() error {
	c := &m.commits
	if !c.dirty.Swap(false) {
		return nil
	}
	sectors := int64(len(m.leaf.blocks.bat)+batPerSector-1) / batPerSector
	for s := int64(0); s < sectors; s++ {
		if c.dirtyBAT[s/64].Load() == 0 {
			s |= 63
			continue
		}
		first := s
		for s < sectors && s-first < 128 && c.dirtyBAT.has(s) {
			c.dirtyBAT.remove(s)
			s++
		}
		if s == first {
			continue
		}
		if err := m.writeBATSectors(first, s); err != nil {
			for i := first; i < s; i++ {
				c.dirtyBAT.add(i)
			}
			c.dirty.Store(true)
			return err
		}
		s-- // sector s itself is looked at next
	}
	return nil
}

// writeBATSectors writes sectors [from, to) of the BAT.
func (m *Image) writeBATSectors(from, to int64) error {
	blocks := m.leaf.blocks
	first, last := from*batPerSector, min(to*batPerSector, int64(len(blocks.bat)))
	entries := make([]uint32, 0, last-first)
	for i := first; i < last; i++ {
		entries = append(entries, blocks.entry(i))
	}
	b := make([]byte, 4*len(entries))
	format.EncodeBAT(b, entries)
	off := int64(m.leaf.header.TableOffset) + from*format.SectorSize
	if _, err := m.leaf.file.WriteAt(b, off); err != nil {
		return m.ioError("BAT", err)
	}
	return nil
}

// Dirty tells whether metadata in memory waits for a Flush.
func (m *Image) Dirty() bool {
	if m.bitmaps == nil {
		return false
	}
	return m.commits.dirty.Load() || m.bitmaps.isDirty()
}

// finish is Close's part: all is committed, and the file, if it was grown, cut
// back to its exact end.
func (m *Image) finish() error {
	if m.readOnly {
		return nil
	}
	m.commits.final.Store(true)
	if m.durability == Unsafe {
		m.commits.unsynced.Store(true)
	}
	if err := m.commit(); err != nil {
		return err
	}
	if m.leaf.blocks == nil || !m.alloc.isUntidy() {
		return nil
	}
	return m.endAfterBlocks()
}
