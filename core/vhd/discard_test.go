package vhd_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// placeOf is where in its file the leaf has block b's data, -1 for nowhere.
func placeOf(t *testing.T, img *vhd.Image, b int64) int64 {
	t.Helper()
	for e, err := range img.Extents(b*4096, 4096) {
		must(t, err)
		if e.Depth == 0 {
			return e.FileOffset
		}
	}
	return -1
}

// batOf is an image's BAT as it is in the file.
func batOf(t *testing.T, fsys storage.FS, name string) []uint32 {
	t.Helper()
	b := contentOf(t, fsys, name)
	h, err := format.DecodeHeader(b[512:][:format.HeaderSize])
	must(t, err)
	bat := make([]uint32, h.MaxTableEntries)
	format.DecodeBAT(bat, b[h.TableOffset:])
	return bat
}

// filled is a small dynamic disk whose first blocks hold their number.
func filled(t *testing.T, blocks int) (*recorder, *vhd.Image) {
	t.Helper()
	r := small(t, false)
	img := open(t, r, "/disk.vhd")
	for b := range blocks {
		must(t, write(img, string(bytes.Repeat([]byte{byte(b + 1)}, 4096)), int64(b)*4096))
	}
	must(t, img.Flush())
	r.take()
	return r, img
}

// blockIs sees that all of block b has one value.
func blockIs(t *testing.T, img *vhd.Image, b int64, value byte) {
	t.Helper()
	got := make([]byte, 4096)
	_, err := img.ReadAt(got, b*4096)
	must(t, err)
	if !bytes.Equal(got, bytes.Repeat([]byte{value}, 4096)) {
		t.Errorf("block %d is not all %d", b, value)
	}
}

func TestDiscardOfAWholeBlockGivesItBack(t *testing.T) {
	r, img := filled(t, 4)
	place := placeOf(t, img, 1)
	before := img.Allocated()
	must(t, img.Discard(4096, 4096))
	punched := r.take("punch")
	if len(punched) != 1 || punched[0].off > place || punched[0].off+punched[0].n < place+4096 {
		t.Errorf("punched %v, want the data at %d at once", punched, place)
	}
	blockIs(t, img, 1, 0)
	if placeOf(t, img, 1) != -1 || img.Allocated() != before-4096 || !img.Dirty() {
		t.Error("the block is still allocated")
	}
	must(t, img.Flush())
	if batOf(t, r, "/disk.vhd")[1] != format.UnallocatedBlock {
		t.Error("the block is still in the BAT after a flush")
	}
	for b, v := range []byte{1, 0, 3, 4} {
		blockIs(t, img, int64(b), v)
	}
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
}

func TestDiscardedSpaceIsUsedAgainAfterAFlushAndNotBefore(t *testing.T) {
	r, img := filled(t, 4)
	place := placeOf(t, img, 1)
	must(t, img.Discard(4096, 4096))
	must(t, write(img, "new", 5*4096))
	if got := placeOf(t, img, 5); got == place {
		t.Error("the space was used again while a crash could bring the old entry back")
	}
	must(t, write(img, "same block", 1*4096+1000))
	if got := placeOf(t, img, 1); got == place {
		t.Error("the block came back to its own old place before a flush")
	}
	must(t, img.Flush())
	must(t, write(img, "new", 6*4096+2000))
	if got := placeOf(t, img, 6); got != place {
		t.Errorf("the space at %d was not used again: the new block is at %d", place, got)
	}
	want := zeros(4096)
	copy(want[2000:], "new")
	got := make([]byte, 4096)
	_, err := img.ReadAt(got, 6*4096)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the old block's bytes show in the new one")
	}
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
}

// A block given up and taken many times doesn't make the file grow.
func TestDiscardKeepsTheFileSmall(t *testing.T) {
	r, img := filled(t, 1)
	for range 500 {
		must(t, img.Discard(0, 4096))
		must(t, img.Flush())
		must(t, write(img, "again", 0))
	}
	must(t, img.Close())
	if size := sizeOf(t, r, "/disk.vhd"); size > 16<<10 {
		t.Errorf("the file has %d bytes for one block", size)
	}
}

func TestDiscardOfTheLastBlocksCutsTheFile(t *testing.T) {
	r, img := filled(t, 8)
	must(t, img.Close())
	full := sizeOf(t, r, "/disk.vhd")
	img = open(t, r, "/disk.vhd")
	must(t, img.Discard(4*4096, 4*4096))
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
	if size := sizeOf(t, r, "/disk.vhd"); size > full-4*4096 {
		t.Errorf("the file went from %d bytes to %d, though its last four blocks are free", full, size)
	}
	img = open(t, r, "/disk.vhd")
	defer img.Close()
	for b := range int64(8) {
		blockIs(t, img, b, map[bool]byte{true: byte(b + 1)}[b < 4])
	}
}

func TestDiscardOfParts(t *testing.T) {
	tests := []struct {
		name     string
		off, n   int64
		from, to int64 // what reads as zeros then
	}{
		{"nothing", 4096, 0, 0, 0},
		{"less than a sector", 4096 + 10, 400, 0, 0},
		{"across two sectors, neither whole", 4096 + 10, 900, 0, 0},
		{"one whole of three", 4096 + 10, 1100, 4096 + 512, 4096 + 1024},
		{"sectors", 4096 + 512, 1024, 4096 + 512, 4096 + 1536},
		{"across blocks", 4096 + 3584, 1024, 4096 + 3584, 8192 + 512},
		{"a block and some of its neighbours", 4096 - 600, 4096 + 1200, 4096 - 512, 8192 + 512},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, img := filled(t, 4)
			want := readAll(t, img)
			clear(want[test.from:test.to])
			must(t, img.Discard(test.off, test.n))
			if !bytes.Equal(readAll(t, img), want) {
				t.Error("wrong bytes")
			}
			must(t, img.Close())
			checkClean(t, r, "/disk.vhd")
			img = open(t, r, "/disk.vhd")
			defer img.Close()
			if !bytes.Equal(readAll(t, img), want) {
				t.Error("wrong bytes after the next open")
			}
		})
	}
}

func TestDiscardAndZeroesCheckTheirRange(t *testing.T) {
	_, img := filled(t, 1)
	size := img.Size()
	for _, d := range [][2]int64{{-1, 1}, {0, -1}, {size, 1}, {size - 511, 512}, {0, size + 1}, {1 << 62, 1 << 62}} {
		for _, err := range []error{img.Discard(d[0], d[1]), img.WriteZeroes(d[0], d[1])} {
			if !errors.Is(err, blockdev.ErrOutOfRange) {
				t.Errorf("%v: %v", d, err)
			}
		}
	}
	must(t, img.Close())
	for _, err := range []error{img.Discard(0, 512), img.WriteZeroes(0, 512)} {
		if !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// A discard on a differencing disk takes what the image holds and leaves the
// parent's: what the image held must not come back as the parent's old bytes.
func TestDiscardOnADifferencingDisk(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	want := noise(64 << 10)
	must(t, write(img, string(bytes.Repeat([]byte{1}, 1024)), 4096+512))
	must(t, write(img, string(bytes.Repeat([]byte{2}, 4096)), 2*4096))
	clear(want[4096+512:][:1024])
	clear(want[2*4096:][:4096])
	must(t, img.Discard(0, img.Size()))
	for range 2 {
		if !bytes.Equal(readAll(t, img), want) {
			t.Error("wrong bytes")
		}
		must(t, img.Close())
		checkClean(t, r, "/disk.vhd")
		img = open(t, r, "/disk.vhd")
	}
	must(t, img.Close())
}

// tapdisk believes its batmap: a block that it has there keeps its place.
func TestDiscardKeepsABlockOfTheBatmapInTheBAT(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	l, batmap, next := byTapdisk(format.Dynamic, 2*block2M, block2M)
	l.block(0, pageBlock(l, next), l.bits(), noise(block2M))
	batmap.Set(0, 1)
	l.seal(batmap).write(t, r, "/disk.vhd")
	img := open(t, r, "/disk.vhd")
	r.take()
	must(t, img.Discard(0, block2M))
	if count(r.take(), "punch") == 0 {
		t.Error("its space was not given back")
	}
	if !bytes.Equal(readAll(t, img), zeros(2*block2M)) {
		t.Error("it doesn't read as zeros")
	}
	must(t, img.Close())
	if batOf(t, r, "/disk.vhd")[0] == format.UnallocatedBlock {
		t.Error("the block is gone from the BAT while its bit is set in the batmap")
	}
	checkClean(t, r, "/disk.vhd")
}

func TestDiscardOnAFixedDisk(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/disk.vhd", format.Fixed, 64<<10, 0)
	fill(t, r, "/disk.vhd", noise(64<<10))
	img := open(t, r, "/disk.vhd")
	size, held := sizeOf(t, r, "/disk.vhd"), img.Allocated()
	want := noise(64 << 10)
	clear(want[4096:16384])
	clear(want[512:1024])
	must(t, img.Discard(4096, 12288))
	must(t, img.WriteZeroes(512, 512))
	if !bytes.Equal(readAll(t, img), want) {
		t.Error("wrong bytes")
	}
	if got := img.Allocated(); got > held-12288+512 { // the footer counts too
		t.Errorf("the file system keeps %d bytes for it, was %d", got, held)
	}
	must(t, img.Close())
	if sizeOf(t, r, "/disk.vhd") != size {
		t.Error("the file's size changed")
	}
	checkClean(t, r, "/disk.vhd")
}

// Zeros over nothing are nothing: no block is allocated, no byte written.
func TestZerosAllocateNothing(t *testing.T) {
	zero := map[string]func(img *vhd.Image) error{
		"WriteZeroes":      func(img *vhd.Image) error { return img.WriteZeroes(100, 60<<10) },
		"WriteAt of zeros": func(img *vhd.Image) error { return write(img, string(zeros(60<<10)), 100) },
		"Discard":          func(img *vhd.Image) error { return img.Discard(0, 64<<10) },
		"ReadAt":           func(img *vhd.Image) error { _, err := img.ReadAt(zeros(64<<10), 0); return err },
	}
	disks := map[string]func(t *testing.T) *recorder{
		"dynamic": func(t *testing.T) *recorder { return small(t, false) },
		"differencing over nothing": func(t *testing.T) *recorder {
			r := &recorder{FS: storagetest.NewMemory()}
			create(t, r, "/base.vhd", format.Dynamic, 64<<10, 4096)
			must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: r}))
			return r
		},
	}
	for disk, build := range disks {
		for op, do := range zero {
			t.Run(disk+"/"+op, func(t *testing.T) {
				r := build(t)
				before := contentOf(t, r, "/disk.vhd")
				img := open(t, r, "/disk.vhd")
				r.take()
				must(t, do(img))
				if img.Allocated() != 0 || img.Dirty() {
					t.Errorf("%d bytes allocated", img.Allocated())
				}
				must(t, img.Close())
				if calls := r.take("write", "truncate", "punch", "allocate"); len(calls) > 0 {
					t.Errorf("the file was changed: %v", calls)
				}
				if !bytes.Equal(contentOf(t, r, "/disk.vhd"), before) {
					t.Error("the file is not what it was")
				}
			})
		}
	}
}

func TestZeroesOverAParentHideIt(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	want := noise(64 << 10)
	for _, z := range [][2]int64{{0, 4096}, {2*4096 + 100, 3000}, {5*4096 - 10, 20}, {9*4096 + 512, 512}, {12 * 4096, 8192}} {
		must(t, img.WriteZeroes(z[0], z[1]))
		clear(want[z[0]:][:z[1]])
	}
	for range 2 {
		if !bytes.Equal(readAll(t, img), want) {
			t.Error("wrong bytes")
		}
		must(t, img.Close())
		checkClean(t, r, "/disk.vhd")
		img = open(t, r, "/disk.vhd")
	}
	must(t, img.Close())
}

// On a file system that can't punch holes, zeros are written.
func TestDiscardWithoutHoles(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := small(t, differencing)
		r.before = func(c call) error {
			if c.op == "punch" {
				return storage.ErrNotSupported
			}
			return nil
		}
		model := readBack(t, r)
		steps := program(model)
		img := open(t, r, "/disk.vhd")
		for _, step := range steps {
			must(t, step(img))
		}
		if !differencing {
			must(t, img.Discard(4*4096, 8192))
			clear(model[4*4096:][:8192])
		}
		must(t, img.Flush())
		must(t, write(img, "reused", 9*4096+77))
		copy(model[9*4096+77:], "reused")
		if !bytes.Equal(readAll(t, img), model) {
			t.Error("wrong bytes")
		}
		must(t, img.Close())
		checkClean(t, r, "/disk.vhd")
	}
}

// readBack is what /disk.vhd shows.
func readBack(t *testing.T, fsys storage.FS) []byte {
	t.Helper()
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	return readAll(t, img)
}

// A write that found no space leaves some of a block behind that must be made
// zeros before it is used again. Where that can't be done either, it is not a
// flush's failure: all that was acknowledged is stable.
func TestFlushSucceedsWhileTheDiskIsFull(t *testing.T) {
	r, img := filled(t, 2)
	end := placeOf(t, img, 1) + 4096
	r.before = func(c call) error {
		switch {
		case c.op == "punch":
			return storage.ErrNotSupported
		case c.op == "write" && c.off >= end: // the file's hole can't be filled
			return asStorage(unix.ENOSPC)
		}
		return nil
	}
	must(t, write(img, "kept", 100))
	if err := write(img, "lost", 2*4096); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Fatalf("write to a new block: %v", err)
	}
	if err := img.Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
	r.before = nil
	must(t, write(img, "found", 2*4096))
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
}

// Writers and discarders of neighbouring blocks, each of which knows what its
// own must hold: nobody's data shows in another's block.
func TestDiscardBesideWriters(t *testing.T) {
	r := small(t, false)
	img := open(t, r, "/disk.vhd")
	stop := make(chan struct{})
	var flusher, wg sync.WaitGroup
	flusher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := img.Flush(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for w := range 4 {
		wg.Go(func() { discardAndWrite(t, img, w) })
	}
	wg.Wait()
	close(stop)
	flusher.Wait()
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
}

// discardAndWrite works on blocks w, w+4, w+8 and w+12 and checks each.
func discardAndWrite(t *testing.T, img *vhd.Image, w int) {
	r := rand.New(rand.NewPCG(uint64(w), 1))
	model := map[int64][]byte{}
	got := make([]byte, 4096)
	for range 400 {
		b := int64(w + 4*r.IntN(4))
		if model[b] == nil {
			model[b] = zeros(4096)
		}
		var err error
		if r.IntN(3) == 0 {
			clear(model[b])
			err = img.Discard(b*4096, 4096)
		} else {
			off := r.IntN(4000)
			p := bytes.Repeat([]byte{byte(w*16 + 1 + r.IntN(15))}, 1+r.IntN(4096-off))
			copy(model[b][off:], p)
			_, err = img.WriteAt(p, b*4096+int64(off))
		}
		if err == nil {
			_, err = img.ReadAt(got, b*4096)
		}
		if err != nil || !bytes.Equal(got, model[b]) {
			t.Errorf("block %d: %v, or it shows what was not written there", b, err)
			return
		}
	}
}

// Zeroing a whole clone makes a bitmap dirty for each block: they are committed
// on the way, not kept until the end.
func TestZeroingAWholeCloneCommitsOnTheWay(t *testing.T) {
	const size = 12 << 20 // in blocks of a sector: more bitmaps than may be dirty
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/base.vhd", format.Fixed, size, 0)
	fill(t, r, "/base.vhd", noise(size))
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: r, BlockSize: 512}))
	img := grownImage(t, r, vhd.Options{})
	must(t, img.WriteZeroes(0, size))
	if syncs := len(r.take("sync")); syncs < 2 {
		t.Errorf("%d syncs on the way, want a commit's at least", syncs)
	}
	must(t, img.Flush())
	if got := len(r.take("write")); got > size/512*3/4 {
		t.Errorf("the flush after it wrote %d times: nothing was committed before", got)
	}
	if !bytes.Equal(readAll(t, img), make([]byte, size)) {
		t.Error("it doesn't read as zeros")
	}
	must(t, img.Close())
}
