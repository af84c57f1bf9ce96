package vhd

import (
	"errors"
	"io"
	"iter"
	"math"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Extents yields where the bytes of [off, off+n) come from: a hole where no
// layer holds them, zero where one does but its file has a hole there, data
// for the rest.
func (m *Image) Extents(off, n int64) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		w := extentWalk{image: m, yield: yield}
		err := blockdev.CheckRange(m.leaf.size, off, n)
		for err == nil && n > 0 {
			c := min(n, granule-off%granule)
			err = w.step(off, c)
			off, n = off+c, n-c
		}
		if err == nil {
			err = w.flush()
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(blockdev.Extent{}, err)
		}
	}
}

// errStopped ends a walk whose consumer has had enough.
var errStopped = errors.New("stopped")

// extentWalk collects extents and joins those that belong together.
type extentWalk struct {
	image *Image
	yield func(blockdev.Extent, error) bool
	found []blockdev.Extent // of the step under way
	last  blockdev.Extent   // not yielded yet; Length 0: none
	run   fileRun           // the last that dataRun found

	window bitWindow     // of the leaf's bitmaps, if it is read-only
	still  stillBitmap   // the last of them
	zeros  format.Bitmap // one with no bit set; nil until it is needed
}

// step walks a piece of the range with the image held, and yields without it.
func (w *extentWalk) step(off, n int64) error {
	if err := w.image.enter(off, n); err != nil {
		return err
	}
	w.found = w.found[:0]
	err := w.walk(off, n)
	w.image.leave()
	if err != nil {
		return err
	}
	for _, e := range w.found {
		if w.joins(e) {
			w.last.Length += e.Length
			continue
		}
		if err := w.flush(); err != nil {
			return err
		}
		w.last = e
	}
	return nil
}

func (w *extentWalk) joins(e blockdev.Extent) bool {
	l := w.last
	return l.Length > 0 && l.Kind == e.Kind && l.Depth == e.Depth &&
		(l.Kind == blockdev.Hole || l.FileOffset+l.Length == e.FileOffset)
}

func (w *extentWalk) flush() error {
	if w.last.Length > 0 && !w.yield(w.last, nil) {
		w.last = blockdev.Extent{}
		return errStopped
	}
	w.last = blockdev.Extent{}
	return nil
}

func (w *extentWalk) walk(off, n int64) error {
	m := w.image
	if m.leaf.blocks == nil {
		return w.data(m.leaf, 0, off, n, off)
	}
	return m.eachBlock(off, n, w.block)
}

func (w *extentWalk) block(b, in, n int64) error {
	m := w.image
	blocks := m.leaf.blocks
	full, sector := blocks.full.has(b), blocks.entry(b)
	off := b*blocks.blockSize + in
	if sector == format.UnallocatedBlock {
		return w.under(off, n)
	}
	if m.readOnly {
		if err := m.leaf.checkEntry(b, sector); err != nil {
			return err
		}
	}
	data := blocks.dataOffset(sector)
	if full {
		return w.data(m.leaf, 0, off, n, data+in)
	}
	bitmap, err := w.bitmap(b, sector)
	if err != nil {
		return err
	}
	for n > 0 {
		s := int(in / format.SectorSize)
		count, set := bitmap.run(s, int((in+n-1)/format.SectorSize)+1)
		c := min(int64(s+count)*format.SectorSize-in, n)
		if set {
			err = w.data(m.leaf, 0, off, c, data+in)
		} else {
			err = w.under(off, c)
		}
		if err != nil {
			return err
		}
		off, in, n = off+c, in+c, n-c
	}
	return nil
}

func (w *extentWalk) under(off, n int64) error {
	m := w.image
	if m.under == nil {
		w.hole(off, n)
		return nil
	}
	return m.under.each(off, n, false, func(off, n int64, layer int, at int64) error {
		if layer < 0 {
			w.hole(off, n)
			return nil
		}
		return w.data(m.under.layers[layer], layer+1, off, n, at)
	})
}

func (w *extentWalk) hole(off, n int64) {
	w.found = append(w.found, blockdev.Extent{Offset: off, Length: n, Kind: blockdev.Hole, Depth: -1})
}

// data adds a range that a layer holds, with the holes of its file as zeros.
func (w *extentWalk) data(l *layer, depth int, off, n, at int64) error {
	add := func(kind blockdev.ExtentKind, c int64) {
		if c > 0 {
			w.found = append(w.found, blockdev.Extent{Offset: off, Length: c, Kind: kind, Depth: depth, File: l.name, FileOffset: at})
			off, at, n = off+c, at+c, n-c
		}
	}
	for n > 0 {
		r := w.dataRun(l, at)
		add(blockdev.Zero, min(r.start-at, n))
		add(blockdev.Data, min(r.end-at, n))
	}
	return nil
}

// fileRun is what a file was found to hold: a hole in [from, start), data in
// [start, end).
type fileRun struct {
	of               *layer
	from, start, end int64
}

// dataRun is the run of a layer's file that at is in. The last one is kept:
// to look for its end takes the file system as long as it is.
func (w *extentWalk) dataRun(l *layer, at int64) fileRun {
	if r := w.run; r.of == l && r.from <= at && at < r.end {
		return r
	}
	r := fileRun{of: l, from: at, start: at, end: math.MaxInt64} // all data, where that isn't known
	if finder, ok := l.file.(storage.HoleFinder); ok {
		start, end, err := finder.NextData(at)
		switch {
		case errors.Is(err, io.EOF):
			r.start = math.MaxInt64
		case err == nil && end > at:
			r.start, r.end = start, end
		}
	}
	w.run = r
	return r
}
