package vhd_test

import (
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestDurabilityNames(t *testing.T) {
	for name, want := range map[string]vhd.Durability{"writeback": vhd.Writeback, "writethrough": vhd.Writethrough, "unsafe": vhd.Unsafe} {
		got, err := vhd.ParseDurability(name)
		if err != nil || got != want || got.String() != name {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if vhd.Durability(0) != vhd.Writeback {
		t.Error("the zero Options are not in write-back mode")
	}
	for _, name := range []string{"", "Writeback", "writeback ", "none"} {
		if _, err := vhd.ParseDurability(name); err == nil || !strings.Contains(err.Error(), "writethrough") {
			t.Errorf("%q: %v, want an error that lists what there is", name, err)
		}
	}
}

func TestLayersDescribeTheChain(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/vm/fixed.vhd", format.Fixed, familySize, 0)
	must(t, vhd.Snapshot("/vm/fixed.vhd", "/vm/mid.vhd", vhd.SnapshotOptions{FS: fsys, BlockSize: 4096}))
	fill(t, fsys, "/vm/mid.vhd", noise(5000))
	must(t, vhd.Snapshot("/vm/mid.vhd", "/vm/disk.vhd", vhd.SnapshotOptions{FS: fsys, Size: 2 * familySize}))
	img := open(t, fsys, "/vm/disk.vhd")
	defer img.Close()
	layers := img.Layers()
	want := []struct {
		name, kind, parent string
		size               int64
		blocks, allocated  int64
	}{
		{"/vm/disk.vhd", "differencing", "/vm/mid.vhd", 2 * familySize, 8, 0},
		{"/vm/mid.vhd", "differencing", "/vm/fixed.vhd", familySize, 4, 2},
		{"/vm/fixed.vhd", "fixed", "", familySize, 0, 0},
	}
	if len(layers) != len(want) {
		t.Fatalf("%d layers", len(layers))
	}
	for i, w := range want {
		l := layers[i]
		if l.Name != w.name || l.Kind.String() != w.kind || l.Parent != w.parent || l.Size != w.size || l.Blocks != w.blocks || l.Allocated != w.allocated {
			t.Errorf("layer %d is %+v, want %+v", i, l, w)
		}
		if l.FileSize != sizeOf(t, fsys, w.name) || l.FooterAt.String() != "end" || l.Footer == nil || (l.Header == nil) != (w.kind == "fixed") || l.Batmap {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
	// What is handed out is the caller's.
	layers[0].Name = "changed"
	if img.Layers()[0].Name != "/vm/disk.vhd" {
		t.Error("the image's own description was changed")
	}
}

func TestCloseIsIdempotentAndLast(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	must(t, write(img, "x", 0))
	must(t, img.Close())
	r.take()
	must(t, img.Close())
	if calls := r.take(); len(calls) > 0 {
		t.Errorf("the second Close: %v", calls)
	}
	if img.Size() != 64<<10 {
		t.Error("the size is gone")
	}
}

// The leaf's file ends, after a close, with its last block and the footer.
func TestCloseCutsTheFileToItsExactEnd(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		img := open(t, r, "/disk.vhd")
		must(t, write(img, "x", 4096))
		must(t, write(img, "y", 9*4096))
		end := placeOf(t, img, 9) + 4096 + 512
		if grown := sizeOf(t, r, "/disk.vhd"); grown <= end {
			t.Errorf("while open the file has %d bytes only", grown)
		}
		must(t, img.Close())
		if got := sizeOf(t, r, "/disk.vhd"); got != end {
			t.Errorf("the file has %d bytes, want %d", got, end)
		}
	}
}
