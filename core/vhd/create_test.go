package vhd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// A new image's records are such that every other program takes it, and shows
// it with the size that was asked for.
func TestCreateWritesWhatEveryReaderTakes(t *testing.T) {
	for _, kind := range []format.DiskType{format.Fixed, format.Dynamic} {
		for _, size := range []int64{512, 1 << 20, 100<<20 + 512, 127 << 30, 128 << 30, 2040 << 30} {
			t.Run(fmt.Sprintf("%v/%d", kind, size), func(t *testing.T) {
				fsys := storagetest.NewMemory()
				create(t, fsys, "/disk.vhd", kind, size, 0)
				img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
				must(t, err)
				defer img.Close()
				if img.Size() != size || len(img.Warnings()) > 0 {
					t.Errorf("%d bytes, warnings %q", img.Size(), img.Warnings())
				}
				checkNewFooter(t, img.Layers()[0], size)
				if kind == format.Dynamic {
					checkNewHeader(t, img.Layers()[0], size)
				}
				checkClean(t, fsys, "/disk.vhd")
			})
		}
	}
}

func checkNewFooter(t *testing.T, l vhd.Layer, size int64) {
	t.Helper()
	f := l.Footer
	switch {
	case f.Creator != format.CreatorWindows || f.CreatorOS != format.HostWindows:
		t.Errorf("creator %v on %v", f.Creator, f.CreatorOS)
	case f.OriginalSize != uint64(size) || f.CurrentSize != uint64(size):
		t.Errorf("sizes %d and %d", f.OriginalSize, f.CurrentSize)
	case f.Geometry != format.GeometryFor(size) || f.Geometry.IsMax() != (size >= 65535*16*255*512):
		t.Errorf("geometry %v", f.Geometry)
	case f.Features != format.FeatureReserved:
		t.Errorf("features %#x", f.Features)
	case f.ID.IsZero() || f.Hidden != 0 || f.SavedState != 0:
		t.Errorf("id %v, hidden %d, saved state %d", f.ID, f.Hidden, f.SavedState)
	case f.Type == format.Fixed && f.DataOffset != format.NoOffset:
		t.Errorf("data offset %#x", f.DataOffset)
	case time.Since(f.Timestamp.Time()).Abs() > time.Minute:
		t.Errorf("timestamp %v", f.Timestamp)
	case len(f.Oddities()) > 0:
		t.Errorf("oddities %q", f.Oddities())
	}
}

func checkNewHeader(t *testing.T, l vhd.Layer, size int64) {
	t.Helper()
	h := l.Header
	switch {
	case l.Footer.DataOffset != 512 || h.TableOffset != 1536:
		t.Errorf("header at %d, BAT at %d", l.Footer.DataOffset, h.TableOffset)
	case h.BlockSize != 2<<20 || int64(h.MaxTableEntries) != (size+2<<20-1)/(2<<20):
		t.Errorf("%d blocks of %d", h.MaxTableEntries, h.BlockSize)
	case !h.ParentID.IsZero() || h.ParentName != "" || h.Locators != [8]format.Locator{}:
		t.Error("it has a parent's fields")
	case len(h.Oddities()) > 0 || len(h.TypeOddities(format.Dynamic)) > 0:
		t.Errorf("oddities %q %q", h.Oddities(), h.TypeOddities(format.Dynamic))
	case l.FileSize > 1536+4*int64(h.MaxTableEntries)+512+512 || l.Allocated != 0:
		t.Errorf("%d bytes of file, %d blocks", l.FileSize, l.Allocated)
	}
}

// The data of new blocks begins on a page, whatever the block's size.
func TestNewBlocksLieOnPages(t *testing.T) {
	for block := int64(4096); block <= 256<<20; block *= 4 {
		fsys := storagetest.NewMemory()
		create(t, fsys, "/disk.vhd", format.Dynamic, 3*block, block)
		img := open(t, fsys, "/disk.vhd")
		for b := range int64(3) {
			must(t, write(img, "x", b*block))
			if e := extentsOf(t, img, b*block, 1)[0]; e.FileOffset%4096 != 0 {
				t.Errorf("block size %d: block %d has its data at %d", block, b, e.FileOffset)
			}
		}
		must(t, img.Close())
		checkClean(t, fsys, "/disk.vhd")
	}
}

func TestBlockSizesFrom512To256MiB(t *testing.T) {
	for block := int64(512); block <= 256<<20; block *= 2 {
		fsys := storagetest.NewMemory()
		size := 2*block + 1536
		create(t, fsys, "/disk.vhd", format.Dynamic, size, block)
		img := open(t, fsys, "/disk.vhd")
		for _, off := range []int64{0, block - 2, 2*block - 2, size - 4} {
			must(t, write(img, "data", off))
		}
		must(t, img.Close())
		checkClean(t, fsys, "/disk.vhd")
		img = open(t, fsys, "/disk.vhd")
		got := make([]byte, 4)
		for _, off := range []int64{0, block - 2, 2*block - 2, size - 4} {
			if _, err := img.ReadAt(got, off); err != nil || string(got) != "data" {
				t.Errorf("block size %d at %d: %q, %v", block, off, got, err)
			}
		}
		must(t, img.Close())
	}
}

// The largest disk can be used to its last byte.
func TestLargestDisk(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/disk.vhd", format.Dynamic, vhd.MaxCreateSize, 0)
	img := open(t, fsys, "/disk.vhd")
	must(t, write(img, "end", vhd.MaxCreateSize-3))
	if err := write(img, "ends", vhd.MaxCreateSize-3); !errors.Is(err, blockdev.ErrOutOfRange) {
		t.Errorf("past the end: %v", err)
	}
	must(t, img.Close())
	checkClean(t, fsys, "/disk.vhd")
}

func TestCreateRefusesWhatNoImageCanBe(t *testing.T) {
	tests := []struct {
		name string
		o    vhd.CreateOptions
		says string
		is   error
	}{
		{"no size", vhd.CreateOptions{Type: format.Fixed}, "multiple of 512", nil},
		{"less than a sector", vhd.CreateOptions{Type: format.Fixed, Size: 511}, "511", nil},
		{"a part of a sector", vhd.CreateOptions{Type: format.Dynamic, Size: 1000}, "1000", nil},
		{"negative", vhd.CreateOptions{Type: format.Dynamic, Size: -512}, "-512", nil},
		{"above 2040 GiB", vhd.CreateOptions{Type: format.Dynamic, Size: 2040<<30 + 512}, "2040 GiB", vhd.ErrTooLarge},
		{"block of no power of two", vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20, BlockSize: 3 << 20}, "3145728", nil},
		{"block below a sector", vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20, BlockSize: 256}, "256 bytes", nil},
		{"block above 256 MiB", vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20, BlockSize: 512 << 20}, "536870912", nil},
		{"negative block", vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20, BlockSize: -512}, "-512", nil},
		{"more blocks than a BAT takes", vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 40, BlockSize: 512}, "larger blocks", vhd.ErrTooLarge},
		{"differencing", vhd.CreateOptions{Type: format.Differencing, Size: 1 << 20}, "differencing", nil},
		{"no type", vhd.CreateOptions{Size: 1 << 20}, "type 0", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := &recorder{FS: storagetest.NewMemory()}
			test.o.FS = r
			err := vhd.Create("/disk.vhd", test.o)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "/disk.vhd") {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v is not %v", err, test.is)
			}
			if calls := r.take(); len(calls) > 0 {
				t.Errorf("it did %v before it refused", calls)
			}
		})
	}
}

func TestCreateTakesNoNameThatIsTaken(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken.vhd")
	must(t, os.WriteFile(taken, []byte("precious"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	for _, name := range []string{taken, filepath.Join(dir, "folder")} {
		err := vhd.Create(name, vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20})
		wantError{fs.ErrExist, []string{"another name"}}.check(t, err, name)
	}
	if b, err := os.ReadFile(taken); err != nil || string(b) != "precious" {
		t.Errorf("the file that was there: %q, %v", b, err)
	}
	err := vhd.Create(filepath.Join(dir, "absent", "disk.vhd"), vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20})
	wantError{fs.ErrNotExist, nil}.check(t, err, "absent/disk.vhd")
	onlyNames(t, dir, "folder", "taken.vhd")
}

// onlyNames sees that a folder has these names, in their order, and no other.
func onlyNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("the folder has %q, want %q", names, want)
	}
}

func TestCreateTakesANameThatComesMeanwhile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "disk.vhd")
	r := &recorder{FS: storage.OS}
	r.before = func(c call) error {
		if c.op == "link" {
			return os.WriteFile(name, []byte("precious"), 0o600)
		}
		return nil
	}
	err := vhd.Create(name, vhd.CreateOptions{FS: r, Type: format.Dynamic, Size: 1 << 20})
	wantError{fs.ErrExist, nil}.check(t, err, name)
	if b, err := os.ReadFile(name); err != nil || string(b) != "precious" {
		t.Errorf("the file that came meanwhile: %q, %v", b, err)
	}
	onlyNames(t, dir, "disk.vhd")
}

// Where links can't be made, a rename gives the name.
func TestCreateWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "disk.vhd")
	r := &recorder{FS: storage.OS}
	failNth(r, 1, unix.EPERM, opIs("link"))
	must(t, vhd.Create(name, vhd.CreateOptions{FS: r, Type: format.Dynamic, Size: 1 << 20}))
	onlyNames(t, dir, "disk.vhd")
	checkClean(t, storage.OS, name)
}

// makers make a new image in dir.
func makers() map[string]func(fsys storage.FS, dir string) error {
	return map[string]func(fsys storage.FS, dir string) error{
		"fixed": func(fsys storage.FS, dir string) error {
			return vhd.Create(dir+"/disk.vhd", vhd.CreateOptions{FS: fsys, Type: format.Fixed, Size: 1 << 20})
		},
		"dynamic": func(fsys storage.FS, dir string) error {
			return vhd.Create(dir+"/disk.vhd", vhd.CreateOptions{FS: fsys, Type: format.Dynamic, Size: 1 << 20})
		},
		"differencing": func(fsys storage.FS, dir string) error {
			return vhd.Snapshot(dir+"/base.vhd", dir+"/disk.vhd", vhd.SnapshotOptions{FS: fsys})
		},
	}
}

// Whatever call fails, either the image is there, whole, or nothing is.
func TestCreateThatFailsLeavesNothingBehind(t *testing.T) {
	for name, create := range makers() {
		t.Run(name, func(t *testing.T) {
			for n := 1; n < 100; n++ {
				dir := t.TempDir()
				base(t, storage.OS, dir+"/base.vhd")
				r := &recorder{FS: storage.OS}
				failed := failNth(r, n, unix.EIO, everyCall)
				err := create(r, dir)
				calls := r.take()
				if opened, closed := count(calls, "open")+count(calls, "create"), count(calls, "close"); opened > closed+1 {
					t.Errorf("call %d: %s", n, story(calls))
				}
				if err == nil {
					onlyNames(t, dir, "base.vhd", "disk.vhd")
					checkClean(t, storage.OS, dir+"/disk.vhd")
				} else {
					if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), dir) {
						t.Errorf("call %d: error %v", n, err)
					}
					onlyNames(t, dir, "base.vhd")
				}
				if t.Failed() {
					t.Fatalf("call %d, after %s: %v", n, story(calls), err)
				}
				if !failed() {
					return
				}
			}
			t.Error("there was no end to the calls")
		})
	}
}

// The order in which a name is given: never to something that a power cut
// could take half of.
func TestCreateSyncsBeforeItGivesTheName(t *testing.T) {
	for name, create := range makers() {
		dir := t.TempDir()
		base(t, storage.OS, dir+"/base.vhd")
		r := &recorder{FS: storage.OS}
		must(t, create(r, dir))
		want := "sync link remove syncdir"
		if name == "differencing" {
			want = "sync " + want // of the parent
		}
		if got := story(r.take("sync", "link", "rename", "remove", "syncdir")); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestCreateOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	r := &recorder{FS: storage.OS}
	failNth(r, 1, asStorage(unix.ENOSPC), opIs("write"))
	err := vhd.Create(dir+"/disk.vhd", vhd.CreateOptions{FS: r, Type: format.Dynamic, Size: 1 << 20})
	if !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("error %v is not ErrNoSpace", err)
	}
	onlyNames(t, dir)
}
