package fuse

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend"
)

// Place is a mount in the kernel's mount table: what another process has to
// know to take it away.
type Place struct {
	ID     string // the mount's number
	Device string // MAJOR:MINOR
	Point  string // the mount point, absolute
	Disk   string // the file that is the disk, absolute
}

// Unmounter unmounts in a session's stead. Its methods are safe for concurrent
// use.
type Unmounter interface {
	// Unmount takes the mount away; lazy takes it out of the directory tree
	// at once and leaves who has it open alone. A mount in use is
	// frontend.ErrBusy; one that is gone already is no error.
	Unmount(ctx context.Context, lazy bool) error
	// Uses says who uses the mount after it was taken out of sight, as the
	// end of a sentence.
	Uses(ctx context.Context) string
}

// Delegator is a session that another process can unmount for: the sessions
// of this package are. A process that has given up its rights can neither
// unmount nor see who keeps a mount busy.
type Delegator interface {
	frontend.Session
	// Place is the session's mount.
	Place() Place
	// Delegate has u unmount from here on.
	Delegate(u Unmounter)
}

var _ Delegator = (*session)(nil)

var _ Unmounter = Place{}

// Unmount implements Unmounter in this process: it takes this mount away, and
// nothing that is mounted over it.
func (p Place) Unmount(ctx context.Context, lazy bool) error {
	e, ok, err := mountAt(p.Point)
	switch {
	case err != nil:
		return err
	case !ok:
		return nil
	case e.id != p.ID:
		return fmt.Errorf("%s: %w: %s (%s) is mounted over it", e.point, frontend.ErrBusy, e.source, e.fsType)
	}
	return unmount(ctx, e, lazy)
}

// Uses implements Unmounter in this process.
func (p Place) Uses(context.Context) string {
	return usesOutOfSight(mountEntry{id: p.ID, device: p.Device, point: p.Point, fsType: fsType})
}

// Settle opens the disk once, from where the kernel knows its size, and polls it,
// so that the kernel learns that there is nothing to poll and never asks again:
// Go's runtime polls each file that it opens in a call that keeps the processor,
// and if the server opened its own disk, no thread might be left to answer.
//
// It is better called by a process that is not the server. A thread of a server
// that is killed while it waits for its own answer can't end, nor let go of the
// connection, whose end it waits for: the server, its mount and its locks stay
// until somebody cuts the connection (umount -f).
func (p Place) Settle() {
	var st unix.Stat_t
	_ = unix.Stat(p.Disk, &st) // the kernel learns the size of a disk that is the root
	fd, err := unix.Open(p.Disk, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // not even its owner may read it: then it can't be polled either
	}
	defer unix.Close(fd)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
}

// Place implements Delegator.
func (s *session) Place() Place {
	return Place{ID: s.mount.id, Device: s.mount.device, Point: s.mount.point, Disk: s.path}
}

// Delegate implements Delegator.
func (s *session) Delegate(u Unmounter) { s.delegate.Store(&u) }

// unmounter is who unmounts for this session: the session itself, before
// Delegate.
func (s *session) unmounter() Unmounter {
	if u := s.delegate.Load(); u != nil {
		return *u
	}
	return s.Place()
}
