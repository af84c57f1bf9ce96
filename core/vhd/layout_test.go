package vhd_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// layout is a sparse image as some other program would lay it out, put
// together byte by byte: the engine's own writing has no part in it.
type layout struct {
	footer *format.Footer // at the end
	copy   *format.Footer // at the start; nil: the same
	header *format.Header
	bat    []uint32
	batAt  int64  // where the BAT is, whatever the header says
	bytes  []byte // everything after the records, by offset in the file
	short  bool   // the footer at the end lacks its last byte
	noEnd  bool   // there is none at the end
}

// newLayout is an empty image: footer, header at 512, BAT at 1536.
func newLayout(kind format.DiskType, size, block int64) *layout {
	l := &layout{
		footer: format.NewFooter(size, kind, time.Unix(1700000000, 0)),
		header: format.NewHeader(size, block),
	}
	l.batAt = int64(l.header.TableOffset)
	l.bat = make([]uint32, l.header.MaxTableEntries)
	for i := range l.bat {
		l.bat[i] = format.UnallocatedBlock
	}
	return l
}

// put places b at off of the file.
func (l *layout) put(off int64, b []byte) {
	if grow := off + int64(len(b)) - int64(len(l.bytes)); grow > 0 {
		l.bytes = append(l.bytes, make([]byte, grow)...)
	}
	copy(l.bytes[off:], b)
}

// block places block b at a sector of the file: its bitmap and its data, which
// is padded with zeros to a whole block.
func (l *layout) block(b int, sector uint32, bitmap format.Bitmap, data []byte) {
	l.bat[b] = sector
	off := int64(sector) * format.SectorSize
	l.put(off, bitmap)
	whole := make([]byte, l.header.BlockSize)
	copy(whole, data)
	l.put(off+l.header.BitmapSize(), whole)
}

// bits is a bitmap with all sectors set, or with those from first on, n of
// them.
func (l *layout) bits(ranges ...int) format.Bitmap {
	bits := make(format.Bitmap, l.header.BitmapSize())
	if len(ranges) == 0 {
		bits.Set(0, int(l.header.BlockSize)/format.SectorSize)
	}
	for i := 0; i < len(ranges); i += 2 {
		bits.Set(ranges[i], ranges[i+1])
	}
	return bits
}

// encode is the file.
func (l *layout) encode() []byte {
	batEnd := l.batAt + format.BATSize(int64(len(l.bat)))
	file := make([]byte, max(batEnd, int64(len(l.bytes))))
	copy(file, l.bytes)
	for i := range file[l.batAt:batEnd] {
		file[l.batAt:][i] = 0xff
	}
	front := l.copy
	if front == nil {
		front = l.footer
	}
	front.Encode(file)
	l.header.Encode(file[l.footer.DataOffset:])
	format.EncodeBAT(file[l.batAt:], l.bat)
	if l.noEnd {
		return file
	}
	var end [format.FooterSize]byte
	l.footer.Encode(end[:])
	if l.short {
		return append(file, end[:format.ShortFooterSize]...)
	}
	return append(file, end[:]...)
}

// write makes the image at name.
func (l *layout) write(t *testing.T, fsys storage.FS, name string) {
	t.Helper()
	writeFile(t, fsys, name, l.encode())
}

func writeFile(t *testing.T, fsys storage.FS, name string, b []byte) {
	t.Helper()
	f, err := fsys.Create(name, 0o600)
	must(t, err)
	_, err = f.WriteAt(b, 0)
	must(t, err)
	must(t, f.Close())
}

// contentOf is the whole of a file.
func contentOf(t *testing.T, fsys storage.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name, 0)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}

func sizeOf(t *testing.T, fsys storage.FS, name string) int64 {
	t.Helper()
	info, err := fsys.Stat(name)
	must(t, err)
	return info.Size
}

// readAll is all that an image shows.
func readAll(t *testing.T, img *vhd.Image) []byte {
	t.Helper()
	b := make([]byte, img.Size())
	_, err := img.ReadAt(b, 0)
	must(t, err)
	return b
}

// sample is a dynamic image of six blocks of 4 KiB, the last of which the disk
// has a sector of; blocks 0, 2 and 3 are allocated, in that order.
func sample() *layout {
	l := newLayout(format.Dynamic, 5*4096+512, 4096)
	for i, b := range []int{0, 2, 3} {
		l.block(b, uint32(7+i*9), l.bits(), sampleContent()[b*4096:][:4096])
	}
	return l
}

// sampleContent is what the sample shows.
func sampleContent() []byte {
	b := noise(5*4096 + 512)
	clear(b[4096 : 2*4096])
	clear(b[4*4096:])
	return b
}
