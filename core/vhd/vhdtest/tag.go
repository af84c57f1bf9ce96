package vhdtest

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Tag is the content of a sector: one number repeated through its first half,
// another through its second. Tag 0 is a sector of zeros. So a sector tells
// which writes it is of, and two halves that were never written together are
// no sector's content.
type Tag uint64

// half is the size of the smallest thing that programs write, in bytes.
const half = format.SectorSize / 2

// Whole is the tag with n in both halves.
func Whole(n uint32) Tag { return Tag(n)<<32 | Tag(n) }

// part is what half h, 0 or 1, holds.
func (v Tag) part(h int) uint32 { return uint32(v >> (32 * (1 - h))) }

// String shows one number where both halves have it.
func (v Tag) String() string {
	if v.part(0) == v.part(1) {
		return fmt.Sprint(v.part(0))
	}
	return fmt.Sprintf("%d|%d", v.part(0), v.part(1))
}

// put fills b, a sector.
func (v Tag) put(b []byte) {
	for h := range 2 {
		q := b[h*half:][:half]
		binary.BigEndian.PutUint32(q, v.part(h))
		for n := 4; n < half; n *= 2 {
			copy(q[n:], q[:n])
		}
	}
}

// Encode is the bytes of a disk that holds tags.
func Encode(tags []Tag) []byte {
	b := make([]byte, len(tags)*format.SectorSize)
	for i, v := range tags {
		v.put(b[i*format.SectorSize:][:format.SectorSize])
	}
	return b
}

// Decode is the tags that b, whole sectors, holds; an error where a half
// holds no single number.
func Decode(b []byte) ([]Tag, error) {
	tags := make([]Tag, len(b)/format.SectorSize)
	for i := range tags {
		for h := range 2 {
			q := b[i*format.SectorSize+h*half:][:half]
			if !bytes.Equal(q[4:], q[:half-4]) {
				return nil, fmt.Errorf("sector %d is no content that was ever written: %x …", i, q[:16])
			}
			tags[i] = tags[i]<<32 | Tag(binary.BigEndian.Uint32(q))
		}
	}
	return tags, nil
}
