package format

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the length of the dynamic header in bytes.
const HeaderSize = 1024

// Sizes of a block, in bytes: always a power of two.
const (
	MinBlockSize     = 512
	MaxBlockSize     = 256 << 20
	DefaultBlockSize = 2 << 20
)

const headerCookie = "cxsparse"

// Offsets in the dynamic header.
const (
	headerCookieAt          = 0
	headerDataOffsetAt      = 8
	headerTableOffsetAt     = 16
	headerVersionAt         = 24
	headerMaxTableEntriesAt = 28
	headerBlockSizeAt       = 32
	headerChecksumAt        = 36
	headerParentIDAt        = 40
	headerParentTimestampAt = 56
	headerReserved1At       = 60
	headerParentNameAt      = 64
	headerLocatorsAt        = 576
	headerReserved2At       = 768
)

// parentNameSize is the length of the parent name's field in bytes.
const parentNameSize = 512

// Header is the dynamic header of a dynamic or differencing image (Microsoft
// VHD specification 1.0, "Dynamic Disk Header Format"). Every byte of the
// record is here, so that decoding and encoding loses nothing.
type Header struct {
	DataOffset      uint64 // NoOffset
	TableOffset     uint64 // of the BAT, bytes
	Version         uint32
	MaxTableEntries uint32 // of the BAT; may exceed what the disk needs
	BlockSize       uint32 // bytes of data in a block
	Checksum        uint32 // as it was read; Encode computes its own
	ParentID        UUID   // zero in a differencing image: the parent is raw
	ParentTimestamp Time   // modification of the parent's file when the child was made

	// ParentName is most often the base name of the parent's file, at most 256
	// units of UTF-16. Unpaired surrogates are kept, as three bytes each that
	// are not valid UTF-8 (WTF-8), as package os has them on Windows.
	ParentName string

	Locators  [8]Locator
	Reserved1 uint32    // zero, or what another program put there
	Reserved2 [256]byte // the same

	// rawName is the field as it was read where encoding ParentName would not
	// give it back (bytes after the terminator); else zero.
	rawName [parentNameSize]byte
}

// NewHeader is the dynamic header of a new image of size bytes in blocks of
// blockSize (0 is DefaultBlockSize), with the BAT right behind it, when the
// header itself is at FooterSize. The parent's fields are left to the caller.
// ValidateSize refuses what has more blocks than a BAT can count.
func NewHeader(size, blockSize int64) *Header {
	if blockSize == 0 {
		blockSize = DefaultBlockSize
	}
	return &Header{
		DataOffset:      NoOffset,
		TableOffset:     FooterSize + HeaderSize,
		Version:         FormatVersion,
		MaxTableEntries: uint32(ceilDiv(size, blockSize)),
		BlockSize:       uint32(blockSize),
	}
}

// DecodeHeader reads a dynamic header of 1024 bytes. It checks the cookie and
// the checksum alone: Validate judges the fields.
//
// Errors are *Error. A wrong length (ErrBounds) or cookie (ErrCookie) comes
// without a header; a wrong checksum (ErrChecksum) comes with the header as it
// was read, to be shown but not trusted.
func DecodeHeader(b []byte) (*Header, error) {
	if len(b) != HeaderSize {
		return nil, &Error{Structure: "dynamic header", Err: ErrBounds, Detail: fmt.Sprintf("%d bytes, not %d", len(b), HeaderSize)}
	}
	if cookie := string(b[headerCookieAt : headerCookieAt+8]); cookie != headerCookie {
		return nil, cookieError("dynamic header", headerCookie, cookie)
	}
	h := new(Header)
	h.decode((*[HeaderSize]byte)(b))
	if sum := checksum(b, headerChecksumAt); sum != h.Checksum {
		return h, checksumError("dynamic header", h.Checksum, sum)
	}
	return h, nil
}

func (h *Header) decode(b *[HeaderSize]byte) {
	be := binary.BigEndian
	h.DataOffset = be.Uint64(b[headerDataOffsetAt:])
	h.TableOffset = be.Uint64(b[headerTableOffsetAt:])
	h.Version = be.Uint32(b[headerVersionAt:])
	h.MaxTableEntries = be.Uint32(b[headerMaxTableEntriesAt:])
	h.BlockSize = be.Uint32(b[headerBlockSizeAt:])
	h.Checksum = be.Uint32(b[headerChecksumAt:])
	copy(h.ParentID[:], b[headerParentIDAt:])
	h.ParentTimestamp = Time(be.Uint32(b[headerParentTimestampAt:]))
	h.Reserved1 = be.Uint32(b[headerReserved1At:])
	h.decodeParentName((*[parentNameSize]byte)(b[headerParentNameAt:]))
	for i := range h.Locators {
		h.Locators[i].decode((*[locatorSize]byte)(b[headerLocatorsAt+i*locatorSize:]))
	}
	copy(h.Reserved2[:], b[headerReserved2At:])
}

func (h *Header) decodeParentName(raw *[parentNameSize]byte) {
	h.ParentName = decodeUTF16(raw[:], binary.BigEndian)
	if encodeParentName(h.ParentName) != *raw {
		h.rawName = *raw
	}
}

// Encode writes the header's 1024 bytes to b, with its checksum computed anew.
// A parent name that is too long is cut (Validate says so beforehand), and
// what of it is not text becomes U+FFFD. It panics if b is shorter.
func (h *Header) Encode(b []byte) {
	b = (*[HeaderSize]byte)(b)[:]
	be := binary.BigEndian
	copy(b[headerCookieAt:], headerCookie)
	be.PutUint64(b[headerDataOffsetAt:], h.DataOffset)
	be.PutUint64(b[headerTableOffsetAt:], h.TableOffset)
	be.PutUint32(b[headerVersionAt:], h.Version)
	be.PutUint32(b[headerMaxTableEntriesAt:], h.MaxTableEntries)
	be.PutUint32(b[headerBlockSizeAt:], h.BlockSize)
	copy(b[headerParentIDAt:], h.ParentID[:])
	be.PutUint32(b[headerParentTimestampAt:], uint32(h.ParentTimestamp))
	be.PutUint32(b[headerReserved1At:], h.Reserved1)
	name := h.rawName
	if decodeUTF16(name[:], be) != h.ParentName {
		name = encodeParentName(h.ParentName)
	}
	copy(b[headerParentNameAt:], name[:])
	for i := range h.Locators {
		h.Locators[i].encode((*[locatorSize]byte)(b[headerLocatorsAt+i*locatorSize:]))
	}
	copy(b[headerReserved2At:], h.Reserved2[:])
	be.PutUint32(b[headerChecksumAt:], checksum(b, headerChecksumAt))
}

func encodeParentName(name string) (raw [parentNameSize]byte) {
	text, _ := encodeUTF16(name, binary.BigEndian)
	copy(raw[:], text)
	return raw
}

// BitmapSize is the length of a block's sector bitmap in bytes, rounded up to
// a sector; the block's data follows it.
func (h *Header) BitmapSize() int64 {
	bits := ceilDiv(int64(h.BlockSize), SectorSize)
	return ceilDiv(bits, 8*SectorSize) * SectorSize
}

// Blocks is how many blocks a disk of size bytes has; the last one is whole in
// the file all the same. BlockSize must be positive.
func (h *Header) Blocks(size int64) int64 { return ceilDiv(size, int64(h.BlockSize)) }
