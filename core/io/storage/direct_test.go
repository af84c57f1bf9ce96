package storage_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// onDisk is a directory whose file system has O_DIRECT. Where it has not, the
// test fails if all that a machine can do was asked for, and else is skipped.
func onDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, "direct"), os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o600)
	if err == nil {
		check(t, f.Close())
		check(t, os.Remove(f.Name()))
		return dir
	}
	const what = "the file system of %s has no O_DIRECT, set TMPDIR to a directory of one that has: %v"
	if *withRoot {
		t.Fatalf("-root was given, but "+what, dir, err)
	}
	t.Skipf(what, dir, err)
	return ""
}

// openDirect opens a new file of size bytes, past the page cache.
func openDirect(t *testing.T, size int) (storage.File, []byte) {
	t.Helper()
	name := filepath.Join(onDisk(t), "a.vhd")
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i*7 + i>>9)
	}
	check(t, os.WriteFile(name, content, 0o600))
	f, err := storage.Direct(storage.OS).Open(name, storage.ReadWrite)
	check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f, content
}

// aligned is n bytes that begin skip bytes after a page does.
func aligned(n, skip int) []byte {
	b := make([]byte, n+2*4096)
	start := int(-uintptr(unsafe.Pointer(&b[0]))&4095) + skip
	return b[start:][:n]
}

// TestDirectTakesAnyRange, from and to memory of any alignment, across buffers,
// and over the end of a file that isn't made of sectors.
func TestDirectTakesAnyRange(t *testing.T) {
	const size = 600<<10 + 100
	for _, skip := range []int{0, 512, 1} {
		f, content := openDirect(t, size)
		for i, r := range [][2]int{
			{0, 512}, {0, 1}, {511, 2}, {512, 4096}, {700, 300 << 10}, {4096, 256 << 10}, {4096, 520 << 10},
			{size - 50, 50}, {size - 50, 100}, {size - 700, 700}, {size &^ 511, 512}, {size + 1000, 3000},
		} {
			p := aligned(r[1], skip)
			for j := range p {
				p[j] = byte(i + j*3)
			}
			_, err := f.WriteAt(p, int64(r[0]))
			check(t, err)
			if end := r[0] + r[1]; end > len(content) {
				content = append(content, make([]byte, end-len(content))...)
			}
			copy(content[r[0]:], p)
			if n, err := f.Size(); err != nil || n != int64(len(content)) {
				t.Fatalf("%d bytes at %d: the file has %d bytes, %v; want %d", r[1], r[0], n, err, len(content))
			}
			got := aligned(r[1], skip)
			_, err = f.ReadAt(got, int64(r[0]))
			check(t, err)
			if !bytes.Equal(got, p) {
				t.Fatalf("%d bytes at %d: others are read than were written", r[1], r[0])
			}
		}
		check(t, f.Sync())
		got := aligned(len(content)+10, skip)
		if n, err := f.ReadAt(got, 0); n != len(content) || err != io.EOF || !bytes.Equal(got[:n], content) {
			t.Errorf("memory at %d: all of it: %d bytes, %v, or other ones", skip, n, err)
		}
		if disk, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(disk, content) {
			t.Errorf("memory at %d: through the page cache: %v, or other bytes", skip, err)
		}
		if n, err := f.ReadAt(got, int64(len(content)+1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
	}
}

// TestDirectLeavesNothingInThePageCache, or it would be for nothing.
func TestDirectLeavesNothingInThePageCache(t *testing.T) {
	f, _ := openDirect(t, 1<<20)
	p := aligned(1<<20, 0)
	_, err := f.WriteAt(p, 0)
	check(t, err)
	_, err = f.ReadAt(p, 0)
	check(t, err)
	_, err = f.WriteAt(p[:100], 5000)
	check(t, err)
	fd, err := os.Open(f.Name())
	check(t, err)
	defer fd.Close()
	m, err := unix.Mmap(int(fd.Fd()), 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
	check(t, err)
	defer func() { check(t, unix.Munmap(m)) }()
	resident := make([]byte, 1<<20/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), 1<<20, uintptr(unsafe.Pointer(&resident[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	if n := bytes.Count(resident, []byte{1}); n > 0 {
		t.Errorf("%d pages of the file are in the page cache", n)
	}
	if _, err := f.(storage.NowaitReaderAt).ReadAtNowait(p, 0); !errors.Is(err, storage.ErrWouldBlock) {
		t.Errorf("ReadAtNowait: %v", err)
	}
}

// TestDirectWithoutTheFileSystem: procfs has no O_DIRECT, and a wrapped file
// none that could be switched on.
func TestDirectWithoutTheFileSystem(t *testing.T) {
	before := openDescriptors(t)
	if _, err := storage.Direct(storage.OS).Open("/proc/self/status", 0); !errors.Is(err, storage.ErrNotSupported) {
		t.Errorf("a file of procfs: %v", err)
	}
	if _, err := storage.Direct(storage.Direct(storage.OS)).Open(file(t), 0); !errors.Is(err, storage.ErrNotSupported) {
		t.Errorf("a file that is no file of OS: %v", err)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// TestDirectNeverMakesAFileLonger than it is to be, for a moment in which the
// process may be killed: a footer would no longer be at the end.
func TestDirectNeverMakesAFileLonger(t *testing.T) {
	const size = 4096 + 100
	f, _ := openDirect(t, size)
	stop, seen := make(chan struct{}), make(chan int64)
	go func() {
		longest := int64(0)
		for {
			select {
			case <-stop:
				seen <- longest
				return
			default:
			}
			if info, err := os.Stat(f.Name()); err == nil {
				longest = max(longest, info.Size())
			}
		}
	}()
	for range 3000 {
		if _, err := f.WriteAt([]byte("footer"), size-6); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if longest := <-seen; longest != size {
		t.Errorf("the file had %d bytes meanwhile, not %d", longest, size)
	}
}
