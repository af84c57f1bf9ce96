package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestListTellsOfFlushesThatFail, for as long as they do: here the image can't be
// written, so that no sync is come to.
func TestListTellsOfFlushesThatFail(t *testing.T) {
	t.Parallel()
	b, m, n := onFaulty(t)
	f := m.Open(os.O_RDWR)
	writeAt(t, f, harness.Random(1, 4096), 20<<20) // to a new block: its entry waits for the flush
	n.Writes.Fail(unix.EIO)
	wantErrno(t, "fsync", f.Sync(), unix.EIO)
	wantErrno(t, "the next fsync", f.Sync(), unix.EIO)
	if list := b.List(); len(list) != 1 || list[0].State != "failing" || !strings.Contains(list[0].Error, "input/output error") {
		t.Errorf("the list: %+v; want it failing, and why", list)
	}
	if text := b.OK("list"); !strings.Contains(text, "failing") || !strings.Contains(text, "input/output error") {
		t.Errorf("list prints %q", text)
	}
	n.Writes.Work()
	check(t, f.Sync())
	wantAlive(t, b, m, "input/output error")
	check(t, f.Close())
	m.Unmount()
}

// Of the kernel's include/uapi/linux/ext4.h and xfs_fs.h.
const (
	iocShutdown           = 0x8004587d // EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
	shutdownWithoutAFlush = 2
)

// TestListTellsOfAFileSystemThatWasShutDown below the image.
func TestListTellsOfAFileSystemThatWasShutDown(t *testing.T) {
	for kind, size := range map[string]int64{"ext4": 96 << 20, "xfs": 320 << 20} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.Root(t)
			b := harness.New(t)
			below := b.NewFileSystem("below", kind, size)
			b.OK("create", "64M", "below/disk.vhd")
			m := b.Mount("below/disk.vhd")
			f := m.Open(os.O_RDWR)
			writeAt(t, f, harness.Random(1, 4096), 0)
			dir := b.Open("below", os.O_RDONLY)
			check(t, unix.IoctlSetPointerInt(int(dir.Fd()), iocShutdown, shutdownWithoutAFlush))
			check(t, dir.Close())
			if err := f.Sync(); err == nil {
				t.Error("an fsync succeeds")
			}
			if list := b.List(); len(list) != 1 || list[0].State == "running" || list[0].Error == "" {
				t.Errorf("the list: %+v; want the error", list)
			}
			check(t, f.Close())
			pid := m.PID()
			b.Run("unmount", "--lazy", m.Point) // it reports what can't be flushed
			b.AwaitEnd(pid)
			below.Remount()
		})
	}
}

// unentered is a mount whose entry isn't there, as if its server were just about
// to make it.
func unentered(t *testing.T, b *harness.Box) (m *harness.Mount, pid int) {
	t.Helper()
	b.OK("create", "64M", "disk.vhd")
	m = b.Mount("disk.vhd")
	pid = m.PID()
	entries, err := filepath.Glob(filepath.Join(b.Runtime, "*.json"))
	check(t, err)
	for _, entry := range entries {
		check(t, os.Remove(entry))
		check(t, os.Remove(strings.TrimSuffix(entry, ".json")+".sock"))
	}
	if list := b.List(); len(list) != 0 {
		t.Errorf("while its server lives: %+v", list)
	}
	return m, pid
}

// TestADeadMountThatWasNeverEnteredIsListed, to whoever made it, and unmount clears
// it.
func TestADeadMountThatWasNeverEnteredIsListed(t *testing.T) {
	t.Run("by whoever runs the tests", func(t *testing.T) {
		t.Parallel()
		harness.Fuse(t)
		wantStrayListed(t, harness.New(t))
	})
	t.Run("by a user", func(t *testing.T) {
		t.Parallel()
		wantStrayListed(t, unprivileged(t))
	})
}

func wantStrayListed(t *testing.T, b *harness.Box) {
	t.Helper()
	m, pid := unentered(t, b)
	unmounter := unmounterOf(t, pid)
	kill(t, b, pid)
	b.AwaitEnd(unmounter)
	list := b.List()
	if len(list) != 1 || list[0].State != "dead" || list[0].Mountpoint != m.Point || list[0].Image != b.Path("disk.vhd") || list[0].PID != 0 {
		t.Errorf("the list: %+v; want it dead", list)
	}
	if text := b.OK("list"); !strings.Contains(text, m.Point) || !strings.Contains(text, "dead") {
		t.Errorf("list prints %q", text)
	}
	b.OK("unmount", m.Point)
	b.CheckGone(m.Point)
}

// TestListDoesNotHangOnAStoppedServer that no entry tells of, though there is nobody
// beside it by whom it could be told.
func TestListDoesNotHangOnAStoppedServer(t *testing.T) {
	for name, alone := range map[string]bool{"alone": true, "with its unmounting process": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			b := harness.New(t)
			m, pid := unentered(t, b)
			unmounter := unmounterOf(t, pid)
			if alone {
				check(t, unix.Kill(unmounter, unix.SIGKILL))
			}
			check(t, unix.Kill(pid, unix.SIGSTOP))
			t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) })
			if list := b.List(); len(list) != 0 {
				t.Errorf("the list: %+v; want nothing that may live", list)
			}
			check(t, unix.Kill(pid, unix.SIGKILL))
			b.AwaitEnd(pid)
			b.AwaitEnd(unmounter)
			if list := b.List(); len(list) != 1 || list[0].State != "dead" {
				t.Errorf("the list: %+v; want it dead", list)
			}
			b.OK("unmount", m.Point)
		})
	}
}

// TestWhoNamesAStoppedServersDiskCanStopWaiting: a process that asked the disk
// itself, for links in its name say, could not even be killed for good.
func TestWhoNamesAStoppedServersDiskCanStopWaiting(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "8M", "disk.vhd")
	m := b.Mount("disk.vhd")
	pid := m.PID()
	check(t, unix.Kill(pid, unix.SIGSTOP))
	t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) })
	time.Sleep(1500 * time.Millisecond) // the kernel has forgotten what it knew of the disk
	for _, args := range [][]string{{"snapshot", "--live", m.Point, "child.vhd"}, {"snapshot", "--live", m.Disk, "child.vhd"}, {"unmount", m.Disk}} {
		cmd := b.Command(t.Context(), harness.Binary(t), args...)
		check(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("%q: %v; want it to wait for the server", args, err)
		case <-time.After(time.Second):
		}
		check(t, cmd.Process.Signal(unix.SIGTERM))
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			check(t, unix.Kill(pid, unix.SIGCONT))
			t.Fatalf("%q: can't be ended", args)
		}
	}
	b.Fails([]string{"unmount", filepath.Join(m.Point, "no", "such")}, "not mounted")
	check(t, unix.Kill(pid, unix.SIGCONT))
	b.AwaitEnd(pid) // by the request to unmount
	b.CheckGone(m.Point)
	if _, err := os.Stat(b.Path("child.vhd")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the child is there: %v", err)
	}
}
