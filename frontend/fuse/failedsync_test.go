package fuse

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// errSyncFailed is what a device says from the moment on that a sync of what
// is below it failed.
var errSyncFailed = fmt.Errorf("%w since a sync failed: %w", blockdev.ErrReadOnly, syscall.EIO)

// failSync makes d a device whose sync has failed.
func (d *faulty) failSync() {
	d.write.Store(&errSyncFailed)
	d.flush.Store(&errSyncFailed)
}

func (c *client) fsync(node uint64) fuse.Status {
	c.t.Helper()
	_, _, status := call[none](c, opFsync, node, fuse.FsyncIn{})
	return status
}

// TestFailedSyncIsEIOToWhoeverAsksForStableStorage: "read-only" from fsync
// would say that the file is none to sync, which programs take for good news.
func TestFailedSyncIsEIOToWhoeverAsksForStableStorage(t *testing.T) {
	dev := &faulty{Device: blockdev.NewMemory(testSize)}
	lines := &logLines{}
	c := newClient(t, dev, Options{Log: logTo(lines)}, false)
	dev.failSync()
	for _, when := range []string{"the first", "the next", "and the next"} {
		wantStatus(t, "FSYNC, "+when, c.fsync(diskNode), fuse.EIO)
	}
	_, status := c.write(diskNode, 0, []byte("x"))
	wantStatus(t, "WRITE", status, fuse.EROFS)
	_, _, status = call[none](c, opFallocate, diskNode, fuse.FallocateIn{Length: 512, Mode: unix.FALLOC_FL_ZERO_RANGE})
	wantStatus(t, "FALLOCATE", status, fuse.EROFS)
	// The kernel keeps what a write of its pages was answered for the next
	// fsync of the file.
	_, _, status = call[fuse.WriteOut](c, opWrite, diskNode, fuse.WriteIn{Size: 1, WriteFlags: fuse.WRITE_CACHE}, 'x')
	wantStatus(t, "WRITE of the kernel's pages", status, fuse.EIO)
	if _, status := c.read(diskNode, 0, 512); !status.Ok() {
		t.Error("READ:", status)
	}
	if got := lines.all(); len(got) != 1 || !strings.Contains(got[0], "since a sync failed") {
		t.Errorf("%d lines in the log, want one: %q", len(got), got)
	}
	dev.read.Store(&errBroken)
	c.read(diskNode, 0, 512)
	if got := lines.all(); len(got) != 2 || !strings.Contains(got[1], "op=read") {
		t.Errorf("another error is not in the log: %q", got)
	}
}

// TestFsyncNeverSaysThatTheFileIsNoneToSync: EROFS and EINVAL are what
// fsync(2) has for that.
func TestFsyncNeverSaysThatTheFileIsNoneToSync(t *testing.T) {
	for _, s := range statuses {
		dev := &faulty{Device: blockdev.NewMemory(testSize)}
		c := newClient(t, dev, Options{}, false)
		dev.flush.Store(&s.err)
		if status := c.fsync(diskNode); status == fuse.EROFS || status == fuse.EINVAL || status.Ok() {
			t.Errorf("fsync for %q: %v", s.err, status)
		}
	}
}

func TestMountedFailedSync(t *testing.T) {
	dev := &faulty{Device: blockdev.NewMemory(1 << 20)}
	s := attach(t, dev, Options{})
	f := open(t, s.Path(), os.O_RDWR)
	dev.failSync()
	for range 3 {
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Error("fsync:", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != syscall.EIO {
			t.Error("fdatasync:", err)
		}
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EROFS) {
			t.Error("write:", err)
		}
	}
	// Pages that were mapped are written back by msync, which is an fsync.
	out, err := exec.CommandContext(t.Context(), "xfs_io", "-c", "mmap -rw 0 4096", "-c", "mwrite 0 4096", "-c", "msync -s", s.Path()).CombinedOutput()
	if !strings.Contains(string(out), "Input/output error") || strings.Contains(string(out), "Read-only") {
		t.Errorf("msync: %v, %s", err, out)
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Error("fsync after it:", err)
	}
	f.Close()
	dev.flush.Store(nil)
}
