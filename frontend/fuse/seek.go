package fuse

import (
	"syscall"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// calledData is how much counts as data, at most, where a search for data gave
// up, in bytes: enough that its caller gets on, little enough to copy.
const calledData = 1 << 20

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
