package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path"
	"strings"
	"testing"
	"unicode/utf16"
)

// le is s in UTF-16LE.
func le(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

func TestDecodeLocatorPath(t *testing.T) {
	tests := []struct {
		name string
		code LocatorCode
		data string
		want ParentPath
	}{
		{"Windows relative", CodeW2ru, le(`.\fat-parent.vhd`), ParentPath{Path: "./fat-parent.vhd"}},
		{"Windows upwards", CodeW2ru, le(`..\base\disk.vhd`), ParentPath{Path: "../base/disk.vhd"}},
		{"bare name", CodeW2ru, le(`disk.vhd`), ParentPath{Path: "disk.vhd"}},
		{"Windows absolute", CodeW2ku, le(`C:\Projects\test_data\fat-parent.vhd`), ParentPath{Path: "/Projects/test_data/fat-parent.vhd", Absolute: true}},
		{"another drive", CodeW2ku, le(`e:\a\b.vhd`), ParentPath{Path: "/a/b.vhd", Absolute: true}},
		{"relative to a drive", CodeW2ku, le(`C:b.vhd`), ParentPath{Path: "b.vhd"}},
		{"no drive", CodeW2ku, le(`1:\b.vhd`), ParentPath{Path: "1:/b.vhd"}},
		{"tapdisk's relative W2ku", CodeW2ku, le(`.\5be3-46.vhd`), ParentPath{Path: "./5be3-46.vhd"}},
		{"tapdisk's upward path", CodeW2ku, le(`.\../x/a.vhd`), ParentPath{Path: "./../x/a.vhd"}},
		{"slashes already", CodeW2ru, le(`./a/b.vhd`), ParentPath{Path: "./a/b.vhd"}},
		{"absolute under W2ru", CodeW2ru, le(`\srv\b.vhd`), ParentPath{Path: "/srv/b.vhd", Absolute: true}},
		{"long path prefix", CodeW2ku, le(`\\?\C:\a.vhd`), ParentPath{Path: "/a.vhd", Absolute: true}},
		{"not ASCII", CodeW2ru, le(`.\Größe 💾.vhd`), ParentPath{Path: "./Größe 💾.vhd"}},
		{"unpaired surrogate", CodeW2ru, "a\x00\x3d\xd8b\x00", ParentPath{Path: "a\xed\xa0\xbdb"}},
		{"terminated", CodeW2ru, le(".\\a.vhd\x00"), ParentPath{Path: "./a.vhd"}},
		{"rubbish after the NUL", CodeW2ru, le(".\\a.vhd\x00zzz"), ParentPath{Path: "./a.vhd"}},
		{"ANSI relative", CodeWi2r, `.\dynamic.vhd`, ParentPath{Path: "./dynamic.vhd"}},
		{"ANSI absolute", CodeWi2k, "C:\\temp\\dynamic.vhd\x00", ParentPath{Path: "/temp/dynamic.vhd", Absolute: true}},
		{"ANSI, Latin-1", CodeWi2r, ".\\Gr\xf6\xdfe.vhd", ParentPath{Path: "./Größe.vhd"}},
		{"ANSI, really UTF-8", CodeWi2r, `.\Größe.vhd`, ParentPath{Path: "./Größe.vhd"}},
		{"tapdisk's URL", CodeMacX, "file://./a.vhd", ParentPath{Path: "./a.vhd"}},
		{"tapdisk's URL upwards", CodeMacX, "file://./../x/a.vhd", ParentPath{Path: "./../x/a.vhd"}},
		{"URL upwards", CodeMacX, "file://../a.vhd", ParentPath{Path: "../a.vhd"}},
		{"URL of a name", CodeMacX, "file://a.vhd", ParentPath{Path: "a.vhd"}},
		{"URL of a name like a host", CodeMacX, "file://localhost", ParentPath{Path: "localhost"}},
		{"URL ends in an escape", CodeMacX, "file://./a%2", ParentPath{Path: "./a%2"}},
		{"URL ends after an escape", CodeMacX, "file://./a%2B", ParentPath{Path: "./a+", Literal: "./a%2B"}},
		{"a directory named UNC", CodeW2ru, le(`UNC\a.vhd`), ParentPath{Path: "UNC/a.vhd"}},
		{"URL absolute", CodeMacX, "file:///srv/a.vhd", ParentPath{Path: "/srv/a.vhd", Absolute: true}},
		{"URL on localhost", CodeMacX, "file://LocalHost/srv/a.vhd", ParentPath{Path: "/srv/a.vhd", Absolute: true}},
		{"URL without authority", CodeMacX, "file:/srv/a.vhd", ParentPath{Path: "/srv/a.vhd", Absolute: true}},
		{"URL upper case", CodeMacX, "FILE://./a.vhd", ParentPath{Path: "./a.vhd"}},
		{"URL escaped", CodeMacX, "file://./Gr%C3%B6%c3%9fe%20%25.vhd", ParentPath{Path: "./Größe %.vhd", Literal: "./Gr%C3%B6%c3%9fe%20%25.vhd"}},
		{"URL raw", CodeMacX, "file://./Größe 1.vhd", ParentPath{Path: "./Größe 1.vhd"}},
		{"URL with no escapes after all", CodeMacX, "file://./100% of 5%zz.vhd%4", ParentPath{Path: "./100% of 5%zz.vhd%4"}},
		{"URL keeps the backslash", CodeMacX, `file://./a\b.vhd`, ParentPath{Path: `./a\b.vhd`}},
		{"URL with # and ?", CodeMacX, "file://./a#b?c.vhd", ParentPath{Path: "./a#b?c.vhd"}},
		{"URL, not UTF-8", CodeMacX, "file://./%ff.vhd", ParentPath{Path: "./\xff.vhd", Literal: "./%ff.vhd"}},
		{"URL padded", CodeMacX, "file://./a.vhd\x00\x00\x00", ParentPath{Path: "./a.vhd"}},
		{"URL hides dots", CodeMacX, "file://./%2e%2e/%2E%2E/etc", ParentPath{Path: "./../../etc", Literal: "./%2e%2e/%2E%2E/etc"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeLocatorPath(tt.code, []byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestDecodeLocatorPathRefuses(t *testing.T) {
	tests := []struct {
		name string
		code LocatorCode
		data string
		want error
		text string
		path string // what comes with the error, to be shown
	}{
		{"no data", CodeW2ru, "", ErrBounds, "locator W2ru: out of bounds: 0 bytes, not 1 to 65536", ""},
		{"too long", CodeMacX, "file://./" + strings.Repeat("a", 65536), ErrBounds, "65545 bytes", ""},
		{"odd length", CodeW2ku, "a\x00b", ErrBounds, "3 bytes is no length of UTF-16", ""},
		{"NUL first", CodeW2ru, "\x00\x00a\x00", ErrField, "the path is empty", ""},
		{"only a drive", CodeW2ku, le("C:"), ErrField, "the path is empty", ""},
		{"only a scheme", CodeMacX, "file://", ErrField, "the path is empty", ""},
		{"another scheme", CodeMacX, "http://./a.vhd", ErrField, `"http://./a.vhd" is no file URL`, ""},
		{"no scheme", CodeMacX, "a", ErrField, `"a" is no file URL`, ""},
		{"escaped NUL", CodeMacX, "file://./a%00b", ErrField, "has a NUL in it", ""},
		{"a share", CodeW2ku, le(`\\server\share\a.vhd`), ErrField, `"//server/share/a.vhd" is on another host`, "//server/share/a.vhd"},
		{"a long share", CodeW2ku, le(`\\?\UNC\server\a.vhd`), ErrField, `"//server/a.vhd" is on another host`, "//server/a.vhd"},
		{"a device", CodeW2ku, le(`\\.\PhysicalDrive0`), ErrField, "is on another host", "//./PhysicalDrive0"},
		{"a URL's host", CodeMacX, "file://server/share/a%20b.vhd", ErrField, `"//server/share/a b.vhd" is on another host`, "//server/share/a b.vhd"},
		{"an alias", CodeMac, "blob", ErrField, "locator Mac: invalid value: a locator of this kind can't be read", ""},
		{"unused", CodeNone, "blob", ErrField, "locator none: invalid value", ""},
		{"unknown", 0x41424344, "blob", ErrField, "locator ABCD: invalid value", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeLocatorPath(tt.code, []byte(tt.data))
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q, want %v with %q", err, tt.want, tt.text)
			}
			if got.Path != tt.path {
				t.Errorf("came with %q, want %q", got.Path, tt.path)
			}
		})
	}
}

func TestEncodeLocatorPath(t *testing.T) {
	tests := []struct {
		name string
		code LocatorCode
		path string
		want string
	}{
		{"W2ru name", CodeW2ru, "a.vhd", le(`.\a.vhd`)},
		{"W2ru dot", CodeW2ru, "./a.vhd", le(`.\a.vhd`)},
		{"W2ru down", CodeW2ru, "b/a.vhd", le(`.\b\a.vhd`)},
		{"W2ru up", CodeW2ru, "../b/a.vhd", le(`.\..\b\a.vhd`)},
		{"W2ru not ASCII", CodeW2ru, "Größe 💾.vhd", le(`.\Größe 💾.vhd`)},
		{"W2ru hidden file", CodeW2ru, ".a.vhd", le(`.\.a.vhd`)},
		{"W2ru like a drive", CodeW2ru, "C:a.vhd", le(`.\C:a.vhd`)},
		{"W2ku relative", CodeW2ku, "a.vhd", le(`.\a.vhd`)},
		{"W2ku absolute", CodeW2ku, "/srv/a.vhd", le(`\srv\a.vhd`)},
		{"W2ku no host", CodeW2ku, "//srv/a.vhd", le(`\srv\a.vhd`)},
		{"W2ku two slashes", CodeW2ku, ".//a.vhd", le(`.\a.vhd`)},
		{"MacX two slashes", CodeMacX, ".//a.vhd", "file://./a.vhd"},
		{"MacX name", CodeMacX, "a.vhd", "file://./a.vhd"},
		{"MacX up", CodeMacX, "../b/a.vhd", "file://./../b/a.vhd"},
		{"MacX absolute", CodeMacX, "/srv/a.vhd", "file:///srv/a.vhd"},
		{"MacX no host", CodeMacX, "///srv/a.vhd", "file:///srv/a.vhd"},
		{"MacX escapes", CodeMacX, "Größe #1?.vhd", "file://./Gr%C3%B6%C3%9Fe %231%3F.vhd"},
		{"MacX ends of ASCII", CodeMacX, " ~\x7f\x1f", "file://./ ~%7F%1F"},
		{"MacX percent", CodeMacX, "100%25.vhd", "file://./100%2525.vhd"},
		{"MacX backslash", CodeMacX, `a\b.vhd`, `file://./a\b.vhd`},
		{"MacX not UTF-8", CodeMacX, "\xff\n.vhd", "file://./%FF%0A.vhd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := EncodeLocatorPath(tt.code, tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			back, err := DecodeLocatorPath(tt.code, got)
			if err != nil {
				t.Fatal(err)
			}
			if path.Clean(back.Path) != path.Clean(tt.path) || back.Absolute != path.IsAbs(tt.path) {
				t.Errorf("decodes to %+v, was %q", back, tt.path)
			}
		})
	}
}

func TestEncodeLocatorPathRefuses(t *testing.T) {
	tests := []struct {
		name string
		code LocatorCode
		path string
		want error
	}{
		{"empty", CodeMacX, "", ErrField},
		{"the root", CodeMacX, "/", ErrField},
		{"the folder", CodeMacX, ".//", ErrField},
		{"a NUL", CodeMacX, "a\x00b", ErrField},
		{"W2ru absolute", CodeW2ru, "/srv/a.vhd", ErrField},
		{"W2ru backslash", CodeW2ru, `a\b.vhd`, ErrField},
		{"W2ku backslash", CodeW2ku, `/a\b.vhd`, ErrField},
		{"W2ru not UTF-8", CodeW2ru, "\xff.vhd", ErrField},
		{"W2ru too long", CodeW2ru, strings.Repeat("a", 32767), ErrBounds},
		{"MacX too long", CodeMacX, strings.Repeat("ä", 12000), ErrBounds},
		{"alias", CodeMac, "a.vhd", ErrField},
		{"ANSI", CodeWi2r, "a.vhd", ErrField},
		{"none", CodeNone, "a.vhd", ErrField},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := EncodeLocatorPath(tt.code, tt.path)
			if !errors.Is(err, tt.want) || data != nil {
				t.Errorf("%d bytes, %v; want %v", len(data), err, tt.want)
			}
		})
	}
}

// TestWindowsAndTapdiskReadOurLocators: what both expect of the first bytes,
// and that the last component is the file's name as vhd-util check compares
// it, without unescaping.
func TestWindowsAndTapdiskReadOurLocators(t *testing.T) {
	const name = "XP disk (1), base+copy [a]&'b'.vhd"
	for code, prefix := range map[LocatorCode]string{
		CodeW2ru: le(`.\`), CodeW2ku: le(`.\`), CodeMacX: "file://./",
	} {
		data, err := EncodeLocatorPath(code, "../base/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(data, []byte(prefix)) {
			t.Errorf("%v begins %q, want %q", code, data, prefix)
		}
		text := string(data)
		if code != CodeMacX {
			text = strings.ReplaceAll(text, "\x00", "")
			text = strings.ReplaceAll(text, `\`, "/")
		}
		if path.Base(text) != name {
			t.Errorf("%v: vhd-util would find %q, want %q", code, path.Base(text), name)
		}
	}
}
