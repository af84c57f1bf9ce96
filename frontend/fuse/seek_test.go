package fuse

import (
	"errors"
	"iter"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// extentDevice is a device with a block of one kind after the other.
type extentDevice struct {
	blockdev.Device
	block int64
	kind  func(i int64) blockdev.ExtentKind
	seen  int
}

func (d *extentDevice) Size() int64 { return 1 << 40 }

func (d *extentDevice) Extents(off, n int64) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		for end := off + n; off < end; {
			next := min(end, (off/d.block+1)*d.block)
			d.seen++
			if !yield(blockdev.Extent{Offset: off, Length: next - off, Kind: d.kind(off / d.block)}, nil) {
				return
			}
			off = next
		}
	}
}

func kinds(k ...blockdev.ExtentKind) func(int64) blockdev.ExtentKind {
	return func(i int64) blockdev.ExtentKind { return k[min(i, int64(len(k)-1))] }
}

func TestSeek(t *testing.T) {
	const h, z, d, block = blockdev.Hole, blockdev.Zero, blockdev.Data, 1 << 36
	const size = 1 << 40
	for _, tt := range []struct {
		name   string
		kind   func(int64) blockdev.ExtentKind
		off    int64
		whence uint32
		want   int64
		status fuse.Status
	}{
		{"data behind holes and zeros", kinds(h, z, h, d), 0, unix.SEEK_DATA, 3 * block, fuse.OK},
		{"data within data", kinds(d), 5, unix.SEEK_DATA, 5, fuse.OK},
		{"no data any more", kinds(d, h), block, unix.SEEK_DATA, 0, statusNXIO},
		{"hole behind data", kinds(d, d, h), 7, unix.SEEK_HOLE, 2 * block, fuse.OK},
		{"zeros are a hole", kinds(d, z), 7, unix.SEEK_HOLE, block, fuse.OK},
		{"the end is a hole", kinds(d), 7, unix.SEEK_HOLE, size, fuse.OK},
		{"at the end", kinds(d), size, unix.SEEK_HOLE, 0, statusNXIO},
		{"past the end", kinds(d), size + 1, unix.SEEK_DATA, 0, statusNXIO},
		{"another whence", kinds(d), 0, unix.SEEK_END, 0, fuse.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, &extentDevice{Device: blockdev.NewMemory(512), block: block, kind: tt.kind}, Options{}, false)
			out, _, status := call[fuse.LseekOut](c, opLseek, diskNode, fuse.LseekIn{Offset: uint64(tt.off), Whence: tt.whence})
			wantStatus(t, "LSEEK", status, tt.status)
			if status.Ok() && int64(out.Offset) != tt.want {
				t.Errorf("%d, want %d", out.Offset, tt.want)
			}
		})
	}
}

// TestSeekIsBoundedAndGetsOn walks a disk of a million small holes as cp does.
func TestSeekIsBoundedAndGetsOn(t *testing.T) {
	const block, last = 1 << 20, 200_000
	dev := &extentDevice{Device: blockdev.NewMemory(512), block: block, kind: func(i int64) blockdev.ExtentKind {
		if i == last {
			return blockdev.Data
		}
		return blockdev.Hole
	}}
	c := newClient(t, dev, Options{}, false)
	fh := c.mustOpen(diskNode, syscall.O_RDONLY)
	seek := func(off int64, whence uint32) (int64, fuse.Status) {
		dev.seen = 0
		out, _, status := call[fuse.LseekOut](c, opLseek, diskNode, fuse.LseekIn{Fh: fh, Offset: uint64(off), Whence: whence})
		if dev.seen > maxSeekExtents {
			t.Fatalf("one search looked at %d extents", dev.seen)
		}
		return int64(out.Offset), status
	}
	found, copied := false, int64(0)
	for off := int64(0); ; {
		start, status := seek(off, unix.SEEK_DATA)
		if status == statusNXIO {
			break
		}
		end, _ := seek(start, unix.SEEK_HOLE)
		if end <= start || start < off {
			t.Fatalf("from %d: data from %d to %d: a copy would not get on", off, start, end)
		}
		found = found || start <= last*block && last*block < end
		copied += end - start
		off = end
	}
	if !found || copied > 32<<20 {
		t.Errorf("found the data: %v, %d bytes to copy", found, copied)
	}
}

func TestSeekStopsWhenItsClientGaveUp(t *testing.T) {
	cancelled := make(chan struct{})
	close(cancelled)
	dev := &extentDevice{Device: blockdev.NewMemory(512), block: 4096, kind: kinds(blockdev.Hole)}
	s := seek{size: dev.Size(), cancel: cancelled}
	if err := s.run(dev); !errors.Is(err, syscall.EINTR) || dev.seen > 1024 {
		t.Errorf("%v after %d extents", err, dev.seen)
	}
}

func TestSeekReportsTheDevicesError(t *testing.T) {
	lines := &logLines{}
	dev := blockdev.NewMemory(testSize)
	c := newClient(t, dev, Options{Log: logTo(lines)}, false)
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, status := call[fuse.LseekOut](c, opLseek, diskNode, fuse.LseekIn{Whence: unix.SEEK_DATA})
	wantStatus(t, "LSEEK", status, fuse.ENODEV)
	if len(lines.all()) != 1 {
		t.Errorf("log: %q", lines.all())
	}
}
