package mount

import (
	"bytes"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// cachedPages is how many pages of a file the kernel has in memory.
func cachedPages(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	info, err := f.Stat()
	check(t, err)
	size := int(info.Size())
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	check(t, err)
	defer unix.Munmap(m)
	pages := make([]byte, (size+4095)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	return bytes.Count(pages, []byte{1})
}

// metadataPages is the most that other verbs, which look at an image's metadata
// through the page cache, leave there.
const metadataPages = 32

// TestPastThePageCache: none of the data of the chain gets into the page cache,
// neither of the image nor of its parent, before and after a live snapshot; the
// disk is what it is without.
func TestPastThePageCache(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "--type", "fixed", "8M", "base.vhd")
	b.OK("snapshot", "base.vhd", "disk.vhd")
	images := []string{"base.vhd", "disk.vhd"}
	m := b.Mount("disk.vhd", "--direct-io")
	f := m.Open(os.O_RDWR)
	want := make([]byte, 8<<20)
	for round, odd := range []int{0, 100} { // the second: no whole sectors
		part := harness.Random(uint64(round)+7, 3<<20)
		off := (round+1)<<20 + odd
		writeAt(t, f, part, int64(off))
		copy(want[off:], part)
		check(t, f.Sync())
		got := make([]byte, len(want))
		_, err := f.ReadAt(got, 0)
		check(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: the disk has other bytes than were written", round)
		}
		for _, image := range images {
			if n := cachedPages(t, b.Path(image)); n > metadataPages {
				t.Errorf("round %d: %d pages of %s are in the page cache, of the 768 that were written", round, n, image)
			}
		}
		check(t, f.Close())
		b.OK("snapshot", "--live", m.Point, "child"+string(rune('0'+round))+".vhd")
		images = append(images, "child"+string(rune('0'+round))+".vhd")
		f = m.Open(os.O_RDWR)
	}
	check(t, f.Close())
	m.Unmount()
	for _, image := range images {
		b.OK("check", "--bitmaps", image)
	}
}
