package vhd

import "github.com/vhdmount/vhdmount/core/vhd/format"

// bitRuns is a sector bitmap as a walk looks at it, run by run: see
// format.Bitmap.Run.
type bitRuns interface {
	run(first, limit int) (n int, set bool)
}

// stillBitmap is a bitmap that nobody changes.
type stillBitmap struct{ bits format.Bitmap }

func (s *stillBitmap) run(first, limit int) (int, bool) { return s.bits.Run(first, limit) }

// bitmap is that of block b, which begins at sector, good until the next call.
// The block lies in the file: see checkEntry. Nobody writes to a read-only
// image, and a walk goes once over all of it: there it keeps the bitmaps out of
// the cache, and reads as little as it can.
func (w *extentWalk) bitmap(b int64, sector uint32) (bitRuns, error) {
	m := w.image
	if !m.readOnly {
		return m.bitmap(b, sector, false)
	}
	if s := m.bitmaps.peek(b, sector); s != nil {
		return s, nil
	}
	blocks := m.leaf.blocks
	if w.dataRun(m.leaf, blocks.bitmapOffset(sector)).start-blocks.bitmapOffset(sector) >= blocks.bitmapSize {
		w.still.bits = w.noBits() // it is in a hole
		return &w.still, nil
	}
	bits, err := w.window.read(m.leaf, b, sector, 0, blocks.bitmapSize)
	if err != nil {
		return nil, err
	}
	if bits.AllSet(blocks.sectors()) {
		blocks.full.add(b)
	}
	w.still.bits = bits
	return &w.still, nil
}

// noBits is a bitmap of the leaf's that has none set.
func (w *extentWalk) noBits() format.Bitmap {
	if w.zeros == nil {
		w.zeros = make(format.Bitmap, w.image.leaf.blocks.bitmapSize)
	}
	return w.zeros
}
