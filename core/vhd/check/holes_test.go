package check

import (
	"io"
	"math"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// countingFS counts what is read of its files, in bytes, and the questions for
// data.
type countingFS struct {
	storage.FS
	read, asked int64
}

func (c *countingFS) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := c.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &countingFile{f, c}, nil
}

type countingFile struct {
	storage.File
	fs *countingFS
}

func (f *countingFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.read += int64(len(p))
	return f.File.ReadAt(p, off)
}

func (f *countingFile) NextData(off int64) (start, end int64, err error) {
	f.fs.asked++
	return f.File.(storage.HoleFinder).NextData(off)
}

// TestHolesAreNotRead: a disk of 128 GiB whose blocks are all in the file, and
// all of whose bitmaps and data are holes but for one sector, costs as much as
// that. The sector is found.
func TestHolesAreNotRead(t *testing.T) {
	const blocks, run2M = 64 << 10, 4097
	mem := storagetest.NewMemory()
	r := &recipe{footer: format.NewFooter(blocks*2<<20, format.Dynamic, testNow), header: format.NewHeader(blocks*2<<20, 0)}
	r.footer.Geometry = format.GeometryFor(blocks * 2 << 20)
	r.bat = make([]uint32, blocks)
	first := uint32(1536+format.BATSize(blocks)) / 512
	for i := range r.bat {
		r.bat[i] = first + uint32(i)*run2M
	}
	r.length = (int64(first) + blocks*run2M) * 512
	r.bitmap = func(int) format.Bitmap { return nil }
	r.patch((int64(r.bat[777])+1+4000)*512+17, 1)
	r.write(t, mem, "/disk.vhd")
	count := &countingFS{FS: mem}
	o := everything(count)
	expect(t, run(t, "/disk.vhd", o).Findings, want{Warning, "block 777", "sector 4000 of 4096 has data under a clear bit"})
	if limit := int64(2 << 20); count.read > limit || count.asked > 100 {
		t.Errorf("%d bytes were read and %d questions asked; want %d and 100 at most", count.read, count.asked, limit)
	}
}

// TestHolesWithoutKnowledge: a file that can't tell has data everywhere.
func TestHolesWithoutKnowledge(t *testing.T) {
	h := newHoles(struct{ storage.File }{})
	for _, off := range []int64{0, 5, 1 << 40} {
		if at := h.data(off); at != off {
			t.Errorf("data(%d) = %d", off, at)
		}
	}
}

// finder has data in [10, 20) and [30, 40).
type finder struct{ storage.File }

func (finder) NextData(off int64) (start, end int64, err error) {
	switch {
	case off < 20:
		return max(off, 10), 20, nil
	case off < 40:
		return max(off, 30), 40, nil
	}
	return 0, 0, io.EOF
}

func TestHolesGoUpAndDown(t *testing.T) {
	h := newHoles(finder{})
	for _, c := range [][2]int64{{0, 10}, {5, 10}, {10, 10}, {15, 15}, {20, 30}, {35, 35}, {40, math.MaxInt64}, {50, math.MaxInt64}, {0, 10}, {19, 19}} {
		if at := h.data(c[0]); at != c[1] {
			t.Errorf("data(%d) = %d, want %d", c[0], at, c[1])
		}
	}
}
