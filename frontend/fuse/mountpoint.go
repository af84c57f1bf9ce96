package fuse

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// mountpoint is a place that a disk can be shown at.
type mountpoint struct {
	path string // absolute, without symbolic links
	file bool   // a regular file, not a directory
}

// findMountpoint checks that a disk can be shown at name.
func findMountpoint(name string) (mountpoint, error) {
	if name == "" {
		return mountpoint{}, fmt.Errorf("%w: none given", ErrMountpoint)
	}
	path, err := absolute(name)
	if err != nil {
		return mountpoint{}, badMountpoint(name, err)
	}
	switch e, ok, err := mountAt(path); {
	case err != nil:
		return mountpoint{}, err
	case ok && dead(path):
		return mountpoint{}, badMountpoint(name, syscall.ENOTCONN)
	case ok:
		return mountpoint{}, fmt.Errorf("%s: %w: %s (%s) is mounted there", name, ErrMountpoint, e.source, e.fsType)
	}
	info, err := os.Stat(path)
	if err != nil {
		return mountpoint{}, badMountpoint(name, err)
	}
	switch {
	case info.Mode().IsRegular():
		return mountpoint{path: path, file: true}, nil
	case !info.IsDir():
		return mountpoint{}, fmt.Errorf("%s: %w: neither a directory nor a regular file", name, ErrMountpoint)
	}
	if err := checkEmpty(path); err != nil {
		return mountpoint{}, fmt.Errorf("%s: %w: %w", name, ErrMountpoint, err)
	}
	return mountpoint{path: path}, nil
}

// dead tells whether the server of what is mounted at path has died. A look at
// its attributes would not: the kernel goes on believing those that it has. One
// that died before it was handed the question is ECONNABORTED.
func dead(path string) bool {
	var st syscall.Statfs_t
	err := syscall.Statfs(path, &st)
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// badMountpoint is the error for a mount point that can't be looked at.
func badMountpoint(name string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s: %w: %w", name, ErrMountpoint, err)
	}
	if errno == syscall.ENOTCONN {
		return fmt.Errorf("%s: %w: a mount whose server died is there; unmount it first", name, ErrMountpoint)
	}
	return fmt.Errorf("%s: %w: %w", name, ErrMountpoint, errno)
}

var errNotEmpty = errors.New("the directory is not empty")

func checkEmpty(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	switch _, err := d.Readdirnames(1); err {
	case io.EOF:
		return nil
	case nil:
		return errNotEmpty
	default:
		return err
	}
}

// absolute is name as the mount table has it. The last component is resolved
// only if it can be: a mount whose server died answers nothing.
func absolute(name string) (string, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return real, err
	}
	dir, dirErr := filepath.EvalSymlinks(filepath.Dir(path))
	if dirErr != nil {
		return "", dirErr
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}
