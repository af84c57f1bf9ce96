package storage

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// sysError is an errno that callers branch on by a sentinel.
type sysError struct {
	kind  error // one of this package's sentinels
	errno unix.Errno
}

func (e *sysError) Error() string   { return e.errno.Error() }
func (e *sysError) Unwrap() []error { return []error{e.kind, e.errno} }

// kindError is something that isn't a regular file. It unwraps to
// ErrNotRegular.
type kindError struct {
	what string // "a directory"
}

func (e *kindError) Error() string { return "is " + e.what + ", not a regular file" }
func (e *kindError) Unwrap() error { return ErrNotRegular }

// sentinel is this package's word for errno, nil where it has none (the fs
// package's ones are found through unix.Errno itself).
func sentinel(errno unix.Errno) error {
	switch errno {
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		return ErrNoSpace // EFBIG: the process's limit (RLIMIT_FSIZE) or the file system's
	case unix.EROFS, unix.EBADF:
		return ErrReadOnly // EBADF: not open for writing
	case unix.EOPNOTSUPP, unix.ENOSYS:
		return ErrNotSupported
	case unix.EISDIR, unix.ELOOP, unix.ENXIO:
		return ErrNotRegular // of open alone: a directory, a link under O_NOFOLLOW, a socket
	}
	return nil
}

// mapped is err with the sentinel for it, where it is an errno that has one.
func mapped(err error) error {
	errno, ok := err.(unix.Errno)
	if !ok {
		return err
	}
	if kind := sentinel(errno); kind != nil {
		return &sysError{kind: kind, errno: errno}
	}
	return err
}

// pathError says which call failed on which file; nil stays nil.
func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: mapped(err)}
}

// linkError is pathError for a call with two names.
func linkError(op, oldname, newname string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: oldname, New: newname, Err: mapped(err)}
}
