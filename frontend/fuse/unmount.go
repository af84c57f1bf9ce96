package fuse

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend"
)

// Unmount takes away what is mounted at mountpoint by this package, in this
// process or another, alive or dead, as umount(8) does; lazy takes it out of
// the directory tree at once and leaves who has it open alone. It flushes
// nothing: a living server's own session does, by Detach. Without the right to
// unmount it asks fusermount3.
//
// Errors: ErrMountpoint where nothing of this package is mounted,
// ErrNoFusermount, or one that wraps frontend.ErrBusy and says who has the
// disk open, where that can be found.
func Unmount(ctx context.Context, mountpoint string, lazy bool) error {
	path, err := absolute(mountpoint)
	if err != nil {
		return badMountpoint(mountpoint, err)
	}
	e, ok, err := mountAt(path)
	if err != nil {
		return err
	}
	switch {
	case !ok:
		return fmt.Errorf("%s: %w: nothing is mounted there", mountpoint, ErrMountpoint)
	case e.fsType != fsType:
		return fmt.Errorf("%s: %w: what is mounted there is %s (%s), not a disk of vhdmount", mountpoint, ErrMountpoint, e.source, e.fsType)
	}
	return unmount(ctx, e, lazy)
}

// unmount takes away the topmost mount at e.point, which is e.
func unmount(ctx context.Context, e mountEntry, lazy bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	who, err := retryBusy(ctx, func() error {
		err := unix.Unmount(e.point, flags)
		if errors.Is(err, unix.EPERM) {
			err = fusermountUnmount(ctx, e.point, lazy)
		}
		return err
	}, func() []string { return holders(e) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w%s", e.point, frontend.ErrBusy, by(who))
	}
	return fmt.Errorf("%s: unmount: %w", e.point, err)
}

const (
	// busyPatience is for how long a disk in use by nobody who can be found is
	// tried again: its last user has just closed it, or has forked and not
	// begun its program yet.
	busyPatience = 100 * time.Millisecond
	busyPause    = 10 * time.Millisecond // between attempts
)

// retryBusy unmounts by try, again while that is EBUSY and there are no
// holders, within busyPatience. If it is EBUSY still, who are the holders.
func retryBusy(ctx context.Context, try func() error, holders func() []string) (who []string, err error) {
	patience, cancel := context.WithTimeout(ctx, busyPatience)
	defer cancel()
	pause := time.NewTicker(busyPause)
	defer pause.Stop()
	for {
		if err = try(); !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
		if who = holders(); len(who) > 0 || patience.Err() != nil {
			return who, err
		}
		select {
		case <-pause.C:
		case <-patience.Done():
		}
	}
}

// by says who has a disk open.
func by(who []string) string {
	if len(who) == 0 {
		return ""
	}
	return ": open in " + strings.Join(who, ", ")
}

// fusermountUnmount unmounts with the set-user-ID program.
func fusermountUnmount(ctx context.Context, path string, lazy bool) error {
	program, err := fusermountProgram()
	if err != nil {
		return err
	}
	args := []string{"-u", "--", path}
	if lazy {
		args = append([]string{"-z"}, args...)
	}
	err = run(exec.CommandContext(ctx, program, args...))
	if err != nil && strings.HasSuffix(err.Error(), "Device or resource busy") {
		return unix.EBUSY
	}
	return err
}
