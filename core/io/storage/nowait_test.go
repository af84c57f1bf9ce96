package storage

import (
	"errors"
	"io"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// coldFile is a new file of zeros that is not in memory, unless its file system
// is.
func coldFile(t *testing.T, size int) *osFile {
	t.Helper()
	created, err := OS.Create(filepath.Join(t.TempDir(), "a"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = created.Close() })
	f := created.(*osFile)
	_, writeErr := f.WriteAt(make([]byte, size), 0)
	if err := errors.Join(writeErr, f.Sync(), unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestNowaitOfAColdFile: a file system in memory has it all the same; elsewhere
// the read would wait, and does not once the bytes are there again.
func TestNowaitOfAColdFile(t *testing.T) {
	const size = 1 << 20
	f := coldFile(t, size)
	buf := make([]byte, size)
	n, err := f.ReadAtNowait(buf, 0)
	t.Logf("cold: %d bytes, %v", n, err)
	if (n != 0 || err != ErrWouldBlock) && (n != size || err != nil) {
		t.Errorf("ReadAtNowait = %d, %v", n, err)
	}
	if _, err := f.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if f.noNowait.Load() {
		t.Skip("the file system has no RWF_NOWAIT")
	}
	if n, err := f.ReadAtNowait(buf, 0); n != size || err != nil {
		t.Errorf("of a warm file: ReadAtNowait = %d, %v", n, err)
	}
	if n, err := f.ReadAtNowait(buf, 10); n != size-10 || err != io.EOF {
		t.Errorf("across the end: ReadAtNowait = %d, %v", n, err)
	}
}

// TestNowaitWritesReadNothing: a write of part of a page has the kernel read the
// rest first, where that isn't in memory, and then says so; and so it does while
// a hole is punched. Whole pages, and those that are in memory, it takes.
func TestNowaitWritesReadNothing(t *testing.T) {
	f := coldFile(t, 4*pageSize)
	if _, err := f.ReadAtNowait(make([]byte, 1), 0); err != ErrWouldBlock || f.noNowait.Load() {
		t.Skipf("a file system in memory, or one without RWF_NOWAIT: %v", err)
	}
	p := make([]byte, 4*pageSize)
	page := int64(pageSize)
	parts := []struct{ off, n int64 }{{512, 512}, {512, page}, {512, page - 512}, {0, 512}, {page, page + 1}}
	for _, c := range parts { // each of a file of its own: who asks for a page has the kernel fetch it
		if n, err := coldFile(t, len(p)).WriteAtNowait(p[:c.n], c.off); n != 0 || err != ErrWouldBlock {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	for _, c := range []struct{ off, n int64 }{{0, 2 * page}, {3 * page, page}, {3*page + 512, page}, {4*page + 512, 1}, {0, 0}} {
		if n, err := f.WriteAtNowait(p[:c.n], c.off); int64(n) != c.n || err != nil {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range parts {
		if n, err := f.WriteAtNowait(p[:c.n], c.off); int64(n) != c.n || err != nil {
			t.Errorf("%d bytes at %d in memory: %d, %v", c.n, c.off, n, err)
		}
	}
	f.reshaping.Add(1)
	if n, err := f.WriteAtNowait(p, 0); n != 0 || err != ErrWouldBlock {
		t.Errorf("while the file is changed otherwise: %d, %v", n, err)
	}
	f.reshaping.Add(-1)
}

func TestDescriptorFlags(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	created, err := OS.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer created.Close()
	opened, err := OS.Open(name, ReadWrite|NoFollow)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for _, f := range []File{created, opened} {
		fd := uintptr(f.(*osFile).fd)
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("a child would inherit it: flags %#x, %v", flags, err)
		}
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("O_NONBLOCK stays: flags %#x, %v", flags, err)
		}
	}
}
