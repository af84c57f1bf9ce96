package vhd_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// scattered is an image over a raw parent with some of its blocks in the file,
// in the order of rng and with gaps, their bitmaps set in part and their data
// in holes in part.
func scattered(rng *rand.Rand, blocks int, size int64) *layout {
	l := newLayout(format.Differencing, int64(blocks)*size, size)
	l.header.ParentName = "raw.img"
	sectors := int(size / 512)
	next := uint32(l.batAt+format.BATSize(int64(blocks))) / 512
	for _, b := range rng.Perm(blocks) {
		var bits format.Bitmap
		switch rng.IntN(6) {
		case 0:
			continue
		case 1:
			bits = l.bits()
		case 2:
			bits = l.bits(0, 0)
		default:
			first := rng.IntN(sectors)
			bits = l.bits(first, 1+rng.IntN(sectors-first))
		}
		next += uint32(rng.IntN(3)) * uint32(1+rng.IntN(40))
		var data []byte
		if rng.IntN(2) == 0 {
			data = noise(size)
		}
		l.block(b, next, bits, data)
		next += 1 + uint32(sectors)
	}
	return l
}

// writeSparsely writes the file with holes where it has zeros.
func writeSparsely(t *testing.T, fsys storage.FS, name string, b []byte) {
	t.Helper()
	f, err := fsys.Create(name, 0o600)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(int64(len(b))))
	const page = 4096
	for off := 0; off < len(b); off += page {
		piece := b[off:min(off+page, len(b))]
		if slices.ContainsFunc(piece, func(c byte) bool { return c != 0 }) {
			_, err := f.WriteAt(piece, int64(off))
			must(t, err)
		}
	}
}

// An image that nobody writes to has its bitmaps read by pieces, and not at all
// where its file has holes. What is found is the same.
func TestExtentsOfAReadOnlyImageAreThoseOfOneForWriting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		memory := storagetest.NewMemory()
		size := int64(512) << rng.IntN(5)
		writeFile(t, memory, "/vm/raw.img", noise(3*size))
		writeSparsely(t, memory, "/vm/disk.vhd", scattered(rng, 200, size).encode())
		for name, fsys := range map[string]storage.FS{"holes are known": memory, "holes are not known": plain{memory}} {
			img, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys})
			must(t, err)
			want := extentsOf(t, img, 0, img.Size())
			must(t, img.Close())
			img, err = vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			for range 2 { // the second time some blocks are known to be full
				if got := extentsOf(t, img, 0, img.Size()); !slices.Equal(got, want) {
					t.Fatalf("blocks of %d, %s:\n%s\nwant\n%s", size, name, shorts(got), shorts(want))
				}
			}
			must(t, img.Close())
		}
	}
}

// TestExtentsOfAParentAreThoseOfTheImage, but for their depth.
func TestExtentsOfAParentAreThoseOfTheImage(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		fsys := storagetest.NewMemory()
		size := int64(512) << rng.IntN(5)
		writeFile(t, fsys, "/vm/raw.img", noise(3*size))
		writeSparsely(t, fsys, "/vm/disk.vhd", scattered(rng, 200, size).encode())
		img := open(t, fsys, "/vm/disk.vhd")
		want := extentsOf(t, img, 0, img.Size())
		must(t, img.Close())
		must(t, vhd.Snapshot("/vm/disk.vhd", "/vm/child.vhd", vhd.SnapshotOptions{FS: fsys}))
		img = open(t, fsys, "/vm/child.vhd")
		got := extentsOf(t, img, 0, img.Size())
		must(t, img.Close())
		must(t, fsys.Remove("/vm/child.vhd"))
		for i := range got {
			if got[i].Kind != blockdev.Hole {
				got[i].Depth--
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("blocks of %d:\n%s\nwant\n%s", size, shorts(got), shorts(want))
		}
	}
}

// TestABitmapOfWhichHalfIsInAHoleIsRead: large blocks have bitmaps of more than
// a sector.
func TestABitmapOfWhichHalfIsInAHoleIsRead(t *testing.T) {
	const block = 4 << 20
	fsys := storagetest.NewMemory()
	l := newLayout(format.Dynamic, block, block)
	l.block(0, 15, l.bits(4096, 4096), noise(block)) // its second sector is on the next page
	writeSparsely(t, fsys, "/disk.vhd", l.encode())
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	if got, want := shorts(extentsOf(t, img, 0, block)), "hole -1 0+2097152; data 0 2097152+2097152; "; got != want {
		t.Errorf("extents %s, want %s", got, want)
	}
}

// TestExtentsReadLittleOfManyBitmaps: blocks can be a sector each, and millions.
func TestExtentsReadLittleOfManyBitmaps(t *testing.T) {
	const blocks = 4096
	for name, c := range map[string]struct {
		place func(first uint32, i int) uint32
		file  func(b []byte)
		most  int // reads
	}{
		"in order":     {func(first uint32, i int) uint32 { return first + 2*uint32(i) }, nil, blocks*1024/(64<<10) + 2},
		"in one place": {func(first uint32, _ int) uint32 { return first }, nil, 1},
		"in holes":     {func(first uint32, i int) uint32 { return first + 2*uint32(blocks-1-i) }, func(b []byte) { clear(b) }, 8}, // those that share a page with the BAT and the footer
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{FS: storagetest.NewMemory()}
			l := newLayout(format.Dynamic, blocks*512, 512)
			first := uint32(l.batAt+format.BATSize(blocks)) / 512
			for i := range blocks {
				l.block(i, c.place(first, i), l.bits(), noise(512))
			}
			if c.file != nil {
				c.file(l.bytes)
			}
			writeSparsely(t, r, "/disk.vhd", l.encode())
			img, err := vhd.Open("/disk.vhd", vhd.Options{FS: r, ReadOnly: true})
			must(t, err)
			defer img.Close()
			r.take()
			extentsOf(t, img, 0, img.Size())
			if n := len(r.take("read")); n > c.most {
				t.Errorf("%d reads for %d blocks, want %d at most", n, blocks, c.most)
			}
			must(t, img.Close())
			if name == "in holes" {
				return // a chain doesn't look for those
			}
			must(t, vhd.Snapshot("/disk.vhd", "/child.vhd", vhd.SnapshotOptions{FS: r}))
			img, err = vhd.Open("/child.vhd", vhd.Options{FS: r, ReadOnly: true})
			must(t, err)
			defer img.Close()
			r.take()
			extentsOf(t, img, 0, img.Size())
			if n := len(r.take("read")); n > c.most+4 { // two more for each MiB
				t.Errorf("as a parent: %d reads for %d blocks, want %d at most", n, blocks, c.most+4)
			}
		})
	}
}

// TestExtentsOfAReadOnlyImageThatCannotBeRead says where, and goes on the next
// time.
func TestExtentsOfAReadOnlyImageThatCannotBeRead(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	l := newLayout(format.Dynamic, 200*512, 512)
	for i := range 200 {
		l.block(i, 6+2*uint32(i), l.bits(), noise(512))
	}
	l.write(t, r, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: r, ReadOnly: true})
	must(t, err)
	defer img.Close()
	want := extentsOf(t, img, 0, img.Size())
	must(t, img.Close())
	img, err = vhd.Open("/disk.vhd", vhd.Options{FS: r, ReadOnly: true})
	must(t, err)
	defer img.Close()
	r.before = func(c call) error {
		if c.op == "read" {
			return unix.EIO
		}
		return nil
	}
	var last error
	for _, err := range img.Extents(0, img.Size()) {
		last = err
	}
	if !errors.Is(last, unix.EIO) {
		t.Fatalf("error %v", last)
	}
	wantError{unix.EIO, []string{"block 0: sector bitmap"}}.check(t, last, "/disk.vhd")
	r.before = nil
	if got := extentsOf(t, img, 0, img.Size()); !slices.Equal(got, want) {
		t.Errorf("afterwards\n%s\nwant\n%s", shorts(got), shorts(want))
	}
}
