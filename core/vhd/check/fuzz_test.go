package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// FuzzCheck takes any bytes for an image, with a good base beside it, once as
// they are and once with the checksums mended, without which nothing behind
// them would be reached. Whatever they are, the check ends, its report is
// bounded, and an error means that they are no image.
func FuzzCheck(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		checkAnything(t, content)
		mended := slices.Clone(content)
		mend(mended)
		checkAnything(t, mended)
	})
}

func checkAnything(t *testing.T, content []byte) {
	t.Helper()
	mem := storagetest.NewMemory()
	writeFile(t, mem, "/vm/disk.vhd", string(content))
	writeRaw(t, mem, "/vm/base.vhd", 4096)
	report, err := Run("/vm/disk.vhd", everything(mem))
	if err != nil {
		if !errors.Is(err, ErrNotVHD) || report != nil {
			t.Fatalf("Run = %v, %v", report, err)
		}
		return
	}
	if len(report.Findings) > MaxFindings+1 {
		t.Errorf("%d findings", len(report.Findings))
	}
	if report.Allocated > report.Blocks || report.LeakedBytes < 0 || report.LeakedBytes > int64(len(content)) {
		t.Errorf("%d of %d blocks, %d bytes leaked, in a file of %d", report.Allocated, report.Blocks, report.LeakedBytes, len(content))
	}
	for _, one := range report.Findings {
		if strings.ContainsAny(one.String(), "\n\x1b") {
			t.Errorf("a finding that is no line: %q", one)
		}
	}
}

// mend gives footers and header, where they usually are, the checksums that
// their bytes have.
func mend(content []byte) {
	for _, at := range []int{0, len(content) - format.FooterSize} {
		if at < 0 || at+format.FooterSize > len(content) {
			continue
		}
		record := content[at : at+format.FooterSize]
		if f, err := format.DecodeFooter(record); errors.Is(err, format.ErrChecksum) {
			f.Encode(record)
		}
	}
	if len(content) < format.FooterSize+format.HeaderSize {
		return
	}
	record := content[format.FooterSize : format.FooterSize+format.HeaderSize]
	if h, err := format.DecodeHeader(record); errors.Is(err, format.ErrChecksum) {
		h.Encode(record)
	}
}

// seeds are good images of eight blocks of a sector, one of them there, so that
// the fuzzer spends itself on what matters: whole, and without the end footer.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	mem := storagetest.NewMemory()
	child := childDisk(f, dynamicDisk().footer, "base.vhd", testNow)
	var list [][]byte
	for i, r := range []*recipe{dynamicDisk(), tapdiskDisk(), child} {
		small := format.NewFooter(4096, r.footer.Type, testNow)
		r.footer.OriginalSize, r.footer.CurrentSize, r.footer.Geometry = 4096, 4096, small.Geometry
		r.header.BlockSize, r.header.MaxTableEntries = 512, 8
		r.bat, r.length = emptyBAT(8), 5120
		r.bat[3] = 8
		r.bitmap = func(int) format.Bitmap { return ones(1) }
		if r.full != nil {
			r.full = ones(0)
			r.full.Set(3, 1)
		}
		name := fmt.Sprintf("/%d.vhd", i)
		r.write(f, mem, name)
		whole := readFile(f, mem, name)
		list = append(list, whole, whole[:r.length])
	}
	return list
}
