package fuse

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Fallocate makes a range read as zeros, giving its space back where the
// device can (PUNCH_HOLE, ZERO_RANGE), or does nothing where the file's size
// allows (mode 0: a disk of a fixed size has its space by name already).
func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n := f.node(in.NodeId)
	switch {
	case n == nil:
		return statusStale
	case n.dev == nil:
		return fuse.EBADF
	case f.readOnly:
		return fuse.EROFS
	case in.Length == 0 || in.Offset > math.MaxInt64 || in.Length > math.MaxInt64-in.Offset:
		return fuse.EINVAL
	}
	past := in.Offset+in.Length > uint64(n.size)
	switch in.Mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		if past {
			return statusNoSpace
		}
		return fuse.OK
	case unix.FALLOC_FL_ZERO_RANGE:
		if past {
			return statusNoSpace
		}
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		// What lies past the end is a hole already.
		if in.Offset >= uint64(n.size) {
			return fuse.OK
		}
	default:
		return statusNotSupported
	}
	return f.zero(n, int64(in.Offset), min(int64(in.Length), n.size-int64(in.Offset)))
}

// zero makes a range of n read as zeros. A discard would not do: on a
// differencing disk it may show the parent, and a punched hole reads as zeros.
func (f *filesystem) zero(n *node, off, length int64) fuse.Status {
	err := f.slow(forDevice, func() error { return blockdev.WriteZeroes(n.dev, off, length) })
	f.changed(n, off, length)
	if err != nil {
		return f.fail(opZeroing, n, off, length, err)
	}
	return fuse.OK
}
