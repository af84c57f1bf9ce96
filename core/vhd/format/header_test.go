package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"
)

// rawHeader is a dynamic header put together by hand, each field with a value
// of its own, at the offsets of the specification.
func rawHeader(t *testing.T, edit func(b []byte)) []byte {
	t.Helper()
	b := make([]byte, 1024)
	copy(b[0:], "cxsparse")
	copy(b[8:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	copy(b[16:], "\x00\x00\x00\x00\x00\x00\x06\x00")
	copy(b[24:], "\x00\x01\x00\x00")
	copy(b[28:], "\x00\x00\x14\x00")
	copy(b[32:], "\x00\x08\x00\x00")
	copy(b[40:], "\x20\x21\x22\x23\x24\x25\x26\x27\x28\x29\x2a\x2b\x2c\x2d\x2e\x2f")
	copy(b[56:], "\x2d\x73\x45\x01")
	copy(b[64:], "\x00p\x00\xe9\x00r\x00e\x00.\x00v\x00h\x00d")
	copy(b[576:], "MacX\x00\x00\x02\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00")
	copy(b[744:], "W2ru\x00\x00\x00\x01\x00\x00\x00\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x12\x00")
	if edit != nil {
		edit(b)
	}
	binary.BigEndian.PutUint32(b[36:], naiveChecksum(b, 36))
	return b
}

func TestDecodeHeaderReadsEveryField(t *testing.T) {
	b := rawHeader(t, func(b []byte) {
		copy(b[60:], "\x00\x00\x00\x09")
		b[588] = 7 // the reserved word of locator 0
		b[768], b[1023] = 0xaa, 0xbb
	})
	got, err := DecodeHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	want := &Header{
		DataOffset: NoOffset, TableOffset: 1536, Version: FormatVersion, MaxTableEntries: 5120,
		BlockSize: 512 << 10, Checksum: naiveChecksum(b, 36),
		ParentID:        UUID{0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f},
		ParentTimestamp: 0x2d734501, ParentName: "pére.vhd", Reserved1: 9,
	}
	want.Locators[0] = Locator{Code: CodeMacX, DataSpace: 512, DataLength: 17, DataOffset: 4096, Reserved: 7 << 24}
	want.Locators[7] = Locator{Code: CodeW2ru, DataSpace: 1, DataLength: 20, DataOffset: 4608}
	want.Reserved2[0], want.Reserved2[255] = 0xaa, 0xbb
	if *got != *want {
		t.Errorf("decoded\n%+v\nwant\n%+v", got, want)
	}
	again := bytes.Repeat([]byte{0xee}, HeaderSize) // every byte must be written
	got.Encode(again)
	if !bytes.Equal(again, b) {
		t.Errorf("encoded\n%x\nwas\n%x", again, b)
	}
}

func TestDecodeHeaderRefuses(t *testing.T) {
	good := rawHeader(t, nil)
	tests := []struct {
		name string
		b    []byte
		want error
		text string
	}{
		{"nothing", nil, ErrBounds, "dynamic header: out of bounds: 0 bytes, not 1024"},
		{"a sector", good[:512], ErrBounds, "512 bytes"},
		{"too long", append(bytes.Clone(good), 0), ErrBounds, "1025 bytes"},
		{"zeros", make([]byte, 1024), ErrCookie, "dynamic header: wrong cookie"},
		{"a footer", append([]byte("conectix"), good[8:]...), ErrCookie, `"conectix", not "cxsparse"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := DecodeHeader(tt.b)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || h != nil {
				t.Errorf("%v and error %q, want %v with %q", h, err, tt.want, tt.text)
			}
		})
	}
}

func TestWrongChecksumComesWithTheHeader(t *testing.T) {
	good := rawHeader(t, nil)
	for i := 8; i < HeaderSize; i++ {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		h, err := DecodeHeader(b)
		if !errors.Is(err, ErrChecksum) {
			t.Fatalf("byte %d changed: %v, want %v", i, err, ErrChecksum)
		}
		if h == nil || h.Checksum != binary.BigEndian.Uint32(b[36:]) {
			t.Fatalf("byte %d changed: came with %+v", i, h)
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		b := make([]byte, HeaderSize)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		copy(b, headerCookie)
		if r.IntN(2) == 0 { // a name that ends early, with rubbish behind it
			copy(b[64+2*r.IntN(256):], "\x00\x00")
		}
		binary.BigEndian.PutUint32(b[36:], naiveChecksum(b, 36))
		h, err := DecodeHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		again := make([]byte, HeaderSize)
		h.Encode(again)
		if !bytes.Equal(again, b) {
			t.Fatalf("encoded\n%x\nwas\n%x", again, b)
		}
	}
}

func TestParentName(t *testing.T) {
	full := strings.Repeat("x", 256)
	tests := []struct {
		name  string
		field string // big-endian UTF-16, padded with NULs
		want  string
	}{
		{"empty", "", ""},
		{"ASCII", "\x00a\x00.\x00v\x00h\x00d", "a.vhd"},
		{"a pair", "\xd8\x3d\xdc\xbe", "💾"},
		{"unpaired high surrogate", "\xd8\x3d\x00x", "\xed\xa0\xbdx"},
		{"unpaired low surrogate", "\x00x\xdc\xbe", "x\xed\xb2\xbe"},
		{"surrogates the wrong way round", "\xdc\xbe\xd8\x3d", "\xed\xb2\xbe\xed\xa0\xbd"},
		{"full, not terminated", strings.Repeat("\x00x", 256), full},
		{"full, cut in a pair", strings.Repeat("\x00x", 255) + "\xd8\x3d", full[:255] + "\xed\xa0\xbd"},
		{"replacement character", "\xff\xfd", "\uFFFD"},
		{"rubbish after the terminator", "\x00a\x00\x00\x00b", "a"},
		{"nothing before the terminator", "\x00\x00\x00b", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := rawHeader(t, func(b []byte) {
				clear(b[64:576])
				copy(b[64:576], tt.field)
			})
			h, err := DecodeHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			if h.ParentName != tt.want {
				t.Errorf("name %q, want %q", h.ParentName, tt.want)
			}
			if err := h.Validate(); err != nil {
				t.Errorf("a name that was read is not valid: %v", err)
			}
			again := make([]byte, HeaderSize)
			h.Encode(again)
			if !bytes.Equal(again, b) {
				t.Errorf("name encoded as %x, was %x", again[64:576], b[64:576])
			}
		})
	}
}

// TestParentNameReplaced: a name set by hand wins over the bytes that were
// read, all of them.
func TestParentNameReplaced(t *testing.T) {
	h, err := DecodeHeader(rawHeader(t, func(b []byte) { copy(b[64:], "\x00a\x00\x00\x00l\x00e\x00f\x00t") }))
	if err != nil {
		t.Fatal(err)
	}
	h.ParentName = "über.vhd"
	b := make([]byte, HeaderSize)
	h.Encode(b)
	var want [512]byte
	for i, u := range utf16.Encode([]rune("über.vhd")) {
		binary.BigEndian.PutUint16(want[2*i:], u)
	}
	if !bytes.Equal(b[64:576], want[:]) {
		t.Errorf("encoded as %x, want %x", b[64:576], want)
	}
}

func TestParentNameTooLong(t *testing.T) {
	tests := []struct {
		name string
		want bool // valid
	}{
		{strings.Repeat("x", 256), true},
		{strings.Repeat("x", 257), false},
		{strings.Repeat("é", 256), true},
		{strings.Repeat("💾", 128), true},
		{strings.Repeat("💾", 128) + "x", false},
		{strings.Repeat("\xed\xa0\xbd", 256), true},
	}
	for _, tt := range tests {
		h := NewHeader(1<<20, 0)
		h.ParentName = tt.name
		if err := h.Validate(); (err == nil) != tt.want || err != nil && !errors.Is(err, ErrBounds) {
			t.Errorf("%q: %v, want valid: %v", tt.name, err, tt.want)
		}
		b := make([]byte, HeaderSize)
		h.Encode(b)
		got, err := DecodeHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if tt.want && got.ParentName != tt.name {
			t.Errorf("%q came back as %q", tt.name, got.ParentName)
		}
		if got.Locators != h.Locators {
			t.Error("the name ran into the locators")
		}
	}
}

func TestNewHeader(t *testing.T) {
	tests := []struct {
		size, block int64
		entries     uint32
		blockSize   uint32
	}{
		{512, 0, 1, 2 << 20},
		{2 << 20, 0, 1, 2 << 20},
		{2<<20 + 512, 0, 2, 2 << 20},
		{10 << 30, 512 << 10, 20480, 512 << 10},
		{4096, 512, 8, 512},
		{MaxNewSize, 0, 1044480, 2 << 20},
		{MaxSize, 512, 0, 512}, // 2^32 entries: no such header
	}
	for _, tt := range tests {
		h := NewHeader(tt.size, tt.block)
		if h.MaxTableEntries != tt.entries || h.BlockSize != tt.blockSize || h.TableOffset != 1536 || h.DataOffset != NoOffset {
			t.Errorf("%d in blocks of %d: %+v", tt.size, tt.block, h)
		}
		valid := h.Validate() == nil && h.ValidateSize(tt.size) == nil
		if valid != (tt.entries > 0) {
			t.Errorf("%d in blocks of %d: %v, %v", tt.size, tt.block, h.Validate(), h.ValidateSize(tt.size))
		}
		if odd := append(h.Oddities(), h.TypeOddities(Dynamic)...); len(odd) > 0 {
			t.Errorf("%d in blocks of %d: odd: %q", tt.size, tt.block, odd)
		}
	}
}

func TestBitmapSize(t *testing.T) {
	for block, want := range map[uint32]int64{
		512: 512, 4096: 512, 512 << 10: 512, 2 << 20: 512, 4 << 20: 1024, 16 << 20: 4096, 256 << 20: 65536,
	} {
		if got := (&Header{BlockSize: block}).BitmapSize(); got != want {
			t.Errorf("block of %d: bitmap of %d bytes, want %d", block, got, want)
		}
	}
}

func TestBlocks(t *testing.T) {
	h := &Header{BlockSize: 4096}
	for size, want := range map[int64]int64{0: 0, 1: 1, 512: 1, 4096: 1, 4097: 2, 1 << 41: 1 << 29} {
		if got := h.Blocks(size); got != want {
			t.Errorf("%d bytes are %d blocks, want %d", size, got, want)
		}
	}
}
