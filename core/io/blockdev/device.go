// Package blockdev is the waist between what holds a disk and what shows it:
// bytes at an offset, flush, size.
//
// An engine (core/vhd) implements Device; a frontend (frontend/fuse,
// frontend/blktap) consumes it, and neither knows the other. Offsets and
// lengths are bytes, so that a Device composes with the Go library:
//
//	part := io.NewSectionReader(dev, 1<<20, 64<<20) // a partition, to read
//
// Abilities that not every device has (Discarder, ZeroWriter, ExtentMapper,
// NowaitReader, NowaitWriter, Usage) are found by type assertion; the package function of
// the same name falls back where one is missing. A wrapper hides the extras of
// what it wraps unless it forwards them: each wrapper says which it does.
package blockdev

import "io"

// SectorSize is the unit of a Device's size, in bytes.
const SectorSize = 512

// Device is a disk. All methods are safe for concurrent use. Two writes that
// overlap and run at the same time leave, in each sector, the bytes of one or
// the other.
type Device interface {
	// ReadAt fills p from off: the whole range or an error. A range that
	// passes the end is ErrOutOfRange (never a short read), a negative offset
	// too. After Close: ErrClosed.
	io.ReaderAt
	// WriteAt stores p at off: the whole range or an error, after which the
	// range holds any mix of old and new sectors. Errors: ErrOutOfRange,
	// ErrReadOnly, ErrNoSpace, ErrClosed, or one of the device's own.
	io.WriterAt
	// Size is the size in bytes: a positive multiple of SectorSize, constant
	// for the life of the device.
	Size() int64
	// Flush returns once every write acknowledged before the call is on
	// stable storage. After a Flush failed, nothing is known of the writes
	// since the last good one, and the device is read-only.
	Flush() error
	// Close flushes and releases what the device holds. It is idempotent: a
	// second call returns nil and does nothing.
	Close() error
}

// Discarder is a Device that can be told that a range is no longer needed.
type Discarder interface {
	// Discard gives up [off, off+n): each sector that lies in it whole reads
	// afterwards as zeros or, on a differencing disk, as the parent's content,
	// or as before where the device can't let go of it. A sector that lies in
	// it in part is unchanged.
	Discard(off, n int64) error
}

// ZeroWriter is a Device that can store zeros without being handed them.
type ZeroWriter interface {
	// WriteZeroes makes [off, off+n) read as zeros; its space may return.
	WriteZeroes(off, n int64) error
}

// NowaitReader is a Device that can tell whether a read would wait for a disk.
type NowaitReader interface {
	// ReadAtNowait is ReadAt for data that is in memory already. Where it is
	// not, or that can't be known, it returns ErrWouldBlock without waiting;
	// p may then hold anything.
	ReadAtNowait(p []byte, off int64) (int, error)
}

// NowaitWriter is a Device that can tell whether a write would wait for a disk,
// or for others.
type NowaitWriter interface {
	// WriteAtNowait is WriteAt where nothing has to be looked up on the disk, no
	// space found, and the bytes are only handed to a cache; it may have to wait
	// until that has room. Otherwise it returns ErrWouldBlock without waiting,
	// and nothing of the device has changed.
	WriteAtNowait(p []byte, off int64) (int, error)
}

// Usage is a Device that knows how much of itself is backed by storage.
type Usage interface {
	// Allocated is the number of bytes of the device, at most Size, that some
	// layer of it holds. It counts whole allocation blocks.
	Allocated() int64
}

// RangeUsage is a Usage that can count a part of itself, without reading.
type RangeUsage interface {
	// AllocatedIn is the number of bytes in [off, off+n), a range within the
	// device, that some layer of it holds. It counts whole allocation blocks,
	// clipped to the range, and never too few.
	AllocatedIn(off, n int64) int64
}

// CheckRange tells whether [off, off+n) lies within a device of the given
// size; if not, the error wraps ErrOutOfRange and has the numbers.
func CheckRange(size, off, n int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return &RangeError{Offset: off, Length: n, Size: size}
	}
	return nil
}
