package fuse

import (
	"errors"
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Read fills buf, which is the reply itself, and is short at the end only.
func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.node(in.NodeId)
	if n == nil {
		return nil, statusStale
	}
	if n.dev == nil {
		return f.readInfo(in, buf)
	}
	if in.Offset >= uint64(n.size) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	off := int64(in.Offset)
	p := buf[:min(int64(len(buf)), n.size-off)]
	if err := f.read(n, p, off); err != nil {
		return nil, f.fail("read", n, off, int64(len(p)), err)
	}
	return fuse.ReadResultData(p), fuse.OK
}

// muchData is from how many bytes on a request takes so long to copy that
// another thread is worth its wake-up.
const muchData = 128 << 10

// read fills p without waiting if it can, and has another thread answer while
// it waits otherwise.
func (f *filesystem) read(n *node, p []byte, off int64) (err error) {
	if len(p) < muchData {
		_, err = blockdev.ReadAtNowait(n.dev, p, off)
	} else {
		err = f.slow(forCopy, func() error {
			_, err := blockdev.ReadAtNowait(n.dev, p, off)
			return err
		})
	}
	if err == nil || !errors.Is(err, blockdev.ErrWouldBlock) {
		return err
	}
	return f.slow(forDevice, func() error {
		_, err := n.dev.ReadAt(p, off)
		return err
	})
}

func (f *filesystem) readInfo(in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := f.handle(in.Fh)
	if h == nil || h.node.id != infoNode {
		return nil, fuse.EBADF
	}
	rest := h.content[min(in.Offset, uint64(len(h.content))):]
	return fuse.ReadResultData(buf[:copy(buf, rest)]), fuse.OK
}

// Write stores data. As on a block device, a write across the end is short and
// one past it is ENOSPC.
func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := f.node(in.NodeId)
	switch {
	case n == nil:
		return 0, statusStale
	case n.dev == nil:
		return 0, fuse.EBADF
	case f.readOnly:
		return 0, fuse.EROFS
	case len(data) == 0:
		return 0, fuse.OK
	case in.Offset >= uint64(n.size):
		return 0, statusNoSpace
	}
	off := int64(in.Offset)
	data = data[:min(int64(len(data)), n.size-off)]
	err := f.write(n, data, off)
	f.changed(n, off, int64(len(data))) // after an error too: some of it may be there
	if err != nil {
		return 0, f.fail("write", n, off, int64(len(data)), err)
	}
	return uint32(len(data)), fuse.OK
}

// write stores data. A short one goes to the page cache as a rule and is not
// worth a hand-over: the transport notices the one that waits.
func (f *filesystem) write(n *node, data []byte, off int64) (err error) {
	if len(data) < muchData {
		_, err = n.dev.WriteAt(data, off)
		return err
	}
	return f.slow(forDevice, func() error {
		_, err := n.dev.WriteAt(data, off)
		return err
	})
}

// changed notes that [off, off+length) of n may hold something else now.
func (f *filesystem) changed(n *node, off, length int64) {
	f.modified.Store(time.Now().UnixNano())
	if !f.single && !f.tableDirty.Load() {
		f.tableDirty.Store(true)
	}
	// Loaded after the write: a file opened since then reads what was written.
	if s := n.siblings.Load(); s != nil {
		f.invalidate(*s, n.off+off, length)
	}
}

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
		return f.fail("fallocate", n, off, length, err)
	}
	return fuse.OK
}

// Ioctl knows none: the file is no block device, and programs that ask whether
// it is must be told that it isn't.
func (f *filesystem) Ioctl(_ <-chan struct{}, _ *fuse.IoctlIn, _ []byte, _ *fuse.IoctlOut, _ []byte) fuse.Status {
	return statusNotTTY
}

// maxSeekExtents bounds the work of one Lseek, in extents.
const maxSeekExtents = 1 << 16

// Lseek finds data or a hole; what is known to be zeros counts as a hole. A
// search over more than maxSeekExtents extents ends early: SEEK_DATA then
// calls the place it came to data, which costs its caller a look at zeros, and
// SEEK_HOLE calls it a hole only where it is one.
func (f *filesystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n := f.node(in.NodeId)
	switch {
	case n == nil:
		return statusStale
	case in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE:
		return fuse.EINVAL
	case n.dev == nil:
		return statusNotSupported
	case in.Offset >= uint64(n.size):
		return statusNXIO
	}
	s := seek{hole: in.Whence == unix.SEEK_HOLE, off: int64(in.Offset), size: n.size, cancel: cancel}
	h := f.handle(in.Fh)
	if h != nil && s.hole && h.dataAt.Load() == s.off {
		s.skip = true
	}
	err := f.slow(forDevice, func() error { return s.run(n.dev) })
	switch {
	case errors.Is(err, syscall.ENXIO):
		return statusNXIO
	case errors.Is(err, syscall.EINTR):
		return fuse.EINTR
	case err != nil:
		return f.fail("lseek", n, s.off, 0, err)
	}
	if h != nil && s.gaveUp && !s.hole {
		h.dataAt.Store(s.found)
	}
	out.Offset = uint64(s.found)
	return fuse.OK
}
