package fuse

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Statuses that go-fuse has no name for.
const (
	statusNoSpace      = fuse.Status(syscall.ENOSPC)
	statusNXIO         = fuse.Status(syscall.ENXIO)
	statusNotSupported = fuse.Status(syscall.EOPNOTSUPP)
	statusNotTTY       = fuse.Status(syscall.ENOTTY)
	statusStale        = fuse.Status(syscall.ESTALE)
	statusTimedOut     = fuse.Status(syscall.ETIMEDOUT)
)

// statuses is the one table from a device's errors to what a client sees, the
// first match counting. Whatever is not in it is EIO.
var statuses = []struct {
	err    error
	status fuse.Status
}{
	{blockdev.ErrReadOnly, fuse.EROFS},
	{blockdev.ErrNoSpace, statusNoSpace},
	{blockdev.ErrOutOfRange, fuse.EINVAL}, // the file system checks ranges first: see the write and fallocate handlers
	{blockdev.ErrClosed, fuse.ENODEV},
	{context.Canceled, fuse.EINTR},
	{context.DeadlineExceeded, statusTimedOut},
}

// toStatus is the errno for an error of a device.
func toStatus(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	return fuse.EIO
}
