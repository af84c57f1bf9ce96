package format

import (
	"bytes"
	"slices"
	"testing"
)

func TestBATRoundTrip(t *testing.T) {
	entries := []uint32{4, UnallocatedBlock, 0x01020304, 0}
	want := []byte{0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 0, 0, 0, 0}
	b := bytes.Repeat([]byte{0xee}, 20)
	EncodeBAT(b, entries)
	if !bytes.Equal(b[:16], want) {
		t.Errorf("encoded %x, want %x", b[:16], want)
	}
	if !bytes.Equal(b[16:], []byte{0xee, 0xee, 0xee, 0xee}) {
		t.Errorf("bytes after the table became %x", b[16:])
	}
	got := make([]uint32, 4)
	DecodeBAT(got, b)
	if !slices.Equal(got, entries) {
		t.Errorf("decoded %#x, want %#x", got, entries)
	}
}

func TestBATOfNothing(t *testing.T) {
	DecodeBAT(nil, nil)
	EncodeBAT(nil, nil)
}

// TestShortBufferPanics: room behind the buffer is somebody else's.
func TestShortBufferPanics(t *testing.T) {
	short := make([]byte, 7, 16)
	for name, f := range map[string]func(){
		"decode": func() { DecodeBAT(make([]uint32, 2), short) },
		"encode": func() { EncodeBAT(short, make([]uint32, 2)) },
		"footer": func() { new(Footer).Encode(make([]byte, 511, 1024)) },
		"header": func() { new(Header).Encode(make([]byte, 1023, 2048)) },
		"batmap": func() { new(BatmapHeader).Encode(make([]byte, 511, 1024)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestBATSize(t *testing.T) {
	for entries, want := range map[int64]int64{0: 0, 1: 512, 128: 512, 129: 1024, 1044480: 4177920, 1<<32 - 1: 1 << 34} {
		if got := BATSize(entries); got != want {
			t.Errorf("%d entries take %d bytes, want %d", entries, got, want)
		}
	}
}
