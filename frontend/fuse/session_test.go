package fuse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
	"github.com/vhdmount/vhdmount/frontend"
)

func TestAHundredMountsLeaveNothing(t *testing.T) {
	needFUSE(t)
	mnt := t.TempDir()
	f := New(Options{Mountpoint: mnt, Partitions: noPartitions})
	descriptors := func() int {
		t.Helper()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := descriptors()
	for i := range 100 {
		s, err := f.Attach(t.Context(), blockdev.NewMemory(1<<20))
		if err != nil {
			t.Fatalf("mount %d: %v", i, err)
		}
		if err := os.WriteFile(s.Path(), []byte("x"), 0); err != nil {
			t.Error(err)
		}
		if err := s.Detach(t.Context()); err != nil {
			t.Fatalf("mount %d: %v", i, err)
		}
		if err := s.Wait(); err != nil {
			t.Fatalf("mount %d: %v", i, err)
		}
	}
	if _, ok, err := mountAt(mnt); ok || err != nil {
		t.Error("something is still mounted:", err)
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestDetachSaysWhoHasItOpen(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{})
	me := "(pid " + strconv.Itoa(os.Getpid()) + ")"
	refused := func(how string) {
		t.Helper()
		err := s.Detach(t.Context())
		if !errors.Is(err, frontend.ErrBusy) || !strings.Contains(err.Error(), me) {
			t.Errorf("%s: %v, want busy and %s", how, err, me)
		}
		if _, err := os.Stat(s.Path()); err != nil {
			t.Errorf("%s: the disk is not shown any more: %v", how, err)
		}
	}
	f := open(t, s.Path(), os.O_RDWR)
	refused("open")
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	refused("mapped")
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(s.Path()))
	refused("working directory")
	if err := os.Chdir("/"); err != nil { // t.Chdir would keep the directory open
		t.Fatal(err)
	}
	if err := s.Detach(t.Context()); err != nil {
		t.Error("Detach of an idle disk:", err)
	}
	if err := s.Detach(t.Context()); err != nil {
		t.Error("second Detach:", err)
	}
}

func TestLazyDetachLetsUsersFinish(t *testing.T) {
	dev := blockdev.NewMemory(1 << 20)
	s := attach(t, dev, Options{})
	f := open(t, s.Path(), os.O_RDWR)
	if err := s.Detach(frontend.WithLazy(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Error("the disk is still shown:", err)
	}
	if _, err := f.WriteAt([]byte("late"), 0); err != nil {
		t.Error("a write by who had it open:", err)
	}
	f.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	got := make([]byte, 4)
	if _, err := dev.ReadAt(got, 0); err != nil || string(got) != "late" {
		t.Errorf("the disk has %q, %v", got, err)
	}
}

func TestLazyDetachHidesADiskThatCannotBeFlushed(t *testing.T) {
	dev := &faulty{Device: blockdev.NewMemory(1 << 20)}
	s := attach(t, dev, Options{})
	f := open(t, s.Path(), os.O_RDONLY)
	dev.failSync()
	err := s.Detach(t.Context())
	if !errors.Is(err, errSyncFailed) || errors.Is(err, frontend.ErrUnflushed) {
		t.Error("Detach:", err)
	}
	if _, err := os.Stat(s.Path()); err != nil {
		t.Error("it is not shown any more:", err)
	}
	err = s.Detach(frontend.WithLazy(t.Context()))
	if !errors.Is(err, frontend.ErrUnflushed) || !errors.Is(err, errSyncFailed) {
		t.Error("lazy Detach:", err)
	}
	if _, err := os.Stat(s.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Error("it is still shown:", err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Error("a read by who had it open:", err)
	}
	f.Close()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// TestDetachReportsTheLastFlush, after which the disk is gone.
func TestDetachReportsTheLastFlush(t *testing.T) {
	dev := &flushesOnce{Memory: blockdev.NewMemory(1 << 20)}
	s := attach(t, dev, Options{})
	if err := s.Detach(t.Context()); !errors.Is(err, frontend.ErrUnflushed) || !errors.Is(err, errBroken) {
		t.Error("Detach:", err)
	}
	if _, err := os.Stat(s.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Error("it is still shown:", err)
	}
}

// flushesOnce is a device whose second flush fails, and later ones.
type flushesOnce struct {
	*blockdev.Memory
	flushes atomic.Int32
}

func (d *flushesOnce) Flush() error {
	if d.flushes.Add(1) > 1 {
		return errBroken
	}
	return nil
}

func TestLazyDetachOfWhatSomethingIsMountedOverHidesNothing(t *testing.T) {
	needRoot(t)
	dev := &faulty{Device: blockdev.NewMemory(1 << 20)}
	s := attach(t, dev, Options{})
	mnt := filepath.Dir(s.Path())
	tool(t, "mount", "-t", "tmpfs", "none", mnt)
	dev.failSync()
	err := s.Detach(frontend.WithLazy(t.Context()))
	if !errors.Is(err, frontend.ErrBusy) || !errors.Is(err, errSyncFailed) || errors.Is(err, frontend.ErrUnflushed) {
		t.Error("lazy Detach:", err)
	}
	dev.flush.Store(nil)
	tool(t, "umount", mnt)
	if _, err := os.Stat(s.Path()); err != nil {
		t.Error("it is hidden:", err)
	}
}

// elsewhere starts a program in a mount namespace of its own, which has a copy
// of every mount, and returns what ends it.
func elsewhere(t *testing.T) (pid string, end func()) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "unshare", "-m", "--propagation", "private", "sh", "-c", "echo; exec sleep 600")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		c.Process.Kill()
		c.Wait()
	})
	t.Cleanup(end)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(c.Process.Pid), end
}

func TestDetachOfADiskThatAnotherNamespaceHasMounted(t *testing.T) {
	needRoot(t)
	dev := blockdev.NewMemory(1 << 20)
	s := attach(t, dev, Options{})
	pid, end := elsewhere(t)
	there := filepath.Join("/proc", pid, "root", s.Path())
	s.(*session).patience = 50 * time.Millisecond
	for _, when := range []string{"first", "second"} {
		err := s.Detach(t.Context())
		if !errors.Is(err, frontend.ErrBusy) || !errors.Is(err, frontend.ErrHidden) ||
			!strings.Contains(err.Error(), "hidden here, but another mount namespace still has it mounted: that of ") ||
			!strings.Contains(err.Error(), "(pid "+pid+")") {
			t.Errorf("%s Detach: %v", when, err)
		}
	}
	if _, err := os.Stat(s.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Error("it is still shown here:", err)
	}
	if err := os.WriteFile(there, []byte("late"), 0); err != nil {
		t.Error("a write there:", err)
	}
	if err := s.Detach(frontend.WithLazy(t.Context())); err != nil {
		t.Error("lazy Detach:", err)
	}
	end()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	got := make([]byte, 4)
	if _, err := dev.ReadAt(got, 0); err != nil || string(got) != "late" {
		t.Errorf("the disk has %q, %v", got, err)
	}
}

func TestDetachOfADiskThatIsOpenSinceItWasHidden(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{})
	s.(*session).patience = 50 * time.Millisecond
	f := open(t, s.Path(), os.O_RDONLY)
	if err := Unmount(t.Context(), filepath.Dir(s.Path()), true); err != nil {
		t.Fatal(err)
	}
	want := "hidden here, but still open in fuse.test (pid " + strconv.Itoa(os.Getpid()) + ")"
	if err := s.Detach(t.Context()); !errors.Is(err, frontend.ErrHidden) || !strings.Contains(err.Error(), want) {
		t.Errorf("Detach: %v, want %s", err, want)
	}
	f.Close()
	if err := s.Detach(t.Context()); err != nil {
		t.Error("Detach when it is closed:", err)
	}
}

// TestDetachDoesNotWaitForAnotherDetachForEver: its context ends that, as does
// the end of serving.
func TestDetachDoesNotWaitForAnotherDetachForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{detach: make(chan struct{}, 1), done: make(chan struct{})}
		s.detach <- struct{}{} // a Detach that hangs
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Detach(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		result := make(chan error, 1)
		go func() { result <- s.Detach(t.Context()) }()
		synctest.Wait()
		close(s.done)
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

func TestDetachFlushesWhatWasMapped(t *testing.T) {
	dev := &flushedDevice{Memory: blockdev.NewMemory(1 << 20)}
	s := attach(t, dev, Options{})
	tool(t, "xfs_io", "-c", "mmap -rw 0 4096", "-c", "mwrite -S 0x5a 0 4096", "-c", "munmap", s.Path())
	if err := s.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dev.flushed, bytes.Repeat([]byte{0x5a}, 4096)) {
		t.Errorf("on stable storage: % x …", dev.flushed[:6])
	}
}

// flushedDevice remembers what its first bytes were when it was flushed last.
type flushedDevice struct {
	*blockdev.Memory
	mu      sync.Mutex
	flushed []byte
}

func (d *flushedDevice) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushed = make([]byte, 4096)
	_, err := d.ReadAt(d.flushed, 0)
	return err
}

func TestWaitReturnsWhenSomebodyElseUnmounts(t *testing.T) {
	for _, how := range [][]string{{"umount"}, {"fusermount3", "-u"}} {
		t.Run(how[0], func(t *testing.T) {
			s := attach(t, blockdev.NewMemory(1<<20), Options{})
			tool(t, how[0], append(how[1:], filepath.Dir(s.Path()))...)
			if err := s.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("Unmount", func(t *testing.T) {
		s := attach(t, blockdev.NewMemory(1<<20), Options{})
		mnt := filepath.Dir(s.Path())
		f := open(t, s.Path(), os.O_RDONLY)
		if err := Unmount(t.Context(), mnt, false); !errors.Is(err, frontend.ErrBusy) {
			t.Error("Unmount of an open disk:", err)
		}
		f.Close()
		if err := Unmount(t.Context(), mnt, false); err != nil {
			t.Error(err)
		}
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
		if err := Unmount(t.Context(), mnt, false); !errors.Is(err, ErrMountpoint) {
			t.Error("Unmount of nothing:", err)
		}
	})
}

func TestCutConnectionIsAnErrorAndLeavesNoDeadMount(t *testing.T) {
	needRoot(t)
	mnt := t.TempDir()
	s, err := New(Options{Mountpoint: mnt, Partitions: noPartitions}).Attach(t.Context(), blockdev.NewMemory(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	control := t.TempDir()
	tool(t, "mount", "-t", "fusectl", "none", control)
	t.Cleanup(func() { unix.Unmount(control, 0) })
	_, minor, _ := strings.Cut(s.(*session).mount.device, ":")
	if err := os.WriteFile(filepath.Join(control, minor, "abort"), []byte("1"), 0); err != nil {
		t.Error(err)
		if err := s.Detach(t.Context()); err != nil {
			t.Error(err)
		}
		return
	}
	if err := s.Wait(); !errors.Is(err, errAborted) {
		t.Errorf("Wait: %v, want %v", err, errAborted)
	}
	if _, ok, err := mountAt(mnt); ok || err != nil {
		t.Error("a dead mount is left:", err)
	}
}

func TestAttachRefuses(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{})
	_, err := New(Options{Mountpoint: filepath.Dir(s.Path()), Partitions: noPartitions}).Attach(t.Context(), blockdev.NewMemory(512))
	if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), "is mounted there") {
		t.Error("over another disk:", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mnt := t.TempDir()
	if _, err := New(Options{Mountpoint: mnt, Partitions: noPartitions}).Attach(ctx, blockdev.NewMemory(512)); !errors.Is(err, context.Canceled) {
		t.Error("with a cancelled context:", err)
	}
	if _, ok, _ := mountAt(mnt); ok {
		t.Error("a refused Attach left a mount")
	}
}

func TestPartitionTableThatCannotBeReadStillShowsTheDisk(t *testing.T) {
	lines := &logLines{}
	broken := func(blockdev.Device) ([]partition.Partition, error) { return nil, errBroken }
	s := attach(t, blockdev.NewMemory(1<<20), Options{Partitions: broken, Log: logTo(lines)})
	if got, err := os.ReadFile(s.Path()); err != nil || len(got) != 1<<20 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got := strings.Join(lines.all(), ""); !strings.Contains(got, "partition table") {
		t.Errorf("the log does not say so: %q", got)
	}
}

func TestUnmountClearsADeadMount(t *testing.T) {
	for name, requests := range map[string]int{"at once": 0, "when the kernel knows its attributes": 1} {
		t.Run(name, func(t *testing.T) {
			mnt := deadMount(t, requests)
			for _, file := range []string{mnt, filepath.Join(mnt, diskName)} {
				_, err := findMountpoint(file)
				if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), "server died") || !strings.Contains(err.Error(), "unmount it first") {
					t.Errorf("a dead mount as a mount point: %v", err)
				}
			}
			if err := Unmount(t.Context(), mnt, false); err != nil {
				t.Fatal(err)
			}
			if _, err := findMountpoint(mnt); err != nil {
				t.Error("after Unmount:", err)
			}
		})
	}
}

// deadMount is a mount point whose server died after it had answered stat that
// many times.
func deadMount(t *testing.T, stats int) string {
	t.Helper()
	needFUSE(t)
	mnt := t.TempDir()
	o := New(Options{Mountpoint: mnt}).options
	fd, err := mount(t.Context(), mountpoint{path: mnt}, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Unmount(context.Background(), mnt, true) }) // if the test didn't
	d, server := newDev(fd, 0, o.Log), newServer(newFilesystem(&o, blockdev.NewMemory(512), false))
	if err := d.handshake(server); err != nil {
		t.Error(err)
	}
	for range stats {
		var answering sync.WaitGroup
		answering.Go(func() {
			b := newBuffers()
			n, err := d.read(b.in)
			if err != nil {
				t.Error(err)
			}
			d.reply(b.handle(server, n))
		})
		if _, err := os.Stat(mnt); err != nil {
			t.Error(err)
		}
		answering.Wait()
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	return mnt
}

func TestUnmountRefusesOtherFileSystems(t *testing.T) {
	needFUSE(t)
	if err := Unmount(t.Context(), "/proc", false); !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), "proc") {
		t.Error(err)
	}
}
