package tapdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// refusal is a request that can't be done, with the errno that a tapdisk
// answers it with.
type refusal struct {
	errno unix.Errno
	text  string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.errno }

func refuse(errno unix.Errno, format string, args ...any) error {
	return &refusal{errno, fmt.Sprintf(format, args...)}
}

// errnos is the one table from errors to what a client is told. The first that
// applies is taken; what isn't here is the errno that the error holds, or EIO.
var errnos = []struct {
	err   error
	errno unix.Errno
}{
	{frontend.ErrBusy, unix.EBUSY},
	{storage.ErrInUse, unix.EBUSY},
	{blktap.ErrMinorInUse, unix.EBUSY},
	{blktap.ErrNoMinor, unix.ENODEV},
	{blktap.ErrNoModule, unix.ENODEV},
	{blockdev.ErrNotPaused, unix.EINVAL},
	{livedisk.ErrHeld, unix.EBUSY},
	{blockdev.ErrSizeChanged, unix.EMEDIUMTYPE},
	{blockdev.ErrClosed, unix.ESHUTDOWN},
	{blockdev.ErrNoSpace, unix.ENOSPC},
	{blockdev.ErrReadOnly, unix.EROFS},
	{vhd.ErrParentMissing, unix.ENOENT},
	{vhd.ErrParentMismatch, unix.EINVAL},
	{vhd.ErrParentOutside, unix.EACCES},
	{vhd.ErrNotVHD, unix.EINVAL},
	{vhd.ErrCorrupt, unix.EINVAL},
	{vhd.ErrEncrypted, unix.EOPNOTSUPP},
	{storage.ErrNotRegular, unix.EINVAL},
	{fs.ErrNotExist, unix.ENOENT},
	{fs.ErrPermission, unix.EACCES},
	{context.DeadlineExceeded, unix.ETIMEDOUT},
	{context.Canceled, unix.EINTR},
}

// errnoOf is what a client is told of an error.
func errnoOf(err error) unix.Errno {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.errno
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return unix.EIO
}
