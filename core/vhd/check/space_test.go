package check

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestBlockPlaces(t *testing.T) {
	const last = firstBlock + 2*stride + testRun // the end footer's sector
	put := func(block int, sector uint32) func(*recipe) {
		return func(r *recipe) {
			r.length = last * 512
			r.bitmap = func(int) format.Bitmap { return nil } // so that no block spoils another
			if sector < firstBlock {
				// Block 2 would be overlapped too; the others close its gap.
				r.bat[2], r.bat[0], r.bat[5] = format.UnallocatedBlock, stride, 2*stride
			}
			if r.batmap != nil {
				r.full = make(format.Bitmap, 512)
			}
			r.bat[block] = sector
		}
	}
	runSpoiled(t, []spoiled{
		{"in the footer copy", dynamicDisk, put(9, 0), want{Damage, "block 9", "overlap the footer copy"}},
		{"in the header", dynamicDisk, put(9, 1), want{Damage, "block 9", "overlap the dynamic header"}},
		{"in the BAT", dynamicDisk, put(9, 3), want{Damage, "block 9", "overlap the BAT"}},
		{"in the batmap's header", tapdiskDisk, put(9, 4), want{Damage, "block 9", "overlap the batmap header"}},
		{"in the batmap", tapdiskDisk, put(9, 5), want{Damage, "block 9", "overlap the batmap"}},
		{"same as another", dynamicDisk, put(9, firstBlock), want{Damage, "block 9", "sectors 7 to 135 overlap block 2 (sectors 7 to 135)"}},
		{"behind another's start", dynamicDisk, put(9, firstBlock+2*stride-1), want{Damage, "block 5", "overlap block 9"}},
		{"in the end footer", dynamicDisk, put(9, last-testRun+1), want{Damage, "block 9", "runs past the end of the data"}},
		{"past the end", dynamicDisk, put(9, 9999), want{Damage, "block 9", "past the end of the file (sector 9999 of 408)"}},
		{"last sector there is", dynamicDisk, put(9, 0xFFFFFFFE), want{Damage, "block 9", "past the end of the file"}},
	})
}

// TestBlocksPastTheDisk: entries that the disk's size doesn't need are nobody's
// until it grows.
func TestBlocksPastTheDisk(t *testing.T) {
	put := func(sector uint32) *recipe {
		r := dynamicDisk()
		r.header.MaxTableEntries = 20
		r.bat = append(r.bat, emptyBAT(4)...)
		r.bat[18] = sector
		r.length = (firstBlock + 2*stride + testRun) * 512
		r.bitmap = func(int) format.Bitmap { return nil }
		return r
	}
	expect(t, runRecipe(t, put(9999)).Findings, want{Warning, "block 18", "past the end of the file"})
	expect(t, runRecipe(t, put(firstBlock)).Findings, want{Warning, "block 18", "overlap block 2"})
	expect(t, runRecipe(t, put(0)).Findings,
		want{Warning, "block 18", "overlap the footer copy"}, want{Warning, "block 2", "overlap block 18"})
}

func TestBlockWithoutEndFooterMayReachTheEnd(t *testing.T) {
	r := dynamicDisk()
	r.noEnd = true
	r.bat[9] = firstBlock + 3*stride
	expect(t, runRecipe(t, r).Findings, want{Warning, "footer", "no valid one"})
}

func TestLeaks(t *testing.T) {
	cases := map[string]struct {
		spoil func(*recipe)
		bytes int64
	}{
		"after the last block": {func(r *recipe) { r.length = (firstBlock+2*stride+testRun)*512 + 8192 }, 8192},
		"a block that nobody has": {func(r *recipe) { r.bat[0] = format.UnallocatedBlock },
			(2*stride - testRun) * 512},
		"all of it": {func(r *recipe) {
			r.length = 1 << 20
			r.bat = emptyBAT(16)
		}, 1<<20 - 2048},
		"less than an alignment": {func(r *recipe) { r.length = (firstBlock+2*stride+testRun)*512 + 3584 }, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := dynamicDisk()
			c.spoil(r)
			report := runRecipe(t, r)
			if report.LeakedBytes != c.bytes {
				t.Errorf("%d bytes leaked, want %d", report.LeakedBytes, c.bytes)
			}
			var wanted []want
			if c.bytes > 0 {
				wanted = []want{{Note, "file", fmt.Sprintf("%d bytes belong to no block (gaps: 1)", c.bytes)}}
			}
			expect(t, report.Findings, wanted...)
		})
	}
}

// TestOverlapsAgainstPairs holds the sweep against a comparison of each block
// with each other.
func TestOverlapsAgainstPairs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	clean := 0
	for round := range 300 {
		r := dynamicDisk()
		r.bitmap = func(int) format.Bitmap { return nil }
		r.length = 5000 * 512
		r.bat = emptyBAT(16)
		for range rng.IntN(8) {
			r.bat[rng.IntN(16)] = uint32(rng.IntN(4800))
		}
		report := runRecipe(t, r)
		if overlap := anyOverlap(r.bat); overlap != report.Damaged() {
			t.Fatalf("round %d: BAT %v: overlap is %v, but the findings:\n%s", round, r.bat, overlap, lines(report.Findings))
		} else if !overlap {
			clean++
		}
	}
	if clean < 30 || clean > 270 {
		t.Errorf("%d of 300 rounds were clean: the rounds prove little", clean)
	}
}

// anyOverlap compares all pairs, the first four sectors and one another.
func anyOverlap(bat []uint32) bool {
	for i, a := range bat {
		if a == format.UnallocatedBlock {
			continue
		}
		if a < 4 {
			return true
		}
		for _, b := range bat[:i] {
			if b != format.UnallocatedBlock && a < b+testRun && b < a+testRun {
				return true
			}
		}
	}
	return false
}

// TestWindowsGiveEveryBlockInOrder takes a file of 8 GiB in windows of a few
// blocks.
func TestWindowsGiveEveryBlockInOrder(t *testing.T) {
	const blocks = 64
	fs := storagetest.NewMemory()
	r := dynamicDisk()
	r.length = 8 << 30
	r.header.MaxTableEntries = blocks
	r.bat = emptyBAT(blocks)
	for i := range r.bat {
		r.bat[i] = uint32((i*37%blocks)<<18 + 1000) // four to a bucket
	}
	r.bat[7] = format.UnallocatedBlock
	r.bitmap = func(int) format.Bitmap { return nil }
	r.write(t, fs, "/disk.vhd")

	for _, limit := range []int64{1, 3, 4, 9, windowBlocks} {
		img := openHeader(t, fs, "/disk.vhd")
		count, err := img.checkEntries()
		if err != nil {
			t.Fatal(err)
		}
		seen, last := map[int64]bool{}, int64(-1)
		err = img.windows(count, limit, func(window []format.Place) error {
			if int64(len(window)) > max(limit, 4) {
				t.Errorf("limit %d: a window of %d blocks", limit, len(window))
			}
			for _, p := range window {
				if int64(p.Sector()) <= last || r.bat[p.Block()] != p.Sector() {
					t.Errorf("limit %d: block %d at sector %d after sector %d", limit, p.Block(), p.Sector(), last)
				}
				seen[p.Block()], last = true, int64(p.Sector())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		full := limit >= 4 // a bucket of four is cut short below that
		if full && len(seen) != blocks-1 {
			t.Errorf("limit %d: %d blocks seen, want %d", limit, len(seen), blocks-1)
		}
	}
}

// openHeader is an image whose header has been read.
func openHeader(t *testing.T, fs *storagetest.Memory, name string) *image {
	t.Helper()
	c := &chain{opt: everything(fs), report: &Report{}}
	img, err := c.open(source{name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.close() })
	if !img.checkType() || !img.checkSize() || img.readHeader() != nil || img.header == nil {
		t.Fatalf("no header in %s: %v", name, c.found.list)
	}
	return img
}
