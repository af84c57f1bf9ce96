package vhd_test

import (
	"fmt"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// tapdisk writes as much batmap as the header claims, however little of it the
// disk needs: what lies in the rest would be lost. And where a batmap is ignored
// because its checksum is wrong, a block in its place could make it right.
func TestBatmapThatClaimsWhatIsNotItsOwnIsNotWrittenBeside(t *testing.T) {
	tests := map[string]struct {
		change func(h *format.BatmapHeader, footer int64)
		says   []string
	}{
		"over a block":          {func(h *format.BatmapHeader, _ int64) { h.Sectors = 4 }, []string{"block 1", "points into the batmap"}},
		"past the file's end":   {func(h *format.BatmapHeader, _ int64) { h.Sectors = 1 << 20 }, []string{"batmap", "passes the end of the data", "read-only"}},
		"as much as it can be":  {func(h *format.BatmapHeader, _ int64) { h.Sectors = 1<<32 - 1 }, []string{"batmap", "passes the end of the data", "read-only"}},
		"as far as it can be":   {func(h *format.BatmapHeader, _ int64) { h.Offset = 1<<64 - 1 }, []string{"batmap", "passes the end of the data", "read-only"}},
		"ignored, over a block": {func(h *format.BatmapHeader, footer int64) { h.Offset = uint64(footer) - 1024 }, []string{"block 1", "points into the batmap"}},
		"ignored, over the end": {func(h *format.BatmapHeader, footer int64) { h.Offset = uint64(footer) }, []string{"batmap", "passes the end of the data", "read-only"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l, batmap, next := byTapdisk(format.Dynamic, 3*4096, 4096)
			l.block(1, pageBlock(l, next), l.bits(), noise(4096))
			l.seal(batmap)
			at := l.batAt + format.BATSize(int64(len(l.bat)))
			h, err := format.DecodeBatmapHeader(l.bytes[at:][:512])
			must(t, err)
			test.change(h, int64(len(l.bytes)))
			h.Encode(l.bytes[at:])
			l.write(t, fsys, "/disk.vhd")
			_, err = vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
			wantError{vhd.ErrCorrupt, test.says}.check(t, err, "/disk.vhd")
			img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			must(t, img.Close())
		})
	}
}

// manyBlocks makes an image of n blocks of a sector, all in a file of holes,
// the last block first, and returns its BAT as it is in the file, and the
// sector behind it.
func manyBlocks(t *testing.T, fsys storage.FS, name string, n int64) (bat []uint32, first uint32) {
	t.Helper()
	l := newLayout(format.Dynamic, n*512, 512)
	first = uint32(l.batAt+format.BATSize(n)) / 512
	for i := range l.bat {
		l.bat[i] = first + 2*uint32(n-1-int64(i))
	}
	writeFile(t, fsys, name, l.encode())
	f, err := fsys.Open(name, storage.ReadWrite)
	must(t, err)
	defer f.Close()
	end := (int64(first) + 2*n) * 512
	must(t, f.Truncate(end+512))
	var b [512]byte
	_, err = f.WriteAt(b[:], int64(first)*512) // the end that the layout wrote
	must(t, err)
	l.footer.Encode(b[:])
	_, err = f.WriteAt(b[:], end)
	must(t, err)
	return l.bat, first
}

// The largest BATs are looked at in parts. What is wrong where two parts meet
// is found all the same, and no part takes much memory.
func TestLargeBATsAreCheckedInParts(t *testing.T) {
	const n, bucket = 5 << 20, 1 << 20
	fsys := storagetest.NewMemory()
	bat, first := manyBlocks(t, fsys, "/disk.vhd", n)
	patch := func(block int64, sector uint32) {
		f, err := fsys.Open("/disk.vhd", storage.ReadWrite)
		must(t, err)
		defer f.Close()
		var b [4]byte
		format.EncodeBAT(b[:], []uint32{sector})
		_, err = f.WriteAt(b[:], 1536+4*block)
		must(t, err)
	}
	at := func(sector uint32) int64 { return n - 1 - int64(sector-first)/2 } // the block there
	before := heapAllocated()
	img := open(t, fsys, "/disk.vhd")
	if took := heapAllocated() - before; took > 48<<20 {
		t.Errorf("%d MiB of memory to open it", took>>20)
	}
	must(t, img.Close())
	for _, edge := range []uint32{3 * bucket, 4 * bucket, 5 * bucket, 8 * bucket} {
		// One block ends in the sector of the edge; the next one is moved down,
		// to begin there.
		low, high := at(edge-1), at(edge+1)
		if bat[low] != edge-1 {
			t.Fatalf("no block begins before the edge %d, but at %d", edge, bat[low])
		}
		patch(high, edge)
		_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
		wantError{vhd.ErrCorrupt, []string{fmt.Sprintf("block %d: ", high), fmt.Sprintf("overlaps block %d", low)}}.check(t, err, "/disk.vhd")
		patch(high, bat[high])
	}
	patch(0, 1) // the last in the file becomes the first
	_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrCorrupt, []string{"block 0", "points into the dynamic header"}}.check(t, err, "/disk.vhd")
	patch(0, bat[n/2])
	_, err = vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrCorrupt, []string{"overlaps block"}}.check(t, err, "/disk.vhd")
}
