package format

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// rawBatmapHeader is one put together by hand, at tapdisk's offsets.
func rawBatmapHeader(edit func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b[0:], "tdbatmap")
	copy(b[8:], "\x00\x00\x00\x00\x00\x00\x0a\x00")
	copy(b[16:], "\x00\x00\x00\x01")
	copy(b[20:], "\x00\x01\x00\x02")
	copy(b[24:], "\xff\xff\xff\xfe")
	if edit != nil {
		edit(b)
	}
	return b
}

func TestBatmapHeaderReadsEveryField(t *testing.T) {
	b := rawBatmapHeader(func(b []byte) {
		b[28], b[29] = 3, 1
		for i := range 32 {
			b[30+i], b[62+i] = byte(0x10+i), byte(0x40+i)
		}
		b[94], b[511] = 0xaa, 0xbb
	})
	got, err := DecodeBatmapHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	want := &BatmapHeader{Offset: 2560, Sectors: 1, Version: BatmapVersion, Checksum: 0xfffffffe, Marker: 3, Encrypted: true}
	want.KeyHash.Set = 1
	for i := range 32 {
		want.KeyHash.Nonce[i], want.KeyHash.Sum[i] = byte(0x10+i), byte(0x40+i)
	}
	want.Reserved[0], want.Reserved[417] = 0xaa, 0xbb
	if *got != *want {
		t.Errorf("decoded\n%+v\nwant\n%+v", got, want)
	}
	again := bytes.Repeat([]byte{0xee}, BatmapHeaderSize) // every byte must be written
	got.Encode(again)
	if !bytes.Equal(again, b) {
		t.Errorf("encoded\n%x\nwas\n%x", again, b)
	}
}

func TestBatmapHeaderRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		b := make([]byte, BatmapHeaderSize)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		copy(b, batmapCookie)
		h, err := DecodeBatmapHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		again := make([]byte, BatmapHeaderSize)
		h.Encode(again)
		if !bytes.Equal(again, b) {
			t.Fatalf("encoded\n%x\nwas\n%x", again, b)
		}
	}
}

func TestDecodeBatmapHeaderRefuses(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrBounds},
		{"two sectors", make([]byte, 1024), ErrBounds},
		{"zeros", make([]byte, 512), ErrCookie},
		{"unallocated blocks", bytes.Repeat([]byte{0xff}, 512), ErrCookie},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if h, err := DecodeBatmapHeader(tt.b); h != nil || !errors.Is(err, tt.want) {
				t.Errorf("%+v, %v; want %v", h, err, tt.want)
			}
		})
	}
}

func TestBatmapValidate(t *testing.T) {
	tests := []struct {
		name    string
		edit    func(h *BatmapHeader)
		entries uint32
		want    error
		text    string
	}{
		{"as tapdisk writes it", func(*BatmapHeader) {}, 4096, nil, ""},
		{"version 1.1", func(h *BatmapHeader) { h.Version = BatmapVersionSigned }, 4096, nil, ""},
		{"too small", func(*BatmapHeader) {}, 4097, ErrBounds, "batmap: size: out of bounds: 1 sectors for 4097 blocks"},
		{"empty", func(h *BatmapHeader) { h.Sectors = 0 }, 1, ErrBounds, "batmap: size: out of bounds: 0 sectors for 1 blocks"},
		{"huge", func(h *BatmapHeader) { h.Sectors = math.MaxUint32 }, math.MaxUint32, nil, ""},
		{"new version", func(h *BatmapHeader) { h.Version = 0x00010003 }, 1, ErrVersion, "batmap: version: unknown version: 0x00010003"},
		{"nowhere", func(h *BatmapHeader) { h.Offset = 0 }, 1, ErrField, "batmap: offset: invalid value: 0 is no place for it"},
		{"unaligned", func(h *BatmapHeader) { h.Offset = 2561 }, 1, ErrField, "batmap: offset: invalid value: 2561 is no place for it"},
		{"overflow", func(h *BatmapHeader) { h.Offset = math.MaxInt64 - 511 }, 1, ErrField, "batmap: offset: invalid value: 9223372036854775296 is no place for it"},
		{"encrypted", func(h *BatmapHeader) { h.Encrypted, h.Version = true, 99 }, 1, ErrEncrypted, "batmap: key hash: encrypted image: a key is set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := DecodeBatmapHeader(rawBatmapHeader(nil))
			if err != nil {
				t.Fatal(err)
			}
			tt.edit(h)
			err = h.Validate(tt.entries)
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), tt.text) {
				t.Errorf("text %q, want %q", err, tt.text)
			}
		})
	}
}

func TestBatmapChecksum(t *testing.T) {
	tests := []struct {
		data    []byte
		version uint32
		want    uint32
	}{
		{nil, BatmapVersion, 0xffffffff},
		{[]byte{1, 2, 3}, BatmapVersion, ^uint32(6)},
		{[]byte{1, 2, 3}, BatmapVersionSigned, ^uint32(6)},
		{[]byte{0xff, 0x80}, BatmapVersion, ^uint32(0x17f)},
		{[]byte{0xff, 0x80}, BatmapVersionSigned, 128}, // ^(-1 - 128)
		{[]byte{0xff, 0x01}, BatmapVersionSigned, 0xffffffff},
	}
	for _, tt := range tests {
		if got := BatmapChecksum(tt.data, tt.version); got != tt.want {
			t.Errorf("%x by version %#x: %#x, want %#x", tt.data, tt.version, got, tt.want)
		}
	}
}

func TestBatmapSectors(t *testing.T) {
	for size, want := range map[int64]int64{
		512: 1, 2 << 20: 1, 8 << 30: 1, 8<<30 + 16<<20: 2, 8<<30 + 16<<20 - 1: 1, 16 << 30: 2, MaxNewSize: 255,
	} {
		if got := BatmapSectors(size); got != want {
			t.Errorf("%d bytes: %d sectors, want %d", size, got, want)
		}
	}
}
