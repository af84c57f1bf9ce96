package format

import "encoding/binary"

// UnallocatedBlock is the BAT entry of a block that is not in the file.
const UnallocatedBlock uint32 = 0xFFFFFFFF

const batEntrySize = 4

// BATSize is the length in bytes of a BAT of so many entries, rounded up to a
// sector.
func BATSize(entries int64) int64 {
	return ceilDiv(entries*batEntrySize, SectorSize) * SectorSize
}

// DecodeBAT reads len(dst) entries from b: each is the sector of the file
// where a block's bitmap begins, or UnallocatedBlock. It panics if b holds
// fewer.
func DecodeBAT(dst []uint32, b []byte) {
	b = b[: len(dst)*batEntrySize : len(b)]
	for i := range dst {
		dst[i] = binary.BigEndian.Uint32(b[i*batEntrySize:])
	}
}

// EncodeBAT writes entries to b, 4 bytes each, and leaves the rest of b. It
// panics if b is too short.
func EncodeBAT(b []byte, entries []uint32) {
	b = b[: len(entries)*batEntrySize : len(b)]
	for i, e := range entries {
		binary.BigEndian.PutUint32(b[i*batEntrySize:], e)
	}
}
