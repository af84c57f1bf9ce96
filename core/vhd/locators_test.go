package vhd_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// locator is one name of a parent, as the data of a locator.
type locator struct {
	code format.LocatorCode
	data []byte
}

func pathLocator(t *testing.T, code format.LocatorCode, path string) locator {
	t.Helper()
	data, err := format.EncodeLocatorPath(code, path)
	must(t, err)
	return locator{code, data}
}

// childOf is a differencing image whose header names its parent as it is told.
func childOf(id format.UUID, name string, locators ...locator) *layout {
	l := newLayout(format.Differencing, familySize, 4096)
	l.header.ParentID, l.header.ParentName = id, name
	for i, loc := range locators {
		off := int64(2048 + i*512)
		l.header.Locators[i] = format.Locator{
			Code: loc.code, DataSpace: 512, DataLength: uint32(len(loc.data)), DataOffset: uint64(off),
		}
		l.put(off, append(bytes.Clone(loc.data), make([]byte, 512-len(loc.data))...))
	}
	return l
}

func TestParentIsFoundByAnyOfItsNames(t *testing.T) {
	const name = "/vm/base é😀 50%.vhd"
	short := filepath.Base(name)
	w2ru := func(t *testing.T, p string) locator { return pathLocator(t, format.CodeW2ru, p) }
	w2ku := func(t *testing.T, p string) locator { return pathLocator(t, format.CodeW2ku, p) }
	macx := func(t *testing.T, p string) locator { return pathLocator(t, format.CodeMacX, p) }
	tests := map[string]func(t *testing.T) []locator{
		"W2ru relative":             func(t *testing.T) []locator { return []locator{w2ru(t, short)} },
		"W2ku absolute":             func(t *testing.T) []locator { return []locator{w2ku(t, name)} },
		"W2ku relative, by tapdisk": func(t *testing.T) []locator { return []locator{w2ku(t, "./"+short)} },
		"MacX relative":             func(t *testing.T) []locator { return []locator{macx(t, short)} },
		"MacX absolute":             func(t *testing.T) []locator { return []locator{macx(t, name)} },
		"MacX that is not escaped":  func(*testing.T) []locator { return []locator{{format.CodeMacX, []byte("file://./" + short)}} },
		"the first is not there":    func(t *testing.T) []locator { return []locator{w2ru(t, "gone.vhd"), w2ku(t, name)} },
		"the first can't be read":   func(t *testing.T) []locator { return []locator{{format.CodeW2ru, []byte{1}}, w2ru(t, short)} },
		"the first is of Mac OS 9":  func(t *testing.T) []locator { return []locator{{format.CodeMac, []byte("alias")}, w2ru(t, short)} },
		"the first is of another host": func(t *testing.T) []locator {
			return []locator{{format.CodeMacX, []byte("file://server/share/base.vhd")}, w2ru(t, short)}
		},
		"in the slots of DiscUtils": func(t *testing.T) []locator {
			return []locator{{}, {}, {}, {}, {}, {}, w2ru(t, short), w2ku(t, name)}
		},
		"the header's name alone": func(*testing.T) []locator { return nil },
	}
	for what, locators := range tests {
		t.Run(what, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			base(t, fsys, name)
			list := locators(t)
			header := "nothing.vhd"
			if list == nil {
				header = short
			}
			childOf(idOf(t, fsys, name), header, list...).write(t, fsys, "/vm/disk.vhd")
			if got := showsNoise(t, "/vm/disk.vhd", vhd.Options{FS: fsys}); got != name {
				t.Errorf("parent %q", got)
			}
		})
	}
}

func TestParentLocatorsGoInTheirOrder(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/vm/a.vhd")
	writeFile(t, fsys, "/vm/b.vhd", contentOf(t, fsys, "/vm/a.vhd"))
	writeFile(t, fsys, "/vm/c.vhd", contentOf(t, fsys, "/vm/a.vhd"))
	id := idOf(t, fsys, "/vm/a.vhd")
	childOf(id, "c.vhd", pathLocator(t, format.CodeW2ku, "b.vhd"), pathLocator(t, format.CodeW2ru, "a.vhd")).write(t, fsys, "/vm/disk.vhd")
	if got := showsNoise(t, "/vm/disk.vhd", vhd.Options{FS: fsys}); got != "/vm/b.vhd" {
		t.Errorf("parent %q, want the first locator's", got)
	}
	if got := showsNoise(t, "/vm/disk.vhd", vhd.Options{FS: fsys, Parent: "/vm/c.vhd"}); got != "/vm/c.vhd" {
		t.Errorf("parent %q, want the one that was named", got)
	}
}

// tapdisk writes file URLs without escapes: a percent sign is a percent sign.
func TestParentWhoseNameLooksEscaped(t *testing.T) {
	fsys := storagetest.NewMemory()
	base(t, fsys, "/vm/a%20b.vhd")
	childOf(idOf(t, fsys, "/vm/a%20b.vhd"), "", locator{format.CodeMacX, []byte("file://./a%20b.vhd")}).write(t, fsys, "/vm/disk.vhd")
	if got := showsNoise(t, "/vm/disk.vhd", vhd.Options{FS: fsys}); got != "/vm/a%20b.vhd" {
		t.Errorf("parent %q", got)
	}
}

// The header's name may be a full Windows path, of which the last part counts.
func TestParentNameIsTakenForItsLastPart(t *testing.T) {
	for _, name := range []string{`C:\VMs\base.vhd`, `\\server\share\base.vhd`, "../../base.vhd", "/etc/base.vhd"} {
		fsys := storagetest.NewMemory()
		base(t, fsys, "/vm/base.vhd")
		childOf(idOf(t, fsys, "/vm/base.vhd"), name).write(t, fsys, "/vm/disk.vhd")
		if got := showsNoise(t, "/vm/disk.vhd", vhd.Options{FS: fsys}); got != "/vm/base.vhd" {
			t.Errorf("%s: parent %q", name, got)
		}
	}
}

// What a locator holds is bytes of a stranger.
func TestHostileLocators(t *testing.T) {
	utf16 := func(units ...uint16) []byte {
		var b []byte
		for _, u := range units {
			b = append(b, byte(u), byte(u>>8))
		}
		return b
	}
	tests := map[string]locator{
		"an unpaired surrogate": {format.CodeW2ru, utf16('.', '\\', 0xd800, 'a')},
		"NULs alone":            {format.CodeW2ru, utf16(0, 0, 0)},
		"an odd length":         {format.CodeW2ru, []byte{'a', 0, 'b'}},
		"control characters":    {format.CodeW2ru, utf16('.', '\\', '\n', 0x1b, '[', '2', 'J')},
		"dots alone":            {format.CodeW2ru, utf16('.', '.', '\\', '.', '.')},
		"the root":              {format.CodeW2ku, utf16('\\')},
		"a drive alone":         {format.CodeW2ku, utf16('C', ':')},
		"another scheme":        {format.CodeMacX, []byte("http://example.org/base.vhd")},
		"a broken escape":       {format.CodeMacX, []byte("file:///a%zz%")},
		"an escaped NUL":        {format.CodeMacX, []byte("file:///a%00b")},
		"not UTF-8":             {format.CodeMacX, []byte("file:///\xff\xfe")},
		"a code nobody knows":   {0x41424344, []byte("whatever")},
		"nothing":               {format.CodeW2ru, nil},
	}
	for name, loc := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			child := filepath.Join(dir, "disk.vhd")
			childOf(format.UUID{1}, "", loc).write(t, storage.OS, child)
			_, err := vhd.Open(child, vhd.Options{ReadOnly: true})
			if err == nil {
				t.Fatal("opened")
			}
			if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("error %q could upset a terminal", err)
			}
			// With the parent named, the locator does no harm.
			base(t, storage.OS, filepath.Join(dir, "base.vhd"))
			showsNoise(t, child, vhd.Options{Parent: filepath.Join(dir, "base.vhd"), ForceParent: true})
		})
	}
}

func TestLocatorsThatAreTooLong(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := childOf(format.UUID{1}, "")
	l.put(4096, make([]byte, 128<<10))
	l.header.Locators[0] = format.Locator{Code: format.CodeW2ru, DataSpace: 128 << 10, DataLength: 128 << 10, DataOffset: 4096}
	l.write(t, fsys, "/disk.vhd")
	_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	wantError{vhd.ErrParentMissing, []string{"--parent"}}.check(t, err, "/disk.vhd")
}
