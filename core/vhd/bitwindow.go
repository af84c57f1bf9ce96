package vhd

import "github.com/vhdmount/vhdmount/core/vhd/format"

const (
	// bitsWindow is how many bytes of a file are read at once where bitmaps
	// follow close upon one another: those of small blocks, which can be millions.
	bitsWindow = 64 << 10
	// bitsNear is how close, in bytes: what lies between is read for nothing.
	bitsNear = 4 << 10
)

// bitWindow is the piece of a file in which bitmaps were read last, for one who
// goes through a layer that nobody writes to.
type bitWindow struct {
	at   int64 // bytes from the start of the file
	b    []byte
	last int64 // where the last one was
}

// read is bytes [from, to) of the sector bitmap of block b of l, always the same
// layer, as layer.readBits reads them. They are good until the next call.
func (w *bitWindow) read(l *layer, b int64, sector uint32, from, to int64) (format.Bitmap, error) {
	if l.footer.LittleEndianBitmaps() {
		return l.readBits(b, sector, from, to)
	}
	off, size := l.blocks.bitmapOffset(sector)+from, to-from
	near := w.b != nil && off >= w.last && off-w.last <= bitsNear
	w.last = off
	if off < w.at || off+size > w.at+int64(len(w.b)) {
		n := size
		if near {
			n = max(size, min(bitsWindow, l.footerStart()-off))
		}
		if int64(cap(w.b)) < n {
			w.b = make([]byte, n)
		}
		w.at, w.b = off, w.b[:n]
		if got, _ := l.file.ReadAt(w.b, off); int64(got) < n {
			w.b = w.b[:0]
			return l.readBits(b, sector, from, to) // which says what is wrong, and where
		}
	}
	return format.Bitmap(w.b[off-w.at:][:size]), nil
}
