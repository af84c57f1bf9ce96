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

// operation is what a client asked for, in the log's word.
type operation string

const (
	opReading    operation = "read"
	opWriting    operation = "write"
	opStoring    operation = "write back" // of pages that were changed in the kernel's cache
	opSyncing    operation = "fsync"
	opZeroing    operation = "fallocate"
	opSeeking    operation = "lseek"
	opPartitions operation = "read partition table"
)

// syncs tells whether the client learns from it that its data is safe: what
// the kernel is told of pages that it writes back it tells the next fsync.
func (op operation) syncs() bool { return op == opSyncing || op == opStoring }

// statuses is the one table from a device's errors to what a client sees, the
// first match counting. Whatever is not in it is EIO.
//
// fsync has a column of its own. A device turns read-only when a sync of what
// is below it fails, and data may be lost; EROFS and EINVAL from fsync say that
// the file is none to sync, and programs that know EIO go on.
var statuses = []struct {
	err           error
	status, fsync fuse.Status
}{
	{blockdev.ErrReadOnly, fuse.EROFS, fuse.EIO},
	{blockdev.ErrNoSpace, statusNoSpace, statusNoSpace},
	{blockdev.ErrOutOfRange, fuse.EINVAL, fuse.EIO}, // the file system checks ranges first: see the write and fallocate handlers
	{blockdev.ErrClosed, fuse.ENODEV, fuse.ENODEV},
	{context.Canceled, fuse.EINTR, fuse.EINTR},
	{context.DeadlineExceeded, statusTimedOut, statusTimedOut},
}

// toStatus is the errno for an error that a device gave to op.
func toStatus(op operation, err error) fuse.Status {
	for _, s := range statuses {
		switch {
		case !errors.Is(err, s.err):
		case op.syncs():
			return s.fsync
		default:
			return s.status
		}
	}
	return fuse.EIO
}
