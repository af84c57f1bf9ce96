package format

import "fmt"

// checksum is that of footer and dynamic header: the one's complement of the
// sum of all bytes but the four of the checksum itself.
func checksum(b []byte, at int) uint32 {
	var sum uint32
	for _, c := range b[:at] {
		sum += uint32(c)
	}
	for _, c := range b[at+4:] {
		sum += uint32(c)
	}
	return ^sum
}

func checksumError(structure string, stored, computed uint32) error {
	return &Error{Structure: structure, Err: ErrChecksum, Detail: fmt.Sprintf("stored 0x%08x, computed 0x%08x", stored, computed)}
}

func cookieError(structure, want, got string) error {
	return &Error{Structure: structure, Err: ErrCookie, Detail: fmt.Sprintf("%q, not %q", got, want)}
}
