package check

import (
	"errors"
	"path"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// family is a file system with /vm/base.vhd and its child /vm/child.vhd.
func family(t *testing.T) (*storagetest.Memory, Options) {
	t.Helper()
	fs := storagetest.NewMemory()
	base := dynamicDisk()
	base.write(t, fs, "/vm/base.vhd")
	childDisk(t, base.footer, "base.vhd", modTime(t, fs, "/vm/base.vhd")).write(t, fs, "/vm/child.vhd")
	o := everything(fs)
	o.Now = time.Now()
	return fs, o
}

func modTime(t *testing.T, fs storage.FS, name string) time.Time {
	t.Helper()
	info, err := fs.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime
}

// footerOf reads an image's footer.
func footerOf(t *testing.T, fs storage.FS, name string) *format.Footer {
	t.Helper()
	f, err := fs.Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, format.FooterSize)
	if _, err := f.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	footer, err := format.DecodeFooter(buf)
	if err != nil {
		t.Fatal(err)
	}
	return footer
}

// child writes a child of /vm/base.vhd after spoil changed it, and checks it.
func child(t *testing.T, spoil func(r *recipe, fs *storagetest.Memory, o *Options)) []Finding {
	t.Helper()
	fs, o := family(t)
	r := childDisk(t, footerOf(t, fs, "/vm/base.vhd"), "base.vhd", modTime(t, fs, "/vm/base.vhd"))
	spoil(r, fs, &o)
	r.write(t, fs, "/vm/other.vhd")
	return run(t, "/vm/other.vhd", o).Findings
}

func TestLocators(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(*testing.T, *recipe)
		want  []want
	}{
		{"space in sectors", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataSpace = 1 }, nil},
		{"an old alias", func(_ *testing.T, r *recipe) { r.header.Locators[1].Code = format.CodeMac }, nil},
		{"unused with fields", func(_ *testing.T, r *recipe) { r.header.Locators[7].DataSpace = 1 },
			[]want{{Damage, "locator 7", "unused, but"}}},
		{"unknown code", func(_ *testing.T, r *recipe) { r.header.Locators[1].Code = 0x41414141 },
			[]want{{Damage, "locator 1", "0x41414141"}}},
		{"code twice", func(t *testing.T, r *recipe) { r.locate(t, 1, format.CodeW2ru, "base.vhd") },
			[]want{{Damage, "locator 2", "has the code of locator 1, W2ru"}}},
		{"space", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataSpace = 1000 },
			[]want{{Damage, "locator 1", "data space"}}},
		{"no length", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataLength = 0 },
			[]want{{Damage, "locator 1", "data length"}}},
		{"length over space", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataLength = 514 },
			[]want{{Damage, "locator 1", "514 bytes in a space of 512"}}},
		{"odd length", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataLength-- },
			[]want{{Damage, "locator 1", "no length of UTF-16"}}},
		{"offset zero", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataOffset = 0 },
			[]want{{Damage, "locator 1", "data offset"}}},
		{"offset past the end", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataOffset = 1 << 40 },
			[]want{{Damage, "locator 1", "runs past the end of the data"}}},
		{"end in the end footer", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataOffset = 408*512 - 511 },
			[]want{{Damage, "locator 1", "data at 0x32e01 to 0x33000 runs past the end of the data (0x33000)"}}},
		{"offset near 2^64", func(_ *testing.T, r *recipe) { r.header.Locators[1].DataOffset = 1<<64 - 512 },
			[]want{{Damage, "locator 1", "data offset"}}},
		{"reserved", func(_ *testing.T, r *recipe) { r.header.Locators[1].Reserved = 1 },
			[]want{{Damage, "locator 1", "reserved bytes"}}},
		{"no path", func(_ *testing.T, r *recipe) { r.paths[0] = []byte("http://x") },
			[]want{{Damage, "locator 0", "no file URL"}}},
		{"another host", func(_ *testing.T, r *recipe) { r.setPath(0, "file://server/base.vhd") },
			[]want{{Note, "locator 0", "another host, //server/base.vhd"}}},
		{"another name", func(t *testing.T, r *recipe) { r.locate(t, 1, format.CodeW2ku, "child.vhd") },
			[]want{
				{Damage, "locator 1", `names "child.vhd", but the header names "base.vhd"`},
				{Warning, "locator 1", "leads to /vm/child.vhd, but locator 0 to /vm/base.vhd"},
			}},
		{"name in capitals", func(_ *testing.T, r *recipe) { r.header.ParentName = `C:\VM\BASE.VHD` }, nil},
		{"no name", func(_ *testing.T, r *recipe) { r.header.ParentName = "" },
			[]want{{Note, "dynamic header", "parent name is empty"}}},
		{"no locators", func(_ *testing.T, r *recipe) { r.header.Locators = [8]format.Locator{} },
			[]want{{Warning, "dynamic header", `no locator leads to the parent, only its name, "base.vhd"`}}},
		{"neither", func(_ *testing.T, r *recipe) { r.header.Locators, r.header.ParentName = [8]format.Locator{}, "" },
			[]want{{Damage, "dynamic header", "neither a locator nor a name"}}},
		{"in a block", func(_ *testing.T, r *recipe) {
			r.bitmap = func(int) format.Bitmap { return nil }
			r.header.Locators[1].DataOffset = (firstBlock + 1) * 512
			r.patch((firstBlock+1)*512, r.paths[1]...)
		}, []want{{Damage, "block 2", "overlap the data of locator 1"}}},
		{"in another's data", func(_ *testing.T, r *recipe) { r.header.Locators[0].DataSpace = 1024 },
			[]want{{Damage, "data of locator 1", "overlaps the data of locator 0"}}},
		{"after the blocks", func(_ *testing.T, r *recipe) {
			const at = (firstBlock + 3*stride) * 512
			r.header.Locators[1].DataOffset = at
			r.length = at + 512
			r.patch(at, r.paths[1]...)
		}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := child(t, func(r *recipe, _ *storagetest.Memory, _ *Options) { c.spoil(t, r) })
			expect(t, got, c.want...)
		})
	}
}

// setPath puts the bytes of a path into a slot.
func (r *recipe) setPath(slot int, data string) {
	r.paths[slot] = []byte(data)
	r.header.Locators[slot].DataLength = uint32(len(data))
}

func TestParents(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(*testing.T, *recipe, *storagetest.Memory, *Options)
		want  []want
	}{
		{"missing", func(t *testing.T, r *recipe, _ *storagetest.Memory, _ *Options) { r.rename(t, "gone.vhd") },
			[]want{{Damage, "parent", "not found at /vm/gone.vhd — "}}},
		{"a directory", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			dynamicDisk().write(t, fs, "/vm/dir/x.vhd")
			r.rename(t, "dir")
		}, []want{{Damage, "parent", "/vm/dir (not a regular file)"}}},
		{"another id", func(_ *testing.T, r *recipe, _ *storagetest.Memory, _ *Options) { r.header.ParentID[0]++ },
			[]want{{Damage, "parent", "/vm/base.vhd has the id"}}},
		{"another id, ignored", func(_ *testing.T, r *recipe, _ *storagetest.Memory, o *Options) {
			r.header.ParentID[0]++
			o.IgnoreParentIDs = true
		}, nil},
		{"modified since", func(_ *testing.T, r *recipe, _ *storagetest.Memory, _ *Options) { r.header.ParentTimestamp -= 60 },
			[]want{{Warning, "parent", "was modified at"}}},
		{"modified since, ignored", func(_ *testing.T, r *recipe, _ *storagetest.Memory, o *Options) {
			r.header.ParentTimestamp -= 60
			o.IgnoreTimestamps = true
		}, nil},
		{"no time noted", func(_ *testing.T, r *recipe, _ *storagetest.Memory, _ *Options) { r.header.ParentTimestamp = 0 }, nil},
		{"time in the future", func(_ *testing.T, r *recipe, _ *storagetest.Memory, o *Options) {
			o.Now = o.Now.Add(-2 * time.Hour)
			r.footer.Timestamp = format.TimeOf(o.Now)
		}, []want{{Warning, "dynamic header", "parent's timestamp"}}},
		{"larger than its child", func(_ *testing.T, r *recipe, _ *storagetest.Memory, _ *Options) {
			f := format.NewFooter(testSize/2, format.Differencing, testNow)
			r.footer = f
		}, []want{{Warning, "parent", "has 1048576 bytes, more than its child's 524288"}}},
		{"no VHD", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			writeRaw(t, fs, "/vm/raw.img", 4096)
			r.rename(t, "raw.img")
		}, []want{{Damage, "parent", "/vm/raw.img is not a VHD image"}}},
		{"without a footer", func(t *testing.T, r *recipe, fs *storagetest.Memory, o *Options) {
			broken := dynamicDisk()
			broken.noEnd = true
			broken.patch(0, 'x')
			broken.write(t, fs, "/vm/broken.vhd")
			r.rename(t, "broken.vhd")
			r.header.ParentTimestamp = 0
			o.Parents = false
		}, []want{{Damage, "parent", "/vm/broken.vhd has no valid footer"}}},
		{"raw", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			writeRaw(t, fs, "/vm/raw.img", 4096)
			r.rename(t, "raw.img")
			r.header.ParentID = format.UUID{}
		}, nil},
		{"raw of less than a sector", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			writeRaw(t, fs, "/vm/raw.img", 100)
			r.rename(t, "raw.img")
			r.header.ParentID = format.UUID{}
		}, []want{{Damage, "parent", "has 100 bytes, less than a sector"}}},
		{"outside", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			dynamicDisk().write(t, fs, "/secret/gold.vhd")
			r.rename(t, "../secret/gold.vhd")
		}, []want{{Warning, "parent", "/secret/gold.vhd lies outside"}}},
		{"in a directory whose name begins alike", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			dynamicDisk().write(t, fs, "/vm2/gold.vhd")
			r.rename(t, "/vm2/gold.vhd")
		}, []want{{Warning, "parent", "/vm2/gold.vhd lies outside"}}},
		{"found by name, the locator leads outside", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			dynamicDisk().write(t, fs, "/vm2/base.vhd")
			r.relocate(t, "/vm2/base.vhd")
		}, []want{{Warning, "locator 0", "leads to /vm2/base.vhd, but dynamic header to /vm/base.vhd"}}},
		{"in a directory, another of its name beside the image", func(t *testing.T, r *recipe, fs *storagetest.Memory, _ *Options) {
			base := dynamicDisk()
			base.write(t, fs, "/vm/sub/base.vhd")
			r.header.ParentID = base.footer.ID
			r.relocate(t, "sub/base.vhd")
		}, nil},
		{"itself", func(t *testing.T, r *recipe, _ *storagetest.Memory, _ *Options) { r.rename(t, "other.vhd") },
			[]want{{Damage, "parent", "a loop"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := child(t, func(r *recipe, fs *storagetest.Memory, o *Options) { c.spoil(t, r, fs, o) })
			expect(t, got, c.want...)
		})
	}
}

// rename gives the parent another name, in locators and header.
func (r *recipe) rename(t *testing.T, name string) {
	t.Helper()
	r.header.ParentName = path.Base(name)
	r.relocate(t, name)
}

// relocate leaves one locator, which leads to name.
func (r *recipe) relocate(t *testing.T, name string) {
	t.Helper()
	r.header.Locators = [8]format.Locator{}
	clear(r.paths)
	r.locate(t, 0, format.CodeMacX, name)
}

func writeRaw(t *testing.T, fs storage.FS, name string, size int64) {
	t.Helper()
	f, err := fs.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func TestParentDirsAndParentAllowWhatLiesOutside(t *testing.T) {
	fs, o := family(t)
	base := dynamicDisk()
	base.write(t, fs, "/gold/base.vhd")
	r := childDisk(t, base.footer, "base.vhd", modTime(t, fs, "/gold/base.vhd"))
	r.relocate(t, "/gold/base.vhd")
	r.header.ParentName = ""
	r.write(t, fs, "/vm/clone.vhd")
	empty := want{Note, "dynamic header", "parent name is empty"}

	expect(t, run(t, "/vm/clone.vhd", o).Findings, empty, want{Warning, "parent", "lies outside"})
	o.ParentDirs = []string{"/nowhere", "/gold"}
	expect(t, run(t, "/vm/clone.vhd", o).Findings, empty)
	o.ParentDirs, o.Parent = nil, "/gold/base.vhd"
	expect(t, run(t, "/vm/clone.vhd", o).Findings, empty)
	o.Parent = "/vm/base.vhd"
	expect(t, run(t, "/vm/clone.vhd", o).Findings, empty, want{Damage, "parent", "/vm/base.vhd has the id"})
}

func TestParentsAreCheckedIfAskedFor(t *testing.T) {
	fs := storagetest.NewMemory()
	base := dynamicDisk()
	base.bat[9] = 0xFFFFFF
	base.write(t, fs, "/vm/base.vhd")
	childDisk(t, base.footer, "base.vhd", modTime(t, fs, "/vm/base.vhd")).write(t, fs, "/vm/child.vhd")
	o := everything(fs)
	o.Now = time.Now()

	got := run(t, "/vm/child.vhd", o).Findings
	expect(t, got, want{Damage, "block 9", "past the end"})
	if got[0].Image != "/vm/base.vhd" {
		t.Errorf("the finding is of %s", got[0].Image)
	}
	o.Parents = false
	expect(t, run(t, "/vm/child.vhd", o).Findings)
}

// opens fails the test unless package vhd opens an image, or refuses it with
// the error wanted.
func opens(t *testing.T, fs storage.FS, name string, wanted error) {
	t.Helper()
	img, err := vhd.Open(name, vhd.Options{FS: fs, ReadOnly: true})
	if err == nil {
		err = img.Close()
	}
	if !errors.Is(err, wanted) {
		t.Errorf("vhd.Open(%q): %v; want %v", name, err, wanted)
	}
}

func TestChains(t *testing.T) {
	t.Run("too deep", func(t *testing.T) {
		fs, o := family(t)
		o.IgnoreTimestamps = true
		name, footer := "base.vhd", footerOf(t, fs, "/vm/base.vhd")
		for depth := 2; depth <= MaxDepth+1; depth++ {
			r := childDisk(t, footer, name, time.Now())
			r.bat = emptyBAT(16)
			name, footer = r.footer.ID.String(), r.footer
			r.write(t, fs, "/vm/"+name)
			if depth == MaxDepth {
				expect(t, run(t, "/vm/"+name, o).Findings)
				opens(t, fs, "/vm/"+name, nil)
			}
		}
		expect(t, run(t, "/vm/"+name, o).Findings, want{Damage, "parent", "more than 257 images deep"})
		opens(t, fs, "/vm/"+name, vhd.ErrTooDeep)
	})
	t.Run("a loop of two", func(t *testing.T) {
		fs, o := family(t)
		a := childDisk(t, dynamicDisk().footer, "b.vhd", time.Now())
		b := childDisk(t, a.footer, "a.vhd", time.Now())
		a.header.ParentID = b.footer.ID
		a.write(t, fs, "/vm/a.vhd")
		b.write(t, fs, "/vm/b.vhd")
		o.IgnoreTimestamps = true
		expect(t, run(t, "/vm/a.vhd", o).Findings, want{Damage, "parent", "/vm/a.vhd is the image itself or one of its children"})
	})
}
