package vhd

import (
	"errors"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// minPunch is the size, in bytes, below which zeros are written rather than a
// hole punched: smaller ones free nothing.
const minPunch = 4096

// Discard gives up the whole sectors in [off, off+n). Of a disk without a
// parent they read as zeros afterwards, and a block given up whole returns to
// the free space. Of a differencing disk those that the image holds read as
// zeros; the parent's stay as they are. The file's space is given back by
// punching holes, where the file system can.
func (m *Image) Discard(off, n int64) error {
	return m.inPieces(off, n, func(off, n int64) error {
		start, end := roundUp(off, format.SectorSize), (off+n)&^(format.SectorSize-1)
		if start >= end {
			return nil
		}
		return m.discardDisk(start, end-start)
	})
}

// pieceBlocks is how many blocks a discard or a zeroing changes before it lets
// others have the image: a commit between two may need it whole, and a range
// may be the whole disk.
const pieceBlocks = 64

// inPieces calls f for pieces of [off, off+n), each an operation of its own,
// parted where blocks are.
func (m *Image) inPieces(off, n int64, f func(off, n int64) error) error {
	if err := blockdev.CheckRange(m.leaf.size, off, n); err != nil {
		return err
	}
	piece := int64(1 << 30)
	if m.leaf.blocks != nil {
		piece = max(granule, pieceBlocks*m.leaf.blocks.blockSize)
	}
	for first := true; first || n > 0; first = false {
		c := min(n, piece-off%piece)
		if err := m.enterWrite(off, c); err != nil {
			return err
		}
		if err := m.leaveWrite(f(off, c)); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

func (m *Image) discardDisk(off, n int64) error {
	if m.leaf.blocks == nil {
		return m.punchFile(off, n)
	}
	return m.eachBlock(off, n, func(b, in, n int64) error {
		if m.leaf.blocks.entry(b) == format.UnallocatedBlock {
			return nil
		}
		if m.isWhole(b, in, n) && m.under == nil && !m.leaf.batmap.has(b) {
			return m.freeBlock(b)
		}
		return m.withAllocated(b, func(sector uint32) error {
			return m.punchFile(m.leaf.blocks.dataOffset(sector)+in, n)
		})
	})
}

// WriteZeroes makes [off, off+n) read as zeros. What nobody holds stays so;
// what the image holds is given up as by Discard.
func (m *Image) WriteZeroes(off, n int64) error {
	return m.inPieces(off, n, m.zeroDisk)
}

func (m *Image) zeroDisk(off, n int64) error {
	if m.leaf.blocks == nil {
		return m.zeroFile(off, n)
	}
	return m.eachBlock(off, n, m.zeroBlock)
}

// zeroBlock makes [in, in+n) of block b read as zeros.
func (m *Image) zeroBlock(b, in, n int64) error {
	blocks := m.leaf.blocks
	if blocks.entry(b) == format.UnallocatedBlock {
		if skip, err := m.readsZero(b*blocks.blockSize+in, n); skip || err != nil {
			return err
		}
	}
	if m.isWhole(b, in, n) && m.under == nil && !m.leaf.batmap.has(b) {
		return m.freeBlock(b)
	}
	// The ends are written if they are no whole sectors, what is between is
	// punched.
	head := min(n, roundUp(in, format.SectorSize)-in)
	body := (n - head) &^ (format.SectorSize - 1)
	tail := n - head - body
	if head > 0 {
		if err := m.writeBlock(zeroPage[:head], b, in); err != nil {
			return err
		}
	}
	if body > 0 {
		if err := m.zeroSectors(b, in+head, body); err != nil {
			return err
		}
	}
	if tail > 0 {
		return m.writeBlock(zeroPage[:tail], b, in+head+body)
	}
	return nil
}

// zeroSectors makes whole sectors [in, in+n) of block b present and zero.
func (m *Image) zeroSectors(b, in, n int64) error {
	zero := func(sector uint32) error {
		return m.changeSectors(b, sector, in, n, func(data int64) error {
			return m.zeroFile(data+in, n)
		})
	}
	done := false
	err := m.withAllocated(b, func(sector uint32) error {
		done = true
		return zero(sector)
	})
	if done || err != nil {
		return err
	}
	lock := &m.stripe[b%stripes]
	lock.Lock()
	defer lock.Unlock()
	if sector := m.leaf.blocks.entry(b); sector != format.UnallocatedBlock {
		return zero(sector)
	}
	if m.under == nil {
		return nil
	}
	return m.allocateBlock(b, func(_ int64, s *sectorBitmap) error { // over stable zeros
		s.set(int(in/format.SectorSize), int(n/format.SectorSize), m.leaf.blocks.sectors())
		return nil
	})
}

// withAllocated calls f with block b's place while b keeps it, if it has one.
func (m *Image) withAllocated(b int64, f func(sector uint32) error) error {
	lock := &m.stripe[b%stripes]
	lock.RLock()
	defer lock.RUnlock()
	if sector := m.leaf.blocks.entry(b); sector != format.UnallocatedBlock {
		return f(sector)
	}
	return nil
}

// freeBlock takes block b of a disk without a parent out of the BAT. The space
// is zeroed at once, for as long as the old entry is stable it shows, and is
// used again after the commit that makes the new one stable.
func (m *Image) freeBlock(b int64) error {
	blocks := m.leaf.blocks
	lock := &m.stripe[b%stripes]
	lock.Lock()
	defer lock.Unlock()
	sector := blocks.entry(b)
	if sector == format.UnallocatedBlock {
		return nil
	}
	if err := m.zeroFile(blocks.dataOffset(sector), blocks.blockSize); err != nil {
		return err
	}
	blocks.full.remove(b)
	blocks.setEntry(b, format.UnallocatedBlock)
	m.bitmaps.drop(b)
	m.alloc.retire(blocks.bitmapOffset(sector))
	m.commits.markBAT(b)
	m.usage.Add(-1)
	return nil
}

// isWhole tells whether [in, in+n) is all of block b that the disk has, shown
// or not: one whose size is taken from its geometry may hold more.
func (m *Image) isWhole(b, in, n int64) bool {
	size := m.leaf.blocks.blockSize
	disk := max(m.leaf.size, int64(m.leaf.footer.CurrentSize))
	return in == 0 && n == min(size, disk-b*size)
}

// eachBlock calls f for the part of each block in [off, off+n).
func (m *Image) eachBlock(off, n int64, f func(b, in, n int64) error) error {
	size := m.leaf.blocks.blockSize
	for n > 0 {
		b, in := off/size, off%size
		c := min(n, size-in)
		if err := f(b, in, c); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

// punchFile gives back the space of a range of the file, if that is possible.
func (m *Image) punchFile(off, n int64) error {
	err := m.leaf.file.PunchHole(off, n)
	if errors.Is(err, storage.ErrNotSupported) {
		return m.writeZeros(off, n)
	}
	if err != nil {
		return m.ioError("", err)
	}
	return nil
}

// zeroFile makes a range of the file read as zeros.
func (m *Image) zeroFile(off, n int64) error {
	if n < minPunch {
		return m.writeZeros(off, n)
	}
	return m.punchFile(off, n)
}

func (m *Image) writeZeros(off, n int64) error {
	for n > 0 {
		c := min(n, int64(len(zeroPage)))
		if err := m.writeFile(zeroPage[:c], off); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}
