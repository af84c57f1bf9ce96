package storage_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

func TestDataPathAllocatesNothing(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "a"), "")
	r := f.(storage.NowaitReaderAt)
	buf := make([]byte, 4096)
	if _, err := f.WriteAt(buf, 8192); err != nil {
		t.Fatal(err)
	}
	ignore := func(err error, expected ...error) error {
		for _, e := range expected {
			if err == e {
				return nil
			}
		}
		return err
	}
	calls := map[string]func() error{
		"WriteAt":             func() error { _, err := f.WriteAt(buf, 8192); return err },
		"ReadAt":              func() error { _, err := f.ReadAt(buf, 8192); return err },
		"ReadAt at the end":   func() error { _, err := f.ReadAt(buf, 10000); return ignore(err, io.EOF) },
		"ReadAtNowait":        func() error { _, err := r.ReadAtNowait(buf, 8192); return ignore(err, storage.ErrWouldBlock) },
		"ReadAtNowait at end": func() error { _, err := r.ReadAtNowait(buf, 10000); return ignore(err, io.EOF, storage.ErrWouldBlock) },
		"Size":                func() error { _, err := f.Size(); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			n := testing.AllocsPerRun(100, func() {
				if err := call(); err != nil {
					t.Error(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations a call", n)
			}
		})
	}
}

// TestNowaitWithoutSupport reads a file of procfs, which has no RWF_NOWAIT.
func TestNowaitWithoutSupport(t *testing.T) {
	f := open(t, "/proc/self/status", 0)
	buf := make([]byte, 16)
	for range 2 { // asked, then remembered
		if n, err := f.(storage.NowaitReaderAt).ReadAtNowait(buf, 0); n != 0 || err != storage.ErrWouldBlock {
			t.Errorf("ReadAtNowait = %d, %v", n, err)
		}
	}
	if n, err := f.ReadAt(buf, 0); n != len(buf) || err != nil {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
}

// TestCloseAmongReads has each read either succeed or say that the file is
// closed; none may reach a descriptor that is someone else's by then.
func TestCloseAmongReads(t *testing.T) {
	for range 20 {
		f := open(t, file(t), 0)
		started := make(chan struct{}, 4)
		var group sync.WaitGroup
		for range cap(started) {
			group.Go(func() {
				buf := make([]byte, 7)
				for first := true; ; first = false {
					n, err := f.ReadAt(buf, 0)
					if first {
						started <- struct{}{}
					}
					if errors.Is(err, storage.ErrClosed) {
						return
					}
					if n != 7 || err != nil || string(buf) != "content" {
						t.Errorf("ReadAt = %d, %v: %q", n, err, buf)
						return
					}
				}
			})
		}
		for range cap(started) {
			<-started
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
	}
}

// BeginSync promises nothing but to do no harm: to the bytes, on a range past
// the end, on a closed file and on one that can't be written to.
func TestBeginSyncDoesNoHarm(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := storage.OS.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("vhd "), 100_000)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	begin := f.(storage.EarlyWriter).BeginSync
	begin(0, int64(len(want)))
	begin(1<<40, 4096)
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read after BeginSync: %v, same bytes: %v", err, bytes.Equal(got, want))
	}
	if err := f.Sync(); err != nil {
		t.Errorf("Sync after BeginSync: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	begin(0, 4096)
	r, err := storage.OS.Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.(storage.EarlyWriter).BeginSync(0, 4096)
}

// TestSyncWhereNothingIsEverWritten: a file system that is only read, such as the
// one of a CD or of a compressed image, knows no sync and calls it invalid; a
// parent may be on one. /proc is like them in that.
func TestSyncWhereNothingIsEverWritten(t *testing.T) {
	const name = "/proc/version"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Fdatasync(fd); err != unix.EINVAL {
		t.Fatalf("fdatasync of %s: %v; want the kernel to call it invalid", name, err)
	}
	f, err := storage.OS.Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
}
