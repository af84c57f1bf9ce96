package vhd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// family is a chain of random images, and which of them each sector is of: the
// depth, or -1.
type family struct {
	fsys  *storagetest.Memory
	owner []int
}

// newFamily makes /0.vhd … and /disk.vhd with parents of several sizes and
// block sizes, of which each holds random sectors: nothing knows the engine.
func newFamily(t *testing.T, seed uint64, parents int) *family {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 2<<20 + 512
	fam := &family{fsys: storagetest.NewMemory(), owner: make([]int, size/512)}
	for i := range fam.owner {
		fam.owner[i] = -1
	}
	var id format.UUID
	for i := range parents + 1 {
		depth := parents - i
		name, kind := fmt.Sprintf("/%d.vhd", i), format.Differencing
		if depth == 0 {
			name = "/disk.vhd"
		}
		if i == 0 {
			kind = format.Dynamic
		}
		own := int64(size)
		if depth > 0 {
			own -= r.Int64N(512<<10) &^ 511
			fam.cut(own)
		}
		block := int64(512) << r.IntN(13) // to 2 MiB
		if block < 4096 && r.IntN(2) == 0 {
			block = 64 << 10
		}
		l := newLayout(kind, own, block)
		if i > 0 {
			l.header.ParentID, l.header.ParentName = id, fmt.Sprintf("%d.vhd", i-1)
		}
		id = l.footer.ID
		fam.populate(l, r, depth)
		l.write(t, fam.fsys, name)
	}
	return fam
}

// cut forgets what lies beyond the size of the next layer: it doesn't show
// what its parent has there.
func (fam *family) cut(size int64) {
	for s := size / 512; s < int64(len(fam.owner)); s++ {
		fam.owner[s] = -1
	}
}

// populate gives l random sectors, filled with their depth.
func (fam *family) populate(l *layout, r *rand.Rand, depth int) {
	block, size := int64(l.header.BlockSize), int64(l.footer.CurrentSize)
	next := (l.batAt + format.BATSize(int64(len(l.bat)))) / 512
	for _, b := range r.Perm(len(l.bat)) {
		if r.IntN(3) == 0 {
			continue
		}
		bits := make(format.Bitmap, l.header.BitmapSize())
		sectors := int(block / 512)
		for s := 0; s < sectors; {
			n := min(1+r.IntN(sectors), sectors-s)
			if r.IntN(2) == 0 || r.IntN(4) == 0 {
				bits.Set(s, n)
			}
			s += n
		}
		l.block(b, uint32(next), bits, bytes.Repeat([]byte{byte(depth + 1)}, int(block)))
		next += (int64(len(bits)) + block) / 512
		for s := range sectors {
			if at := int64(b)*block/512 + int64(s); bits.Get(s) && at < size/512 {
				fam.owner[at] = depth
			}
		}
	}
}

func (fam *family) content() []byte {
	b := make([]byte, len(fam.owner)*512)
	for s, depth := range fam.owner {
		for i := range b[s*512:][:512] {
			b[s*512+i] = byte(depth + 1)
		}
	}
	return b
}

func TestChainShowsTheNearestLayerOfEachSector(t *testing.T) {
	for parents, seeds := range map[int]uint64{1: 4, 2: 4, 5: 3, 30: 1} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("parents=%d/seed=%d", parents, seed), func(t *testing.T) {
				t.Parallel()
				fam := newFamily(t, seed, parents)
				img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fam.fsys, ReadOnly: true})
				must(t, err)
				defer img.Close()
				want := fam.content()
				r := rand.New(rand.NewPCG(seed, 1))
				for range 50 { // in parts first, so that the map is resolved in any order
					off := r.Int64N(img.Size())
					got := make([]byte, 1+r.Int64N(min(img.Size()-off, 200<<10)))
					_, err := img.ReadAt(got, off)
					must(t, err)
					if !bytes.Equal(got, want[off:][:len(got)]) {
						t.Fatalf("wrong bytes in %d+%d", off, len(got))
					}
				}
				if !bytes.Equal(readAll(t, img), want) {
					t.Error("wrong bytes")
				}
				for _, e := range extentsOf(t, img, 0, img.Size()) {
					for s := e.Offset / 512; s < e.End()/512; s++ {
						if fam.owner[s] != e.Depth || (e.Kind == blockdev.Hole) != (e.Depth < 0) {
							t.Fatalf("sector %d is of layer %d, extent %s", s, fam.owner[s], short(e))
						}
					}
				}
			})
		}
	}
}

func TestChainUnderConcurrentReaders(t *testing.T) {
	fam := newFamily(t, 9, 4)
	img := open(t, fam.fsys, "/disk.vhd")
	defer img.Close()
	want := fam.content()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got := make([]byte, img.Size())
			if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, or wrong bytes", err)
			}
		})
	}
	wg.Wait()
}

// Every other sector of a large parent is there: more runs than are kept.
func TestChainKeepsABoundedNumberOfRuns(t *testing.T) {
	fsys := storagetest.NewMemory()
	const size, block = 512 << 20, 32 << 20
	l := newLayout(format.Dynamic, size, block)
	l.block(0, 8, make(format.Bitmap, 8192), nil)
	bitmap := bytes.Repeat([]byte{0b10101010}, 8192)
	l.bytes = nil
	l.write(t, fsys, "/base.vhd")
	f, err := fsys.Open("/base.vhd", 1)
	must(t, err)
	must(t, f.Truncate(size+1<<20))
	for b := range l.bat {
		sector := int64(8 + b*(block+8192)/512)
		l.bat[b] = uint32(sector)
		_, err := f.WriteAt(bitmap, sector*512)
		must(t, err)
	}
	bat := make([]byte, 4*len(l.bat))
	format.EncodeBAT(bat, l.bat)
	_, err = f.WriteAt(bat, l.batAt)
	must(t, err)
	must(t, f.Close())
	child := newLayout(format.Differencing, size, block)
	child.header.ParentID, child.header.ParentName = l.footer.ID, "base.vhd"
	child.write(t, fsys, "/disk.vhd")

	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	got := make([]byte, 512)
	most := 0
	for off := int64(0); off < size; off += 1 << 20 {
		_, err := img.ReadAt(got, off)
		must(t, err)
		most = max(most, img.ChainRuns())
	}
	if most > vhd.MaxRuns || most < vhd.MaxRuns/2 {
		t.Errorf("%d runs were kept at most, the bound is %d", most, vhd.MaxRuns)
	}
}
