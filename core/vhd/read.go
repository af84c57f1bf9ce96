package vhd

import (
	"errors"
	"io"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// ReadAt fills p from off: one read for each run of bytes that lie together in
// one file.
func (m *Image) ReadAt(p []byte, off int64) (int, error) {
	return m.readAt(p, off, false)
}

// ReadAtNowait is ReadAt where neither the data nor the maps that lead to it
// have to be waited for; else blockdev.ErrWouldBlock.
func (m *Image) ReadAtNowait(p []byte, off int64) (int, error) {
	return m.readAt(p, off, true)
}

func (m *Image) readAt(p []byte, off int64, nowait bool) (int, error) {
	if err := m.enterNow(off, int64(len(p)), nowait); err != nil {
		return 0, err
	}
	defer m.leave()
	if err := m.readDisk(p, off, nowait); err != nil {
		return 0, err
	}
	return len(p), nil
}

// readDisk reads a range that is known to lie within the disk.
func (m *Image) readDisk(p []byte, off int64, nowait bool) error {
	blocks := m.leaf.blocks
	if blocks == nil {
		return readFile(m.leaf, p, off, nowait)
	}
	for len(p) > 0 {
		b, in := off/blocks.blockSize, off%blocks.blockSize
		n := min(int64(len(p)), blocks.blockSize-in)
		if err := m.readBlock(p[:n], b, in, nowait); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readBlock reads from in of block b.
func (m *Image) readBlock(p []byte, b, in int64, nowait bool) error {
	blocks := m.leaf.blocks
	// The bit is read before the entry. Where an entry is, a bit that is out of
	// date does no harm: on a disk without a parent, which alone gives blocks up,
	// a block is full from the start.
	full, sector := blocks.full.has(b), blocks.entry(b)
	if sector == format.UnallocatedBlock {
		return m.readUnder(p, b*blocks.blockSize+in, nowait)
	}
	if m.readOnly { // else all entries were checked at open
		if err := m.leaf.checkEntry(b, sector); err != nil {
			return err
		}
	}
	data := blocks.dataOffset(sector)
	if full {
		return readFile(m.leaf, p, data+in, nowait)
	}
	bitmap, err := m.bitmap(b, sector, nowait)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		s := int(in / format.SectorSize)
		count, set := bitmap.run(s, int((in+int64(len(p))-1)/format.SectorSize)+1)
		n := min(int64(s+count)*format.SectorSize-in, int64(len(p)))
		if set {
			err = readFile(m.leaf, p[:n], data+in, nowait)
		} else {
			err = m.readUnder(p[:n], b*blocks.blockSize+in, nowait)
		}
		if err != nil {
			return err
		}
		p, in = p[n:], in+n
	}
	return nil
}

// bitmap is the sector bitmap of block b, which begins at sector.
func (m *Image) bitmap(b int64, sector uint32, nowait bool) (*sectorBitmap, error) {
	if s := m.bitmaps.peek(b, sector); s != nil {
		return s, nil
	}
	if nowait {
		return nil, blockdev.ErrWouldBlock
	}
	return m.loadBitmap(b, sector, false)
}

// loadBitmap reads block b's bitmap from the file into the cache.
func (m *Image) loadBitmap(b int64, sector uint32, pin bool) (*sectorBitmap, error) {
	blocks := m.leaf.blocks
	for {
		generation := m.bitmaps.generation()
		bits, err := m.leaf.readBits(b, sector, 0, blocks.bitmapSize)
		if err != nil {
			return nil, err
		}
		// Before a writer can find the bitmap: see writePartial.
		if bits.AllSet(blocks.sectors()) {
			blocks.full.add(b)
		}
		if s := m.bitmaps.add(b, sector, bits, generation, pin); s != nil {
			return s, nil
		}
	}
}

// readUnder reads what the leaf doesn't hold.
func (m *Image) readUnder(p []byte, off int64, nowait bool) error {
	if m.under == nil {
		clear(p)
		return nil
	}
	return m.under.each(off, int64(len(p)), nowait, func(at, n int64, layer int, file int64) error {
		q := p[at-off:][:n]
		if layer < 0 {
			clear(q)
			return nil
		}
		return readFile(m.under.layers[layer], q, file, nowait)
	})
}

// readFile reads from a layer's file; nowait only what is in memory.
func readFile(l *layer, p []byte, off int64, nowait bool) error {
	if !nowait {
		n, err := l.file.ReadAt(p, off)
		if n == len(p) {
			return nil
		}
		return l.shortRead(len(p), off, err)
	}
	f, ok := l.file.(storage.NowaitReaderAt)
	if !ok {
		return blockdev.ErrWouldBlock
	}
	n, err := f.ReadAtNowait(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, storage.ErrWouldBlock) {
		return blockdev.ErrWouldBlock
	}
	return l.shortRead(len(p), off, err)
}

func (l *layer) shortRead(n int, off int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = corrupt("truncated: %d bytes at offset %d pass the end of the file", n, off)
	}
	return l.errorf("", translate(err))
}
