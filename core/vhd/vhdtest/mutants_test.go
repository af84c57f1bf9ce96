package vhdtest

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// mutant breaks the engine's protocol from below: what the engine asks for is
// left out, comes late or is changed, and the engine doesn't know.
type mutant struct {
	name  string
	wrap  func(fsys storage.FS) Through
	kinds []string // on each of these it must be found
	rules []int    // by one of these; 0 is a program that reads or ends wrong
}

// Kinds that mutants are found on.
const (
	onFixed        = "fixed"
	onDynamic      = "dynamic, blocks of 2048 bytes"
	onSectors      = "dynamic, blocks of 512 bytes"
	onGrowing      = "dynamic, a BAT of two sectors, growing often"
	onNoEnd        = "dynamic, no footer at the end"
	onBadCopy      = "dynamic, bad footer at the start"
	onStaleCopy    = "dynamic, stale footer copy"
	onQEMU         = "dynamic, as qemu lays it out"
	onPartial      = "dynamic, tapdisk's partial bitmaps"
	onDifferencing = "differencing, blocks of 2048 bytes"
	onSmallChild   = "differencing, blocks of 1024 bytes"
	onChildNoEnd   = "differencing, no footer at the end"
	onChildOfRaw   = "differencing, over a raw parent"
)

// What a mutant may be found by: a power cut, or any use of the disk.
var (
	inCrash = []int{1, 2, 3, 4, 5}
	anyRule = []int{0, 1, 2, 3, 4, 5}
)

func mutants() []mutant {
	return []mutant{
		{"nothing is ever synced", func(storage.FS) Through { return skip(isSync) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"the first sync is left out", func(storage.FS) Through { return skip(nth(1, isSync)) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"the second sync is left out", func(storage.FS) Through { return skip(nth(2, isSync)) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"the third sync is left out", func(storage.FS) Through { return skip(nth(3, isSync)) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"the fifth sync is left out", func(storage.FS) Through { return skip(nth(5, isSync)) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"parents are not synced", parentsUnsynced, []string{onDynamic, onFixed}, []int{2, 3, 4}},
		{"growth is not synced", func(storage.FS) Through { return skip(syncAfter(isTruncate)) }, []string{onDynamic, onSectors, onGrowing, onDifferencing}, inCrash},
		{"bitmaps are not ordered after data", barrierSkipped, []string{onDifferencing, onChildOfRaw}, []int{2, 3}},
		{"what is synced is what was written before the last sync", func(fsys storage.FS) Through { return late(fsys, isWrite) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"the last write before a sync comes after it", lastWriteLate, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"every third write comes after the next sync", func(fsys storage.FS) Through { return late(fsys, everyThird()) }, []string{onFixed, onDynamic, onDifferencing}, inCrash},
		{"the BAT is stable before the data", func(fsys storage.FS) Through { return late(fsys, inBlocks) }, []string{onDynamic, onDifferencing}, []int{2, 3}},
		{"the BAT comes after the sync", func(fsys storage.FS) Through { return late(fsys, inBAT) }, []string{onDynamic, onDifferencing}, []int{2, 3}},
		{"the BAT is not written", func(storage.FS) Through { return skip(inBAT) }, []string{onDynamic, onDifferencing}, []int{0, 2, 3}},
		{"the old footer is not zeroed", func(storage.FS) Through { return skip(zeroesAFooter) }, []string{onQEMU, onSmallChild}, anyRule},
		{"what is behind the old footer is not cut off", func(storage.FS) Through { return skip(cuts) }, []string{onNoEnd, onChildNoEnd}, anyRule},
		{"no footer is written at the new end", func(storage.FS) Through { return skip(writesEndFooter) }, []string{onDynamic, onDifferencing}, []int{1, 5}},
		{"a bad footer copy is not mended", func(storage.FS) Through { return skip(writesFooterCopy) }, []string{onBadCopy}, []int{1, 5}},
		{"a stale footer copy is not brought up to date", func(storage.FS) Through { return skip(writesFooterCopy) }, []string{onStaleCopy}, []int{1}},
		{"freed space is handed back as it was", func(storage.FS) Through { return skip(zeroesABlock) }, []string{onDynamic, onQEMU}, anyRule},
		{"bitmaps call whole what was written in part", func(storage.FS) Through { return widen }, []string{onDifferencing}, []int{0, 2, 3, 4}},
		{"bitmaps are not written", func(storage.FS) Through { return skip(isBitmap) }, []string{onDynamic, onDifferencing}, []int{0, 2, 3, 4}},
		{"a new image is not synced before it has its name", func(storage.FS) Through { return skip(syncOfNew) }, []string{onFixed, onDynamic}, inCrash},
		{"a new name is not synced", func(storage.FS) Through { return skip(opIs(storagetest.OpSyncDir)) }, []string{onFixed, onDynamic}, []int{1}},
		{"a write is acknowledged and not done", func(storage.FS) Through { return skip(nth(3, inBlocks)) }, []string{onDynamic, onDifferencing, onPartial}, anyRule},
	}
}

// enough is how many states have to show each mutant, on each of its kinds: a
// fifth of what is looked at by default.
const enough = Budget * slowness / 5

// TestABrokenProtocolIsFound lets the explorer loose on each mutant; under the
// race detector on the first of its kinds alone.
func TestABrokenProtocolIsFound(t *testing.T) {
	kinds := Kinds()
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			names := m.kinds
			if Slow {
				names = names[:1]
			}
			for _, name := range names {
				k := kinds[slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })]
				r, err := Explore(k, Options{States: enough, Workers: 1, Wrap: func(fsys storage.FS) storage.FS {
					return Intercept(fsys, m.wrap(fsys))
				}})
				var found *Failure
				switch {
				case errors.As(err, &found) && slices.Contains(m.rules, found.Rule):
					t.Logf("%s: found after %d states by rule %d: %v", name, r.States, found.Rule, found.Err)
				case err != nil:
					t.Errorf("%s: found by rule %d, want one of %v: %v", name, found.Rule, m.rules, err)
				default:
					t.Errorf("%s: not found in %d states", name, r.States)
				}
			}
		})
	}
}

// picks tells which calls a mutant changes.
type picks func(c *Call) bool

func opIs(op storagetest.Op) picks { return func(c *Call) bool { return c.Op == op } }

// isSync picks the syncs of images, but for those of the first parent.
func isSync(c *Call) bool     { return c.Op == storagetest.OpSync && !isNew(c) && c.Name != base }
func isTruncate(c *Call) bool { return c.Op == storagetest.OpTruncate }
func isWrite(c *Call) bool    { return c.Op == storagetest.OpWrite && !isNew(c) }

// isNew picks the calls on an image in the making, under a temporary name; the
// other mutants leave it alone.
func isNew(c *Call) bool { return path.Ext(c.Name) == ".tmp" }

func syncOfNew(c *Call) bool { return c.Op == storagetest.OpSync && isNew(c) }

// nth picks the nth of what p picks, in each image's life.
func nth(n int, p picks) picks {
	var mu sync.Mutex
	seen := 0
	return func(c *Call) bool {
		if !p(c) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
		return seen == n
	}
}

func everyThird() picks {
	var mu sync.Mutex
	seen := 0
	return func(c *Call) bool {
		if !isWrite(c) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
		return seen%3 == 0
	}
}

// syncAfter picks the syncs before which, since the last one, there was such a
// call.
func syncAfter(p picks) picks {
	var mu sync.Mutex
	seen := false
	return func(c *Call) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = seen || p(c)
		if !isSync(c) {
			return false
		}
		was := seen
		seen = false
		return was
	}
}

// skip leaves calls out.
func skip(p picks) Through {
	return func(c *Call, do func() error) error {
		if p(c) {
			return nil
		}
		return do()
	}
}

// tables is where the BAT of a file is, and how long a block; ok is false
// where the file is no sparse image.
func tables(f storage.File) (from, to, bitmap, block int64, ok bool) {
	var b [format.HeaderSize]byte
	if _, err := f.ReadAt(b[:], format.FooterSize); err != nil {
		return 0, 0, 0, 0, false
	}
	h, err := format.DecodeHeader(b[:])
	if err != nil {
		return 0, 0, 0, 0, false
	}
	from = int64(h.TableOffset)
	return from, from + format.BATSize(int64(h.MaxTableEntries)), h.BitmapSize(), int64(h.BlockSize), true
}

// inBAT picks writes to the BAT.
func inBAT(c *Call) bool {
	if !isWrite(c) {
		return false
	}
	from, to, _, _, ok := tables(c.File)
	return ok && c.Off >= from && c.Off < to
}

// inBlocks picks writes behind the tables, footers left out.
func inBlocks(c *Call) bool {
	if !isWrite(c) || bytes.HasPrefix(c.Data, []byte("conectix")) {
		return false
	}
	_, to, _, _, ok := tables(c.File)
	return ok && c.Off >= to && !zeroesAFooter(c)
}

// isBitmap picks writes of a sector bitmap, told by where the engine places
// them: a sector before a place that is aligned to the block.
func isBitmap(c *Call) bool {
	if !inBlocks(c) {
		return false
	}
	_, _, bitmap, block, _ := tables(c.File)
	return c.Len == bitmap && (c.Off+bitmap)%min(4096, block) == 0
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// zeroesAFooter picks the write of zeros over a footer.
func zeroesAFooter(c *Call) bool {
	if !isWrite(c) || c.Len != format.FooterSize || !isZero(c.Data) {
		return false
	}
	var b [8]byte
	_, err := c.File.ReadAt(b[:], c.Off)
	return err == nil && string(b[:]) == "conectix"
}

// zeroesABlock picks writes of zeros as long as a block, or more.
func zeroesABlock(c *Call) bool {
	if !inBlocks(c) || !isZero(c.Data) {
		return false
	}
	_, _, bitmap, block, _ := tables(c.File)
	return c.Len == block && block > bitmap || c.Len == block+bitmap
}

// cuts picks truncates that make a file smaller.
func cuts(c *Call) bool {
	if !isTruncate(c) {
		return false
	}
	size, err := c.File.Size()
	return err == nil && c.Off < size
}

func writesFooter(c *Call) bool {
	return isWrite(c) && bytes.HasPrefix(c.Data, []byte("conectix"))
}

func writesEndFooter(c *Call) bool  { return writesFooter(c) && c.Off > 0 }
func writesFooterCopy(c *Call) bool { return writesFooter(c) && c.Off == 0 }

// widen sets all bits of a bitmap that has any.
func widen(c *Call, do func() error) error {
	if isBitmap(c) && !isZero(c.Data) {
		c.Data = bytes.Repeat([]byte{0xff}, len(c.Data))
	}
	return do()
}

// barrierSkipped leaves out the sync between the data of new blocks and the
// tables that will lead to it, and no other: what is written to a place that
// no BAT entry on disk leads to has its entry still to come.
func barrierSkipped(storage.FS) Through {
	var mu sync.Mutex
	ahead := false
	return func(c *Call, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case inBAT(c), isTruncate(c):
			ahead = false
		case inBlocks(c) && !isZero(c.Data) && !placed(c):
			ahead = true
		case isSync(c) && ahead:
			ahead = false
			return nil
		}
		return do()
	}
}

// parentsUnsynced leaves out the syncs of files that were opened for reading.
func parentsUnsynced(storage.FS) Through {
	var mu sync.Mutex
	reading := map[storage.File]bool{}
	return func(c *Call, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Op == storagetest.OpSync && reading[c.File] {
			return nil
		}
		err := do()
		if c.Op == storagetest.OpOpen && c.Flag&storage.ReadWrite == 0 {
			reading[c.File] = true
		}
		return err
	}
}

// placed tells whether the BAT as it is in the file leads to where c writes.
func placed(c *Call) bool {
	from, to, bitmap, block, _ := tables(c.File)
	b := make([]byte, to-from)
	if _, err := c.File.ReadAt(b, from); err != nil {
		return false
	}
	bat := make([]uint32, len(b)/4)
	format.DecodeBAT(bat, b)
	return slices.ContainsFunc(bat, func(sector uint32) bool {
		at := int64(sector) * format.SectorSize
		return sector != format.UnallocatedBlock && c.Off >= at && c.Off < at+bitmap+block
	})
}
