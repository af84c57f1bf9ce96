package format

import (
	"encoding/binary"
	"fmt"
	"math"
)

// BatmapHeaderSize is the length of the batmap's header in bytes: the sector
// right after the BAT, which is padded to one.
const BatmapHeaderSize = 512

const batmapCookie = "tdbatmap"

// Versions of the batmap.
const (
	// BatmapVersionSigned summed the map's bytes as signed ones.
	BatmapVersionSigned uint32 = 0x00010001
	BatmapVersion       uint32 = 0x00010002
)

// Offsets in the batmap's header.
const (
	batmapCookieAt       = 0
	batmapOffsetAt       = 8
	batmapSectorsAt      = 16
	batmapVersionAt      = 20
	batmapChecksumAt     = 24
	batmapMarkerAt       = 28
	batmapKeyHashSetAt   = 29
	batmapKeyHashNonceAt = 30
	batmapKeyHashSumAt   = 62
	batmapReservedAt     = 94
)

// KeyHash tells the key of an encrypted image without giving it away.
type KeyHash struct {
	Set   uint8 // not zero: the image is encrypted
	Nonce [32]byte
	Sum   [32]byte // SHA-256 of nonce and key
}

// BatmapHeader says where tapdisk keeps an image's batmap: a Bitmap with a bit
// a block, set when every sector of the block is in the file, so that its own
// bitmap need not be read.
type BatmapHeader struct {
	Offset   uint64 // of the map, bytes from the start of the file
	Sectors  uint32 // length of the map
	Version  uint32
	Checksum uint32 // of the map: see BatmapChecksum
	Marker   uint8  // tapdisk's mark of an image that was closed in order
	KeyHash  KeyHash
	Reserved [418]byte // zero, or what another program put there

	// Encrypted says that the image's data is encrypted: a key hash is set.
	// Encode goes by KeyHash alone.
	Encrypted bool
}

// DecodeBatmapHeader reads the 512 bytes of a batmap's header. It checks the
// cookie alone: the checksum is of the map, and Validate judges the fields.
// Errors are *Error, ErrBounds for a wrong length, ErrCookie where there is no
// batmap.
func DecodeBatmapHeader(b []byte) (*BatmapHeader, error) {
	if len(b) != BatmapHeaderSize {
		return nil, &Error{Structure: "batmap", Err: ErrBounds, Detail: fmt.Sprintf("%d bytes, not %d", len(b), BatmapHeaderSize)}
	}
	if cookie := string(b[batmapCookieAt : batmapCookieAt+8]); cookie != batmapCookie {
		return nil, cookieError("batmap", batmapCookie, cookie)
	}
	be := binary.BigEndian
	h := &BatmapHeader{
		Offset:   be.Uint64(b[batmapOffsetAt:]),
		Sectors:  be.Uint32(b[batmapSectorsAt:]),
		Version:  be.Uint32(b[batmapVersionAt:]),
		Checksum: be.Uint32(b[batmapChecksumAt:]),
		Marker:   b[batmapMarkerAt],
	}
	h.KeyHash.Set = b[batmapKeyHashSetAt]
	h.Encrypted = h.KeyHash.Set != 0
	copy(h.KeyHash.Nonce[:], b[batmapKeyHashNonceAt:])
	copy(h.KeyHash.Sum[:], b[batmapKeyHashSumAt:])
	copy(h.Reserved[:], b[batmapReservedAt:])
	return h, nil
}

// Encode writes the header's 512 bytes to b, Checksum as it is. It panics if b
// is shorter.
func (h *BatmapHeader) Encode(b []byte) {
	b = (*[BatmapHeaderSize]byte)(b)[:]
	be := binary.BigEndian
	copy(b[batmapCookieAt:], batmapCookie)
	be.PutUint64(b[batmapOffsetAt:], h.Offset)
	be.PutUint32(b[batmapSectorsAt:], h.Sectors)
	be.PutUint32(b[batmapVersionAt:], h.Version)
	be.PutUint32(b[batmapChecksumAt:], h.Checksum)
	b[batmapMarkerAt] = h.Marker
	b[batmapKeyHashSetAt] = h.KeyHash.Set
	copy(b[batmapKeyHashNonceAt:], h.KeyHash.Nonce[:])
	copy(b[batmapKeyHashSumAt:], h.KeyHash.Sum[:])
	copy(b[batmapReservedAt:], h.Reserved[:])
}

// Validate tells why the batmap can't be used for a BAT of so many entries, as
// an *Error: ErrVersion, ErrBounds, ErrField, and before them ErrEncrypted,
// which is not the batmap's alone: then the image can be neither read nor
// written. That the map lies inside the file is for the caller to check,
// before it reads.
func (h *BatmapHeader) Validate(entries uint32) error {
	size := uint64(h.Sectors) * SectorSize
	switch {
	case h.Encrypted:
		return h.errorf("key hash", ErrEncrypted, "a key is set")
	case h.Version != BatmapVersion && h.Version != BatmapVersionSigned:
		return h.errorf("version", ErrVersion, "0x%08x", h.Version)
	case h.Offset < FooterSize || h.Offset%SectorSize != 0 || h.Offset > math.MaxInt64-size:
		return h.errorf("offset", ErrField, "%d is no place for it", h.Offset)
	case size*8 < uint64(entries):
		return h.errorf("size", ErrBounds, "%d sectors for %d blocks", h.Sectors, entries)
	}
	return nil
}

func (h *BatmapHeader) errorf(field string, sentinel error, format string, args ...any) error {
	return &Error{Structure: "batmap", Field: field, Err: sentinel, Detail: fmt.Sprintf(format, args...)}
}

// BatmapSectors is the length that tapdisk gives the map of a disk of size
// bytes, in sectors: a bit for each 2 MiB.
func BatmapSectors(size int64) int64 { return max(1, ceilDiv(size>>24, SectorSize)) }

// BatmapChecksum is the checksum of a map, by the rule of the header's
// version: the one's complement of the sum of its bytes. Sum over
// BatmapSectors of it.
func BatmapChecksum(data []byte, version uint32) uint32 {
	var sum uint32
	for _, c := range data {
		if version == BatmapVersionSigned {
			sum += uint32(int8(c))
		} else {
			sum += uint32(c)
		}
	}
	return ^sum
}
