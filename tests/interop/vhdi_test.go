package interop

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestLibvhdiReadsWhatWeWrote: what it is, its size, and every byte.
func TestLibvhdiReadsWhatWeWrote(t *testing.T) {
	for _, kind := range append(kinds, "differencing") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.Tools(t, "vhdiinfo", "vhdimount", "fusermount3")
			b := harness.New(t)
			writeKind(t, b, kind)
			m := b.Mount("disk.vhd", "-r")
			b.Tool("cp", "--sparse=always", m.Disk, "copy.raw")
			m.Unmount()
			text := b.Tool("vhdiinfo", "disk.vhd")
			want := []string{fmt.Sprintf("(%d bytes)", 64<<20), map[string]string{"dynamic": "Dynamic", "fixed": "Fixed", "differencing": "Differential"}[kind]}
			if kind == "differencing" {
				want = append(want, "base-2.vhd")
			}
			for _, word := range want {
				if !strings.Contains(text, word) {
					t.Errorf("vhdiinfo: %s; want %q in it", text, word)
				}
			}
			point := b.Mkdir("vhdi")
			b.Tool("vhdimount", "disk.vhd", point)
			entries, err := os.ReadDir(point)
			check(t, err)
			top := entries[len(entries)-1].Name() // vhdi1 is the deepest parent or the image
			compareVhdi(t, b, point, top)
			b.Tool("fusermount3", "-u", point)
		})
	}
}

// compareVhdi compares the disk that vhdimount shows with ours.
func compareVhdi(t *testing.T, b *harness.Box, point, name string) {
	t.Helper()
	if r := b.Try("cmp", "copy.raw", point+"/"+name); r.Code != 0 {
		t.Errorf("%s: %s%s", name, r.Stdout, r.Stderr)
	}
}

// writeKind makes disk.vhd of a kind with something written to it; a
// differencing one has two bases, each with something of its own.
func writeKind(t *testing.T, b *harness.Box, kind string) {
	t.Helper()
	write := func(name string, seed uint64) {
		m := b.Mount(name)
		fill(t, m, seed)
		m.Unmount()
	}
	if kind != "differencing" {
		b.OK("create", "--type", kind, "64M", "disk.vhd")
		write("disk.vhd", 1)
		return
	}
	b.OK("create", "64M", "base-1.vhd")
	write("base-1.vhd", 1)
	b.OK("snapshot", "base-1.vhd", "base-2.vhd")
	patch(t, b, "base-2.vhd", 5<<20+512, 2)
	b.OK("snapshot", "base-2.vhd", "disk.vhd")
	patch(t, b, "disk.vhd", 21<<20+1024, 3)
}

// patch writes a little through a mount.
func patch(t *testing.T, b *harness.Box, name string, off int64, seed uint64) {
	t.Helper()
	m := b.Mount(name)
	f := m.Open(os.O_WRONLY)
	_, err := f.WriteAt(harness.Random(seed, 5000), off)
	check(t, err)
	check(t, f.Close())
	m.Unmount()
}
