package vhd_test

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// More blocks of which a part is present than there is memory for their
// bitmaps: writers commit before it is too much, and nothing is lost.
func TestBitmapsInMemoryAreBounded(t *testing.T) {
	const block, blocks = 64 << 20, 700 // 16 KiB of bitmap each: 11 MiB
	fsys := storagetest.NewMemory()
	create(t, fsys, "/base.vhd", format.Dynamic, block*blocks, block)
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
	img := open(t, fsys, "/disk.vhd")
	bounded := func() {
		t.Helper()
		if all, dirty := img.BitmapMemory(); all > vhd.MaxBitmapBytes+16<<10 || dirty > vhd.MaxDirtyBytes {
			t.Fatalf("%d bytes of bitmaps in memory, %d of them dirty", all, dirty)
		}
	}
	for b := range int64(blocks) {
		must(t, write(img, string([]byte{byte(b), byte(b >> 8), 1}), b*block+b*512))
		bounded()
	}
	for round := range 2 {
		got := make([]byte, 3)
		for b := range int64(blocks) {
			_, err := img.ReadAt(got, b*block+b*512)
			must(t, err)
			if got[0] != byte(b) || got[1] != byte(b>>8) || got[2] != 1 {
				t.Fatalf("round %d: block %d shows %v", round, b, got)
			}
			bounded()
		}
		must(t, img.Close())
		img = open(t, fsys, "/disk.vhd")
	}
	must(t, img.Close())
}
