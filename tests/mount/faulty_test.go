package mount

import (
	"context"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// faulty is a file system with one file in it, disk.vhd, on a file of another.
// What is asked of it fails with EIO while the flag for that is set.
type faulty struct {
	fs.Inode
	file                               *os.File
	failReads, failWrites, failSyncing atomic.Bool
}

// mountFaulty shows backing as disk.vhd in a new directory, until the end of
// the test.
func mountFaulty(t *testing.T, b *harness.Box, backing string) (*faulty, string) {
	t.Helper()
	n := &faulty{file: b.Open(backing, os.O_RDWR)}
	root := &fs.Inode{}
	dir := b.Mkdir("faulty")
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: os.Geteuid() == 0, FsName: "faulty", DisableXAttrs: true},
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk.vhd", root.NewPersistentInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFREG}), true)
		},
	})
	check(t, err)
	t.Cleanup(func() { server.Unmount() })
	return n, dir + "/disk.vhd"
}

var (
	_ fs.NodeOpener    = (*faulty)(nil)
	_ fs.NodeReader    = (*faulty)(nil)
	_ fs.NodeWriter    = (*faulty)(nil)
	_ fs.NodeFsyncer   = (*faulty)(nil)
	_ fs.NodeGetattrer = (*faulty)(nil)
	_ fs.NodeSetattrer = (*faulty)(nil)
)

func (n *faulty) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, fs.OK // nothing comes from pages
}

func (n *faulty) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if n.failReads.Load() {
		return nil, syscall.EIO
	}
	return fuse.ReadResultFd(n.file.Fd(), off, len(dest)), fs.OK
}

func (n *faulty) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if n.failWrites.Load() {
		return 0, syscall.EIO
	}
	written, err := n.file.WriteAt(data, off)
	return uint32(written), fs.ToErrno(err)
}

func (n *faulty) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if n.failSyncing.Load() {
		return syscall.EIO
	}
	return fs.ToErrno(n.file.Sync())
}

func (n *faulty) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var st unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &st); err != nil {
		return fs.ToErrno(err)
	}
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(st.Size), uint64(st.Blocks)
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	out.Mtime, out.Mtimensec = uint64(st.Mtim.Sec), uint32(st.Mtim.Nsec)
	return fs.OK
}

func (n *faulty) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := n.file.Truncate(int64(size)); err != nil {
			return fs.ToErrno(err)
		}
	}
	return n.Getattr(ctx, h, out)
}
