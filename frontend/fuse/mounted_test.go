package fuse

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
	"github.com/vhdmount/vhdmount/frontend"
)

var (
	fuseFlag = flag.Bool("fuse", false, "run the tests that mount: they need /dev/fuse, fuse3, xfsprogs")
	rootFlag = flag.Bool("root", false, "with -fuse, run the tests that need root, e2fsprogs, fdisk and losetup too")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(unprivilegedEnv); dir != "" {
		os.Exit(unprivileged(dir))
	}
	goleak.VerifyTestMain(m)
}

// needFUSE says that a test mounts.
func needFUSE(t *testing.T) {
	t.Helper()
	if !*fuseFlag {
		t.Skip("needs -fuse")
	}
}

// needRoot says that a test needs root beside what needFUSE says.
func needRoot(t *testing.T) {
	t.Helper()
	needFUSE(t)
	if !*rootFlag {
		t.Skip("needs -root")
	}
}

func noPartitions(blockdev.Device) ([]partition.Partition, error) { return nil, nil }

// attach mounts dev in a new directory and takes it away at the end.
func attach(t *testing.T, dev blockdev.Device, o Options) frontend.Session {
	t.Helper()
	needFUSE(t)
	if o.Mountpoint == "" {
		o.Mountpoint = t.TempDir()
	}
	if o.Partitions == nil {
		o.Partitions = noPartitions
	}
	s, err := New(o).Attach(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Detach(context.Background()); err != nil {
			t.Error("Detach:", err)
			if err := s.Detach(frontend.WithLazy(context.Background())); err != nil {
				t.Error("lazy Detach:", err)
			}
		}
		if err := s.Wait(); err != nil {
			t.Error("Wait:", err)
		}
	})
	return s
}

// emptyFile is a mount point that becomes the disk.
func emptyFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// open opens a file of the test's, which is closed at the end at the latest.
func open(t *testing.T, name string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// tool runs a program and returns what it said.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestMountedFileActsAsABlockDevice(t *testing.T) {
	const size = 1<<20 + 512
	s := attach(t, blockdev.NewMemory(size), Options{})
	f := open(t, s.Path(), os.O_RDWR|os.O_TRUNC)
	wantSize := func(when string) {
		t.Helper()
		if info, err := os.Stat(s.Path()); err != nil || info.Size() != size {
			t.Errorf("%s: size %v, %v", when, info.Size(), err)
		}
	}
	wantSize("after O_TRUNC")
	if n, err := unix.Pwrite(int(f.Fd()), make([]byte, 100), size-60); n != 60 || err != nil {
		t.Errorf("write across the end: %d, %v", n, err)
	}
	if _, err := f.WriteAt([]byte("x"), size); !errors.Is(err, syscall.ENOSPC) {
		t.Error("write past the end:", err)
	}
	if n, err := f.ReadAt(make([]byte, 100), size-60); n != 60 || err != io.EOF {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	if err := f.Truncate(size); err != nil {
		t.Error("ftruncate to its size:", err)
	}
	for _, n := range []int64{0, 1, size + 1} {
		if err := f.Truncate(n); !errors.Is(err, syscall.EPERM) {
			t.Errorf("ftruncate to %d: %v", n, err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Error("fsync:", err)
	}
	tool(t, "touch", s.Path())
	tool(t, "dd", "if=/dev/zero", "of="+s.Path(), "bs=4k", "count=1", "status=none")
	wantSize("after dd without notrunc")
	for what, err := range map[string]error{
		"remove": os.Remove(s.Path()), "rename": os.Rename(s.Path(), s.Path()+"x"), "chmod": os.Chmod(s.Path(), 0o777),
		"create": os.WriteFile(filepath.Join(filepath.Dir(s.Path()), "new"), nil, 0o600),
		"mkdir":  os.Mkdir(filepath.Join(filepath.Dir(s.Path()), "new"), 0o700),
	} {
		if !errors.Is(err, os.ErrPermission) { // EPERM, or EACCES by the directory's bits
			t.Errorf("%s: %v, want EPERM", what, err)
		}
	}
}

func TestMountedHolesAndBlocks(t *testing.T) {
	const size = 8 << 20
	s := attach(t, blockdev.NewMemory(size), Options{})
	f := open(t, s.Path(), os.O_RDWR)
	if _, err := f.WriteAt([]byte("data"), 1<<20); err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(s.Path(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	if got := blocks(); got != 128 {
		t.Errorf("%d blocks, want 128", got)
	}
	for _, tt := range []struct {
		off    int64
		whence int
		want   int64
	}{{0, unix.SEEK_DATA, 1 << 20}, {0, unix.SEEK_HOLE, 0}, {1 << 20, unix.SEEK_HOLE, 1<<20 + 64<<10}} {
		if got, err := unix.Seek(int(f.Fd()), tt.off, tt.whence); err != nil || got != tt.want {
			t.Errorf("lseek(%d, %d): %d, %v, want %d", tt.off, tt.whence, got, err, tt.want)
		}
	}
	if _, err := unix.Seek(int(f.Fd()), 2<<20, unix.SEEK_DATA); err != unix.ENXIO {
		t.Error("SEEK_DATA in the last hole:", err)
	}
	sparse := filepath.Join(t.TempDir(), "copy")
	tool(t, "cp", "--sparse=auto", s.Path(), sparse)
	var st unix.Stat_t
	if err := unix.Stat(sparse, &st); err != nil || st.Size != size || st.Blocks > 256 {
		t.Errorf("the copy has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	tool(t, "cmp", s.Path(), sparse)
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size); err != nil {
		t.Fatal("punch:", err)
	}
	got := make([]byte, 4)
	if _, err := f.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("after the punch: %q, %v", got, err)
	}
	if got := blocks(); got != 0 {
		t.Errorf("%d blocks after the punch", got)
	}
}

func TestMountedDirectAndMapped(t *testing.T) {
	const size = 4 << 20
	s := attach(t, blockdev.NewMemory(size), Options{})
	direct := open(t, s.Path(), os.O_RDWR|unix.O_DIRECT)
	page := make([]byte, 8192)
	rand.Read(page)
	if _, err := direct.WriteAt(page[:4096], 4096); err != nil {
		t.Fatal("O_DIRECT write:", err)
	}
	// Another process maps: a page fault holds a processor of Go's, which the
	// server in this process may need to answer it.
	got := tool(t, "xfs_io", "-c", "mmap -rw 0 4m", "-c", "mread -v 4096 16", "-c", "mwrite -S 0x5a 12288 4096", "-c", "msync -s", s.Path())
	if want := fmt.Sprintf("% x", page[:16]); !strings.Contains(got, want) {
		t.Errorf("the mapping does not show %s: %s", want, got)
	}
	if _, err := direct.ReadAt(page, 12288); err != nil || page[0] != 0x5a || page[4095] != 0x5a || page[4096] != 0 {
		t.Errorf("the file does not have what was mapped: %v", err)
	}
}

func TestMountedDirectWriteAcrossTheEnd(t *testing.T) {
	const size = 4 << 20
	dev := blockdev.NewMemory(size)
	s := attach(t, dev, Options{})
	direct := open(t, s.Path(), os.O_RDWR|unix.O_DIRECT)
	page := bytes.Repeat([]byte{7}, 8192)
	if n, err := unix.Pwrite(int(direct.Fd()), page, size-4096); err != unix.ENOSPC {
		t.Errorf("%d, %v", n, err)
	}
	got := make([]byte, 4096)
	if _, err := dev.ReadAt(got, size-4096); err != nil || !bytes.Equal(got, page[:4096]) {
		t.Errorf("the part that fits was not written: %v", err)
	}
	direct.Close()
	out, err := exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+s.Path(), "oflag=direct", "bs=3M").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "No space left on device") {
		t.Errorf("dd of what is too large: %v, %s", err, out)
	}
}

func TestMountedDeviceErrorsReachTheClientAndTheMountLivesOn(t *testing.T) {
	dev := &faulty{Device: blockdev.NewMemory(1 << 20)}
	lines := &logLines{}
	s := attach(t, dev, Options{Log: logTo(lines)})
	f := open(t, s.Path(), os.O_RDWR)
	direct := open(t, s.Path(), os.O_RDONLY|unix.O_DIRECT)
	p := make([]byte, 512)
	noSpace := error(blockdev.ErrNoSpace)
	for _, tt := range []struct {
		err  *error
		want error
	}{{&errBroken, syscall.EIO}, {&noSpace, syscall.ENOSPC}} {
		dev.read.Store(tt.err)
		dev.write.Store(tt.err)
		dev.flush.Store(tt.err)
		if _, err := f.WriteAt(p, 4096); !errors.Is(err, tt.want) {
			t.Error("write:", err)
		}
		if _, err := direct.ReadAt(p, 8192); !errors.Is(err, tt.want) {
			t.Error("read:", err)
		}
		if err := f.Sync(); !errors.Is(err, tt.want) {
			t.Error("fsync:", err)
		}
		if err := s.Detach(t.Context()); !errors.Is(err, *tt.err) {
			t.Errorf("Detach of a disk that can't be flushed: %v", err)
		}
		dev.read.Store(nil)
		dev.write.Store(nil)
		dev.flush.Store(nil)
		if _, err := direct.ReadAt(p, 8192); err != nil {
			t.Error("read of the mended disk:", err)
		}
	}
	if len(lines.all()) < 6 {
		t.Errorf("too few lines in the log: %q", lines.all())
	}
	f.Close()
	direct.Close()
}

func TestMountOnARegularFile(t *testing.T) {
	mnt := emptyFile(t)
	if err := os.WriteFile(mnt, []byte("hidden"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := attach(t, blockdev.NewMemory(1<<20), Options{Mountpoint: mnt})
	if s.Path() != mnt {
		t.Errorf("the disk is at %s", s.Path())
	}
	if err := os.WriteFile(mnt, []byte("shown"), 0); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(mnt)
	if err != nil || len(got) != 1<<20 || string(got[:5]) != "shown" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := s.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(mnt); err != nil || string(got) != "hidden" {
		t.Errorf("after Detach: %q, %v", got, err)
	}
}

func TestMountTableSaysWhatItIs(t *testing.T) {
	s := attach(t, blockdev.NewMemory(1<<20), Options{ReadOnly: true, FSName: "my, disk.vhd"})
	mnt := filepath.Dir(s.Path())
	e, ok, err := mountAt(mnt)
	if err != nil || !ok || e.fsType != "fuse.vhdmount" || e.source != "my, disk.vhd" {
		t.Errorf("%+v, %v, %v", e, ok, err)
	}
	table, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, mnt) && !strings.Contains(line, "ro,nosuid,nodev") {
			t.Errorf("options: %s", line)
		}
	}
	if _, err := os.OpenFile(s.Path(), os.O_RDWR, 0); !errors.Is(err, syscall.EROFS) {
		t.Error("open for writing:", err)
	}
}

func TestReadaheadIsRaisedWhereTheProcessMay(t *testing.T) {
	needRoot(t)
	s := attach(t, blockdev.NewMemory(1<<20), Options{})
	name := "/sys/class/bdi/" + s.(*session).mount.device + "/read_ahead_kb"
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if kib, err := strconv.Atoi(strings.TrimSpace(string(got))); err != nil || kib <= 128 { // the kernel's own
		t.Errorf("readahead %s KiB, %v", got, err)
	}
}

func TestLoopDeviceWithFileSystem(t *testing.T) {
	needRoot(t)
	s := attach(t, blockdev.NewMemory(64<<20), Options{})
	tool(t, "mkfs.ext4", "-q", "-F", s.Path())
	loop := strings.TrimSpace(tool(t, "losetup", "--find", "--show", s.Path()))
	detach := func() { exec.Command("losetup", "-d", loop).Run() }
	t.Cleanup(detach)
	mnt := t.TempDir()
	tool(t, "mount", loop, mnt)
	data := make([]byte, 8<<20)
	rand.Read(data)
	if err := os.WriteFile(filepath.Join(mnt, "file"), data, 0o600); err != nil {
		t.Error(err)
	}
	tool(t, "sync", "-f", mnt)
	err := s.Detach(t.Context())
	if !errors.Is(err, frontend.ErrBusy) || !strings.Contains(err.Error(), loop) {
		t.Errorf("Detach under a loop device: %v", err)
	}
	full := blockdev.Allocated(s.(*session).files.dev)
	if err := os.Remove(filepath.Join(mnt, "file")); err != nil {
		t.Error(err)
	}
	tool(t, "sync", "-f", mnt)
	tool(t, "fstrim", mnt)
	if got := blockdev.Allocated(s.(*session).files.dev); got > full-4<<20 {
		t.Errorf("fstrim left %d of %d bytes allocated", got, full)
	}
	tool(t, "umount", mnt)
	tool(t, "losetup", "-d", loop)
	tool(t, "e2fsck", "-fn", s.Path())
}

func TestManyClients(t *testing.T) {
	const size, each = 16 << 20, 1 << 20
	s := attach(t, blockdev.NewMemory(size), Options{})
	var clients sync.WaitGroup
	for i := range size / each {
		f := open(t, s.Path(), os.O_RDWR)
		clients.Go(func() {
			want, got := bytes.Repeat([]byte{byte(i + 1)}, each), make([]byte, each)
			for range 4 {
				if _, err := f.WriteAt(want, int64(i)*each); err != nil {
					t.Error(err)
				}
				if err := f.Sync(); err != nil {
					t.Error(err)
				}
				if _, err := f.ReadAt(got, int64(i)*each); err != nil || !bytes.Equal(got, want) {
					t.Errorf("client %d reads something else: %v", i, err)
				}
			}
			f.Close()
		})
	}
	clients.Wait()
}

func TestAWriteThatWaitsHoldsNobodyUp(t *testing.T) {
	dev := &stuckDevice{Memory: blockdev.NewMemory(1 << 20), entered: make(chan struct{}), release: make(chan struct{})}
	s := attach(t, dev, Options{Threads: 1})
	w, r := open(t, s.Path(), os.O_WRONLY|unix.O_DIRECT), open(t, s.Path(), os.O_RDONLY|unix.O_DIRECT)
	written := make(chan error)
	go func() {
		_, err := w.WriteAt(make([]byte, 4096), 0)
		written <- err
	}()
	<-dev.entered
	if _, err := r.ReadAt(make([]byte, 4096), 65536); err != nil { // hangs if nobody takes over
		t.Error(err)
	}
	close(dev.release)
	if err := <-written; err != nil {
		t.Error(err)
	}
	w.Close()
	r.Close()
}

// stuckDevice is a device whose writes wait.
type stuckDevice struct {
	*blockdev.Memory
	entered, release chan struct{}
}

func (d *stuckDevice) WriteAt(p []byte, off int64) (int, error) {
	close(d.entered)
	<-d.release
	return d.Memory.WriteAt(p, off)
}

func TestCachedReadsAskOnce(t *testing.T) {
	dev := &countingDevice{Memory: blockdev.NewMemory(1 << 20)}
	s := attach(t, dev, Options{})
	for range 3 { // opened anew each time: the kernel keeps its pages
		if _, err := os.ReadFile(s.Path()); err != nil {
			t.Fatal(err)
		}
	}
	if got := dev.bytes(); got > 1<<20 {
		t.Errorf("reading 1 MiB three times took %d bytes from the device", got)
	}
}

type countingDevice struct {
	*blockdev.Memory
	mu sync.Mutex
	n  int
}

func (d *countingDevice) ReadAtNowait(p []byte, off int64) (int, error) {
	d.mu.Lock()
	d.n += len(p)
	d.mu.Unlock()
	return d.Memory.ReadAtNowait(p, off)
}

func (d *countingDevice) bytes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}
