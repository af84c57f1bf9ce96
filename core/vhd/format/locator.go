package format

import (
	"encoding/binary"
	"fmt"
	"math"
)

// MaxLocatorLength is the longest locator data that is read or written, in
// bytes.
const MaxLocatorLength = 64 << 10

const locatorSize = 24

// Offsets in a locator entry.
const (
	locatorCodeAt       = 0
	locatorDataSpaceAt  = 4
	locatorDataLengthAt = 8
	locatorReservedAt   = 12
	locatorDataOffsetAt = 16
)

// LocatorCode says in which form a locator names the parent.
type LocatorCode uint32

const (
	CodeNone LocatorCode = 0          // an unused entry
	CodeW2ru LocatorCode = 0x57327275 // relative Windows path, UTF-16LE
	CodeW2ku LocatorCode = 0x57326B75 // absolute Windows path, UTF-16LE; relative in tapdisk's images
	CodeMacX LocatorCode = 0x4D616358 // file URL, UTF-8
	CodeMac  LocatorCode = 0x4D616320 // alias of the old Mac OS, a blob
	CodeWi2r LocatorCode = 0x57693272 // relative Windows path, ANSI; deprecated
	CodeWi2k LocatorCode = 0x5769326B // absolute Windows path, ANSI; deprecated
)

// String is the code's four characters, "none" for zero.
func (c LocatorCode) String() string {
	if c == CodeNone {
		return "none"
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(c))
	return printable(b[:])
}

// known tells whether the specification has the code.
func (c LocatorCode) known() bool {
	switch c {
	case CodeNone, CodeW2ru, CodeW2ku, CodeMacX, CodeMac, CodeWi2r, CodeWi2k:
		return true
	}
	return false
}

// Locator is an entry of the dynamic header that says where in the file a name
// of the parent is kept.
type Locator struct {
	Code       LocatorCode
	DataSpace  uint32 // sectors or bytes: see SpaceBytes
	DataLength uint32 // bytes
	DataOffset uint64 // bytes from the start of the file
	Reserved   uint32 // zero, or what another program put there
}

func (l *Locator) decode(b *[locatorSize]byte) {
	be := binary.BigEndian
	l.Code = LocatorCode(be.Uint32(b[locatorCodeAt:]))
	l.DataSpace = be.Uint32(b[locatorDataSpaceAt:])
	l.DataLength = be.Uint32(b[locatorDataLengthAt:])
	l.Reserved = be.Uint32(b[locatorReservedAt:])
	l.DataOffset = be.Uint64(b[locatorDataOffsetAt:])
}

func (l *Locator) encode(b *[locatorSize]byte) {
	be := binary.BigEndian
	be.PutUint32(b[locatorCodeAt:], uint32(l.Code))
	be.PutUint32(b[locatorDataSpaceAt:], l.DataSpace)
	be.PutUint32(b[locatorDataLengthAt:], l.DataLength)
	be.PutUint32(b[locatorReservedAt:], l.Reserved)
	be.PutUint64(b[locatorDataOffsetAt:], l.DataOffset)
}

// SpaceBytes is the space set aside for the data, in bytes. The specification
// counts it in sectors, Microsoft's own writers and tapdisk in bytes: below
// 512 it is sectors, a multiple of 512 is bytes, anything else an *Error
// wrapping ErrField.
func (l Locator) SpaceBytes() (int64, error) {
	switch {
	case l.DataSpace < SectorSize:
		return int64(l.DataSpace) * SectorSize, nil
	case l.DataSpace%SectorSize == 0:
		return int64(l.DataSpace), nil
	}
	return 0, l.errorf("data space", ErrField, "%d is neither a number of sectors nor a whole number of them in bytes", l.DataSpace)
}

// Validate tells what makes the entry unusable, as an *Error wrapping ErrField
// or ErrBounds: then its data can't be read, but another entry's may. An
// unused entry is valid. That the data lies inside the file is for the caller
// to check, before it reads.
func (l Locator) Validate() error {
	if l.Code == CodeNone {
		return nil
	}
	space, err := l.SpaceBytes()
	switch {
	case !l.Code.known():
		return l.errorf("platform code", ErrField, "0x%08x is unknown", uint32(l.Code))
	case err != nil:
		return err
	case l.DataLength == 0 || l.DataLength > MaxLocatorLength:
		return l.errorf("data length", ErrBounds, "%d bytes, not 1 to %d", l.DataLength, MaxLocatorLength)
	case int64(l.DataLength) > space:
		return l.errorf("data length", ErrBounds, "%d bytes in a space of %d", l.DataLength, space)
	case l.DataOffset < FooterSize || l.DataOffset > math.MaxInt64-uint64(space):
		return l.errorf("data offset", ErrBounds, "%d", l.DataOffset)
	}
	return nil
}

func (l Locator) errorf(field string, sentinel error, format string, args ...any) error {
	return &Error{Structure: "locator " + l.Code.String(), Field: field, Err: sentinel, Detail: fmt.Sprintf(format, args...)}
}
