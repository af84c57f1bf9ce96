package vhd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// image is a kind of image for tests that hold of every kind.
type image struct {
	name  string
	block int64
	// make makes /disk.vhd of size bytes in fsys, with whatever it stands on.
	make func(t *testing.T, fsys storage.FS, size int64)
	// shows is what it shows before anything is written to it.
	shows func(size int64) []byte
}

// sizes are those of the suite's disks: some blocks each, and a part of one.
func (k image) sizes() []int64 {
	if k.block < 64<<10 || k.name == "chain of 30" {
		return []int64{512, 9 * 512, 300 << 10}
	}
	return []int64{512, 300 << 10, 4<<20 + 3*512}
}

// noise is the content of parents in tests.
func noise(size int64) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func zeros(size int64) []byte { return make([]byte, size) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys storage.FS, name string, kind format.DiskType, size, block int64) {
	t.Helper()
	must(t, vhd.Create(name, vhd.CreateOptions{FS: fsys, Type: kind, Size: size, BlockSize: block}))
}

func open(t *testing.T, fsys storage.FS, name string) *vhd.Image {
	t.Helper()
	img, err := vhd.Open(name, vhd.Options{FS: fsys})
	must(t, err)
	return img
}

// fill writes b to the start of the image.
func fill(t *testing.T, fsys storage.FS, name string, b []byte) {
	t.Helper()
	img := open(t, fsys, name)
	_, err := img.WriteAt(b, 0)
	must(t, err)
	must(t, img.Close())
}

// chainOf makes a chain of depth parents, each of which holds some sectors of
// noise, and /disk.vhd on top.
func chainOf(depth int, block int64) func(t *testing.T, fsys storage.FS, size int64) {
	return func(t *testing.T, fsys storage.FS, size int64) {
		t.Helper()
		content := noise(size)
		create(t, fsys, "/base.vhd", format.Dynamic, size, block)
		parent := "/base.vhd"
		for i := range depth {
			img := open(t, fsys, parent)
			for off := int64(i) * 512; off < size; off += int64(depth) * 512 {
				_, err := img.WriteAt(content[off:][:512], off)
				must(t, err)
			}
			must(t, img.Close())
			child := fmt.Sprintf("/s%d.vhd", i)
			if i == depth-1 {
				child = "/disk.vhd"
			}
			must(t, vhd.Snapshot(parent, child, vhd.SnapshotOptions{FS: fsys}))
			parent = child
		}
	}
}

func sparseImage(block int64) image {
	return image{fmt.Sprintf("dynamic/block=%d", block), block, func(t *testing.T, fsys storage.FS, size int64) {
		create(t, fsys, "/disk.vhd", format.Dynamic, size, block)
	}, zeros}
}

func images() []image {
	return []image{
		{"fixed", 4096, func(t *testing.T, fsys storage.FS, size int64) {
			create(t, fsys, "/disk.vhd", format.Fixed, size, 0)
		}, zeros},
		sparseImage(512),
		sparseImage(4096),
		sparseImage(64 << 10),
		sparseImage(2 << 20),
		sparseImage(16 << 20),
		{"differencing/fixed parent", 64 << 10, func(t *testing.T, fsys storage.FS, size int64) {
			create(t, fsys, "/base.vhd", format.Fixed, size, 0)
			fill(t, fsys, "/base.vhd", noise(size))
			must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys, BlockSize: 64 << 10}))
		}, noise},
		{"differencing/empty parent", 4096, func(t *testing.T, fsys storage.FS, size int64) {
			create(t, fsys, "/base.vhd", format.Dynamic, size, 4096)
			must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
		}, zeros},
		{"differencing/raw parent", 2 << 20, func(t *testing.T, fsys storage.FS, size int64) {
			f, err := fsys.Create("/base.raw", 0o600)
			must(t, err)
			_, err = f.WriteAt(noise(size), 0)
			must(t, err)
			must(t, f.Close())
			must(t, vhd.Snapshot("/base.raw", "/disk.vhd", vhd.SnapshotOptions{FS: fsys, RawParent: true}))
		}, noise},
		{"differencing/smaller blocks than the parent's", 512, func(t *testing.T, fsys storage.FS, size int64) {
			create(t, fsys, "/base.vhd", format.Dynamic, size, 64<<10)
			fill(t, fsys, "/base.vhd", noise(size))
			must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys, BlockSize: 512}))
		}, noise},
		{"chain of 3", 4096, chainOf(3, 4096), noise},
		{"chain of 30", 64 << 10, chainOf(30, 64<<10), noise},
	}
}

// checkClean has the checker, which shares nothing with the engine but the
// format, look at an image and its parents.
func checkClean(t *testing.T, fsys storage.FS, name string) {
	t.Helper()
	r, err := check.Run(name, check.Options{FS: fsys, Bitmaps: true, Parents: true})
	must(t, err)
	for _, f := range r.Findings {
		if f.Severity == check.Damage {
			t.Errorf("check: %v", f)
		}
	}
}

func TestConformance(t *testing.T) {
	for _, k := range images() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			var fsys storage.FS
			blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
				fsys = storagetest.NewMemory()
				k.make(t, fsys, size)
				return open(t, fsys, "/disk.vhd")
			}, blockdevtest.WithSizes(k.sizes()...), blockdevtest.WithOps(200), blockdevtest.WithInitial(bytes.NewReader(k.shows(8<<20))), blockdevtest.WithBlockSize(k.block),
				blockdevtest.WithReopen(func(t *testing.T, dev blockdev.Device) blockdev.Device {
					must(t, dev.Close())
					checkClean(t, fsys, "/disk.vhd")
					return open(t, fsys, "/disk.vhd")
				}))
		})
	}
}
