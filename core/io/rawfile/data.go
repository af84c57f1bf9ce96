package rawfile

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
)

// zeroChunk is how much is written at once where a range can't become a hole,
// in bytes.
const zeroChunk = 64 << 10

var zeros [zeroChunk]byte

// errTruncated is a file that somebody cut since it was opened.
var errTruncated = errors.New("the file was cut short since it was opened")

// ReadAt implements blockdev.Device.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.gate.RUnlock()
	return d.whole(p, off, d.file.ReadAt)
}

// ReadAtNowait implements blockdev.NowaitReader.
func (d *Device) ReadAtNowait(p []byte, off int64) (int, error) {
	file, ok := d.file.(storage.NowaitReaderAt)
	if !ok {
		return 0, blockdev.ErrWouldBlock
	}
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.gate.RUnlock()
	return d.whole(p, off, file.ReadAtNowait)
}

// whole reads all of p, or says why not.
func (d *Device) whole(p []byte, off int64, read func([]byte, int64) (int, error)) (int, error) {
	n, err := read(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = d.wrap(fmt.Errorf("%d bytes at offset %d: %w", len(p), off, errTruncated))
	}
	return 0, translate(err)
}

// WriteAt implements blockdev.Device.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.enterWrite(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.gate.RUnlock()
	if n, err := d.file.WriteAt(p, off); err != nil {
		return n, translate(err)
	}
	return len(p), nil
}

// WriteAtNowait implements blockdev.NowaitWriter.
func (d *Device) WriteAtNowait(p []byte, off int64) (int, error) {
	file, ok := d.file.(storage.NowaitWriterAt)
	if !ok {
		return 0, blockdev.ErrWouldBlock
	}
	if err := d.enterWrite(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.gate.RUnlock()
	if n, err := file.WriteAtNowait(p, off); err != nil {
		return n, translate(err)
	}
	return len(p), nil
}

// Discard implements blockdev.Discarder: a hole is punched. A file system that
// has none keeps the bytes.
func (d *Device) Discard(off, n int64) error {
	if err := d.enterWrite(off, n); err != nil {
		return err
	}
	defer d.gate.RUnlock()
	first := (off + blockdev.SectorSize - 1) &^ (blockdev.SectorSize - 1)
	end := (off + n) &^ (blockdev.SectorSize - 1)
	if first >= end {
		return nil
	}
	_, err := d.punch(first, end-first)
	return err
}

// WriteZeroes implements blockdev.ZeroWriter: by a hole, or by zeros where the
// file system has none.
func (d *Device) WriteZeroes(off, n int64) error {
	if err := d.enterWrite(off, n); err != nil {
		return err
	}
	defer d.gate.RUnlock()
	if done, err := d.punch(off, n); done || err != nil {
		return err
	}
	for n > 0 {
		c := min(n, zeroChunk)
		if _, err := d.file.WriteAt(zeros[:c], off); err != nil {
			return translate(err)
		}
		off, n = off+c, n-c
	}
	return nil
}

// punch makes a range a hole, and tells whether it could. The gate is held.
func (d *Device) punch(off, n int64) (bool, error) {
	err := d.file.PunchHole(off, n)
	if errors.Is(err, storage.ErrNotSupported) {
		return false, nil
	}
	return err == nil, translate(err)
}

// Extents implements blockdev.ExtentMapper. A file that doesn't know of holes
// is data.
func (d *Device) Extents(off, n int64) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		err := blockdev.CheckRange(d.size, off, n)
		for end := off + n; err == nil && off < end; {
			var e blockdev.Extent
			if e, err = d.extent(off, end); err != nil {
				break
			}
			if !yield(e, nil) {
				return
			}
			off = e.End()
		}
		if err != nil {
			yield(blockdev.Extent{}, err)
		}
	}
}

// extent is the first one of [off, end). Where the file can't tell, it is data.
func (d *Device) extent(off, end int64) (blockdev.Extent, error) {
	if err := d.enter(off, end-off); err != nil {
		return blockdev.Extent{}, err
	}
	defer d.gate.RUnlock()
	start, stop := off, end
	if finder, ok := d.file.(storage.HoleFinder); ok {
		from, to, err := finder.NextData(off)
		switch {
		case errors.Is(err, io.EOF):
			start = end
		case err == nil && to > off:
			start, stop = min(from, end), min(to, end)
		}
	}
	if start > off {
		return blockdev.Extent{Offset: off, Length: start - off, Kind: blockdev.Hole, Depth: -1}, nil
	}
	return blockdev.Extent{Offset: off, Length: stop - off, Kind: blockdev.Data, File: d.file.Name(), FileOffset: off}, nil
}

// renamed is err, which is also as.
type renamed struct{ as, err error }

func (e *renamed) Error() string   { return e.err.Error() }
func (e *renamed) Unwrap() []error { return []error{e.as, e.err} }

// translate gives storage's sentinels their blockdev names, so that a frontend
// needs to know blockdev alone.
func translate(err error) error {
	for _, t := range [...]struct{ storage, blockdev error }{
		{storage.ErrNoSpace, blockdev.ErrNoSpace},
		{storage.ErrReadOnly, blockdev.ErrReadOnly},
		{storage.ErrWouldBlock, blockdev.ErrWouldBlock},
	} {
		if errors.Is(err, t.storage) {
			return &renamed{t.blockdev, err}
		}
	}
	return err
}
