package mount

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// The disk's file acts as the block device that it stands for. Each test below
// is one promise of that, on a disk of 64 MiB.

func TestTruncationChangesNothing(t *testing.T) {
	t.Parallel()
	_, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	writeAt(t, f, []byte("stays"), 1<<20)

	g := m.Open(os.O_RDWR | os.O_TRUNC)
	h := m.Open(os.O_RDWR | os.O_CREATE | os.O_TRUNC)
	for _, file := range []*os.File{f, g, h} {
		if got := readAt(t, file, 5, 1<<20); string(got) != "stays" {
			t.Errorf("after O_TRUNC: %q", got)
		}
		if info, err := file.Stat(); err != nil || info.Size() != 64<<20 {
			t.Errorf("after O_TRUNC: %v, %v", info, err)
		}
	}
	check(t, os.Truncate(m.Disk, 64<<20))
	check(t, f.Truncate(64<<20))
	for _, size := range []int64{0, 1, 64<<20 - 1, 64<<20 + 1, 1 << 40} {
		wantErrno(t, "truncate", os.Truncate(m.Disk, size), unix.EPERM)
		wantErrno(t, "ftruncate", f.Truncate(size), unix.EPERM)
	}
	if got := readAt(t, f, 5, 1<<20); string(got) != "stays" {
		t.Errorf("after truncations: %q", got)
	}
}

func TestWritesEndAtTheEndOfTheDisk(t *testing.T) {
	t.Parallel()
	_, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	const size = 64 << 20
	data := harness.Random(1, 8192)
	if n, err := unix.Pwrite(int(f.Fd()), data, size-5000); n != 5000 || err != nil {
		t.Errorf("a write across the end: %d, %v; want 5000", n, err)
	}
	for _, off := range []int64{size, size + 1, 1 << 41} {
		n, err := unix.Pwrite(int(f.Fd()), data, off)
		if n > 0 {
			t.Errorf("a write at %d: %d bytes", off, n)
		}
		wantErrno(t, "a write past the end", err, unix.ENOSPC)
	}
	got := make([]byte, 8192)
	if n, err := unix.Pread(int(f.Fd()), got, size-5000); n != 5000 || err != nil || !bytes.Equal(got[:n], data[:n]) {
		t.Errorf("a read across the end: %d, %v", n, err)
	}
	for _, off := range []int64{size, 1 << 41} {
		if n, err := unix.Pread(int(f.Fd()), got, off); n != 0 || err != nil {
			t.Errorf("a read at %d: %d, %v; want the end", off, n, err)
		}
	}
	a := m.Open(os.O_WRONLY | os.O_APPEND)
	_, err := a.Write(data)
	wantErrno(t, "an append", err, unix.ENOSPC)
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Errorf("after all: %v, %v", info, err)
	}
}

// TestSeekFindsDataAndHoles, to the block of 4 KiB that was written or better.
func TestSeekFindsDataAndHoles(t *testing.T) {
	t.Parallel()
	_, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	fd := int(f.Fd())
	_, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	wantErrno(t, "SEEK_DATA on an empty disk", err, unix.ENXIO)
	if at, err := unix.Seek(fd, 0, unix.SEEK_HOLE); at != 0 || err != nil {
		t.Errorf("SEEK_HOLE on an empty disk: %d, %v", at, err)
	}
	writeAt(t, f, harness.Random(1, 4096), 10<<20)
	writeAt(t, f, harness.Random(2, 4096), 64<<20-4096)
	for _, c := range []struct{ from, data, hole int64 }{
		{0, 10 << 20, 0},
		{10 << 20, 10 << 20, 10<<20 + 4096},
		{10<<20 + 4095, 10<<20 + 4095, 10<<20 + 4096},
		{30 << 20, 64<<20 - 4096, 30 << 20},
		{64<<20 - 1, 64<<20 - 1, 64 << 20},
	} {
		if at, err := unix.Seek(fd, c.from, unix.SEEK_DATA); at != c.data || err != nil {
			t.Errorf("SEEK_DATA from %d: %d, %v; want %d", c.from, at, err, c.data)
		}
		if at, err := unix.Seek(fd, c.from, unix.SEEK_HOLE); at != c.hole || err != nil {
			t.Errorf("SEEK_HOLE from %d: %d, %v; want %d", c.from, at, err, c.hole)
		}
	}
	_, err = unix.Seek(fd, 64<<20, unix.SEEK_DATA)
	wantErrno(t, "SEEK_DATA at the end", err, unix.ENXIO)
}

// TestFallocate: punching and zeroing read as zeros; a whole block's space
// comes back, to st_blocks and to the image's file.
func TestFallocate(t *testing.T) {
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	for name, mode := range map[string]uint32{
		"punch": punch, "zero": unix.FALLOC_FL_ZERO_RANGE, "zero, size kept": unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := mounted(t, "64M")
			f := m.Open(os.O_RDWR)
			data := harness.Random(1, 16<<20)
			writeAt(t, f, data, 4<<20)
			check(t, f.Sync())
			before, beforeImage := allocated(t, m.Disk), allocated(t, b.Path("disk.vhd"))
			const off, n = 5<<20 + 100, 9 << 20
			check(t, unix.Fallocate(int(f.Fd()), mode, off, n))
			clear(data[off-4<<20:][:n])
			if !bytes.Equal(readAt(t, f, len(data), 4<<20), data) {
				t.Error("the range isn't zero, or something else is")
			}
			check(t, f.Sync())
			if now := allocated(t, m.Disk); mode == punch && now > before-(6<<20) {
				t.Errorf("st_blocks tells %d, then %d bytes", before, now)
			}
			if now := allocated(t, b.Path("disk.vhd")); mode == punch && now > beforeImage-(6<<20) {
				t.Errorf("the image takes %d, then %d bytes", beforeImage, now)
			}
			check(t, f.Close())
			m.Unmount()
			b.OK("check", "disk.vhd")
			if !bytes.Equal(readAt(t, b.Mount("disk.vhd").Open(os.O_RDONLY), len(data), 4<<20), data) {
				t.Error("it is otherwise after another mount")
			}
		})
	}
}

func TestFallocateBeyondTheDiskOrOfAnotherKind(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	fd := int(f.Fd())
	check(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 64<<20))
	check(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 64<<20))
	if got := info(t, b, "disk.vhd").Layers[0].AllocatedBlocks; got != 0 {
		t.Errorf("zeroing an empty disk allocated %d blocks", got)
	}
	for _, mode := range []uint32{0, unix.FALLOC_FL_ZERO_RANGE} {
		if err := unix.Fallocate(fd, mode, 64<<20, 4096); err == nil {
			t.Errorf("mode %#x past the end succeeded", mode)
		}
	}
	for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE} {
		if err := unix.Fallocate(fd, mode, 0, 4096); err == nil {
			t.Errorf("mode %#x succeeded", mode)
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != 64<<20 {
		t.Errorf("after all: %v, %v", info, err)
	}
}

// TestNothingIsAllocatedByReadingOrByZeros.
func TestNothingIsAllocatedByReadingOrByZeros(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	if !bytes.Equal(readAt(t, f, 64<<20, 0), make([]byte, 64<<20)) {
		t.Error("a new disk isn't zero")
	}
	writeAt(t, f, make([]byte, 16<<20), 8<<20)
	check(t, f.Sync())
	if got := allocated(t, m.Disk); got != 0 {
		t.Errorf("st_blocks tells %d bytes", got)
	}
	writeAt(t, f, []byte{1}, 8<<20)
	if got := allocated(t, m.Disk); got <= 0 || got > 2<<20 {
		t.Errorf("after one byte st_blocks tells %d bytes; want a block at most", got)
	}
	check(t, f.Close())
	m.Unmount()
	if got := info(t, b, "disk.vhd").Layers[0].AllocatedBlocks; got != 1 {
		t.Errorf("%d blocks are allocated, want 1", got)
	}
}

// TestMappedWrites reach other readers at once, the image with msync.
func TestMappedWrites(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	page, err := unix.Mmap(int(f.Fd()), 6<<20, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	data := harness.Random(1, len(page))
	copy(page, data)
	check(t, unix.Msync(page, unix.MS_SYNC))
	if !bytes.Equal(readAt(t, m.Open(os.O_RDONLY), len(data), 6<<20), data) {
		t.Error("another opening doesn't see it")
	}
	writeAt(t, f, []byte("by write"), 6<<20+10)
	if got := string(page[10:18]); got != "by write" {
		t.Errorf("the map has %q", got)
	}
	kill(t, b, m.PID()) // what was synced is in the image's file now
	check(t, unix.Munmap(page))
	f.Close()
	b.OK("unmount", "--lazy", m.Point)
	got := readAt(t, b.Mount("disk.vhd").Open(os.O_RDONLY), len(data), 6<<20)
	copy(got[10:18], data[10:18]) // of which no fsync was asked for
	if !bytes.Equal(got, data) {
		t.Error("what was synced with msync is not in the image")
	}
}

func TestDirectIO(t *testing.T) {
	t.Parallel()
	_, m := mounted(t, "64M")
	direct, buffered := m.Open(os.O_RDWR|unix.O_DIRECT), m.Open(os.O_RDWR)
	data := aligned(harness.Random(1, 1<<20))
	readAt(t, buffered, len(data), 3<<20) // now cached
	writeAt(t, direct, data, 3<<20)
	if !bytes.Equal(readAt(t, buffered, len(data), 3<<20), data) {
		t.Error("a buffered read doesn't see a direct write")
	}
	copy(data, "buffered")
	writeAt(t, buffered, data[:8], 3<<20)
	got := aligned(make([]byte, len(data)))
	if n, err := direct.ReadAt(got, 3<<20); n != len(got) || err != nil || !bytes.Equal(got, data) {
		t.Errorf("a direct read doesn't see a buffered write: %d, %v", n, err)
	}
	// The kernel makes an error of a short direct write on its own.
	if n, err := unix.Pwrite(int(direct.Fd()), data[:8192], 64<<20-4096); n != 4096 && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a direct write across the end: %d, %v; want 4096, or ENOSPC", n, err)
	}
	_, err := unix.Pwrite(int(direct.Fd()), data[:4096], 64<<20)
	wantErrno(t, "a direct write past the end", err, unix.ENOSPC)
	if n, err := unix.Pread(int(direct.Fd()), got[:8192], 64<<20-4096); n != 4096 || err != nil {
		t.Errorf("a direct read across the end: %d, %v; want 4096", n, err)
	}
}

// aligned is data where O_DIRECT wants it.
func aligned(data []byte) []byte {
	room := make([]byte, len(data)+4096)
	skip := -int(uintptr(unsafe.Pointer(&room[0]))) & 4095
	room = room[skip : skip+len(data)]
	copy(room, data)
	return room
}

// TestNothingElseCanBeMadeInTheMountPoint.
func TestNothingElseCanBeMadeInTheMountPoint(t *testing.T) {
	t.Parallel()
	_, m := mounted(t, "64M")
	other := m.Point + "/other"
	for what, err := range map[string]error{
		"create": func() error { _, err := os.Create(other); return err }(),
		"mkdir":  os.Mkdir(other, 0o755),
		"link":   os.Link(m.Disk, other),
		"rename": os.Rename(m.Disk, other),
		"remove": os.Remove(m.Disk),
	} {
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v; want EPERM", what, err)
		}
	}
	entries, err := os.ReadDir(m.Point)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); err != nil || got != "disk.raw info.json" {
		t.Errorf("the directory has %s, %v", got, err)
	}
}
