package format

import (
	"bytes"
	"testing"
)

func TestByteSumIsTheSumOfTheBytes(t *testing.T) {
	patterns := map[string]func(i int) byte{
		"all ones": func(int) byte { return 0xff }, // the most that a word can sum up to
		"any":      func(i int) byte { return byte(i*i*31 + i) },
		"zeros":    func(int) byte { return 0 },
	}
	for name, pattern := range patterns {
		b, want := []byte{}, uint32(0)
		for i := range 3000 {
			if got := byteSum(b); got != want {
				t.Fatalf("%s: the sum of %d bytes is %d, want %d", name, len(b), got, want)
			}
			b = append(b, pattern(i))
			want += uint32(b[i])
		}
	}
}

// TestChecksumLeavesItselfOut: whatever stands in its own four bytes.
func TestChecksumLeavesItselfOut(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 100)
	for at := 0; at <= 96; at++ {
		c := bytes.Clone(b)
		copy(c[at:], "\xff\x00\x12\x34")
		if got, want := checksum(c, at), ^uint32(96*7); got != want {
			t.Errorf("at %d: %#x, want %#x", at, got, want)
		}
	}
}
