package fuse

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// maxSeekExtents bounds the work of one Lseek, in extents.
const maxSeekExtents = 1 << 16

// calledData is how much counts as data, at most, where a search for data gave
// up, in bytes: enough that its caller gets on, little enough to copy.
const calledData = 1 << 20

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
		return f.fail(opSeeking, n, s.off, 0, err)
	}
	if h != nil && s.gaveUp && !s.hole {
		h.dataAt.Store(s.found)
	}
	out.Offset = uint64(s.found)
	return fuse.OK
}

// seek is one search for data or a hole in a device.
type seek struct {
	hole      bool // what is looked for
	off, size int64
	skip      bool // off was called data, whatever it is
	cancel    <-chan struct{}

	found  int64
	gaveUp bool // before the answer was known
}

// run looks through the extents from s.off. ENXIO: no data comes any more;
// EINTR: the client gave up.
func (s *seek) run(dev blockdev.Device) error {
	seen := 0
	for e, err := range blockdev.Extents(dev, s.off, s.size-s.off) {
		if err != nil {
			return err
		}
		if hole := e.Kind != blockdev.Data; hole == s.hole {
			s.found = e.Offset
			if s.skip && seen == 0 {
				s.found = min(e.End(), s.off+calledData)
			}
			return nil
		}
		if seen++; seen == maxSeekExtents {
			return s.giveUp(e.End())
		}
		if seen%1024 == 0 && s.cancelled() {
			return syscall.EINTR
		}
	}
	if !s.hole {
		return syscall.ENXIO
	}
	s.found = s.size // every file ends in a hole
	return nil
}

// giveUp ends a search that took too long at off, up to where there is no
// answer. For a hole that is the truth as far as anybody copies: the data goes
// on there.
func (s *seek) giveUp(off int64) error {
	if off == s.size && !s.hole {
		return syscall.ENXIO
	}
	s.found, s.gaveUp = off, true
	return nil
}

func (s *seek) cancelled() bool {
	select {
	case <-s.cancel:
		return true
	default:
		return false
	}
}
