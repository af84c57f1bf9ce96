package blockdev

import (
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
)

// Section is a Device that is a range of another, as a partition is one of a
// disk. It is safe for concurrent use where its parent is, and the parent may
// be used beside it.
//
// It forwards every optional ability with its offsets translated, and falls
// back as the package functions do where the parent lacks one: Discarder
// (keeps the bytes), ZeroWriter (writes zeros), ExtentMapper (one Data extent;
// Extent.Offset is the section's, Extent.FileOffset stays the file's),
// NowaitReader and NowaitWriter (ErrWouldBlock) and Usage. RangeUsage it uses
// and does not forward.
//
// Close flushes and ends the section; the parent stays open. Close every
// section before its parent.
type Section struct {
	dev    Device
	off, n int64
	closed atomic.Bool
}

var (
	_ Device       = (*Section)(nil)
	_ Discarder    = (*Section)(nil)
	_ ZeroWriter   = (*Section)(nil)
	_ ExtentMapper = (*Section)(nil)
	_ NowaitReader = (*Section)(nil)
	_ NowaitWriter = (*Section)(nil)
	_ Usage        = (*Section)(nil)
)

// NewSection returns the section [off, off+n) of dev. Both must be multiples
// of SectorSize and n positive; a range that doesn't lie within dev is
// ErrOutOfRange.
func NewSection(dev Device, off, n int64) (*Section, error) {
	if err := CheckRange(dev.Size(), off, n); err != nil {
		return nil, fmt.Errorf("section: %w", err)
	}
	if n == 0 || off%SectorSize != 0 || n%SectorSize != 0 {
		return nil, fmt.Errorf("section of %d bytes at offset %d: not whole sectors of %d bytes", n, off, SectorSize)
	}
	return &Section{dev: dev, off: off, n: n}, nil
}

// ReadAt implements Device.
func (s *Section) ReadAt(p []byte, off int64) (int, error) {
	if err := s.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return s.dev.ReadAt(p, s.off+off)
}

// WriteAt implements Device.
func (s *Section) WriteAt(p []byte, off int64) (int, error) {
	if err := s.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return s.dev.WriteAt(p, s.off+off)
}

// Size implements Device: the section's length in bytes.
func (s *Section) Size() int64 { return s.n }

// Flush implements Device. It flushes the whole parent.
func (s *Section) Flush() error {
	if err := s.check(0, 0); err != nil {
		return err
	}
	return s.dev.Flush()
}

// Close implements Device: it flushes the parent, which stays open. A parent
// that is closed already was flushed by that.
func (s *Section) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if err := s.dev.Flush(); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// Discard implements Discarder.
func (s *Section) Discard(off, n int64) error {
	if err := s.check(off, n); err != nil {
		return err
	}
	_, err := Discard(s.dev, s.off+off, n)
	return err
}

// WriteZeroes implements ZeroWriter.
func (s *Section) WriteZeroes(off, n int64) error {
	if err := s.check(off, n); err != nil {
		return err
	}
	return WriteZeroes(s.dev, s.off+off, n)
}

// Extents implements ExtentMapper.
func (s *Section) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if err := s.check(off, n); err != nil {
			yield(Extent{}, err)
			return
		}
		for e, err := range Extents(s.dev, s.off+off, n) {
			if err == nil {
				e.Offset -= s.off
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// ReadAtNowait implements NowaitReader.
func (s *Section) ReadAtNowait(p []byte, off int64) (int, error) {
	if err := s.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return ReadAtNowait(s.dev, p, s.off+off)
}

// WriteAtNowait implements NowaitWriter.
func (s *Section) WriteAtNowait(p []byte, off int64) (int, error) {
	if err := s.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return WriteAtNowait(s.dev, p, s.off+off)
}

// Allocated implements Usage: AllocatedIn of the parent.
func (s *Section) Allocated() int64 { return AllocatedIn(s.dev, s.off, s.n) }

// check is the state and the range that every access needs.
func (s *Section) check(off, n int64) error {
	if s.closed.Load() {
		return ErrClosed
	}
	return CheckRange(s.n, off, n)
}
