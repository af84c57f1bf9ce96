package check

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// osFamily is a child and its parent in a directory of the operating system.
func osFamily(t *testing.T) (dir string, o Options) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base := dynamicDisk()
	name := filepath.Join(dir, "base.vhd")
	base.write(t, storage.OS, name)
	childDisk(t, base.footer, "base.vhd", modTime(t, storage.OS, name)).write(t, storage.OS, filepath.Join(dir, "child.vhd"))
	return dir, Options{Lock: true, Bitmaps: true, Parents: true}
}

func TestZeroOptionsAreTheOperatingSystems(t *testing.T) {
	dir, o := osFamily(t)
	expect(t, run(t, filepath.Join(dir, "child.vhd"), o).Findings)
	expect(t, run(t, filepath.Join(dir, "child.vhd"), Options{}).Findings)
}

func TestRelativeAndLinkedNames(t *testing.T) {
	dir, o := osFamily(t)
	t.Chdir(dir)
	expect(t, run(t, "child.vhd", o).Findings)
	if err := os.Mkdir("elsewhere", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../child.vhd", "elsewhere/link.vhd"); err != nil {
		t.Fatal(err)
	}
	// The parent lies beside the image, not beside the link to it.
	expect(t, run(t, "elsewhere/link.vhd", o).Findings)
}

// TestOddParents: what a path of an image leads to is not opened unless it is
// a file, and not through a link.
func TestOddParents(t *testing.T) {
	cases := []struct {
		name  string
		make  func(dir, name string) error
		words string
	}{
		{"link", func(dir, name string) error { return os.Symlink(filepath.Join(dir, "base.vhd"), name) }, "symbolic link"},
		{"link outside", func(_, name string) error { return os.Symlink("/etc/passwd", name) }, "symbolic link"},
		{"link to itself", func(_, name string) error { return os.Symlink(name, name) }, "not found at"},
		{"FIFO", func(_, name string) error { return syscall.Mkfifo(name, 0o600) }, "not a regular file"},
		{"device", func(_, name string) error { return os.Symlink("/dev/null", name) }, "not a regular file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir, o := osFamily(t)
			if err := c.make(dir, filepath.Join(dir, "odd.vhd")); err != nil {
				t.Fatal(err)
			}
			r := childDisk(t, footerOf(t, storage.OS, filepath.Join(dir, "base.vhd")), "odd.vhd", testNow)
			r.header.ParentTimestamp = 0
			r.write(t, storage.OS, filepath.Join(dir, "other.vhd"))
			expect(t, run(t, filepath.Join(dir, "other.vhd"), o).Findings, want{Damage, "parent", c.words})
		})
	}
}

func TestDirectoryOfTheParentMayBeALink(t *testing.T) {
	dir, o := osFamily(t)
	outside, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base := dynamicDisk()
	base.write(t, storage.OS, filepath.Join(outside, "gold.vhd"))
	if err := os.Symlink(outside, filepath.Join(dir, "golds")); err != nil {
		t.Fatal(err)
	}
	r := childDisk(t, base.footer, "golds/gold.vhd", modTime(t, storage.OS, filepath.Join(outside, "gold.vhd")))
	r.relocate(t, "golds/gold.vhd")
	name := filepath.Join(dir, "clone.vhd")
	r.write(t, storage.OS, name)
	expect(t, run(t, name, o).Findings, want{Warning, "parent", outside + "/gold.vhd lies outside"})
	o.ParentDirs = []string{outside}
	expect(t, run(t, name, o).Findings)
}

func TestNamedParentThatIsMissingIsAnError(t *testing.T) {
	dir, o := osFamily(t)
	o.Parent = filepath.Join(dir, "nope.vhd")
	if _, err := Run(filepath.Join(dir, "child.vhd"), o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Run = %v, want fs.ErrNotExist", err)
	}
}

// TestChangesNothing: a check only reads.
func TestChangesNothing(t *testing.T) {
	dir, o := osFamily(t)
	name := filepath.Join(dir, "child.vhd")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o400); err != nil {
		t.Fatal(err)
	}
	modified := modTime(t, storage.OS, name)
	expect(t, run(t, name, o).Findings)
	after, err := os.ReadFile(name)
	if err != nil || string(after) != string(before) || !modTime(t, storage.OS, name).Equal(modified) {
		t.Errorf("the image was changed (%v)", err)
	}
}

func TestLongAndStrangePathsLeadNowhere(t *testing.T) {
	dir, o := osFamily(t)
	for name, path := range map[string]string{
		"too long":        "file://./" + strings.Repeat("x", 400),
		"many components": "file://./" + strings.Repeat("/", 400) + "x",
		"above the root":  "file://../../../../../../../../../../../../nope",
		"a file in it":    "file://./base.vhd/x",
		"invalid UTF-8":   "file://./\xff\xfe",
	} {
		t.Run(name, func(t *testing.T) {
			r := childDisk(t, dynamicDisk().footer, "gone.vhd", testNow)
			r.relocate(t, "gone.vhd")
			r.header.ParentName = ""
			r.setPath(0, path)
			image := filepath.Join(dir, name+".vhd")
			r.write(t, storage.OS, image)
			expect(t, run(t, image, o).Findings,
				want{Note, headerPlace, "parent name is empty"}, want{Damage, "parent", "not found at"})
		})
	}
}

func TestSizeFromIsTheImagesOwn(t *testing.T) {
	dir, o := osFamily(t)
	name := filepath.Join(dir, "child.vhd")
	if got := run(t, name, o); got.Blocks != 16 {
		t.Errorf("%d blocks, want 16", got.Blocks)
	}
	o.SizeFrom = format.SizeGeometry // 30/4/17 is 4096 bytes short of the size, one block still
	got := run(t, name, o)
	if got.Blocks != 16 {
		t.Errorf("by geometry %d blocks, want 16", got.Blocks)
	}
	expect(t, got.Findings, want{Warning, "parent", "has 1048576 bytes, more than its child's 1044480"})
}
