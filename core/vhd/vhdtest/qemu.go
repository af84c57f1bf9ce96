package vhdtest

import (
	"errors"
	"io"
	"slices"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// qemu reads images as qemu does, one after another.
type qemu struct {
	record  [format.HeaderSize]byte
	entries []byte
	bat     []uint32
	content []byte
}

// reads is the tags that qemu reads of an image; of one that is not for qemu,
// what the engine reads.
func (q *qemu) reads(fsys storage.FS, image string, engine []Tag) (tags []Tag, err error) {
	f, err := fsys.Open(image, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	ok, err := q.read(f, len(engine))
	if err != nil || !ok {
		return engine, err
	}
	if tags, err = Decode(q.content); err != nil {
		return nil, &ruleError{5, "as qemu reads it: " + err.Error()}
	}
	return tags, nil
}

// read leaves in content what qemu reads of a dynamic disk: it goes by the BAT
// alone, never looking at a bitmap. (It takes the footer at the start; the one
// at the end is for what it would read once that is mended.) ok is false for
// any other image.
func (q *qemu) read(f storage.File, sectors int) (ok bool, err error) {
	size, err := f.Size()
	if err != nil || size < format.FooterSize+format.HeaderSize {
		return false, err
	}
	footer, err := q.footer(f, 0)
	if footer == nil && err == nil {
		footer, err = q.footer(f, size-format.FooterSize)
	}
	if err != nil || footer == nil || footer.Type != format.Dynamic || footer.DataOffset > uint64(size-format.HeaderSize) {
		return false, err
	}
	if err := readSome(f, q.record[:], int64(footer.DataOffset)); err != nil {
		return false, err
	}
	header, err := format.DecodeHeader(q.record[:])
	if err != nil {
		return false, nil
	}
	n := int(header.MaxTableEntries)
	if end := size - 4*int64(n); end < 0 || header.TableOffset > uint64(end) {
		return false, nil
	}
	q.entries, q.bat = slices.Grow(q.entries[:0], 4*n)[:4*n], slices.Grow(q.bat[:0], n)[:n]
	if err := readSome(f, q.entries, int64(header.TableOffset)); err != nil {
		return false, err
	}
	format.DecodeBAT(q.bat, q.entries)
	q.content = slices.Grow(q.content[:0], sectors*format.SectorSize)[:sectors*format.SectorSize]
	return true, q.blocks(f, header)
}

// footer is the one at an offset, nil if none is there.
func (q *qemu) footer(f storage.File, off int64) (*format.Footer, error) {
	b := q.record[:format.FooterSize]
	if err := readSome(f, b, off); err != nil {
		return nil, err
	}
	footer, err := format.DecodeFooter(b)
	if err != nil {
		return nil, nil
	}
	return footer, nil
}

// blocks reads what bat leads to.
func (q *qemu) blocks(f storage.File, header *format.Header) error {
	clear(q.content)
	for block, sector := range q.bat {
		to := block * int(header.BlockSize)
		if sector == format.UnallocatedBlock || to >= len(q.content) {
			continue
		}
		from := int64(sector)*format.SectorSize + header.BitmapSize()
		if err := readSome(f, q.content[to:min(len(q.content), to+int(header.BlockSize))], from); err != nil {
			return err
		}
	}
	return nil
}

// readSome reads as much of p as the file has.
func readSome(f storage.File, p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	if err == io.EOF {
		return nil
	}
	return err
}
