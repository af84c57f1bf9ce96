package blktap

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Available tells whether this process may show disks through the running
// kernel's module: nil, or ErrNoModule, or an error that wraps
// fs.ErrPermission. It changes nothing.
func Available() error { return (&system{dir: systemDir, proc: systemProc}).available() }

func (y *system) available() error {
	if _, err := y.controlMinor(); err != nil {
		return err
	}
	name := filepath.Join(y.dir, "control")
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		// Allocate makes the node anew, if it may.
		if unix.Geteuid() == 0 {
			return nil
		}
	}
	return &fs.PathError{Op: "open", Path: name, Err: err}
}
