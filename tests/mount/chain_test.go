package mount

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// put writes data through a mount of its own.
func put(t *testing.T, b *harness.Box, image string, data []byte, off int64, flags ...string) {
	t.Helper()
	m := b.Mount(image, flags...)
	f := m.Open(os.O_WRONLY)
	writeAt(t, f, data, off)
	check(t, f.Close())
	m.Unmount()
}

// wantDisk checks what a mount of image has at an offset.
func wantDisk(t *testing.T, b *harness.Box, image string, want []byte, off int64, flags ...string) {
	t.Helper()
	m := b.Mount(image, append(flags, "-r")...)
	f := m.Open(os.O_RDONLY)
	if got := readAt(t, f, len(want), off); !bytes.Equal(got, want) {
		t.Errorf("%s has %.20x… at %d, want %.20x…", image, got, off, want)
	}
	check(t, f.Close())
	m.Unmount()
}

// TestChains: each child shows its parent's disk with its own changes over it,
// and no parent changes.
func TestChains(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "0.vhd")
	disk := make([]byte, 8<<20)
	sums := map[string]string{}
	last := "0.vhd"
	for i, next := range []string{"1.vhd", "2.vhd", "3.vhd", ""} {
		data, off := harness.Random(uint64(i), 1<<20+512), int64(i)<<20+int64(i)*512
		put(t, b, last, data, off)
		copy(disk[off:], data)
		wantDisk(t, b, last, disk, 0)
		sums[last] = b.Sum(last)
		if next != "" {
			b.OK("snapshot", last, next)
			wantDisk(t, b, next, disk, 0)
			last = next
		}
	}
	zeros := make([]byte, 64<<10) // of a child hide what the parent has
	put(t, b, "3.vhd", zeros, 1<<20)
	wantDisk(t, b, "3.vhd", zeros, 1<<20)
	delete(sums, "3.vhd")
	for image, sum := range sums {
		if b.Sum(image) != sum {
			t.Errorf("%s changed", image)
		}
		b.OK("check", "--parents", image)
	}
	b.OK("check", "--parents", "3.vhd")
}

// TestARawParent.
func TestARawParent(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	raw := harness.Random(1, 4<<20)
	b.Write("base.raw", raw)
	b.OK("snapshot", "--raw-parent", "--size", "64M", "base.raw", "child.vhd")
	wantDisk(t, b, "child.vhd", append(raw, make([]byte, 4<<20)...), 0)
	put(t, b, "child.vhd", []byte("changed"), 4<<20-3)
	copy(raw[4<<20-3:], "cha")
	wantDisk(t, b, "child.vhd", append(raw, "nged"...), 0)
	if !bytes.Equal(b.Read("base.raw"), harness.Random(1, 4<<20)) {
		t.Error("the parent changed")
	}
}

// TestParentFlags: which parent is taken where the image's word isn't enough.
func TestParentFlags(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.Mkdir("masters")
	b.Mkdir("clones")
	b.OK("create", "64M", "masters/base.vhd")
	put(t, b, "masters/base.vhd", []byte("the right one"), 0)
	b.OK("snapshot", "masters/base.vhd", "clones/child.vhd")
	b.OK("create", "64M", "wrong.vhd")
	put(t, b, "wrong.vhd", []byte("the wrong one"), 0)

	wantDisk(t, b, "clones/child.vhd", []byte("the right one"), 0, "--parent-dir", "masters")
	wantDisk(t, b, "clones/child.vhd", []byte("the right one"), 0, "--parent", "masters/base.vhd")
	b.Fails([]string{"mount", "--parent", "wrong.vhd", "clones/child.vhd"}, "clones/child.vhd", "wrong.vhd", "UUID", "--force-parent")
	r := b.Run("mount", "-r", "--parent", "wrong.vhd", "--force-parent", "clones/child.vhd")
	if r.Code != 0 || !strings.Contains(r.Stderr, "warning") || !strings.Contains(r.Stderr, "UUID") {
		t.Errorf("mount --force-parent: %+v; want a warning", r)
	}
	b.OK("unmount", "clones/child.vhd")
	check(t, os.Rename(b.Path("masters/base.vhd"), b.Path("clones/base.vhd")))
	wantDisk(t, b, "clones/child.vhd", []byte("the right one"), 0, "--parent", "clones/base.vhd")
}

// TestAMovedChain: a folder with a chain in it opens wherever it is.
func TestAMovedChain(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.Mkdir("a")
	b.OK("create", "64M", "a/base.vhd")
	put(t, b, "a/base.vhd", []byte("base"), 0)
	b.OK("snapshot", "a/base.vhd", "a/child.vhd")
	check(t, os.Rename(b.Path("a"), b.Path("b ä")))
	wantDisk(t, b, "b ä/child.vhd", []byte("base"), 0)
	if got := info(t, b, "b ä/child.vhd").Layers; len(got) != 2 || got[0].Parent != b.Path("b ä/base.vhd") {
		t.Errorf("info: %+v", got)
	}
}

// TestAParentThatWasWrittenTo is a warning, since its time tells.
func TestAParentThatWasWrittenTo(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "base.vhd")
	b.OK("snapshot", "base.vhd", "child.vhd")
	b.Tool("touch", "-d", "2001-02-03 04:05:06", "base.vhd")
	r := b.Run("mount", "child.vhd")
	if r.Code != 0 || !strings.Contains(r.Stderr, "vhdmount: warning: ") || !strings.Contains(r.Stderr, "2001-02-03 04:05:06") {
		t.Errorf("mount: %+v; want a warning", r)
	}
	b.OK("unmount", "child.vhd")
}

// TestSizeFrom: an image whose geometry and size differ, and whose creator
// doesn't decide.
func TestSizeFrom(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	for from, size := range map[string]int64{"auto": 64 << 20, "footer": 64 << 20, "geometry": 963 * 8 * 17 * 512} {
		m := b.Mount("disk.vhd", "-r", "--size-from", from)
		if info, err := os.Stat(m.Disk); err != nil || info.Size() != size {
			t.Errorf("--size-from %s: %v, %v; want %d bytes", from, info, err, size)
		}
		m.Unmount()
	}
}

// TestTheMapTellsWhereThingsAre: reading the files it names at the offsets it
// names gives the disk.
func TestTheMapTellsWhereThingsAre(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "base.vhd")
	put(t, b, "base.vhd", harness.Random(1, 3<<20), 5<<20)
	b.OK("snapshot", "base.vhd", "child.vhd")
	put(t, b, "child.vhd", harness.Random(2, 100<<10), 6<<20+512)
	var extents []struct {
		Offset     int64  `json:"offset"`
		Length     int64  `json:"length"`
		Kind       string `json:"kind"`
		Depth      int    `json:"depth"`
		File       string `json:"file"`
		FileOffset int64  `json:"file_offset"`
	}
	text := b.OK("map", "--json", "child.vhd")
	if err := json.Unmarshal([]byte(text), &extents); err != nil {
		t.Fatal(err)
	}
	disk, at, depths := make([]byte, 64<<20), int64(0), map[int]bool{}
	for _, e := range extents {
		if e.Offset != at || e.Length <= 0 {
			t.Fatalf("the extent %+v begins at %d", e, at)
		}
		at += e.Length
		if e.Kind == "data" {
			depths[e.Depth] = true
			f := b.Open(e.File, os.O_RDONLY)
			copy(disk[e.Offset:], readAt(t, f, int(e.Length), e.FileOffset))
			check(t, f.Close())
		}
	}
	if at != 64<<20 || !depths[0] || !depths[1] {
		t.Errorf("the map ends at %d and has data of depths %v", at, depths)
	}
	wantDisk(t, b, "child.vhd", disk, 0)
}

// TestInfoOfAMountedImage: info.json is what info prints, and info of an image
// in use warns.
func TestInfoOfAMountedImage(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "base.vhd")
	b.OK("snapshot", "base.vhd", "disk.vhd")
	m := b.Mount("disk.vhd")
	f := m.Open(os.O_RDWR)
	writeAt(t, f, harness.Random(1, 3<<20), 1<<20)
	check(t, f.Sync())
	r := b.Run("info", "--json", "--chain", "disk.vhd")
	if r.Code != 0 || !strings.Contains(r.Stderr, "warning: disk.vhd: in use") {
		t.Errorf("info: %+v; want a warning", r)
	}
	outside, inside := decode[imageInfo](t, r.Stdout), decode[imageInfo](t, string(b.Read(m.Point+"/info.json")))
	if inside.Allocated != 4<<20 || outside.Allocated != inside.Allocated || len(inside.Layers) != 2 ||
		inside.Layers[0].AllocatedBlocks != 2 || outside.VirtualSize != inside.VirtualSize {
		t.Errorf("info.json has %+v\ninfo prints %+v", inside, outside)
	}
	if got := allocated(t, m.Disk); got != inside.Allocated {
		t.Errorf("st_blocks tells %d bytes, info.json %d", got, inside.Allocated)
	}
}

func TestCompletionsAreScripts(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.Write("completion", []byte(b.OK("completion", "bash")))
	b.Tool("bash", "-n", "completion")
	r := b.Tool("bash", "-c", `source ./completion; declare -F | grep -c vhdmount; complete -p vhdmount`)
	if !strings.Contains(r, "vhdmount") {
		t.Errorf("bash knows %q", r)
	}
}
