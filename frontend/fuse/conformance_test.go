package fuse

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
)

func TestMountedFileIsADevice(t *testing.T) {
	needFUSE(t)
	blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
		s := attach(t, blockdev.NewMemory(size), Options{})
		f, err := os.OpenFile(s.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return &mountedFile{f: f, size: size}
	}, blockdevtest.WithTornReads(), blockdevtest.WithOps(120), blockdevtest.WithSizes(512, 4<<20+1536))
}

// mountedFile is the Device that a mounted file is.
type mountedFile struct {
	size int64

	// mu guards f and closed; it is held, shared, over each system call.
	mu     sync.RWMutex
	f      *os.File
	closed bool
}

func (d *mountedFile) do(off, n int64, op func(fd int) error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return blockdev.ErrClosed
	}
	if err := blockdev.CheckRange(d.size, off, n); err != nil {
		return err
	}
	return op(int(d.f.Fd()))
}

func (d *mountedFile) ReadAt(p []byte, off int64) (int, error) {
	err := d.do(off, int64(len(p)), func(fd int) error { return full(unix.Pread, fd, p, off) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d *mountedFile) WriteAt(p []byte, off int64) (int, error) {
	err := d.do(off, int64(len(p)), func(fd int) error { return full(unix.Pwrite, fd, p, off) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// full does all of p.
func full(op func(int, []byte, int64) (int, error), fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := op(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (d *mountedFile) WriteZeroes(off, n int64) error {
	return d.do(off, n, func(fd int) error {
		if n == 0 {
			return nil
		}
		return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

func (d *mountedFile) Flush() error { return d.do(0, 0, unix.Fdatasync) }

func (d *mountedFile) Size() int64 { return d.size }

func (d *mountedFile) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return errors.Join(d.f.Sync(), d.f.Close())
}
