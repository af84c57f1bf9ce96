package format

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestUTF16LosesNothing: any run of units without a NUL comes back, surrogates
// in any order included.
func TestUTF16LosesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		var b []byte
		for range r.IntN(20) {
			u := uint16(1 + r.IntN(0xffff))
			if r.IntN(2) == 0 {
				u = uint16(0xD800 + r.IntN(0x800))
			}
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		s := decodeUTF16(b, binary.LittleEndian)
		again, lossless := encodeUTF16(s, binary.LittleEndian)
		if string(again) != string(b) || !lossless {
			t.Fatalf("%x became %q became %x (lossless %v)", b, s, again, lossless)
		}
	}
}

func TestEncodeUTF16TellsWhatIsNoText(t *testing.T) {
	tests := []struct {
		s        string
		want     string
		lossless bool
	}{
		{"", "", true},
		{"a", "\x00a", true},
		{"\uFFFD", "\xff\xfd", true},
		{"\xff", "\xff\xfd", false},
		{"a\xc3", "\x00a\xff\xfd", false},
		{"\xed\xa0\xbd", "\xd8\x3d", true},                  // WTF-8
		{"\xed\xa0", "\xff\xfd\xff\xfd", false},             // its beginning alone
		{"\xed\x9f\xbf", "\xd7\xff", true},                  // the last before the surrogates
		{"\xed\xa0\xff", "\xff\xfd\xff\xfd\xff\xfd", false}, // not a continuation
	}
	for _, tt := range tests {
		got, lossless := encodeUTF16(tt.s, binary.BigEndian)
		if string(got) != tt.want || lossless != tt.lossless {
			t.Errorf("%q: %x, lossless %v; want %x, %v", tt.s, got, lossless, tt.want, tt.lossless)
		}
	}
}

func TestDecodeUTF16LeavesAnOddByte(t *testing.T) {
	if got := decodeUTF16([]byte("a\x00b"), binary.LittleEndian); got != "a" {
		t.Errorf("%q, want %q", got, "a")
	}
}
