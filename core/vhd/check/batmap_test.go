package check

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestBatmap(t *testing.T) {
	runSpoiled(t, []spoiled{
		{"not there", tapdiskDisk, func(r *recipe) { r.batmap = nil },
			want{Damage, "batmap", "none after the BAT"}},
		{"version", tapdiskDisk, func(r *recipe) { r.batmap.Version = 0x00010003 },
			want{Damage, "batmap", "version"}},
		{"offset unaligned", tapdiskDisk, func(r *recipe) { r.batmap.Offset++ },
			want{Damage, "batmap", "offset"}},
		{"offset zero", tapdiskDisk, func(r *recipe) { r.batmap.Offset = 0 },
			want{Damage, "batmap", "offset"}},
		{"offset past the end", tapdiskDisk, func(r *recipe) { r.batmap.Offset = 1 << 50 },
			want{Damage, "batmap", "run past the end"}},
		{"offset near 2^64", tapdiskDisk, func(r *recipe) { r.batmap.Offset = 1<<64 - 512 },
			want{Damage, "batmap", "offset"}},
		{"size zero", tapdiskDisk, func(r *recipe) { r.batmap.Sectors = 0 },
			want{Damage, "batmap", "size"}},
		{"size past the end", tapdiskDisk, func(r *recipe) { r.batmap.Sectors = 1 << 31 },
			want{Damage, "batmap", "run past the end"}},
		{"checksum", tapdiskDisk, func(r *recipe) { r.batmap.Checksum = 1 },
			want{Damage, "batmap", "stored 0x00000001"}},
		{"encrypted", tapdiskDisk, func(r *recipe) { r.batmap.KeyHash.Set = 1 },
			want{Warning, "batmap", "encrypted"}},
		{"bit of an unallocated block", tapdiskDisk, func(r *recipe) { r.full.Set(9, 1) },
			want{Damage, "block 9", "not allocated, but full"}},
		{"bit of a block that isn't full", tapdiskDisk, func(r *recipe) {
			r.bitmap = func(block int) format.Bitmap { return ones(128 - block) }
			r.full.Clear(5, 1) // block 2 lacks 2
		}, want{Damage, "block 2", "lacks 2 of 128"}},
	})
}

func TestBatmapOverTheBAT(t *testing.T) {
	r := tapdiskDisk()
	r.batmap.Offset, r.batmap.Checksum = 1536, 1
	expect(t, runRecipe(t, r).Findings,
		want{Damage, "batmap", "stored 0x00000001"}, want{Damage, "batmap", "overlaps the BAT (bytes 0x600 to 0x7ff)"})
}

// TestBatmapTooShortForTheSum: tapdisk aborts on such an image.
func TestBatmapTooShortForTheSum(t *testing.T) {
	r := tapdiskDisk()
	r.footer.CurrentSize, r.footer.OriginalSize = 1<<40, 1<<40
	r.footer.Geometry = format.GeometryFor(1 << 40)
	r.header.BlockSize, r.header.MaxTableEntries = 256<<20, 4096
	r.bat = emptyBAT(4096)
	r.patch(1536+16384, encoded(r.batmap, format.BatmapHeaderSize)...)
	r.batmap.Offset = 1536 + 16384 + 512
	r.patches[0].data = encoded(r.batmap, format.BatmapHeaderSize)
	r.batmap, r.length = nil, 1<<20
	expect(t, runRecipe(t, r).Findings,
		want{Damage, "batmap", "512 bytes are too few for the current size of 1099511627776, which needs 65536"},
		want{Note, "file", "belong to no block"})
}

// TestPlaceOfABatmapThatIsNotThere: tapdisk's images of version 1.1 may have no
// batmap. What a guest could make one has no business where it would be.
func TestPlaceOfABatmapThatIsNotThere(t *testing.T) {
	old := func() *recipe {
		r := tapdiskDisk()
		r.footer.CreatorVersion, r.batmap, r.full = 1<<16|1, nil, nil
		return r
	}
	expect(t, runRecipe(t, old()).Findings)

	block := old()
	block.bat[2] = mapAt / 512
	expect(t, runRecipe(t, block).Findings,
		want{Warning, "block 2", "up to where tapdisk looks for a batmap's header (0x800)"}, want{Note, "file", "belong to no block"})

	locator := childDisk(t, format.NewFooter(testSize, format.Dynamic, testNow), "base.vhd", testNow)
	locator.footer.Creator, locator.footer.CreatorVersion = format.CreatorTap, 1<<16|1
	expect(t, runRecipe(t, locator).Findings, want{Damage, "parent", "not found"})

	footer := old()
	footer.bat, footer.length = emptyBAT(16), mapAt
	expect(t, runRecipe(t, footer).Findings)
}

func encoded(record interface{ Encode([]byte) }, length int) []byte {
	buf := make([]byte, length)
	record.Encode(buf)
	return buf
}

// TestBatmapIsTapdisksAlone: what another creator has after its BAT is no
// batmap, even if it looks like one.
func TestBatmapIsTapdisksAlone(t *testing.T) {
	r := tapdiskDisk()
	r.footer.Creator = format.CreatorWindows
	r.batmap.Checksum = 1
	expect(t, runRecipe(t, r).Findings)
}

func TestBatmapAfterTheHeadersIsNoLeak(t *testing.T) {
	report := runRecipe(t, tapdiskDisk())
	if report.LeakedBytes != 0 {
		t.Errorf("%d bytes leaked", report.LeakedBytes)
	}
}
