package vhd_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const benchSize = 64 << 20

// benchImage makes an image of a kind on the real file system, under depth
// parents of which each holds some of its blocks, and opens it.
func benchImage(tb testing.TB, kind format.DiskType, depth int) *vhd.Image {
	tb.Helper()
	dir := tb.TempDir()
	check := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	name := filepath.Join(dir, "0.vhd")
	check(vhd.Create(name, vhd.CreateOptions{Type: kind, Size: benchSize}))
	for i := 0; ; i++ {
		img, err := vhd.Open(name, vhd.Options{Durability: vhd.Unsafe})
		check(err)
		chunk := noise(1 << 20)
		for off := int64(i) << 20; off < benchSize; off += int64(depth+1) << 20 {
			_, err := img.WriteAt(chunk, off)
			check(err)
		}
		if i == depth {
			check(img.Flush())
			tb.Cleanup(func() { img.Close() })
			return img
		}
		check(img.Close())
		child := filepath.Join(dir, fmt.Sprintf("%d.vhd", i+1))
		check(vhd.Snapshot(name, child, vhd.SnapshotOptions{}))
		name = child
	}
}

// benchShapes are the images that are measured.
var benchShapes = []struct {
	kind  format.DiskType
	depth int
}{{format.Fixed, 0}, {format.Dynamic, 0}, {format.Dynamic, 1}, {format.Dynamic, 30}}

var benchBlocks = []struct {
	name string
	size int64
}{{"4KiB", 4 << 10}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}}

func BenchmarkRead(b *testing.B) {
	for _, s := range benchShapes {
		img := benchImage(b, s.kind, s.depth)
		for _, bs := range benchBlocks {
			b.Run(fmt.Sprintf("kind=%v/depth=%d/bs=%s", s.kind, s.depth, bs.name), func(b *testing.B) {
				p := make([]byte, bs.size)
				r := rand.New(rand.NewPCG(1, 1))
				b.SetBytes(bs.size)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := img.ReadAt(p, r.Int64N(benchSize/bs.size)*bs.size); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, s := range benchShapes {
		img := benchImage(b, s.kind, s.depth)
		for _, bs := range benchBlocks {
			b.Run(fmt.Sprintf("kind=%v/depth=%d/bs=%s", s.kind, s.depth, bs.name), func(b *testing.B) {
				p := noise(bs.size)
				r := rand.New(rand.NewPCG(1, 1))
				b.SetBytes(bs.size)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := img.WriteAt(p, r.Int64N(benchSize/bs.size)*bs.size); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkAllocate writes to new blocks, each once.
func BenchmarkAllocate(b *testing.B) {
	const block, size = 2 << 20, 2040 << 30
	name := filepath.Join(b.TempDir(), "disk.vhd")
	if err := vhd.Create(name, vhd.CreateOptions{Type: format.Dynamic, Size: size}); err != nil {
		b.Fatal(err)
	}
	img, err := vhd.Open(name, vhd.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer img.Close()
	p := noise(4096)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for off := int64(0); b.Loop(); off = (off + block) % size {
		if _, err := img.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFlush(b *testing.B) {
	img := benchImage(b, format.Dynamic, 0)
	p := noise(4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := img.WriteAt(p, 0); err != nil {
			b.Fatal(err)
		}
		if err := img.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen2TiB(b *testing.B) {
	name := filepath.Join(b.TempDir(), "disk.vhd")
	if err := vhd.Create(name, vhd.CreateOptions{Type: format.Dynamic, Size: vhd.MaxCreateSize}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		img, err := vhd.Open(name, vhd.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := img.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// The data path allocates nothing, of whatever kind and depth the image is.
func TestReadsAndOverwritesAllocateNothing(t *testing.T) {
	for _, s := range benchShapes {
		t.Run(fmt.Sprintf("kind=%v/depth=%d", s.kind, s.depth), func(t *testing.T) {
			img := benchImage(t, s.kind, s.depth)
			p := make([]byte, 128<<10)
			off := int64(0)
			read := func(f func([]byte, int64) (int, error)) float64 {
				return testing.AllocsPerRun(100, func() {
					if _, err := f(p, off); err != nil {
						t.Fatal(err)
					}
					off = (off + 3<<20) % (benchSize - 1<<20)
				})
			}
			_, err := img.ReadAt(make([]byte, benchSize), 0) // all maps are in memory now
			must(t, err)
			if n := read(img.ReadAt); n != 0 {
				t.Errorf("a read makes %v allocations", n)
			}
			chunk := noise(1 << 20)
			for at := int64(0); at < benchSize; at += 1 << 20 {
				_, err := img.WriteAt(chunk, at)
				must(t, err)
			} // the blocks are there whole now
			if n := read(img.WriteAt); n != 0 {
				t.Errorf("an overwrite makes %v allocations", n)
			}
		})
	}
}

// Opening the largest disk is a matter of its BAT's 4 MiB.
func TestOpenOfTheLargestDiskTakesLittleMemory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk.vhd")
	create(t, storage.OS, name, format.Dynamic, vhd.MaxCreateSize, 0)
	res := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			must(t, open(t, storage.OS, name).Close())
		}
	})
	if n := res.AllocedBytesPerOp(); n > 9<<20 {
		t.Errorf("opening it takes %d bytes", n)
	}
}
