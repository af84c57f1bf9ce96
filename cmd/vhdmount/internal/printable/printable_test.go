package printable

import "testing"

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"disk.vhd":               "disk.vhd",
		"käse 日本":                "käse 日本",
		"a\x1b[2Jb":              "a\uFFFD[2Jb",
		"two\nlines\r":           "two\uFFFDlines\uFFFD",
		"c1 \u009b31m":           "c1 \uFFFD31m",
		"bad \xff\xfe utf-8":     "bad \uFFFD utf-8",
		"surrogate \xed\xa0\x80": "surrogate \uFFFD",
		"":                       "",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}
