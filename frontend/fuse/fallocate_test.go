package fuse

import (
	"bytes"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func TestFallocate(t *testing.T) {
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	for _, tt := range []struct {
		name   string
		mode   uint32
		off, n int64
		want   fuse.Status
		zeroed int64 // bytes from off
	}{
		{"allocate", 0, 0, testSize, fuse.OK, 0},
		{"allocate past the end", 0, 1, testSize, statusNoSpace, 0},
		{"allocate past the end, keeping the size", keep, testSize, 1, statusNoSpace, 0},
		{"punch", punch | keep, 1000, 5000, fuse.OK, 5000},
		{"punch across the end", punch | keep, testSize - 10, 100, fuse.OK, 10},
		{"punch past the end", punch | keep, testSize + 10, 100, fuse.OK, 0},
		{"punch all of a file system's limit", punch | keep, 0, 1<<63 - 1, fuse.OK, testSize},
		{"zero", zero, 4096, 1 << 20, fuse.OK, 1 << 20},
		{"zero, keeping the size", zero | keep, 0, testSize + 1, fuse.OK, testSize},
		{"zero past the end", zero, 0, testSize + 1, statusNoSpace, 0},
		{"nothing", zero, 0, 0, fuse.EINVAL, 0},
		{"offset and length wrap", punch | keep, 1 << 62, 1<<63 - 1, fuse.EINVAL, 0},
		{"collapse", unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096, statusNotSupported, 0},
		{"insert", unix.FALLOC_FL_INSERT_RANGE, 0, 4096, statusNotSupported, 0},
		{"punch without keeping the size", punch, 0, 4096, statusNotSupported, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := bytes.Repeat([]byte{0xAA}, testSize)
			dev := blockdev.NewMemory(testSize)
			if _, err := dev.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			c := newClient(t, dev, Options{}, false)
			_, _, status := call[none](c, opFallocate, diskNode, fuse.FallocateIn{Mode: tt.mode, Offset: uint64(tt.off), Length: uint64(tt.n)})
			wantStatus(t, "FALLOCATE", status, tt.want)
			if tt.zeroed > 0 {
				clear(want[tt.off:][:tt.zeroed])
			}
			got := make([]byte, testSize)
			if _, err := dev.ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the disk holds something else than it should")
			}
		})
	}
}

func TestPunchedHoleIsZerosWhereDiscardWouldShowTheParent(t *testing.T) {
	dev := differencing{blockdev.NewMemory(testSize)}
	c := newClient(t, dev, Options{}, false)
	if _, status := c.write(diskNode, 0, bytes.Repeat([]byte{1}, 4096)); !status.Ok() {
		t.Fatal(status)
	}
	_, _, status := call[none](c, opFallocate, diskNode, fuse.FallocateIn{Mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, Length: 4096})
	wantStatus(t, "FALLOCATE", status, fuse.OK)
	if got, _ := c.read(diskNode, 0, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Errorf("a punched hole reads as %d", got[0])
	}
}

// differencing is a device that shows 0xEE where it was discarded.
type differencing struct{ *blockdev.Memory }

func (d differencing) Discard(off, n int64) error {
	_, err := d.WriteAt(bytes.Repeat([]byte{0xEE}, int(n)), off)
	return err
}
