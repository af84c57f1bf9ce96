package check

import (
	"bytes"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// dataChunk is how much data is read at once, in bytes.
const dataChunk = 64 << 10

// bitmapCheck reads the sector bitmaps of an image's blocks, one at a time.
// Its memory is that of one bitmap and one chunk of data.
type bitmapCheck struct {
	img     *image
	holes   *holes
	bitmap  format.Bitmap
	clear   bool   // the bitmap has no bit set
	data    []byte // nil until any is read
	zeros   []byte // as long
	sectors int    // of a block
	beyond  int64  // blocks with bits set beyond their end
	first   int64  // of these
}

// newBitmapCheck is nil where bitmaps aren't looked at.
func newBitmapCheck(img *image) *bitmapCheck {
	if !img.opt.Bitmaps {
		return nil
	}
	return &bitmapCheck{
		img:     img,
		holes:   newHoles(img.file),
		bitmap:  make(format.Bitmap, img.header.BitmapSize()),
		sectors: int(img.header.BlockSize / format.SectorSize),
	}
}

// check judges the bitmap of the block that begins at start in the file.
func (c *bitmapCheck) check(block, start int64) error {
	if c == nil || block >= c.img.blocks {
		return nil
	}
	if err := c.read(start); err != nil {
		return err
	}
	c.checkBeyond(block)
	c.checkFull(block)
	if c.img.footer.Type == format.Dynamic && !c.img.encrypted {
		return c.checkClear(block, start+int64(len(c.bitmap)))
	}
	return nil
}

// read reads the bitmap at start. One in a hole of the file costs nothing: a
// small file can claim millions of them.
func (c *bitmapCheck) read(start int64) error {
	if data := c.holes.data(start); data-start >= int64(len(c.bitmap)) {
		if !c.clear {
			clear(c.bitmap)
			c.clear = true
		}
		return nil
	}
	c.clear = false
	if err := readFull(c.img.file, c.bitmap, start); err != nil {
		return err
	}
	if c.img.footer.LittleEndianBitmaps() {
		c.bitmap.ReverseBits()
	}
	return nil
}

// checkBeyond counts blocks whose bitmap, padded to a sector, has bits for
// sectors that the block doesn't have.
func (c *bitmapCheck) checkBeyond(block int64) {
	if c.clear {
		return
	}
	bits := len(c.bitmap) * 8
	if run, set := c.bitmap.Run(c.sectors, bits); c.sectors < bits && (set || run < bits-c.sectors) {
		if c.beyond == 0 {
			c.first = block
		}
		c.beyond++
	}
}

// checkFull: tapdisk doesn't read the bitmap of a block that the batmap calls
// full.
func (c *bitmapCheck) checkFull(block int64) {
	if !c.img.full(block) {
		return
	}
	if missing := c.sectors - c.bitmap.Count(c.sectors); missing > 0 {
		c.img.block(Damage, block, "is full by the batmap, but its bitmap lacks %d of %d sectors — copy the disk to a new image", missing, c.sectors)
	}
}

// checkClear looks for data under the clear bits of a disk without a parent:
// tapdisk reads zeros there, qemu what is in the file.
func (c *bitmapCheck) checkClear(block, data int64) error {
	rest := (c.img.size - block*int64(c.img.header.BlockSize)) / format.SectorSize
	limit := int(min(int64(c.sectors), rest))
	for i := 0; i < limit; {
		n, set := c.bitmap.Run(i, limit)
		if !set {
			found, err := c.findData(data, i, i+n)
			if err != nil {
				return err
			}
			if found >= 0 {
				c.img.block(Warning, block, "sector %d of %d has data under a clear bit: tapdisk reads zeros, qemu the data — copy the disk to a new image", found, c.sectors)
				return nil
			}
		}
		i += n
	}
	return nil
}

// findData is the first of the sectors [from, to) of the block whose data
// begins at data that isn't all zeros, or -1.
func (c *bitmapCheck) findData(data int64, from, to int) (int, error) {
	if c.data == nil {
		chunk := min(dataChunk, c.sectors*format.SectorSize)
		c.data, c.zeros = make([]byte, chunk), make([]byte, chunk)
	}
	for from < to {
		at := data + int64(from)*format.SectorSize
		hole := (c.holes.data(at) - at) / format.SectorSize
		if hole >= int64(to-from) {
			return -1, nil
		}
		from += int(hole)
		n := min(to-from, dataChunk/format.SectorSize)
		buf := c.data[:n*format.SectorSize]
		if err := readFull(c.img.file, buf, data+int64(from)*format.SectorSize); err != nil {
			return 0, err
		}
		if !bytes.Equal(buf, c.zeros[:len(buf)]) {
			return from + firstData(buf), nil
		}
		from += n
	}
	return -1, nil
}

// firstData is the sector of buf with the first byte that isn't zero.
func firstData(buf []byte) int {
	for i, b := range buf {
		if b != 0 {
			return i / format.SectorSize
		}
	}
	return -1
}

// finish reports what was counted.
func (c *bitmapCheck) finish() {
	if c != nil && c.beyond > 0 {
		c.img.block(Note, c.first, "bitmap has bits set beyond the block's %d sectors; so have others: %d", c.sectors, c.beyond-1)
	}
}
