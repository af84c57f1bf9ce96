package mount

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// sparse has a disk with little on it, unmounted and mounted again, so that
// nothing of it is in any cache.
func sparse(t *testing.T) (*harness.Box, *harness.Mount) {
	t.Helper()
	b, m := mounted(t, "200M")
	f := m.Open(os.O_WRONLY)
	for i, off := range []int64{0, 3<<20 + 512, 77<<20 + 12345, 200<<20 - 70000} {
		writeAt(t, f, harness.Random(uint64(i), 70000), off)
	}
	check(t, f.Close())
	m.Unmount()
	return b, b.Mount("disk.vhd")
}

// TestCopiesHaveTheSameBytesAndFewBlocks, whichever program makes them.
func TestCopiesHaveTheSameBytesAndFewBlocks(t *testing.T) {
	for name, c := range map[string]struct {
		sparse bool
		args   func(from, to string) []string
	}{
		"cp --sparse=always": {true, func(from, to string) []string { return []string{"cp", "--sparse=always", from, to} }},
		"cp --sparse=auto":   {true, func(from, to string) []string { return []string{"cp", "--sparse=auto", from, to} }},
		"cp --sparse=never":  {false, func(from, to string) []string { return []string{"cp", "--sparse=never", from, to} }},
		"dd":                 {false, func(from, to string) []string { return []string{"dd", "bs=1M", "if=" + from, "of=" + to} }},
		"dd conv=sparse": {true, func(from, to string) []string {
			return []string{"dd", "bs=64K", "conv=sparse", "if=" + from, "of=" + to}
		}},
		"dd iflag=direct": {false, func(from, to string) []string {
			return []string{"dd", "bs=1M", "iflag=direct", "if=" + from, "of=" + to}
		}},
		"cat": {false, func(from, to string) []string { return []string{"sh", "-c", "cat " + from + " >" + to} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := sparse(t)
			args := c.args(m.Disk, b.Path("copy.raw"))
			b.Tool(args[0], args[1:]...)
			b.Tool("cmp", m.Disk, "copy.raw")
			if size := allocated(t, b.Path("copy.raw")); c.sparse && size > 4<<20 {
				t.Errorf("the copy takes %d bytes", size)
			}
			if size := allocated(t, m.Disk); size > 10<<20 {
				t.Errorf("the disk takes %d bytes", size)
			}
		})
	}
}

// TestCopiesOntoTheDisk: a raw image written to it, by programs that open it
// with O_TRUNC and O_CREAT, and by those that don't.
func TestCopiesOntoTheDisk(t *testing.T) {
	for name, args := range map[string][]string{
		"dd":             {"dd", "bs=1M", "if=raw.img", "of=DISK"},
		"dd conv=fsync":  {"dd", "bs=1M", "if=raw.img", "of=DISK", "conv=notrunc,fsync"},
		"dd direct":      {"dd", "bs=1M", "if=raw.img", "of=DISK", "oflag=direct"},
		"cp":             {"cp", "raw.img", "DISK"},
		"cp sparse":      {"cp", "--sparse=always", "raw.img", "DISK"},
		"shell redirect": {"sh", "-c", "cat raw.img >DISK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := mounted(t, "64M")
			raw := make([]byte, 64<<20)
			copy(raw[5<<20:], harness.Random(1, 3<<20))
			copy(raw[60<<20:], harness.Random(2, 4<<20))
			b.Write("raw.img", raw)
			for i, arg := range args {
				args[i] = string(bytes.ReplaceAll([]byte(arg), []byte("DISK"), []byte(m.Disk)))
			}
			b.Tool(args[0], args[1:]...)
			b.Tool("cmp", "raw.img", m.Disk)
			m.Unmount()
			b.OK("check", "disk.vhd")
			if got := info(t, b, "disk.vhd").Layers[0].AllocatedBlocks; got > 5 {
				t.Errorf("%d blocks are allocated for 7 MiB of data", got)
			}
		})
	}
}

// TestFsyncAndFdatasyncReachTheImage: afterwards the file has it, whatever
// becomes of the server.
func TestFsyncAndFdatasyncReachTheImage(t *testing.T) {
	for name, sync := range map[string]func(fd int) error{"fsync": unix.Fsync, "fdatasync": unix.Fdatasync} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := mounted(t, "64M")
			f := m.Open(os.O_RDWR)
			data := harness.Random(1, 1<<20)
			writeAt(t, f, data, 20<<20)
			check(t, sync(int(f.Fd())))
			check(t, os.WriteFile(b.Path("copy.vhd"), b.Read("disk.vhd"), 0o644))
			b.OK("check", "copy.vhd")
			if !bytes.Equal(readAt(t, b.Mount("copy.vhd").Open(os.O_RDONLY), len(data), 20<<20), data) {
				t.Error("a copy of the image hasn't what was synced")
			}
		})
	}
}
