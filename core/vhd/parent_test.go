package vhd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const familySize = 16 << 10

// base makes a parent of noise.
func base(t *testing.T, fsys storage.FS, name string) {
	t.Helper()
	create(t, fsys, name, format.Dynamic, familySize, 4096)
	fill(t, fsys, name, noise(familySize))
}

func idOf(t *testing.T, fsys storage.FS, name string) format.UUID {
	t.Helper()
	img, err := vhd.Open(name, vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	return img.Layers()[0].Footer.ID
}

// showsNoise sees that name opens and shows what base holds, and returns the
// parent's path.
func showsNoise(t *testing.T, name string, o vhd.Options) string {
	t.Helper()
	o.ReadOnly = true
	img, err := vhd.Open(name, o)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer img.Close()
	if got := readAll(t, img); !bytes.Equal(got[:familySize], noise(familySize)) {
		t.Error("it doesn't show its parent's content")
	}
	return img.Layers()[0].Parent
}

func TestParentThatIsNotFound(t *testing.T) {
	tests := []struct {
		name     string
		header   string
		locators []locator
		says     []string
	}{
		{"nowhere", "base.vhd", nil, []string{"base.vhd", "not found", "--parent"}},
		{"by two names", "base.vhd", []locator{pathLocator(t, format.CodeW2ru, "sub/other.vhd")}, []string{"base.vhd", "sub/other.vhd", "--parent"}},
		{"no name at all", "", nil, []string{"names no parent", "--parent"}},
		{"names that are none", "..", []locator{{format.CodeW2ru, nil}}, []string{"--parent"}},
		{"a NUL", "a\x00b", nil, []string{"--parent"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			childOf(format.UUID{1}, test.header, test.locators...).write(t, fsys, "/vm/disk.vhd")
			_, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			wantError{vhd.ErrParentMissing, test.says}.check(t, err, "/vm/disk.vhd")
		})
	}
	fsys := storagetest.NewMemory()
	childOf(format.UUID{1}, "base.vhd").write(t, fsys, "/vm/disk.vhd")
	_, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys, Parent: "/gone.vhd"})
	wantError{vhd.ErrParentMissing, []string{"/gone.vhd"}}.check(t, err, "/vm/disk.vhd")
}

func TestParentOutsideOfTheDirectory(t *testing.T) {
	tests := map[string]locator{
		"relative": pathLocator(t, format.CodeW2ru, "../gold/base.vhd"),
		"absolute": pathLocator(t, format.CodeW2ku, "/gold/base.vhd"),
		"devious":  pathLocator(t, format.CodeW2ru, "x/../../gold/base.vhd"),
		"URL":      {format.CodeMacX, []byte("file:///gold/base.vhd")},
		"escaped":  {format.CodeMacX, []byte("file://./%2e%2e/gold/base.vhd")},
	}
	for name, loc := range tests {
		t.Run(name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			base(t, fsys, "/gold/base.vhd")
			writeFile(t, fsys, "/vm/x/y", nil)
			childOf(idOf(t, fsys, "/gold/base.vhd"), "base.vhd", loc).write(t, fsys, "/vm/disk.vhd")
			_, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys})
			wantError{vhd.ErrParentOutside, []string{"/gold/base.vhd", "--parent-dir /gold"}}.check(t, err, "/vm/disk.vhd")
			_, err = vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys, ParentDirs: []string{"/elsewhere", "/gold/bas"}})
			wantError{vhd.ErrParentOutside, nil}.check(t, err, "/vm/disk.vhd")
			for _, o := range []vhd.Options{{ParentDirs: []string{"/gold"}}, {ParentDirs: []string{"/"}}, {Parent: "/gold/base.vhd"}} {
				o.FS = fsys
				if got := showsNoise(t, "/vm/disk.vhd", o); got != "/gold/base.vhd" {
					t.Errorf("parent %q", got)
				}
			}
		})
	}
}

func TestParentInTheTreeOfItsChild(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/vm/gold/deep/base.vhd")
	must(t, vhd.Snapshot("/vm/gold/deep/base.vhd", "/vm/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
	showsNoise(t, "/vm/disk.vhd", vhd.Options{FS: fsys})
}

// Whoever made the image doesn't choose what of this machine it shows.
func TestParentEscapesAreRefused(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "shadow")
	must(t, os.WriteFile(secret, noise(familySize), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	must(t, os.Symlink(secret, filepath.Join(dir, "linked")))
	tests := map[string]struct {
		path string
		want error
	}{
		"absolute":                     {secret, vhd.ErrParentOutside},
		"upwards":                      {"../" + filepath.Base(outside) + "/shadow", vhd.ErrParentOutside},
		"through a link to a folder":   {"link/shadow", vhd.ErrParentOutside},
		"a link to the file":           {"linked", storage.ErrNotRegular},
		"a link's folder, and up":      {"link/../" + filepath.Base(outside) + "/shadow", vhd.ErrParentMissing},
		"a file of the process itself": {"/proc/self/fd/0", vhd.ErrParentOutside},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			child := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".vhd")
			l := childOf(format.UUID{}, "", pathLocator(t, format.CodeW2ku, test.path)) // a raw parent
			l.write(t, storage.OS, child)
			_, err := vhd.Open(child, vhd.Options{ReadOnly: true})
			wantError{test.want, nil}.check(t, err, child)
		})
	}
}

func TestParentThatIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	for _, name := range []string{"fifo", "folder", "/dev/zero"} {
		for _, id := range []format.UUID{{}, {1}} {
			child := filepath.Join(dir, fmt.Sprintf("%s-%v.vhd", filepath.Base(name), id.IsZero()))
			childOf(id, "", pathLocator(t, format.CodeW2ku, name)).write(t, storage.OS, child)
			for _, readOnly := range []bool{true, false} {
				_, err := vhd.Open(child, vhd.Options{ReadOnly: readOnly, ParentDirs: []string{"/dev"}})
				wantError{storage.ErrNotRegular, []string{filepath.Base(name)}}.check(t, err, child)
			}
		}
	}
}

// An image opened through a symbolic link finds its parent where the image is.
func TestParentOfAnImageOpenedThroughALink(t *testing.T) {
	vms, home := t.TempDir(), t.TempDir()
	base(t, storage.OS, filepath.Join(vms, "base.vhd"))
	must(t, vhd.Snapshot(filepath.Join(vms, "base.vhd"), filepath.Join(vms, "disk.vhd"), vhd.SnapshotOptions{}))
	must(t, os.Symlink(filepath.Join(vms, "disk.vhd"), filepath.Join(home, "link.vhd")))
	showsNoise(t, filepath.Join(home, "link.vhd"), vhd.Options{})
	// A folder that is a link is the same.
	must(t, os.Symlink(vms, filepath.Join(home, "vms")))
	showsNoise(t, filepath.Join(home, "vms", "disk.vhd"), vhd.Options{})
	t.Chdir(vms)
	showsNoise(t, "disk.vhd", vhd.Options{})
}

// The user may name a link; only what an image says is mistrusted.
func TestParentNamedByTheUserMayBeALink(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base(t, storage.OS, at("base.vhd"))
	must(t, os.Symlink(at("base.vhd"), at("link.vhd")))
	childOf(idOf(t, storage.OS, at("base.vhd")), "").write(t, storage.OS, at("disk.vhd"))
	showsNoise(t, at("disk.vhd"), vhd.Options{Parent: at("link.vhd")})
}

func TestParentOfAnotherUUID(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/vm/base.vhd")
	id := idOf(t, fsys, "/vm/base.vhd")
	childOf(format.UUID{7}, "base.vhd").write(t, fsys, "/vm/disk.vhd")
	_, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrParentMismatch, []string{"/vm/base.vhd", id.String(), format.UUID{7}.String(), "--force-parent"}}.check(t, err, "/vm/disk.vhd")

	img, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys, ForceParent: true})
	must(t, err)
	defer img.Close()
	if w := strings.Join(img.Warnings(), "\n"); !strings.Contains(w, id.String()) {
		t.Errorf("warnings %q don't say that it was forced", w)
	}
	if !bytes.Equal(readAll(t, img), noise(familySize)) {
		t.Error("it doesn't show its parent's content")
	}
}

func TestParentLoops(t *testing.T) {
	a, b := format.UUID{0xa}, format.UUID{0xb}
	image := func(t *testing.T, fsys storage.FS, dir, name, parent string, id, parentID format.UUID) {
		t.Helper()
		l := childOf(parentID, parent)
		l.footer.ID = id
		l.write(t, fsys, filepath.Join(dir, name))
	}
	systems := map[string]func(t *testing.T) (storage.FS, string){
		"memory": func(*testing.T) (storage.FS, string) { return storagetest.NewMemory(), "/vm" },
		"os":     func(t *testing.T) (storage.FS, string) { return storage.OS, t.TempDir() },
	}
	for name, system := range systems {
		for _, readOnly := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/readonly=%v", name, readOnly), func(t *testing.T) {
				fsys, dir := system(t)
				image(t, fsys, dir, "a.vhd", "b.vhd", a, b)
				image(t, fsys, dir, "b.vhd", "a.vhd", b, a)
				image(t, fsys, dir, "self.vhd", "self.vhd", a, a)
				image(t, fsys, dir, "c.vhd", "a.vhd", format.UUID{0xc}, a)
				must(t, fsys.Link(filepath.Join(dir, "self.vhd"), filepath.Join(dir, "hard.vhd")))
				for leaf, named := range map[string]string{"a.vhd": "a.vhd", "self.vhd": "self.vhd", "hard.vhd": "hard.vhd", "c.vhd": "a.vhd"} {
					_, err := vhd.Open(filepath.Join(dir, leaf), vhd.Options{FS: fsys, ReadOnly: readOnly})
					wantError{vhd.ErrParentLoop, []string{"loop"}}.check(t, err, filepath.Join(dir, named))
				}
			})
		}
	}
}

func TestChainsUpTo256Parents(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/0.vhd")
	id := idOf(t, fsys, "/0.vhd")
	for i := 1; i <= 257; i++ {
		l := childOf(id, fmt.Sprintf("%d.vhd", i-1))
		id = l.footer.ID
		l.write(t, fsys, fmt.Sprintf("/%d.vhd", i))
	}
	img := open(t, fsys, "/256.vhd")
	if n := len(img.Layers()); n != 257 {
		t.Errorf("%d layers", n)
	}
	if !bytes.Equal(readAll(t, img), noise(familySize)) {
		t.Error("wrong bytes through 256 children")
	}
	must(t, write(img, "top", 5))
	must(t, img.Close())
	_, err := vhd.Open("/257.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrTooDeep, []string{"256"}}.check(t, err, "/257.vhd")
	err = vhd.Snapshot("/256.vhd", "/more.vhd", vhd.SnapshotOptions{FS: fsys})
	if !errors.Is(err, vhd.ErrTooDeep) {
		t.Errorf("snapshot of a chain of 256 parents: %v: what it makes can't be opened", err)
	}
}

func TestParentSmallerOrLargerThanItsChild(t *testing.T) {
	for _, kind := range []string{"dynamic", "fixed", "raw"} {
		for _, size := range []int64{512, familySize - 512, familySize + 4096} {
			t.Run(fmt.Sprintf("%s/%d", kind, size), func(t *testing.T) {
				fsys := storagetest.NewMemory()
				content := noise(size)
				var id format.UUID
				switch kind {
				case "raw":
					writeFile(t, fsys, "/base", content)
				default:
					create(t, fsys, "/base", map[string]format.DiskType{"dynamic": format.Dynamic, "fixed": format.Fixed}[kind], size, 0)
					fill(t, fsys, "/base", content)
					id = idOf(t, fsys, "/base")
				}
				childOf(id, "base").write(t, fsys, "/disk.vhd")
				want := zeros(familySize)
				copy(want, content)
				img := open(t, fsys, "/disk.vhd")
				if got := readAll(t, img); !bytes.Equal(got, want) {
					t.Error("wrong bytes")
				}
				warned := strings.Contains(strings.Join(img.Warnings(), "\n"), "smaller than its parent")
				if warned != (size > familySize) && kind != "raw" {
					t.Errorf("warnings: %q", img.Warnings())
				}
				churn(t, img, want, 1)
				if got := readAll(t, img); !bytes.Equal(got, want) {
					t.Error("wrong bytes after writing")
				}
				must(t, img.Close())
			})
		}
	}
}

func TestRawParent(t *testing.T) {
	fsys := storagetest.NewMemory()
	writeFile(t, fsys, "/odd.raw", noise(familySize+100))
	childOf(format.UUID{}, "odd.raw").write(t, fsys, "/disk.vhd")
	showsNoise(t, "/disk.vhd", vhd.Options{FS: fsys})
	img := open(t, fsys, "/disk.vhd")
	if l := img.Layers(); len(l) != 2 || l[1].Kind != vhd.KindRaw || l[1].Footer != nil || l[1].Size != familySize {
		t.Errorf("layers %+v", l)
	}
	must(t, img.Close())

	writeFile(t, fsys, "/tiny.raw", noise(511))
	childOf(format.UUID{}, "tiny.raw").write(t, fsys, "/small.vhd")
	_, err := vhd.Open("/small.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrCorrupt, []string{"/tiny.raw", "511"}}.check(t, err, "/small.vhd")
}

// A parent is opened to be read, beside other readers, and is never written
// to, whatever happens to its child.
func TestParentsAreSharedAndUntouched(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/base.vhd")
	must(t, vhd.Snapshot("/base.vhd", "/a.vhd", vhd.SnapshotOptions{FS: fsys}))
	must(t, vhd.Snapshot("/base.vhd", "/b.vhd", vhd.SnapshotOptions{FS: fsys}))
	before := contentOf(t, fsys, "/base.vhd")
	a, b := open(t, fsys, "/a.vhd"), open(t, fsys, "/b.vhd")
	_, err := vhd.Open("/base.vhd", vhd.Options{FS: fsys})
	wantError{storage.ErrInUse, nil}.check(t, err, "/base.vhd")
	ma, mb := noise(familySize), noise(familySize)
	churn(t, a, ma, 1)
	churn(t, b, mb, 2)
	must(t, a.Discard(0, familySize))
	if !bytes.Equal(readAll(t, b), mb) {
		t.Error("one child shows what was done to the other")
	}
	must(t, a.Close())
	must(t, b.Close())
	if !bytes.Equal(contentOf(t, fsys, "/base.vhd"), before) {
		t.Error("the parent was changed")
	}
	writer := open(t, fsys, "/base.vhd")
	_, err = vhd.Open("/a.vhd", vhd.Options{FS: fsys})
	wantError{storage.ErrInUse, []string{"/base.vhd"}}.check(t, err, "/a.vhd")
	must(t, writer.Close())
}

func TestParentChangedSinceIsWarnedOf(t *testing.T) {
	dir := t.TempDir()
	parent, child := filepath.Join(dir, "base.vhd"), filepath.Join(dir, "disk.vhd")
	base(t, storage.OS, parent)
	must(t, vhd.Snapshot(parent, child, vhd.SnapshotOptions{}))
	warnings := func() string {
		img := open(t, storage.OS, child)
		defer img.Close()
		return strings.Join(img.Warnings(), "\n")
	}
	if w := warnings(); w != "" {
		t.Errorf("a fresh snapshot warns: %q", w)
	}
	later := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	must(t, os.Chtimes(parent, later, later))
	if w := warnings(); !strings.Contains(w, "2031-02-03 04:05:06") || !strings.Contains(w, child) {
		t.Errorf("warnings %q don't say that the parent was changed", w)
	}
}

func TestDamageInAParentNamesTheParent(t *testing.T) {
	fsys := storagetest.NewMemory()
	writeFile(t, fsys, "/text.vhd", []byte("no image"))
	l := sample()
	l.bat[2] = 9999
	l.write(t, fsys, "/bad.vhd")
	childOf(format.UUID{1}, "text.vhd").write(t, fsys, "/a.vhd")
	_, err := vhd.Open("/a.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrNotVHD, []string{"/text.vhd"}}.check(t, err, "/a.vhd")

	// A bad entry of a parent's is met when it is read, and only there.
	childOf(idOf(t, fsys, "/bad.vhd"), "bad.vhd").write(t, fsys, "/b.vhd")
	img := open(t, fsys, "/b.vhd")
	defer img.Close()
	_, err = img.ReadAt(make([]byte, 512), 2*4096)
	wantError{vhd.ErrCorrupt, []string{"block 2", "9999"}}.check(t, err, "/bad.vhd")
}

func TestParentOfADiskThatHasNone(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/disk.vhd", format.Dynamic, 64<<10, 4096)
	_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, Parent: "/base.vhd"})
	if err == nil || !strings.Contains(err.Error(), "/disk.vhd: a dynamic disk has no parent") {
		t.Errorf("error %v, want that the disk has no parent", err)
	}
}
