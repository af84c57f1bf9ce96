package fuse

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Read fills buf, which is the reply itself, and is short at the end only.
func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.node(in.NodeId)
	if n == nil {
		return nil, statusStale
	}
	if n.dev == nil {
		return f.readInfo(in, buf)
	}
	if in.Offset >= uint64(n.size) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	off := int64(in.Offset)
	p := buf[:min(int64(len(buf)), n.size-off)]
	if err := f.read(n, p, off); err != nil {
		return nil, f.fail(opReading, n, off, int64(len(p)), err)
	}
	return fuse.ReadResultData(p), fuse.OK
}

// muchData is from how many bytes on a request takes so long to copy that
// another thread is worth its wake-up.
const muchData = 128 << 10

// read fills p without waiting if it can, and has another thread answer while
// it waits otherwise.
func (f *filesystem) read(n *node, p []byte, off int64) (err error) {
	if len(p) < muchData {
		_, err = blockdev.ReadAtNowait(n.dev, p, off)
	} else {
		err = f.slow(forCopy, func() error {
			_, err := blockdev.ReadAtNowait(n.dev, p, off)
			return err
		})
	}
	if err == nil || !errors.Is(err, blockdev.ErrWouldBlock) {
		return err
	}
	return f.slow(forDevice, func() error {
		_, err := n.dev.ReadAt(p, off)
		return err
	})
}

func (f *filesystem) readInfo(in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := f.handle(in.Fh)
	if h == nil || h.node.id != infoNode {
		return nil, fuse.EBADF
	}
	rest := h.content[min(in.Offset, uint64(len(h.content))):]
	return fuse.ReadResultData(buf[:copy(buf, rest)]), fuse.OK
}

// Write stores data. As on a block device, a write across the end is short and
// one past it is ENOSPC. A direct one across it stores what fits and is ENOSPC
// too: the kernel may have several requests of it under way, and takes a short
// one among them for an I/O error (fuse_get_res_by_io).
func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := f.node(in.NodeId)
	switch {
	case n == nil:
		return 0, statusStale
	case n.dev == nil:
		return 0, fuse.EBADF
	case f.readOnly:
		return 0, fuse.EROFS
	case len(data) == 0:
		return 0, fuse.OK
	case in.Offset >= uint64(n.size):
		return 0, statusNoSpace
	}
	off := int64(in.Offset)
	fits := data[:min(int64(len(data)), n.size-off)]
	op := opWriting
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		op = opStoring
	}
	err := f.write(n, fits, off)
	f.changed(n, off, int64(len(fits))) // after an error too: some of it may be there
	switch {
	case err != nil:
		return 0, f.fail(op, n, off, int64(len(fits)), err)
	case len(fits) < len(data) && op == opWriting && in.Flags&unix.O_DIRECT != 0:
		return 0, statusNoSpace
	}
	return uint32(len(fits)), fuse.OK
}

// write stores data. A short one goes to the page cache as a rule and is not
// worth a hand-over: the transport notices the one that waits.
func (f *filesystem) write(n *node, data []byte, off int64) (err error) {
	if len(data) < muchData {
		_, err = n.dev.WriteAt(data, off)
		return err
	}
	return f.slow(forDevice, func() error {
		_, err := n.dev.WriteAt(data, off)
		return err
	})
}

// changed notes that [off, off+length) of n may hold something else now.
func (f *filesystem) changed(n *node, off, length int64) {
	f.modified.Store(time.Now().UnixNano())
	if !f.single && !f.tableDirty.Load() {
		f.tableDirty.Store(true)
	}
	// Loaded after the write: a file opened since then reads what was written.
	if s := n.siblings.Load(); s != nil {
		f.invalidate(*s, n.off+off, length)
	}
}
