package harness

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Faulty is a file system with one file in it, which is kept in a file of
// another. What is asked of it fails as the test wishes. Nothing is cached:
// every call of a server comes here.
type Faulty struct {
	Image                                 string // the file's path
	Reads, Writes, Syncs, Resizes, Closes Fault

	fs.Inode
	file *os.File
}

// Fault makes calls of one sort fail. The zero one lets all through. It is
// safe for concurrent use.
type Fault struct {
	mu    sync.Mutex // guards what follows; a leaf
	errno syscall.Errno
	odds  float64
	once  bool // then odds is 0
	met   int  // calls that failed
}

// Fail has every call fail with errno from now on.
func (f *Fault) Fail(errno syscall.Errno) { f.FailSome(errno, 1) }

// FailSome has some calls fail with errno from now on: each with
// probability odds.
func (f *Fault) FailSome(errno syscall.Errno, odds float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errno, f.odds, f.once = errno, odds, false
}

// FailOnce has one call fail with errno, the next.
func (f *Fault) FailOnce(errno syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errno, f.odds, f.once = errno, 1, true
}

// Work lets all calls through again.
func (f *Fault) Work() { f.FailSome(fs.OK, 0) }

// Met is how many calls have failed so far.
func (f *Fault) Met() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.met
}

// meet is the error for a call, fs.OK if it is to be let through.
func (f *Fault) meet() syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.odds == 0 || f.odds < 1 && rand.Float64() >= f.odds {
		return fs.OK
	}
	if f.once {
		f.odds = 0
	}
	f.met++
	return f.errno
}

// MountFaulty shows the file called backing in a new directory of the box,
// called faulty, until the end of the test.
func (b *Box) MountFaulty(backing string) *Faulty {
	b.t.Helper()
	n := &Faulty{file: b.Open(backing, os.O_RDWR)}
	root := &fs.Inode{}
	dir := b.Mkdir("faulty")
	name := filepath.Base(backing)
	n.Image = filepath.Join(dir, name)
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: os.Geteuid() == 0, FsName: "faulty", DisableXAttrs: true},
		OnAdd: func(ctx context.Context) {
			root.AddChild(name, root.NewPersistentInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFREG}), true)
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { server.Unmount() }) // what is mounted still, the box's end takes away
	return n
}

var (
	_ fs.NodeOpener    = (*Faulty)(nil)
	_ fs.NodeReader    = (*Faulty)(nil)
	_ fs.NodeWriter    = (*Faulty)(nil)
	_ fs.NodeFsyncer   = (*Faulty)(nil)
	_ fs.NodeFlusher   = (*Faulty)(nil)
	_ fs.NodeGetattrer = (*Faulty)(nil)
	_ fs.NodeSetattrer = (*Faulty)(nil)
)

// Open implements fs.NodeOpener.
func (n *Faulty) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, fs.OK // nothing comes from pages
}

// Read implements fs.NodeReader.
func (n *Faulty) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := n.Reads.meet(); errno != fs.OK {
		return nil, errno
	}
	return fuse.ReadResultFd(n.file.Fd(), off, len(dest)), fs.OK
}

// Write implements fs.NodeWriter. A write that fails has been made in part.
func (n *Faulty) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := n.Writes.meet(); errno != fs.OK {
		part := len(data) / 2 / 512 * 512
		if _, err := n.file.WriteAt(data[:part], off); err != nil {
			return 0, fs.ToErrno(err)
		}
		return 0, errno
	}
	written, err := n.file.WriteAt(data, off)
	return uint32(written), fs.ToErrno(err)
}

// Fsync implements fs.NodeFsyncer.
func (n *Faulty) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if errno := n.Syncs.meet(); errno != fs.OK {
		return errno
	}
	return fs.ToErrno(n.file.Sync())
}

// Flush implements fs.NodeFlusher: a descriptor is closed, whatever this says.
func (n *Faulty) Flush(context.Context, fs.FileHandle) syscall.Errno { return n.Closes.meet() }

// Getattr implements fs.NodeGetattrer.
func (n *Faulty) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var st unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &st); err != nil {
		return fs.ToErrno(err)
	}
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(st.Size), uint64(st.Blocks)
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	out.Mtime, out.Mtimensec = uint64(st.Mtim.Sec), uint32(st.Mtim.Nsec)
	return fs.OK
}

// Setattr implements fs.NodeSetattrer.
func (n *Faulty) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := n.Resizes.meet(); errno != fs.OK {
			return errno
		}
		if err := n.file.Truncate(int64(size)); err != nil {
			return fs.ToErrno(err)
		}
	}
	return n.Getattr(ctx, h, out)
}
