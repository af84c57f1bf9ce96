package format

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

var someday = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func TestFooterValidate(t *testing.T) {
	tests := []struct {
		name string
		kind DiskType
		edit func(f *Footer)
		want error
		text string
	}{
		{"fixed", Fixed, func(*Footer) {}, nil, ""},
		{"dynamic", Dynamic, func(*Footer) {}, nil, ""},
		{"differencing", Differencing, func(*Footer) {}, nil, ""},
		{"poisoned", Dynamic, func(f *Footer) { f.Poisoned = true }, nil, ""},
		{"version", Fixed, func(f *Footer) { f.Version = 0x00020000 }, ErrVersion, "footer: format version: unknown version: 0x00020000, not 0x00010000"},
		{"type 0", Fixed, func(f *Footer) { f.Type = 0 }, ErrField, "footer: disk type: invalid value: 0 is none of 2, 3 and 4"},
		{"type 1", Fixed, func(f *Footer) { f.Type = 1 }, ErrField, "1 is none"},
		{"type 5", Fixed, func(f *Footer) { f.Type = 5 }, ErrField, "5 is none"},
		{"no size", Dynamic, func(f *Footer) { f.CurrentSize = 0 }, ErrBounds, "footer: current size: out of bounds: 0 bytes, not 512 to 2199023255552"},
		{"less than a sector", Dynamic, func(f *Footer) { f.CurrentSize = 511 }, ErrBounds, "511 bytes"},
		{"odd size", Dynamic, func(f *Footer) { f.CurrentSize = 1000 }, nil, ""},
		{"2 TiB", Dynamic, func(f *Footer) { f.CurrentSize = 2 << 40 }, nil, ""},
		{"over 2 TiB", Dynamic, func(f *Footer) { f.CurrentSize = 2<<40 + 1 }, ErrBounds, "2199023255553 bytes"},
		{"negative as signed", Fixed, func(f *Footer) { f.CurrentSize = math.MaxUint64 }, ErrBounds, "18446744073709551615 bytes"},
		{"header in the copy", Dynamic, func(f *Footer) { f.DataOffset = 0 }, ErrBounds, "footer: data offset: out of bounds: 0 is no place for a header"},
		{"header unaligned", Dynamic, func(f *Footer) { f.DataOffset = 513 }, ErrField, "footer: data offset: invalid value: 513 is no multiple of 512"},
		{"header nowhere", Differencing, func(f *Footer) { f.DataOffset = NoOffset }, ErrField, "is no multiple of 512"},
		{"header overflows", Dynamic, func(f *Footer) { f.DataOffset = math.MaxInt64 &^ 511 }, ErrBounds, "9223372036854775296 is no place"},
		{"header far away", Dynamic, func(f *Footer) { f.DataOffset = 1 << 40 }, nil, ""},
		{"fixed with an offset", Fixed, func(f *Footer) { f.DataOffset = 7 }, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFooter(1<<20, tt.kind, someday)
			tt.edit(f)
			expectError(t, f.Validate(), tt.want, tt.text)
		})
	}
}

// expectError: err wraps want and has text in it.
func expectError(t *testing.T, err, want error, text string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	if err == nil {
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%T is no *Error", err)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("text %q, want %q", err, text)
	}
}

func TestFooterOddities(t *testing.T) {
	tests := []struct {
		name string
		kind DiskType
		edit func(f *Footer)
		want []string
	}{
		{"none", Dynamic, func(*Footer) {}, nil},
		{"temporary", Dynamic, func(f *Footer) { f.Features = 3 }, nil},
		{"saved, hidden", Dynamic, func(f *Footer) { f.SavedState, f.Hidden = 1, 1 }, nil},
		{"smaller geometry", Dynamic, func(f *Footer) { f.Geometry = Geometry{0, 4, 17} }, nil},
		{"tapdisk of today", Dynamic, func(f *Footer) { f.Creator, f.CreatorVersion = CreatorTap, 0x00010003 }, nil},
		{"poisoned", Dynamic, func(f *Footer) { f.Poisoned = true }, []string{"cookie: v_poison: a resize or coalesce has put the image out of use"}},
		{"no features", Dynamic, func(f *Footer) { f.Features = 0 }, []string{"features: 0x00000000 lacks the reserved bit"}},
		{"more features", Dynamic, func(f *Footer) { f.Features = 0x80000002 }, []string{"features: 0x80000002 has unknown bits"}},
		{"both", Dynamic, func(f *Footer) { f.Features = 4 }, []string{"features: 0x00000004 lacks the reserved bit", "features: 0x00000004 has unknown bits"}},
		{"offset", Fixed, func(f *Footer) { f.DataOffset = 512 }, []string{"data offset: 0x0000000000000200 in a fixed image, not all ones"}},
		{"tapdisk of tomorrow", Dynamic, func(f *Footer) { f.Creator, f.CreatorVersion = CreatorTap, 0x00010004 }, []string{"creator version: 0x00010004 is newer than any tapdisk, 0x00010003"}},
		{"size", Dynamic, func(f *Footer) { f.CurrentSize += 5 }, []string{"current size: 1048581 bytes is no multiple of 512"}},
		{"geometry", Dynamic, func(f *Footer) { f.Geometry = Geometry{65535, 16, 255} }, []string{"geometry: 65535/16/255 is larger than the size's, 30/4/17"}},
		{"geometry in its last byte", Dynamic, func(f *Footer) { f.Geometry.Sectors++ }, []string{"geometry: 30/4/18 is larger than the size's, 30/4/17"}},
		{"saved", Dynamic, func(f *Footer) { f.SavedState = 2 }, []string{"saved state: 2 is neither 0 nor 1"}},
		{"hidden", Dynamic, func(f *Footer) { f.Hidden = 255 }, []string{"hidden: 255 is neither 0 nor 1"}},
		{"reserved", Dynamic, func(f *Footer) { f.Reserved[425] = 1 }, []string{"reserved bytes: not all zero"}},
		{"id", Dynamic, func(f *Footer) { f.ID = UUID{} }, []string{"unique id: null"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFooter(1<<20, tt.kind, someday)
			tt.edit(f)
			if got := f.Oddities(); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestHeaderValidate(t *testing.T) {
	tests := []struct {
		name string
		edit func(h *Header)
		want error
		text string
	}{
		{"new", func(*Header) {}, nil, ""},
		{"smallest block", func(h *Header) { h.BlockSize = 512 }, nil, ""},
		{"largest block", func(h *Header) { h.BlockSize = 256 << 20 }, nil, ""},
		{"table elsewhere", func(h *Header) { h.TableOffset = 8192 }, nil, ""},
		{"table before the header", func(h *Header) { h.TableOffset = 512 }, nil, ""},
		{"data offset", func(h *Header) { h.DataOffset = 0 }, nil, ""}, // an oddity
		{"version", func(h *Header) { h.Version = 0x00060000 }, ErrVersion, "dynamic header: header version: unknown version: 0x00060000, not 0x00010000"},
		{"no block size", func(h *Header) { h.BlockSize = 0 }, ErrField, "dynamic header: block size: invalid value: 0 bytes is no power of two from 512 to 268435456"},
		{"block of half a sector", func(h *Header) { h.BlockSize = 256 }, ErrField, "256 bytes"},
		{"block too large", func(h *Header) { h.BlockSize = 512 << 20 }, ErrField, "536870912 bytes"},
		{"block of 2 GiB", func(h *Header) { h.BlockSize = 1 << 31 }, ErrField, "2147483648 bytes"},
		{"block no power", func(h *Header) { h.BlockSize = 3 << 19 }, ErrField, "1572864 bytes"},
		{"table unaligned", func(h *Header) { h.TableOffset = 1537 }, ErrField, "dynamic header: table offset: invalid value: 1537 is no multiple of 512"},
		{"table in the copy", func(h *Header) { h.TableOffset = 0 }, ErrBounds, "dynamic header: table offset: out of bounds: 0 is no place for a BAT of 1 entries"},
		{"table nowhere", func(h *Header) { h.TableOffset = 1 << 63 }, ErrBounds, "9223372036854775808 is no place"},
		{"table overflows", func(h *Header) { h.TableOffset, h.MaxTableEntries = math.MaxInt64&^511, math.MaxUint32 }, ErrBounds, "is no place for a BAT of 4294967295 entries"},
		{"no entries", func(h *Header) { h.MaxTableEntries = 0 }, ErrBounds, "dynamic header: max table entries: out of bounds: 0"},
		{"most entries", func(h *Header) { h.MaxTableEntries = math.MaxUint32 }, nil, ""},
		{"long name", func(h *Header) { h.ParentName = strings.Repeat("n", 300) }, ErrBounds, "dynamic header: parent name: out of bounds: 300 units of UTF-16, more than 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := NewHeader(1<<20, 0)
			tt.edit(h)
			expectError(t, h.Validate(), tt.want, tt.text)
		})
	}
}

func TestHeaderValidateSize(t *testing.T) {
	tests := []struct {
		size    int64
		entries uint32
		ok      bool
	}{
		{2 << 20, 1, true},
		{2<<20 + 512, 1, false},
		{2<<20 + 512, 2, true},
		{512, 1000, true}, // room for a fast resize
		{MaxSize, 1 << 20, true},
		{MaxSize, 1<<20 - 1, false},
	}
	for _, tt := range tests {
		h := NewHeader(tt.size, 0)
		h.MaxTableEntries = tt.entries
		err := h.ValidateSize(tt.size)
		if tt.ok {
			expectError(t, err, nil, "")
		} else {
			expectError(t, err, ErrBounds, "dynamic header: max table entries: out of bounds: ")
		}
	}
}

func TestHeaderOddities(t *testing.T) {
	good := Locator{Code: CodeW2ku, DataSpace: 512, DataLength: 20, DataOffset: 4096}
	tests := []struct {
		name string
		edit func(h *Header)
		want []string
	}{
		{"none", func(*Header) {}, nil},
		{"a good locator", func(h *Header) { h.Locators[3] = good }, nil},
		{"data offset", func(h *Header) { h.DataOffset = 0 }, []string{"data offset: 0x0000000000000000, not all ones"}},
		{"reserved word", func(h *Header) { h.Reserved1 = 1 }, []string{"reserved bytes: not all zero"}},
		{"reserved bytes", func(h *Header) { h.Reserved2[200] = 1 }, []string{"reserved bytes: not all zero"}},
		{"unused locator", func(h *Header) { h.Locators[2].DataOffset = 9 }, []string{"locator 2: unused, but not all zero"}},
		{"bad locator", func(h *Header) { h.Locators[5] = Locator{Code: CodeMacX, DataLength: 4} },
			[]string{"locator 5: locator MacX: data length: out of bounds: 4 bytes in a space of 0"}},
		{"locator's reserved word", func(h *Header) { h.Locators[0] = good; h.Locators[0].Reserved = 1 }, []string{"locator 0: reserved bytes: not all zero"}},
		{"duplicates", func(h *Header) { h.Locators[0], h.Locators[4], h.Locators[6] = good, good, good },
			[]string{"locator 4: code W2ku is that of locator 0", "locator 6: code W2ku is that of locator 0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := NewHeader(1<<20, 0)
			tt.edit(h)
			if got := h.Oddities(); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestHeaderTypeOddities(t *testing.T) {
	child := NewHeader(1<<20, 0)
	child.ParentName = "p.vhd"
	child.ParentID = NewUUID()
	child.ParentTimestamp = 1
	child.Locators[0].Code = CodeW2ru
	if got := child.TypeOddities(Differencing); len(got) != 0 {
		t.Errorf("a child: %q", got)
	}
	want := []string{
		"parent name: set in an image without a parent", "locators: set in an image without a parent",
		"parent unique id: set in an image without a parent", "parent timestamp: set in an image without a parent",
	}
	if got := child.TypeOddities(Dynamic); !slices.Equal(got, want) {
		t.Errorf("a child's header in a dynamic image: %q, want %q", got, want)
	}
	alone := NewHeader(1<<20, 0)
	if got := alone.TypeOddities(Dynamic); len(got) != 0 {
		t.Errorf("a dynamic image: %q", got)
	}
	want = []string{"parent name: empty in a differencing image", "locators: none in a differencing image"}
	if got := alone.TypeOddities(Differencing); !slices.Equal(got, want) {
		t.Errorf("a child without parent's fields: %q, want %q", got, want)
	}
}

func TestFutureOddities(t *testing.T) {
	f, h := NewFooter(512, Dynamic, someday), NewHeader(512, 0)
	h.ParentTimestamp = TimeOf(someday)
	early := someday.Add(-TimestampSlack)
	if got := append(f.FutureOddities(early), h.FutureOddities(early)...); len(got) != 0 {
		t.Errorf("within the slack: %q", got)
	}
	early = early.Add(-time.Second)
	want := []string{"timestamp: 2024-05-06T07:08:09Z lies in the future", "parent timestamp: 2024-05-06T07:08:09Z lies in the future"}
	if got := append(f.FutureOddities(early), h.FutureOddities(early)...); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
