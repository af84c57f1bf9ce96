package vhd_test

import (
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// partialBlocks makes a differencing disk of so many blocks of 64 MiB, whose
// bitmaps take 16 KiB each, with a sector in each.
func partialBlocks(t *testing.T, fsys storage.FS, blocks int64) *vhd.Image {
	t.Helper()
	create(t, fsys, "/base.vhd", format.Dynamic, largeBlock*blocks, largeBlock)
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
	img := open(t, fsys, "/disk.vhd")
	for b := range blocks {
		must(t, write(img, "sector 0", b*largeBlock))
	}
	must(t, img.Close())
	return open(t, fsys, "/disk.vhd")
}

const largeBlock = 64 << 20

// A reader that read a bitmap from the file before a write, a commit and the
// bitmap's end in memory must not bring the old one back.
func TestBitmapReadBeforeAWriteDoesNotComeBackAfterIt(t *testing.T) {
	const blocks = 700
	r := &recorder{FS: storagetest.NewMemory()}
	img := partialBlocks(t, r, blocks)
	var done atomic.Bool // what follows reads bitmaps itself
	r.read = func(c call) {
		if c.n != 16<<10 || done.Swap(true) {
			return
		}
		must(t, write(img, "sector 1", 512))
		must(t, img.Flush())
		p := make([]byte, 8)
		for round := 0; img.HasBitmap(0) && round < 100; round++ {
			for b := int64(1); b < blocks; b++ {
				_, err := img.ReadAt(p, b*largeBlock)
				must(t, err)
			}
		}
		if img.HasBitmap(0) {
			t.Error("the bitmap stays in memory: the test tests nothing")
		}
	}
	p := make([]byte, 1024)
	_, err := img.ReadAt(p, 0)
	must(t, err)
	r.read = nil
	for range 2 {
		_, err = img.ReadAt(p, 0)
		must(t, err)
		if string(p[:8]) != "sector 0" || string(p[512:520]) != "sector 1" {
			t.Fatalf("sectors %q and %q: the second was written and flushed", p[:8], p[512:520])
		}
		must(t, write(img, "sector 2", 1024)) // and what is committed next must not lose it either
		must(t, img.Close())
		img = open(t, r, "/disk.vhd")
	}
	must(t, img.Close())
}

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
