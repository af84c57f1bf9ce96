package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// trouble is what befalls a server while programs write to its disk.
type trouble struct {
	image string   // the image, as the server is to open it
	flags []string // of mount
	// begin makes the trouble for the server pid, end takes it away again;
	// nil: it stays until after.
	begin, end func(pid int)
	// after makes the place of the image usable again when the server is gone;
	// nil: it is.
	after func()
	seen  []syscall.Errno // what the users of the disk may get while it lasts
	// most is how many rounds of it are worth their time; 0: any number.
	most int
}

// nameOfStopped is the trouble during which no other test may start a program.
const nameOfStopped = "stopped server"

// troubles are made once the image is there: d's, in dir.
var troubles = []struct {
	name string
	size int64  // of the file system that the image is in, in bytes; 0: whatever the box is in
	on   string // the kind of that file system
	make func(t *testing.T, d *disk, fs *harness.FileSystem) trouble
}{
	{"full file system", 96 << 20, "ext4", fullFileSystem},
	{"limited file size", 0, "", limitedFileSize},
	{"file system turned read-only", 96 << 20, "ext4", fileSystemTurnedReadOnly},
	{"power cut below ext4", 96 << 20, "ext4", powerCut},
	{"power cut below xfs", 320 << 20, "xfs", powerCut},
	{"calls that fail", 0, "", callsThatFail(unix.EIO)},
	{"calls that lack space", 0, "", callsThatFail(unix.ENOSPC)},
	{"calls that are interrupted", 0, "", interruptedCalls},
	{"syncs that fail", 0, "", syncsThatFail},
	{nameOfStopped, 0, "", stoppedServer},
}

// fullFileSystem has the file system filled up, but for a bit.
func fullFileSystem(t *testing.T, d *disk, fs *harness.FileSystem) trouble {
	ballast := filepath.Join(fs.Dir, "ballast")
	return trouble{
		image: d.image,
		begin: func(int) { fill(t, ballast, d.random.Int64N(1<<20)) },
		end:   func(int) { check(t, os.Remove(ballast)) },
		seen:  []syscall.Errno{unix.ENOSPC},
	}
}

// fill makes a file of all the space that its file system has left, but for
// spare bytes.
func fill(t *testing.T, name string, spare int64) {
	t.Helper()
	f, err := os.Create(name)
	check(t, err)
	defer f.Close()
	size := int64(0)
	for piece := int64(16 << 20); piece >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, size, piece); err != nil {
			piece /= 2
			continue
		}
		size += piece
	}
	check(t, f.Truncate(max(0, size-spare)))
	check(t, f.Sync())
}

// limitedFileSize gives the server a limit that much of the image is beyond: one
// in whole KiB, as ulimit -f has them.
func limitedFileSize(_ *testing.T, d *disk, _ *harness.FileSystem) trouble {
	set := func(pid int, limit uint64) {
		// It fails where the server has been killed.
		unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}, nil)
	}
	return trouble{
		image: d.image,
		begin: func(pid int) { set(pid, 1024*uint64(1<<10+d.random.Int64N(diskSectors*sectorSize/2048))) },
		end:   func(pid int) { set(pid, unix.RLIM_INFINITY) },
		seen:  []syscall.Errno{unix.ENOSPC},
	}
}

// writeErrors are what the users of a disk get that can no longer be written.
var writeErrors = []syscall.Errno{unix.EIO, unix.EROFS}

// betweenSyncs does something while no fsync is under way. One that spans the
// moment in which ext4 stops writing, for an error or a shutdown, may succeed
// although its data is lost: ext4 can't convert the extents that it wrote to any
// more, and tells nobody. A plain file shows the same.
func (d *disk) betweenSyncs(do func()) {
	for _, w := range d.programs {
		w.syncing.Lock()
		defer w.syncing.Unlock()
	}
	do()
}

// fileSystemTurnedReadOnly has ext4 find an error in itself.
func fileSystemTurnedReadOnly(t *testing.T, d *disk, fs *harness.FileSystem) trouble {
	trigger := fmt.Sprintf("/sys/fs/ext4/%s/trigger_fs_error", filepath.Base(fs.Device))
	return trouble{
		image: d.image,
		begin: func(int) {
			d.betweenSyncs(func() { check(t, os.WriteFile(trigger, []byte("1"), 0o200)) })
		},
		after: fs.Remount,
		seen:  writeErrors,
	}
}

// Of the kernel's include/uapi/linux/ext4.h and xfs_fs.h.
const (
	iocShutdown           = 0x8004587d // EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
	shutdownWithoutAFlush = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
)

// powerCut has the file system forget, at once, what it has not brought to its
// device; of xfs also while syncs are under way.
func powerCut(t *testing.T, d *disk, fs *harness.FileSystem) trouble {
	return trouble{
		image: d.image,
		begin: func(int) {
			dir, err := os.Open(fs.Dir)
			check(t, err)
			defer dir.Close()
			shutdown := func() { check(t, unix.IoctlSetPointerInt(int(dir.Fd()), iocShutdown, shutdownWithoutAFlush)) }
			if fs.Kind == "ext4" {
				d.betweenSyncs(shutdown)
			} else {
				shutdown()
			}
		},
		after: fs.Remount,
		seen:  writeErrors,
	}
}

// callsThatFail has one call in a few fail with errno, but for syncs. The users
// of the disk get that very error. No read lacks space.
func callsThatFail(errno syscall.Errno) func(*testing.T, *disk, *harness.FileSystem) trouble {
	return func(_ *testing.T, d *disk, _ *harness.FileSystem) trouble {
		n := d.b.MountFaulty(d.image)
		faults := []*harness.Fault{&n.Writes, &n.Resizes}
		if errno != unix.ENOSPC {
			faults = append(faults, &n.Reads)
		}
		return trouble{
			image: n.Image, flags: []string{"--parent-dir", d.b.Dir},
			begin: func(int) {
				for _, f := range faults {
					f.FailSome(errno, d.random.Float64()/2)
				}
			},
			end: func(int) {
				for _, f := range faults {
					f.Work()
				}
			},
			seen: []syscall.Errno{errno},
		}
	}
}

// interruptedCalls has one call in a few interrupted, of any sort, until the
// server is gone, and each close. It makes them again, but for the closes, and
// nobody sees any of it.
func interruptedCalls(t *testing.T, d *disk, _ *harness.FileSystem) trouble {
	n := d.b.MountFaulty(d.image)
	sorts := map[string]*harness.Fault{"read": &n.Reads, "write": &n.Writes, "sync": &n.Syncs, "resize": &n.Resizes, "close": &n.Closes}
	return trouble{
		image: n.Image, flags: []string{"--parent-dir", d.b.Dir},
		begin: func(int) {
			before := n.Writes.Met()
			for _, f := range []*harness.Fault{&n.Reads, &n.Writes, &n.Syncs} {
				f.FailSome(unix.EINTR, 0.1+d.random.Float64()/2)
			}
			n.Resizes.FailOnce(unix.EINTR)
			n.Closes.Fail(unix.EINTR)
			d.within(2*time.Second, func() bool { return n.Writes.Met() > before+10 })
		},
		end: func(int) {}, // it is to be borne to the end
		after: func() {
			for sort, f := range sorts {
				f.Work()
				t.Logf("%d calls interrupted so far: %s", f.Met(), sort)
			}
			if n.Writes.Met() == 0 || n.Closes.Met() == 0 {
				t.Error("no write was interrupted, or no close")
			}
		},
	}
}

// syncsThatFail has one sync fail, and no other after it: what could not be
// written then is gone all the same.
func syncsThatFail(_ *testing.T, d *disk, _ *harness.FileSystem) trouble {
	n := d.b.MountFaulty(d.image)
	return trouble{
		image: n.Image, flags: []string{"--parent-dir", d.b.Dir},
		begin: func(int) { n.Syncs.FailOnce(unix.EIO) },
		after: n.Syncs.Work,
		seen:  writeErrors,
	}
}

// stopAndList stops a server and prints what list says of it meanwhile. It is
// a program of its own, started while the server runs: a process that is forked
// from one with a file open gives it up in its exec, which asks the server.
const stopAndList = `kill -STOP "$1" && "$2" list --json && sleep "$3"`

// stoppedServer has the server stopped for a while. Nothing may be started in
// that time.
func stoppedServer(t *testing.T, d *disk, _ *harness.FileSystem) trouble {
	return trouble{
		image: d.image, most: 6,
		begin: func(pid int) {
			t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) }) // whatever fails before end
			seconds := strconv.FormatFloat(pause.Seconds(), 'f', -1, 64)
			list := d.b.Tool("sh", "-c", stopAndList, "sh", strconv.Itoa(pid), harness.Binary(t), seconds)
			if !strings.Contains(list, `"not answering"`) {
				t.Errorf("while the server is stopped the list has %s", list)
			}
		},
		end: func(pid int) { unix.Kill(pid, unix.SIGCONT) }, // it may have been killed
	}
}
