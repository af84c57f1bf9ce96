package vhd

import (
	"bytes"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// WriteAt stores p at off. Within a block that holds every sector it is one
// write to the file; else what the block lacks is seen to first.
//
// Where a touch of p panics, as one of a ring's page that the module took away
// does (debug.SetPanicOnFault), the write counts as failed, and the image goes
// on.
func (m *Image) WriteAt(p []byte, off int64) (int, error) {
	if err := m.enterWrite(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := false
	defer func() {
		if !done { // p can't be touched
			m.leave()
		}
	}()
	err := m.writeDisk(p, off)
	done = true
	if err := m.leaveWrite(err); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *Image) writeDisk(p []byte, off int64) error {
	blocks := m.leaf.blocks
	if blocks == nil {
		return m.writeFile(p, off)
	}
	for len(p) > 0 {
		b, in := off/blocks.blockSize, off%blocks.blockSize
		n := min(int64(len(p)), blocks.blockSize-in)
		if err := m.writeBlock(p[:n], b, in); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// earlySync is the size of a write, in bytes, from which on the disk is set to
// work on it at once: with a long run of them a Flush finds most of it done,
// and the disk has not idled meanwhile. Smaller ones may yet be written over.
const earlySync = 256 << 10

func (m *Image) writeFile(p []byte, off int64) error {
	if _, err := m.leaf.file.WriteAt(p, off); err != nil {
		return m.ioError("", err)
	}
	if len(p) >= earlySync && m.durability != Unsafe {
		if f, ok := m.leaf.file.(storage.EarlyWriter); ok {
			f.BeginSync(off, int64(len(p)))
		}
	}
	return nil
}

// writeBlock writes at in of block b.
func (m *Image) writeBlock(p []byte, b, in int64) error {
	blocks := m.leaf.blocks
	sector := blocks.entry(b)
	if sector != format.UnallocatedBlock && blocks.full.has(b) {
		return m.writeFile(p, blocks.dataOffset(sector)+in)
	}
	if sector != format.UnallocatedBlock && aligned(in, int64(len(p))) {
		if done, err := m.writeHeld(p, b, in); done {
			return err
		}
	}
	lock := &m.stripe[b%stripes]
	lock.Lock()
	defer lock.Unlock()
	if sector = blocks.entry(b); sector == format.UnallocatedBlock {
		return m.writeNew(p, b, in)
	}
	return m.writePartial(p, b, sector, in)
}

// writeHeld writes whole sectors at in of block b, unless that was given up
// meanwhile.
func (m *Image) writeHeld(p []byte, b, in int64) (done bool, err error) {
	lock := &m.stripe[b%stripes]
	lock.RLock()
	defer lock.RUnlock()
	sector := m.leaf.blocks.entry(b)
	if sector == format.UnallocatedBlock {
		return false, nil
	}
	return true, m.writeSectors(p, b, sector, in)
}

func aligned(off, n int64) bool { return (off|n)%format.SectorSize == 0 }

// writeSectors writes whole sectors of an allocated block. The data is handed
// to the file before the bits say so: commit relies on it. The caller holds
// the stripe, shared or whole.
func (m *Image) writeSectors(p []byte, b int64, sector uint32, in int64) error {
	return m.changeSectors(b, sector, in, int64(len(p)), func(data int64) error {
		return m.writeFile(p, data+in)
	})
}

// changeSectors lets change store whole sectors [in, in+n) of an allocated
// block, given where the block's data is in the file, and sets their bits.
func (m *Image) changeSectors(b int64, sector uint32, in, n int64, change func(data int64) error) error {
	blocks := m.leaf.blocks
	data := blocks.dataOffset(sector)
	if blocks.full.has(b) {
		return change(data)
	}
	s, err := m.pinBitmap(b, sector)
	if err != nil {
		return err
	}
	return m.changePinned(s, in, n, change)
}

// changePinned is changeSectors of a block whose bitmap is pinned, and unpins it.
func (m *Image) changePinned(s *sectorBitmap, in, n int64, change func(data int64) error) error {
	blocks := m.leaf.blocks
	changed := false
	defer func() { m.bitmaps.unpin(s, changed) }()
	if err := change(blocks.dataOffset(s.sector)); err != nil {
		return err
	}
	var full bool
	changed, full = s.set(int(in/format.SectorSize), int(n/format.SectorSize), blocks.sectors())
	if full {
		blocks.full.add(s.block)
	}
	return nil
}

// pinBitmap is the bitmap of block b at sector for a writer, who unpins it.
func (m *Image) pinBitmap(b int64, sector uint32) (*sectorBitmap, error) {
	if s := m.bitmaps.pin(b, sector); s != nil {
		return s, nil
	}
	return m.loadBitmap(b, sector, true)
}

// writePartial writes any bytes of an allocated block, completing the sectors
// that it touches in part with what they show now. The caller holds the stripe
// whole.
func (m *Image) writePartial(p []byte, b int64, sector uint32, in int64) error {
	// With its bitmap pinned and the stripe held, nobody else can make the
	// block full: as long as it is not, nobody writes past the stripe.
	s, err := m.pinBitmap(b, sector)
	if err != nil {
		return err
	}
	defer m.bitmaps.unpin(s, false)
	return m.eachPiece(p, b, in, func(q []byte, in int64) error {
		return m.writeSectors(q, b, sector, in)
	})
}

// eachPiece cuts a write at in of block b into whole sectors: the first and
// the last one made whole with what they show now, and those between. Once the
// block is full the rest is written as it is: others may be writing to the
// same sectors.
func (m *Image) eachPiece(p []byte, b, in int64, f func(q []byte, in int64) error) error {
	blocks := m.leaf.blocks
	for len(p) > 0 {
		if blocks.full.has(b) {
			return m.writeFile(p, blocks.dataOffset(blocks.entry(b))+in)
		}
		skip, n := in%format.SectorSize, int64(len(p))
		piece, at := p, in
		if skip == 0 && n >= format.SectorSize {
			n -= n % format.SectorSize
			piece = p[:n]
		} else {
			n = min(n, format.SectorSize-skip)
			piece, at = make([]byte, format.SectorSize), in-skip
			if err := m.readBlock(piece, b, at, false); err != nil {
				return err
			}
			copy(piece[skip:], p[:n])
		}
		if err := f(piece, at); err != nil {
			return err
		}
		p, in = p[n:], in+n
	}
	return nil
}

// writeNew writes to a block that the image doesn't hold yet. The caller holds
// the stripe whole.
func (m *Image) writeNew(p []byte, b, in int64) error {
	if isZero(p) {
		skip, err := m.readsZero(b*m.leaf.blocks.blockSize+in, int64(len(p)))
		if skip || err != nil {
			return err
		}
	}
	return m.allocateBlock(b, func(data int64, s *sectorBitmap) error {
		if s == nil { // the rest of each sector is zero, in the file too
			return m.writeFile(p, data+in)
		}
		return m.eachPiece(p, b, in, func(q []byte, in int64) error {
			if err := m.writeFile(q, data+in); err != nil {
				return err
			}
			s.set(int(in/format.SectorSize), len(q)/format.SectorSize, m.leaf.blocks.sectors())
			return nil
		})
	})
}

// readsZero tells whether nobody holds [off, off+n), where the leaf doesn't.
func (m *Image) readsZero(off, n int64) (bool, error) {
	if m.under == nil {
		return true, nil
	}
	return m.under.zero(off, n)
}

// allocateBlock gives block b a place and lets fill write to it, before the
// block is seen by readers. On a disk without a parent the block is full from
// the start; on a differencing one it has none but the bits that fill sets in
// s. The caller holds the stripe whole.
func (m *Image) allocateBlock(b int64, fill func(data int64, s *sectorBitmap) error) error {
	off, err := m.allocate()
	if err != nil {
		return err
	}
	blocks := m.leaf.blocks
	sector := uint32(off / format.SectorSize)
	var s *sectorBitmap
	done := false
	defer func() {
		if s != nil {
			m.bitmaps.unpin(s, done)
		}
		if !done { // fill may have panicked: see WriteAt
			m.bitmaps.drop(b)
			m.alloc.retire(off) // part of it may have been written
		}
	}()
	bits := make(format.Bitmap, blocks.bitmapSize)
	if m.under == nil {
		bits.Set(0, blocks.sectors())
	}
	// On a differencing disk these are zeros over zeros: they take the space,
	// so that a commit has it.
	if err := m.writeFile(bits, off); err != nil {
		return err
	}
	if m.under != nil {
		s = m.bitmaps.put(b, sector, bits, true)
	}
	if err := fill(blocks.dataOffset(sector), s); err != nil {
		return err
	}
	if s == nil || s.bits.AllSet(blocks.sectors()) {
		blocks.full.add(b)
	}
	blocks.setEntry(b, sector)
	m.commits.markBAT(b)
	if !m.mapped.has(b) {
		m.usage.Add(1)
	}
	done = true
	return nil
}

var zeroPage [64 << 10]byte

func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroPage))
		if !bytes.Equal(p[:n], zeroPage[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
