package fuse

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// truncate is a SETATTR to no size, as open's O_TRUNC and truncate(2) send it,
// by the thread pid.
func (c *client) truncate(pid uint32, node uint64) fuse.Status {
	c.t.Helper()
	c.caller.Pid = pid
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}}
	out, _, status := call[fuse.AttrOut](c, opSetattr, node, in)
	if status.Ok() && out.Size != testSize {
		c.t.Errorf("the size is %d after", out.Size)
	}
	return status
}

// openBy opens node by the thread pid, whose permission the kernel checks
// first: it asks for attributes that it may not keep.
func (c *client) openBy(pid uint32, node uint64) uint64 {
	c.t.Helper()
	c.caller.Pid = pid
	c.getattr(node)
	return c.mustOpen(node, syscall.O_WRONLY)
}

func TestOpenWithTruncChangesNothing(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	fh := c.openBy(5, diskNode)
	wantStatus(t, "another thread's truncate", c.truncate(6, diskNode), fuse.EPERM)
	wantStatus(t, "open's O_TRUNC", c.truncate(5, diskNode), fuse.OK)
	wantStatus(t, "truncate after it", c.truncate(5, diskNode), fuse.EPERM)
	ftruncate := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: fh}}
	_, _, status := call[fuse.AttrOut](c, opSetattr, diskNode, ftruncate)
	wantStatus(t, "ftruncate", status, fuse.EPERM)
}

func TestTruncateByWhoOpenedItEarlierIsRefused(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	c.openBy(5, diskNode)
	c.getattr(diskNode) // truncate(2)'s check of its permission
	wantStatus(t, "truncate", c.truncate(5, diskNode), fuse.EPERM)

	c.openBy(5, diskNode)
	c.mustOpen(infoNode, syscall.O_RDONLY)
	wantStatus(t, "truncate of what was opened before another file", c.truncate(5, diskNode), fuse.EPERM)

	c.openBy(5, diskNode)
	c.caller.Pid = 6
	c.getattr(diskNode)
	wantStatus(t, "O_TRUNC, while another thread looks", c.truncate(5, diskNode), fuse.OK)

	fh := c.openBy(5, diskNode)
	c.release(diskNode, fh)
	wantStatus(t, "truncate of what was closed", c.truncate(5, diskNode), fuse.EPERM)
	if n := len(c.files.opening); n != 0 {
		t.Errorf("%d threads are remembered", n)
	}
}

// TestEachThreadsOpeningIsItsOwn: an opening is not forgotten for another's.
func TestEachThreadsOpeningIsItsOwn(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	old := c.openBy(5, diskNode)
	c.openBy(6, diskNode)
	c.openBy(5, diskNode)
	c.release(diskNode, old) // by another thread of the process
	wantStatus(t, "thread 5's O_TRUNC", c.truncate(5, diskNode), fuse.OK)
	wantStatus(t, "thread 6's O_TRUNC", c.truncate(6, diskNode), fuse.OK)
}

// TestThreadsThatTheKernelCannotNameMayTruncate: callers outside the mount's
// PID namespace all have the number 0, and none must fail for another.
func TestThreadsThatTheKernelCannotNameMayTruncate(t *testing.T) {
	c := newClient(t, blockdev.NewMemory(testSize), Options{}, false)
	wantStatus(t, "truncate by who has nothing open", c.truncate(0, diskNode), fuse.EPERM)
	one := c.openBy(0, diskNode)
	two := c.openBy(0, diskNode)
	wantStatus(t, "one's O_TRUNC", c.truncate(0, diskNode), fuse.OK)
	c.getattr(diskNode)
	wantStatus(t, "the other's O_TRUNC", c.truncate(0, diskNode), fuse.OK)
	c.release(diskNode, one)
	c.release(diskNode, two)
	wantStatus(t, "truncate when all is closed", c.truncate(0, diskNode), fuse.EPERM)
}

func TestMountedTruncateByWhoHasItOpen(t *testing.T) {
	runtime.LockOSThread() // one thread opens and truncates
	defer runtime.UnlockOSThread()
	for name, mnt := range map[string]string{"in a directory": "", "on a file": emptyFile(t)} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s := attach(t, blockdev.NewMemory(1<<20), Options{Mountpoint: mnt})
			for range 3 {
				f := open(t, s.Path(), os.O_RDWR)
				if err := os.Truncate(s.Path(), 0); !errors.Is(err, syscall.EPERM) {
					t.Error("truncate:", err)
				}
				g := open(t, s.Path(), os.O_RDWR|os.O_TRUNC)
				if err := os.Truncate(s.Path(), 0); !errors.Is(err, syscall.EPERM) {
					t.Error("truncate after O_TRUNC:", err)
				}
				h := open(t, s.Path(), os.O_RDONLY|os.O_TRUNC|os.O_CREATE)
				for _, file := range []*os.File{f, g, h} {
					if info, err := file.Stat(); err != nil || info.Size() != 1<<20 {
						t.Errorf("the size: %v, %v", info, err)
					}
					file.Close()
				}
			}
		})
	}
}
