package blockdevtest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// verifyExtents checks that the extents of [off, off+n) cover the range in
// order and without a gap, and say nothing that the model denies.
func verifyExtents(dev blockdev.Device, m *model, off, n int64) error {
	at := off
	for e, err := range blockdev.Extents(dev, off, n) {
		if err != nil {
			return fmt.Errorf("extents of %d bytes at offset %d: %w", n, off, err)
		}
		if err := verifyExtent(e, m, at, off+n); err != nil {
			return fmt.Errorf("extents of %d bytes at offset %d: %+v: %w", n, off, e, err)
		}
		at = e.End()
	}
	if at != off+n {
		return fmt.Errorf("extents of %d bytes at offset %d end at %d", n, off, at)
	}
	for range blockdev.Extents(dev, off, n) {
		break // a caller that has seen enough
	}
	return nil
}

// verifyExtent checks one extent, which must begin at off and not pass end.
func verifyExtent(e blockdev.Extent, m *model, off, end int64) error {
	switch {
	case e.Offset != off:
		return fmt.Errorf("doesn't begin where the one before it ends, at %d", off)
	case e.Length <= 0 || e.Length > end-off:
		return errors.New("empty, or reaches past the range that was asked for")
	case e.Kind > blockdev.Data:
		return errors.New("of no known kind")
	case e.Kind == blockdev.Hole && (e.Depth != -1 || e.File != ""):
		return errors.New("a hole has no layer and no file")
	case e.Kind != blockdev.Hole && e.Depth < 0:
		return errors.New("held by no layer")
	case e.Kind != blockdev.Data && len(bytes.Trim(m.want[off:e.End()], "\x00")) != 0:
		return errors.New("holds something else than zeros")
	}
	return nil
}

// verifyNowait checks that ReadAtNowait answers as the model does, or not.
func verifyNowait(dev blockdev.Device, m *model, off, n int64) error {
	read := func(p []byte, off int64) (int, error) { return blockdev.ReadAtNowait(dev, p, off) }
	got, err := readExactly(read, off, n)
	if errors.Is(err, blockdev.ErrWouldBlock) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("without waiting: %w", err)
	}
	return compare(got, m.want[off:][:n], off)
}
