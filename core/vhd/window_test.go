package vhd_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// window is a part of a disk that is looked at.
type window struct {
	off   int64 // bytes, a multiple of 512
	want  []byte
	known []bool // by sector: it can be read
}

// wholeDisk is the size up to which a disk is looked at whole, in bytes, and
// windowSize what is looked at of a larger one at a time.
const (
	wholeDisk  = 48 << 10
	windowSize = 4 << 10
)

// windowsOf are the whole of a small disk; of a large one both ends, the
// middle, and around where blocks meet.
func windowsOf(img *vhd.Image) []*window {
	size := img.Size()
	if size <= wholeDisk {
		return []*window{newWindow(0, size)}
	}
	offsets := []int64{0, size/2&^(windowSize-1) + 512, size - windowSize}
	if h := img.Layers()[0].Header; h != nil {
		offsets = append(offsets, int64(h.BlockSize)-windowSize/2, (size-1)/int64(h.BlockSize)*int64(h.BlockSize)-windowSize/2)
	}
	var list []*window
	for _, off := range offsets {
		if off = off &^ 511; off >= 0 && off <= size-windowSize && !overlaps(list, off) {
			list = append(list, newWindow(off, windowSize))
		}
	}
	return list
}

func newWindow(off, n int64) *window {
	return &window{off, make([]byte, n), make([]bool, n/512)}
}

func overlaps(list []*window, off int64) bool {
	for _, w := range list {
		if off < w.off+int64(len(w.want)) && w.off < off+windowSize {
			return true
		}
	}
	return false
}

func (w *window) sector(i int) []byte { return w.want[i*512:][:512] }

// learn reads the window, sector by sector and then at once.
func (w *window) learn(t *testing.T, img *vhd.Image) {
	t.Helper()
	all := true
	for i := range w.known {
		_, err := img.ReadAt(w.sector(i), w.off+int64(i)*512)
		w.known[i] = err == nil
		all = all && err == nil
	}
	whole := make([]byte, len(w.want))
	if _, err := img.ReadAt(whole, w.off); (err == nil) != all || all && !bytes.Equal(whole, w.want) {
		t.Fatalf("%d bytes at %d: %v; sector by sector it is readable: %v", len(whole), w.off, err, all)
	}
}

// change writes, zeroes or discards a part of the window. What becomes of a
// part that could not be changed is not known.
func (w *window) change(img *vhd.Image, random *rand.Rand) {
	from := random.IntN(len(w.want))
	n := 1 + random.IntN(min(len(w.want)-from, 6000))
	if random.IntN(2) == 0 {
		from, n = from&^511, min((n+511)&^511, len(w.want)-from&^511)
	}
	first, last := from/512, (from+n-1)/512
	part := w.want[from:][:n]
	off := w.off + int64(from)
	var err error
	switch random.IntN(4) {
	case 0:
		err = img.WriteZeroes(off, int64(n))
		clear(part)
	case 1:
		if err = img.Discard(off, int64(n)); err != nil {
			break
		}
		w.relearn(img, first, last)
		return
	default:
		for i := range part {
			part[i] = byte(random.Uint32())
		}
		_, err = img.WriteAt(part, off)
	}
	for i := first; i <= last; i++ {
		whole := i*512 >= from && (i+1)*512 <= from+n
		w.known[i] = err == nil && (w.known[i] || whole)
	}
}

// relearn reads sectors whose content a discard leaves to the chain.
func (w *window) relearn(img *vhd.Image, first, last int) {
	for i := first; i <= last; i++ {
		_, err := img.ReadAt(w.sector(i), w.off+int64(i)*512)
		w.known[i] = err == nil
	}
}

// byRecords is what the sector at off of a chain's disk is by the records as
// they are in the files; false where they lead out of a file. It trusts what
// is not looked at here: which layers there are, and their headers.
func (c *trial) byRecords(chain []vhd.Layer, off int64) ([]byte, bool) {
	zeros := make([]byte, 512)
	for i, l := range chain {
		if off >= l.Size {
			return zeros, true
		}
		at, data := off, true
		switch l.Kind {
		case vhd.KindDynamic, vhd.KindDifferencing:
			if at, data = c.locate(l, off); at < 0 {
				return nil, false
			}
		}
		if data {
			return c.bytesAt(l.Name, at, 512)
		}
		if l.Kind == vhd.KindDynamic || i == len(chain)-1 {
			return zeros, true
		}
	}
	return zeros, true
}

// locate is where a sparse layer has the sector at off, if it has; -1 where
// its records lead out of the file.
func (c *trial) locate(l vhd.Layer, off int64) (at int64, ok bool) {
	size := int64(l.Header.BlockSize)
	b, in := off/size, off%size
	raw, ok := c.bytesAt(l.Name, int64(l.Header.TableOffset)+4*b, 4)
	if !ok {
		return -1, false
	}
	var entry [1]uint32
	format.DecodeBAT(entry[:], raw)
	if entry[0] == format.UnallocatedBlock {
		return 0, false
	}
	start := int64(entry[0]) * 512
	bitmap, ok := c.bytesAt(l.Name, start, l.Header.BitmapSize())
	if !ok {
		return -1, false
	}
	if l.Footer.LittleEndianBitmaps() {
		format.Bitmap(bitmap).ReverseBits()
	}
	set := format.Bitmap(bitmap).Get(int(in / 512))
	return start + l.Header.BitmapSize() + in, set || l.Batmap && c.calledWhole(l, b)
}

// calledWhole tells whether the batmap calls block b whole.
func (c *trial) calledWhole(l vhd.Layer, b int64) bool {
	raw, ok := c.bytesAt(l.Name, int64(l.Header.TableOffset)+format.BATSize(int64(l.Header.MaxTableEntries)), 512)
	if !ok {
		return false
	}
	h, err := format.DecodeBatmapHeader(raw)
	if err != nil || b/8 >= format.BatmapSectors(int64(l.Footer.CurrentSize))*512 {
		return false
	}
	bits, ok := c.bytesAt(l.Name, int64(h.Offset)+b/8, 1)
	return ok && format.Bitmap(bits).Get(int(b%8))
}

// bytesAt is n bytes of a file; false where they pass its end.
func (c *trial) bytesAt(name string, off, n int64) ([]byte, bool) {
	f, err := c.fsys.Open(name, 0)
	must(c.t, err)
	defer f.Close()
	b := make([]byte, n)
	_, err = f.ReadAt(b, off)
	return b, err == nil
}
