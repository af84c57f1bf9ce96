package check

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestSectorBitmaps(t *testing.T) {
	clearing := func(first, n int) func(int) format.Bitmap {
		return func(block int) format.Bitmap {
			b := ones(128)
			if block == 2 {
				b.Clear(first, n)
			}
			return b
		}
	}
	data := func(sector int) int64 { return int64(firstBlock+1+sector) * 512 }
	runSpoiled(t, []spoiled{
		{"data under a clear bit", dynamicDisk, func(r *recipe) {
			r.bitmap = clearing(40, 3)
			r.patch(data(42)+511, 1)
		}, want{Warning, "block 2", "sector 42 of 128 has data under a clear bit"}},
		{"data under the last bit", dynamicDisk, func(r *recipe) {
			r.bitmap = clearing(0, 128)
			r.patch(data(127), 1)
		}, want{Warning, "block 2", "sector 127 of 128"}},
		{"bits beyond the block", dynamicDisk, func(r *recipe) {
			r.bitmap = func(block int) format.Bitmap { return ones(4096 - block) }
		}, want{Note, "block 2", "beyond the block's 128 sectors; so have others: 2"}},
		{"last bit beyond the block", dynamicDisk, func(r *recipe) {
			r.bitmap = func(block int) format.Bitmap {
				b := ones(128)
				if block == 5 {
					b.Set(4095, 1)
				}
				return b
			}
		}, want{Note, "block 5", "so have others: 0"}},
	})
}

// TestBitmapsAreReadOnlyIfAskedFor: the check of a large image must not read
// all over it by default.
func TestBitmapsAreReadOnlyIfAskedFor(t *testing.T) {
	fs := storagetest.NewMemory()
	r := dynamicDisk()
	r.bitmap = func(int) format.Bitmap { return make(format.Bitmap, 512) }
	r.patch((firstBlock+5)*512, 1)
	r.write(t, fs, "/disk.vhd")
	o := everything(fs)
	expect(t, run(t, "/disk.vhd", o).Findings, want{Warning, "block 2", "sector 4 of 128"})
	o.Bitmaps = false
	expect(t, run(t, "/disk.vhd", o).Findings)
}

func TestDataUnderClearBits(t *testing.T) {
	clear := func() *recipe {
		r := dynamicDisk()
		r.bitmap = func(int) format.Bitmap { return make(format.Bitmap, 512) }
		return r
	}
	t.Run("past the end of the disk", func(t *testing.T) {
		r := clear()
		r.footer = format.NewFooter(testSize-512, format.Dynamic, testNow)
		r.bat[15] = firstBlock + 3*stride
		r.patch((firstBlock+3*stride+testRun-1)*512, 1)
		expect(t, runRecipe(t, r).Findings)
	})
	t.Run("of a child", func(t *testing.T) {
		fs, o := family(t)
		r := childDisk(t, footerOf(t, fs, "/vm/base.vhd"), "base.vhd", modTime(t, fs, "/vm/base.vhd"))
		r.bitmap = func(int) format.Bitmap { return make(format.Bitmap, 512) }
		r.patch((firstBlock+5)*512, 1)
		r.write(t, fs, "/vm/lost.vhd")
		expect(t, run(t, "/vm/lost.vhd", o).Findings)
	})
	t.Run("of an encrypted image", func(t *testing.T) {
		r := tapdiskDisk()
		r.bitmap = func(int) format.Bitmap { return make(format.Bitmap, 512) }
		r.full = make(format.Bitmap, 512)
		r.batmap.KeyHash.Set = 1
		r.patch((firstBlock+5)*512, 1)
		expect(t, runRecipe(t, r).Findings, want{Warning, "batmap", "encrypted"})
	})
	t.Run("bits in reverse", func(t *testing.T) {
		r := clear()
		r.footer.Creator, r.footer.CreatorVersion = format.CreatorTap, 1
		r.bitmap = func(int) format.Bitmap {
			b := make(format.Bitmap, 512)
			b[0] = 0x01 // sector 0
			return b
		}
		r.patch((firstBlock+1)*512, 1)
		oldest := want{Warning, "footer", "bits in reverse"}
		expect(t, runRecipe(t, r).Findings, oldest)
		r.patch((firstBlock+8)*512, 1) // sector 7, which 0x01 would be otherwise
		expect(t, runRecipe(t, r).Findings, oldest, want{Warning, "block 2", "sector 7 of 128"})
	})
}
