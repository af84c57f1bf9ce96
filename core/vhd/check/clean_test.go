package check

import (
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestCleanImagesHaveNoFindings(t *testing.T) {
	images := map[string]func() *recipe{
		"fixed":   fixedDisk,
		"dynamic": dynamicDisk,
		"tapdisk": tapdiskDisk,
		"empty": func() *recipe {
			r := dynamicDisk()
			r.bat = emptyBAT(testSize / testBlock)
			return r
		},
		"more entries than the size needs": func() *recipe {
			r := dynamicDisk()
			r.header.MaxTableEntries = 100
			r.bat = append(r.bat, emptyBAT(84)...)
			return r
		},
		"last block in part": func() *recipe {
			r := dynamicDisk()
			r.footer = format.NewFooter(testSize-testBlock/2, format.Dynamic, testNow)
			r.bat[15] = firstBlock + 3*stride
			return r
		},
		"no block has a gap before it": func() *recipe {
			r := dynamicDisk()
			r.bat[2], r.bat[0], r.bat[5] = 4, 4+testRun, 4+2*testRun
			return r
		},
		"clear bits over zeros": func() *recipe {
			r := dynamicDisk()
			r.bitmap = func(int) format.Bitmap { return ones(3) }
			return r
		},
		"data under set bits": func() *recipe {
			r := dynamicDisk()
			r.patch((firstBlock+1)*512, 1, 2, 3)
			return r
		},
		"batmap bits past the end of the disk": func() *recipe {
			r := tapdiskDisk()
			r.header.MaxTableEntries = 100
			r.bat = append(r.bat, emptyBAT(84)...)
			r.full.Set(16, 84)
			return r
		},
		"batmap of version 1.1 left out": func() *recipe {
			r := tapdiskDisk()
			r.batmap, r.footer.CreatorVersion = nil, 1<<16|1
			return r
		},
		"batmap that sums signed bytes": func() *recipe {
			r := tapdiskDisk()
			r.batmap.Version, r.full = format.BatmapVersionSigned, make(format.Bitmap, 512)
			r.full.Set(0, 1)
			return r
		},
	}
	for name, image := range images {
		t.Run(name, func(t *testing.T) {
			expect(t, runRecipe(t, image()).Findings)
		})
	}
}

func TestCleanChainHasNoFindings(t *testing.T) {
	fs, o := family(t)
	expect(t, run(t, "/vm/child.vhd", o).Findings)

	grandchild := childDisk(t, footerOf(t, fs, "/vm/child.vhd"), "child.vhd", modTime(t, fs, "/vm/child.vhd"))
	grandchild.write(t, fs, "/vm/sub/grandchild.vhd")
	o.ParentDirs = []string{"/vm"}
	grandchild.locate(t, 0, format.CodeMacX, "../child.vhd")
	grandchild.write(t, fs, "/vm/sub/other.vhd")
	expect(t, run(t, "/vm/sub/other.vhd", o).Findings)
}

func TestReportCountsBlocks(t *testing.T) {
	report := runRecipe(t, dynamicDisk())
	if report.Blocks != testSize/testBlock || report.Allocated != 3 || report.LeakedBytes != 0 {
		t.Errorf("%d blocks, %d allocated, %d bytes leaked; want 16, 3, 0", report.Blocks, report.Allocated, report.LeakedBytes)
	}
}

func TestReportIsOfTheImageNotItsParents(t *testing.T) {
	fs := storagetest.NewMemory()
	base := dynamicDisk()
	base.bat = emptyBAT(len(base.bat))
	base.length = 1 << 20
	base.write(t, fs, "/vm/base.vhd")
	child := childDisk(t, base.footer, "base.vhd", modTime(t, fs, "/vm/base.vhd"))
	child.write(t, fs, "/vm/child.vhd")

	o := everything(fs)
	o.Now = time.Now()
	report := run(t, "/vm/child.vhd", o)
	if report.Allocated != 3 || report.LeakedBytes != 0 {
		t.Errorf("%d allocated, %d leaked; want the child's 3 and 0", report.Allocated, report.LeakedBytes)
	}
	expect(t, report.Findings, want{Note, "file", "belong to no block"})
	if image := report.Findings[0].Image; image != "/vm/base.vhd" {
		t.Errorf("the finding is %s's, want the parent's", image)
	}
}
