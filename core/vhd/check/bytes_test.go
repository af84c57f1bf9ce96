package check

import (
	"fmt"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// TestEveryByteCounts changes each byte of the structures that are summed, one
// at a time: each change is found.
func TestEveryByteCounts(t *testing.T) {
	mem := storagetest.NewMemory()
	tapdiskDisk().write(t, mem, "/disk.vhd")
	f, err := mem.Open("/disk.vhd", storage.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	ranges := map[string][2]int64{
		"footer copy":    {0, 512},
		"dynamic header": {512, 1536},
		"batmap header":  {mapAt, mapAt + 28}, // cookie, offset, size, version, checksum
		"batmap":         {mapAt + 512, mapAt + 1024},
		"footer":         {size - 512, size},
	}
	for name, r := range ranges {
		t.Run(name, func(t *testing.T) {
			for at := r[0]; at < r[1]; at++ {
				restore := flip(t, f, at, 0x40)
				if report := run(t, "/disk.vhd", everything(mem)); report.Worst() == Note {
					t.Errorf("byte %d changed: %s", at-r[0], lines(report.Findings))
				}
				restore()
			}
		})
	}
	expect(t, run(t, "/disk.vhd", everything(mem)).Findings) // all is as it was
}

// TestEveryEntryCounts moves each block by powers of two sectors: it overlaps
// something then, or leaves the file, or its bitmap isn't where the batmap
// promises one that is full. Fewer sectors than its gap has are left out.
func TestEveryEntryCounts(t *testing.T) {
	mem := storagetest.NewMemory()
	r := tapdiskDisk()
	r.write(t, mem, "/disk.vhd")
	f, err := mem.Open("/disk.vhd", storage.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, block := range []int64{0, 2, 5} {
		for bit := 3; bit < 32; bit++ {
			at := 1536 + block*4 + int64(3-bit/8)
			restore := flip(t, f, at, 1<<(bit%8))
			if report := run(t, "/disk.vhd", everything(mem)); !report.Damaged() {
				t.Errorf("bit %d of block %d's entry changed: %s", bit, block, lines(report.Findings))
			}
			restore()
		}
	}
}

// flip changes bits of a byte of the file; what it returns changes them back.
func flip(t *testing.T, f storage.File, at int64, bits byte) (restore func()) {
	t.Helper()
	var was [1]byte
	if _, err := f.ReadAt(was[:], at); err != nil {
		t.Fatal(err)
	}
	put := func(b byte) {
		if _, err := f.WriteAt([]byte{b}, at); err != nil {
			t.Fatal(err)
		}
	}
	put(was[0] ^ bits)
	return func() { put(was[0]) }
}

// TestFooterDifferences changes each field of the copy that tells nothing of
// another disk.
func TestFooterDifferences(t *testing.T) {
	fields := map[string]func(*format.Footer){
		"current size (512, footer 1048576)":   func(f *format.Footer) { f.CurrentSize = 512 },
		"original size (512, footer 1048576)":  func(f *format.Footer) { f.OriginalSize = 512 },
		"data offset (1024, footer 512)":       func(f *format.Footer) { f.DataOffset = 1024 },
		"geometry (1/2/3, footer 30/4/17)":     func(f *format.Footer) { f.Geometry = format.Geometry{Cylinders: 1, Heads: 2, Sectors: 3} },
		"creator (tap, footer win)":            func(f *format.Footer) { f.Creator = format.CreatorTap },
		"creator version (7, footer 655360)":   func(f *format.Footer) { f.CreatorVersion = 7 },
		"creator host (Mac, footer Wi2k)":      func(f *format.Footer) { f.CreatorOS = format.HostMac },
		"format version (2, footer 65536)":     func(f *format.Footer) { f.Version = 2 },
		"features (3, footer 2)":               func(f *format.Footer) { f.Features = 3 },
		"saved state (1, footer 0)":            func(f *format.Footer) { f.SavedState = 1 },
		"hidden mark (1, footer 0)":            func(f *format.Footer) { f.Hidden = 1 },
		"v_poison) (true, footer false)":       func(f *format.Footer) { f.Poisoned = true },
		"reserved bytes; programs that read":   func(f *format.Footer) { f.Reserved[7] = 1 },
		"saved state (1, footer 0), hidden ma": func(f *format.Footer) { f.SavedState, f.Hidden = 1, 1 },
	}
	for words, change := range fields {
		t.Run(words, func(t *testing.T) {
			r := dynamicDisk()
			front := *r.footer
			change(&front)
			r.copy = &front
			expect(t, runRecipe(t, r).Findings, want{Warning, "footer copy", words})
		})
	}
}

// TestHiddenChecksumOfOneFooter: early XenServer versions marked the copy
// only, and left its checksum.
func TestHiddenChecksumOfOneFooter(t *testing.T) {
	r := tapdiskDisk()
	r.footer.CreatorVersion, r.batmap = 1<<16|1, nil
	r.patch(85, 1)
	expect(t, runRecipe(t, r).Findings)
	r.footer.CreatorVersion, r.batmap = 1<<16|3, tapdiskDisk().batmap
	expect(t, runRecipe(t, r).Findings, want{Damage, "footer copy", "wrong checksum"})
}

// TestBlockSizes: the arithmetic holds from a sector to 256 MiB.
func TestBlockSizes(t *testing.T) {
	for size := int64(format.MinBlockSize); size <= format.MaxBlockSize; size *= 2 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			disk := 3 * size
			r := dynamicDisk()
			r.footer = format.NewFooter(disk, format.Dynamic, testNow)
			r.header = format.NewHeader(disk, size)
			bitmap := r.header.BitmapSize()
			first, length := uint32(8), uint32((bitmap+size)/512)
			r.bat = []uint32{first + length, first, format.UnallocatedBlock}
			r.bitmap = func(int) format.Bitmap {
				b := make(format.Bitmap, bitmap)
				b.Set(0, int(size/512))
				return b
			}
			r.length = int64(first+2*length) * 512
			expect(t, runRecipe(t, r).Findings)

			r.bat[0]--
			report := runRecipe(t, r)
			if len(report.Findings) == 0 || !(want{Damage, "block 0", "overlap block 1"}).matches(report.Findings[0]) {
				t.Errorf("blocks overlap by a sector:\n%s", lines(report.Findings))
			}
		})
	}
}
