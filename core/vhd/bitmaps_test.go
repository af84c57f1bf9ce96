package vhd

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const testBitmap = 64 << 10 // bytes of a bitmap, as in blocks of 256 MiB

func TestBitmapCacheStaysWithinItsBound(t *testing.T) {
	c := newBitmapCache(testBitmap)
	for b := range int64(1000) {
		s := c.put(b, uint32(b), make(format.Bitmap, testBitmap), false)
		if c.peek(b, uint32(b)) != s {
			t.Fatalf("bitmap %d was dropped for being new", b)
		}
		if n := int64(len(c.byBlock)) * testBitmap; n > maxBitmapBytes {
			t.Fatalf("%d bytes in memory, bound %d", n, maxBitmapBytes)
		}
	}
}

func TestBitmapCacheKeepsWhatIsDirtyOrPinned(t *testing.T) {
	c := newBitmapCache(testBitmap)
	pinned := c.put(1, 1, make(format.Bitmap, testBitmap), true)
	dirty := c.put(2, 2, make(format.Bitmap, testBitmap), true)
	dirty.set(5, 1, 8)
	c.unpin(dirty, true)
	for b := int64(10); b < 1000; b++ {
		c.put(b, uint32(b), make(format.Bitmap, testBitmap), false)
	}
	if c.peek(1, 1) != pinned || c.peek(2, 2) != dirty {
		t.Fatal("a pinned or dirty bitmap was dropped")
	}
	c.unpin(pinned, false)
	c.committed(c.pending())
	for b := int64(1000); b < 20000 && (c.peek(1, 1) != nil || c.peek(2, 2) != nil); b++ {
		c.put(b, uint32(b), make(format.Bitmap, testBitmap), false)
	}
	if c.peek(1, 1) != nil || c.peek(2, 2) != nil {
		t.Error("clean bitmaps that nobody uses stay forever")
	}
}

func TestBitmapChangedDuringACommitStaysDirty(t *testing.T) {
	c := newBitmapCache(512)
	s := c.put(1, 1, make(format.Bitmap, 512), true)
	s.set(0, 1, 64)
	c.unpin(s, true)
	list := c.pending()
	if len(list) != 1 || !list[0].bits.Get(0) {
		t.Fatalf("pending %v", list)
	}
	s.set(1, 1, 64)
	if list[0].bits.Get(1) {
		t.Error("a bit that came later is in the copy: its data may not be stable")
	}
	c.committed(list)
	if !c.isDirty() {
		t.Error("the later bit is forgotten")
	}
	c.committed(c.pending())
	if c.isDirty() {
		t.Error("dirty after all was committed")
	}
}

func TestBitmapSetTellsWhatChanged(t *testing.T) {
	s := &sectorBitmap{bits: make(format.Bitmap, 512)}
	steps := []struct {
		first, n      int
		changed, full bool
	}{{0, 4, true, false}, {1, 2, false, false}, {3, 2, true, false}, {5, 3, true, true}, {0, 8, false, false}}
	for _, step := range steps {
		if changed, full := s.set(step.first, step.n, 8); changed != step.changed || full != step.full {
			t.Errorf("set %d+%d: changed %v, full %v", step.first, step.n, changed, full)
		}
	}
}

// A block that was given up and came back elsewhere has another bitmap.
func TestBitmapOfAPlaceTheBlockHasLeftIsNotFound(t *testing.T) {
	c := newBitmapCache(512)
	old := c.put(7, 100, make(format.Bitmap, 512), true)
	c.unpin(old, true)
	if c.peek(7, 200) != nil || c.pin(7, 200) != nil {
		t.Fatal("the bitmap of another place is found")
	}
	s := c.put(7, 200, make(format.Bitmap, 512), false)
	if s == old || c.peek(7, 200) != s || c.peek(7, 100) != nil {
		t.Error("the old place's bitmap is still there")
	}
	if c.isDirty() {
		t.Error("the old place's bitmap would still be written")
	}
	if again := c.put(7, 200, make(format.Bitmap, 512), false); again != s {
		t.Error("who comes second replaces what the first has changed")
	}
}

func TestBitset(t *testing.T) {
	s := newBitset(130)
	for _, i := range []int64{0, 63, 64, 129} {
		s.add(i)
		if !s.has(i) {
			t.Errorf("%d is not in the set", i)
		}
	}
	s.remove(64)
	for i, want := range map[int64]bool{0: true, 1: false, 63: true, 64: false, 65: false, 129: true} {
		if s.has(i) != want {
			t.Errorf("%d: %v", i, !want)
		}
	}
}

// The allocator hands out each place once, its data aligned, within what is
// known to be zeros.
func TestAllocatorHandsOutEachPlaceOnce(t *testing.T) {
	for _, block := range []int64{512, 4096, 2 << 20} {
		l := &layer{
			footer: &format.Footer{DataOffset: 512},
			header: &format.Header{TableOffset: 1536, BlockSize: uint32(block)},
			blocks: &blockMap{blockSize: block, bitmapSize: 512, count: 1000, bat: make([]uint32, 1000)},
		}
		for i := range l.blocks.bat {
			l.blocks.bat[i] = format.UnallocatedBlock
		}
		var a allocator
		a.init(l, false)
		if _, ok := a.take(); ok {
			t.Error("space was handed out before the file has grown")
		}
		a.limit = a.next + 10*(block+4096)
		end := a.next
		for {
			off, ok := a.take()
			if !ok {
				break
			}
			if off < end || off+512+block > a.limit || (off+512)%min(block, 4096) != 0 {
				t.Fatalf("block size %d: place %d after %d, limit %d", block, off, end, a.limit)
			}
			end = off + 512 + block
		}
		a.retire(1536)
		if _, ok := a.take(); ok {
			t.Error("space that was given up was handed out before a commit")
		}
		a.addFree(a.takeRetired())
		if off, ok := a.take(); !ok || off != 1536 {
			t.Errorf("the free space is not handed out: %d, %v", off, ok)
		}
		if _, ok := a.take(); ok {
			t.Error("it was handed out twice")
		}
	}
}
