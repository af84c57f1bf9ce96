package vhd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// What tapdisk and Windows look for in a child.
func TestSnapshotNamesItsParentForEveryReader(t *testing.T) {
	dir := t.TempDir()
	parent, child := filepath.Join(dir, "gold é.vhd"), filepath.Join(dir, "disk.vhd")
	base(t, storage.OS, parent)
	must(t, vhd.Snapshot(parent, child, vhd.SnapshotOptions{}))
	img := open(t, storage.OS, child)
	defer img.Close()
	layers := img.Layers()
	h, f := layers[0].Header, layers[0].Footer
	if layers[0].Kind != vhd.KindDifferencing || f.Type != format.Differencing || len(img.Warnings()) > 0 {
		t.Errorf("a %v disk, warnings %q", layers[0].Kind, img.Warnings())
	}
	if h.ParentID != layers[1].Footer.ID || f.ID == h.ParentID || f.ID.IsZero() {
		t.Errorf("ids %v over %v", f.ID, h.ParentID)
	}
	info, err := os.Stat(parent)
	must(t, err)
	if h.ParentTimestamp != format.TimeOf(info.ModTime()) {
		t.Errorf("parent timestamp %v, want %v", h.ParentTimestamp, info.ModTime())
	}
	if h.ParentName != "gold é.vhd" {
		t.Errorf("parent name %q", h.ParentName)
	}
	file := contentOf(t, storage.OS, child)
	want := map[format.LocatorCode]string{format.CodeMacX: "gold é.vhd", format.CodeW2ku: parent, format.CodeW2ru: "gold é.vhd"}
	for i, code := range []format.LocatorCode{format.CodeMacX, format.CodeW2ku, format.CodeW2ru} {
		loc := h.Locators[i]
		if loc.Code != code || loc.DataSpace%512 != 0 || loc.DataOffset%512 != 0 {
			t.Errorf("locator %d is %+v, want %v", i, loc, code)
			continue
		}
		p, err := format.DecodeLocatorPath(code, file[loc.DataOffset:][:loc.DataLength])
		if err != nil || filepath.Clean(p.Path) != want[code] {
			t.Errorf("%v says %q, %v; want %q", code, p.Path, err, want[code])
		}
	}
	checkClean(t, storage.OS, child)
}

func TestSnapshotKeepsItsParentAsItWas(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/base.vhd")
	before := contentOf(t, fsys, "/base.vhd")
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
	model := noise(familySize)
	staysGood(t, fsys, "/disk.vhd", model)
	if !bytes.Equal(contentOf(t, fsys, "/base.vhd"), before) {
		t.Error("the parent was changed")
	}
}

func TestSnapshotInAnotherFolder(t *testing.T) {
	root := t.TempDir()
	gold, vm := filepath.Join(root, "gold"), filepath.Join(root, "vm")
	must(t, os.Mkdir(gold, 0o700))
	must(t, os.Mkdir(vm, 0o700))
	base(t, storage.OS, filepath.Join(gold, "base.vhd"))
	must(t, os.Symlink(filepath.Join(gold, "base.vhd"), filepath.Join(vm, "link.vhd")))
	child := filepath.Join(vm, "disk.vhd")
	must(t, vhd.Snapshot(filepath.Join(vm, "link.vhd"), child, vhd.SnapshotOptions{})) // the real parent is noted
	_, err := vhd.Open(child, vhd.Options{})
	wantError{vhd.ErrParentOutside, []string{"--parent-dir " + gold}}.check(t, err, child)
	if got := showsNoise(t, child, vhd.Options{ParentDirs: []string{gold}}); got != filepath.Join(gold, "base.vhd") {
		t.Errorf("parent %q", got)
	}
	// Moved together they still find one another.
	moved := filepath.Join(t.TempDir(), "moved")
	must(t, os.Rename(root, moved))
	showsNoise(t, filepath.Join(moved, "vm", "disk.vhd"), vhd.Options{ParentDirs: []string{moved}})
}

func TestSnapshotByRelativeNames(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	t.Chdir(dir)
	base(t, storage.OS, "sub/base.vhd")
	must(t, vhd.Snapshot("sub/base.vhd", "disk.vhd", vhd.SnapshotOptions{}))
	t.Chdir(t.TempDir())
	showsNoise(t, filepath.Join(dir, "disk.vhd"), vhd.Options{})
}

func TestSnapshotOfAnotherSizeOrBlockSize(t *testing.T) {
	tests := []struct {
		name        string
		o           vhd.SnapshotOptions
		size, block int64
	}{
		{"as its parent", vhd.SnapshotOptions{}, familySize, 4096},
		{"larger", vhd.SnapshotOptions{Size: familySize + 512}, familySize + 512, 4096},
		{"smaller blocks", vhd.SnapshotOptions{BlockSize: 512}, familySize, 512},
		{"larger blocks", vhd.SnapshotOptions{BlockSize: 2 << 20}, familySize, 2 << 20},
		{"much larger, of large blocks", vhd.SnapshotOptions{Size: 3 << 20, BlockSize: 1 << 20}, 3 << 20, 1 << 20},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			base(t, fsys, "/base.vhd")
			test.o.FS = fsys
			must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", test.o))
			img := open(t, fsys, "/disk.vhd")
			if got := img.Layers()[0].Header.BlockSize; img.Size() != test.size || int64(got) != test.block {
				t.Errorf("%d bytes in blocks of %d", img.Size(), got)
			}
			must(t, img.Close())
			want := append(noise(familySize), zeros(test.size-familySize)...)
			staysGood(t, fsys, "/disk.vhd", want)
		})
	}
}

func TestSnapshotOfFixedAndRawImages(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/fixed.vhd", format.Fixed, familySize, 0)
	fill(t, fsys, "/fixed.vhd", noise(familySize))
	writeFile(t, fsys, "/disk.raw", noise(familySize))
	must(t, vhd.Snapshot("/fixed.vhd", "/a.vhd", vhd.SnapshotOptions{FS: fsys}))
	must(t, vhd.Snapshot("/disk.raw", "/b.vhd", vhd.SnapshotOptions{FS: fsys, RawParent: true}))
	for _, name := range []string{"/a.vhd", "/b.vhd"} {
		img := open(t, fsys, name)
		h := img.Layers()[0].Header
		if h.BlockSize != vhd.DefaultBlockSize || h.ParentID.IsZero() != (name == "/b.vhd") {
			t.Errorf("%s: blocks of %d, parent %v", name, h.BlockSize, h.ParentID)
		}
		must(t, img.Close())
		staysGood(t, fsys, name, noise(familySize))
	}
	// A raw image is no VHD unless it is said to be raw, and the reverse.
	if err := vhd.Snapshot("/disk.raw", "/c.vhd", vhd.SnapshotOptions{FS: fsys}); !errors.Is(err, vhd.ErrNotVHD) {
		t.Errorf("a raw parent that was not said to be: %v", err)
	}
}

func TestSnapshotRefusals(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/base.vhd")
	writeFile(t, fsys, "/taken.vhd", []byte("precious"))
	l := sample()
	l.footer.ID = format.UUID{}
	l.write(t, fsys, "/null.vhd")
	childOf(format.UUID{9}, "gone.vhd").write(t, fsys, "/orphan.vhd")
	tests := []struct {
		name          string
		parent, child string
		o             vhd.SnapshotOptions
		is            error
		says          string
	}{
		{"a child that is there", "/base.vhd", "/taken.vhd", vhd.SnapshotOptions{}, fs.ErrExist, "/taken.vhd"},
		{"onto itself", "/base.vhd", "/base.vhd", vhd.SnapshotOptions{}, fs.ErrExist, "/base.vhd"},
		{"no parent", "/absent.vhd", "/x.vhd", vhd.SnapshotOptions{}, fs.ErrNotExist, "/absent.vhd"},
		{"a parent without its own", "/orphan.vhd", "/x.vhd", vhd.SnapshotOptions{}, vhd.ErrParentMissing, "gone.vhd"},
		{"a parent without an id", "/null.vhd", "/x.vhd", vhd.SnapshotOptions{}, vhd.ErrCorrupt, "UUID"},
		{"smaller than the parent", "/base.vhd", "/x.vhd", vhd.SnapshotOptions{Size: familySize - 512}, nil, "smaller than its parent"},
		{"above the limit", "/base.vhd", "/x.vhd", vhd.SnapshotOptions{Size: 2041 << 30}, vhd.ErrTooLarge, "2040 GiB"},
		{"a size of no sectors", "/base.vhd", "/x.vhd", vhd.SnapshotOptions{Size: familySize + 1}, nil, "multiple of 512"},
		{"a block size of no power of two", "/base.vhd", "/x.vhd", vhd.SnapshotOptions{BlockSize: 5000}, nil, "5000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.o.FS = fsys
			err := vhd.Snapshot(test.parent, test.child, test.o)
			if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v, want %v that says %q", err, test.is, test.says)
			}
			if _, err := fsys.Stat("/x.vhd"); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a child was left behind")
			}
		})
	}
	if string(contentOf(t, fsys, "/taken.vhd")) != "precious" {
		t.Error("the file that was there was changed")
	}
	writer := open(t, fsys, "/base.vhd")
	if err := vhd.Snapshot("/base.vhd", "/x.vhd", vhd.SnapshotOptions{FS: fsys}); !errors.Is(err, storage.ErrInUse) {
		t.Errorf("of an image that is written to: %v", err)
	}
	must(t, writer.Close())
}

// A parent that is shown by its geometry has a child of that size.
func TestSnapshotTakesTheSizeThatIsShown(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := sample()
	l.footer.Creator, l.footer.Geometry = format.CreatorVPC, format.Geometry{Cylinders: 3, Heads: 3, Sectors: 3}
	l.write(t, fsys, "/base.vhd")
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
	if got := readBack(t, fsys); !bytes.Equal(got, sampleContent()[:27*512]) {
		t.Errorf("the child shows %d bytes, or other ones", len(got))
	}
}

// TestAFlushCoversTheParents: what another program has left of them in the page
// cache is shown, and must not be lost to a power cut after a flush.
func TestAFlushCoversTheParents(t *testing.T) {
	m := storagetest.NewMemory()
	create(t, m, "/base.vhd", format.Fixed, 64<<10, 0)
	must(t, vhd.Snapshot("/base.vhd", "/middle.vhd", vhd.SnapshotOptions{FS: m}))
	must(t, vhd.Snapshot("/middle.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: m}))
	c := storagetest.NewCrashFrom(m)
	f, err := c.Open("/base.vhd", storage.ReadWrite)
	must(t, err)
	want := bytes.Repeat([]byte{8}, 4096)
	_, err = f.WriteAt(want, 0)
	must(t, errors.Join(err, f.Close()))

	img := open(t, c, "/disk.vhd")
	defer img.Close()
	must(t, write(img, "data", 8192))
	must(t, img.Flush())
	left := c.State(c.Points(), storagetest.None)
	again := open(t, left, "/disk.vhd")
	defer again.Close()
	got := make([]byte, len(want))
	if _, err := again.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after the flush and a power cut: %x…, %v", got[:4], err)
	}
}
