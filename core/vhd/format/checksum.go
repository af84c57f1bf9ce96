package format

import (
	"encoding/binary"
	"fmt"
)

// checksum is that of footer and dynamic header: the one's complement of the
// sum of all bytes but the four of the checksum itself.
func checksum(b []byte, at int) uint32 { return ^(byteSum(b[:at]) + byteSum(b[at+4:])) }

// byteSum is the sum of all bytes, taken eight at a time: four sums of 16 bits
// in one word, which 128 words of two bytes each can't fill.
func byteSum(b []byte) uint32 {
	const low = 0x00ff00ff00ff00ff
	var sum uint32
	for len(b) >= 8 {
		var sums uint64
		for n := min(len(b)/8, 128); n > 0; n-- {
			w := binary.LittleEndian.Uint64(b)
			sums += w&low + w>>8&low
			b = b[8:]
		}
		sum += uint32(sums&0xffff + sums>>16&0xffff + sums>>32&0xffff + sums>>48)
	}
	for _, c := range b {
		sum += uint32(c)
	}
	return sum
}

func checksumError(structure string, stored, computed uint32) error {
	return &Error{Structure: structure, Err: ErrChecksum, Detail: fmt.Sprintf("stored 0x%08x, computed 0x%08x", stored, computed)}
}

func cookieError(structure, want, got string) error {
	return &Error{Structure: structure, Err: ErrCookie, Detail: fmt.Sprintf("%q, not %q", got, want)}
}
