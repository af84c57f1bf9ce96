package format

import (
	"errors"
	"math"
	"testing"
)

func TestSpaceBytes(t *testing.T) {
	tests := []struct {
		space uint32
		want  int64
		err   error
	}{
		{0, 0, nil},
		{1, 512, nil},
		{2, 1024, nil},
		{511, 511 * 512, nil},
		{512, 512, nil}, // bytes from here on
		{513, 0, ErrField},
		{1023, 0, ErrField},
		{1024, 1024, nil},
		{65536, 65536, nil},
		{math.MaxUint32, 0, ErrField},
		{math.MaxUint32 &^ 511, math.MaxUint32 &^ 511, nil},
	}
	for _, tt := range tests {
		got, err := Locator{Code: CodeW2ru, DataSpace: tt.space}.SpaceBytes()
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("space %d is %d bytes, %v; want %d, %v", tt.space, got, err, tt.want, tt.err)
		}
	}
}

func TestLocatorValidate(t *testing.T) {
	good := Locator{Code: CodeW2ku, DataSpace: 512, DataLength: 42, DataOffset: 0x1200}
	tests := []struct {
		name string
		edit func(l *Locator)
		want error
		text string
	}{
		{"as Windows writes it", func(*Locator) {}, nil, ""},
		{"unused", func(l *Locator) { *l = Locator{} }, nil, ""},
		{"unused with rubbish", func(l *Locator) { l.Code, l.DataSpace = CodeNone, 777 }, nil, ""},
		{"space in sectors", func(l *Locator) { l.DataSpace = 1 }, nil, ""},
		{"full space", func(l *Locator) { l.DataLength = 512 }, nil, ""},
		{"longest", func(l *Locator) { l.DataSpace, l.DataLength = 65536, 65536 }, nil, ""},
		{"deprecated code", func(l *Locator) { l.Code = CodeWi2r }, nil, ""},
		{"unknown code", func(l *Locator) { l.Code = 0x41424344 }, ErrField, "locator ABCD: platform code: invalid value: 0x41424344 is unknown"},
		{"odd space", func(l *Locator) { l.DataSpace = 600 }, ErrField, "locator W2ku: data space: invalid value: 600 is neither a number of sectors nor a whole number of them in bytes"},
		{"no space", func(l *Locator) { l.DataSpace = 0 }, ErrBounds, "locator W2ku: data length: out of bounds: 42 bytes in a space of 0"},
		{"no length", func(l *Locator) { l.DataLength = 0 }, ErrBounds, "locator W2ku: data length: out of bounds: 0 bytes, not 1 to 65536"},
		{"longer than its space", func(l *Locator) { l.DataLength = 513 }, ErrBounds, "locator W2ku: data length: out of bounds: 513 bytes in a space of 512"},
		{"too long", func(l *Locator) { l.DataSpace, l.DataLength = 1<<20, 65537 }, ErrBounds, "locator W2ku: data length: out of bounds: 65537 bytes, not 1 to 65536"},
		{"in the footer's copy", func(l *Locator) { l.DataOffset = 511 }, ErrBounds, "locator W2ku: data offset: out of bounds: 511"},
		{"overflow", func(l *Locator) { l.DataOffset = math.MaxInt64 - 511 }, ErrBounds, "locator W2ku: data offset: out of bounds: 9223372036854775296"},
		{"last place", func(l *Locator) { l.DataOffset = math.MaxInt64 - 512 }, nil, ""},
		{"all ones", func(l *Locator) { l.DataOffset = NoOffset }, ErrBounds, "locator W2ku: data offset: out of bounds: 18446744073709551615"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := good
			tt.edit(&l)
			err := l.Validate()
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil && err.Error() != tt.text {
				t.Errorf("text %q, want %q", err, tt.text)
			}
		})
	}
}

func TestLocatorCodeString(t *testing.T) {
	for code, want := range map[LocatorCode]string{
		CodeNone: "none", CodeW2ru: "W2ru", CodeW2ku: "W2ku", CodeMacX: "MacX", CodeMac: "Mac",
		CodeWi2r: "Wi2r", CodeWi2k: "Wi2k", 0x1b5b324a: `\x1b[2J`,
	} {
		if code.String() != want {
			t.Errorf("%#x is %q, want %q", uint32(code), code, want)
		}
	}
}
