package mount

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// runtimeDir is a box's runtime directory on a file system of the test's: each
// write to an entry does what the test wishes.
type runtimeDir struct {
	mu   sync.Mutex // guards meet; a leaf
	meet func(size int) (written int, errno syscall.Errno)
}

// entryFile is a file of a runtimeDir.
type entryFile struct {
	fs.LoopbackNode
	dir *runtimeDir
}

var _ fs.NodeWriter = (*entryFile)(nil)

// Write implements fs.NodeWriter.
func (f *entryFile) Write(ctx context.Context, h fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	to := h.(fs.FileWriter)
	if strings.HasSuffix(f.Path(nil), ".json") {
		if written, errno := f.dir.met(len(data)); errno != fs.OK {
			to.Write(ctx, data[:written], off)
			return 0, errno
		}
	}
	return to.Write(ctx, data, off)
}

// met is how a write of size bytes to an entry ends, and how many of them get
// there if it fails.
func (r *runtimeDir) met(size int) (written int, errno syscall.Errno) {
	r.mu.Lock()
	meet := r.meet
	r.mu.Unlock()
	if meet == nil {
		return size, fs.OK
	}
	return meet(size)
}

// onWrite has meet say how the writes to entries end from now on.
func (r *runtimeDir) onWrite(meet func(int) (int, syscall.Errno)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meet = meet
}

// stall has the writes to entries wait from now on. reached says that one does,
// and release ends them all; with an error nothing is written.
func (r *runtimeDir) stall() (reached <-chan struct{}, release func(syscall.Errno)) {
	came, end := make(chan struct{}, 1), make(chan struct{})
	errno := fs.OK
	r.onWrite(func(int) (int, syscall.Errno) {
		select {
		case came <- struct{}{}:
		default:
		}
		<-end
		return 0, errno
	})
	return came, func(e syscall.Errno) { errno = e; close(end) }
}

// newRuntimeDir shows a directory of the box as its runtime directory.
func newRuntimeDir(t *testing.T, b *harness.Box) *runtimeDir {
	t.Helper()
	r := &runtimeDir{}
	below := b.Mkdir("runtime")
	for _, name := range []string{below, b.Mkdir(b.Runtime)} {
		check(t, os.Chmod(name, 0o700))
	}
	var st syscall.Stat_t
	check(t, syscall.Stat(below, &st))
	data := &fs.LoopbackRoot{Path: below, Dev: uint64(st.Dev)}
	data.NewNode = func(root *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &entryFile{fs.LoopbackNode{RootData: root}, r}
	}
	root := &fs.LoopbackNode{RootData: data}
	data.RootNode = root
	server, err := fs.Mount(b.Runtime, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMount: os.Geteuid() == 0, FsName: "runtime",
		DisabledCapabilities: fuse.CAP_PASSTHROUGH, // the kernel would write to the files below by itself
	}})
	check(t, err)
	t.Cleanup(func() { server.Unmount() }) // what is mounted still, the box's end takes away
	return r
}

// movingDisk is a mounted image, base.vhd, whose disk begins with "before".
func movingDisk(t *testing.T) (*harness.Box, *runtimeDir, *harness.Mount, *os.File) {
	t.Helper()
	harness.Fuse(t)
	b := harness.New(t)
	r := newRuntimeDir(t, b)
	b.OK("create", "8M", "base.vhd")
	m := b.Mount("base.vhd")
	f := m.Open(os.O_RDWR)
	writeAt(t, f, []byte("before"), 0)
	check(t, f.Sync())
	return b, r, m, f
}

// writeAfter writes "after" to f, synced, and tells when that is done.
func writeAfter(f *os.File) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := f.WriteAt([]byte("after"), 4096)
		if err == nil {
			err = f.Sync()
		}
		done <- err
	}()
	return done
}

// snapshotLive makes a snapshot, and tells how that ended.
func snapshotLive(t *testing.T, b *harness.Box, m *harness.Mount) <-chan error {
	t.Helper()
	command := b.Command(t.Context(), harness.Binary(t), "snapshot", "--live", m.Point, "child.vhd")
	done := make(chan error, 1)
	go func() { done <- command.Run() }()
	return done
}

// wantFound checks that the image which the list names after its server was
// killed is want, unless that is empty, and has what was written.
func wantFound(t *testing.T, b *harness.Box, m *harness.Mount, f *os.File, want string, after bool) {
	t.Helper()
	list := b.List()
	if len(list) != 1 || list[0].State != "dead" || want != "" && list[0].Image != b.Path(want) {
		t.Fatalf("the list: %+v; want %s, dead", list, want)
	}
	f.Close()
	b.OK("unmount", m.Point)
	again := b.MountAt(m.Point, list[0].Image)
	disk := again.Open(os.O_RDONLY)
	if got := readAt(t, disk, 6, 0); string(got) != "before" {
		t.Errorf("%s begins with %q", list[0].Image, got)
	}
	if got := readAt(t, disk, 5, 4096); after && !bytes.Equal(got, []byte("after")) {
		t.Errorf("%s has %q where %q was written and synced", list[0].Image, got, "after")
	}
	check(t, disk.Close())
	again.Unmount()
	b.OK("check", "--parents", list[0].Image)
}

// TestNoWriteOvertakesTheEntry: a server that is killed in a live snapshot
// before the entry names the child has let no write through to it. Who mounts
// what the list names would miss it, and spoil the child.
func TestNoWriteOvertakesTheEntry(t *testing.T) {
	t.Parallel()
	b, r, m, f := movingDisk(t)
	pid := m.PID()
	reached, release := r.stall()
	snapshot := snapshotLive(t, b, m)
	<-reached
	written, synced := writeAfter(f), false
	select {
	case err := <-written:
		check(t, err)
		synced = true
	case <-time.After(500 * time.Millisecond): // a write takes less than one
	}
	check(t, unix.Kill(pid, unix.SIGKILL))
	release(unix.EIO) // as if the kill had come before the write of the entry
	b.AwaitEnd(pid)
	r.onWrite(nil)
	if !synced {
		synced = <-written == nil
	}
	if err := <-snapshot; err == nil {
		t.Error("the snapshot says that it was made")
	}
	wantFound(t, b, m, f, "", synced)
}

// TestAServerKilledAfterALiveSnapshot has its entry name the child, from the first
// write on.
func TestAServerKilledAfterALiveSnapshot(t *testing.T) {
	t.Parallel()
	b, r, m, f := movingDisk(t)
	pid := m.PID()
	reached, release := r.stall()
	snapshot := snapshotLive(t, b, m)
	<-reached
	written := writeAfter(f)
	release(fs.OK)
	check(t, <-written)
	kill(t, b, pid)
	<-snapshot // made, or the server ended before it said so
	wantFound(t, b, m, f, "child.vhd", true)
}

// TestALiveSnapshotWhoseEntryCantBeWritten fails, and the disk goes on as it was;
// the entry too, of which a part was written over.
func TestALiveSnapshotWhoseEntryCantBeWritten(t *testing.T) {
	t.Parallel()
	b, r, m, f := movingDisk(t)
	pid := m.PID()
	var once sync.Once
	r.onWrite(func(size int) (int, syscall.Errno) {
		errno := fs.OK
		once.Do(func() { errno = unix.EIO })
		return size / 2, errno
	})
	b.Fails([]string{"snapshot", "--live", m.Point, "child.vhd"}, "child.vhd", "registry", "input/output error")
	if _, err := os.Stat(b.Path("child.vhd")); err == nil {
		t.Error("a child was left")
	}
	if got := b.List()[0]; got.Image != b.Path("base.vhd") || got.State != "running" {
		t.Errorf("list: %+v", got)
	}
	check(t, <-writeAfter(f))
	kill(t, b, pid)
	wantFound(t, b, m, f, "base.vhd", true)
}
