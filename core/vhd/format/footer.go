package format

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Sizes of the records, in bytes.
const (
	SectorSize = 512
	FooterSize = 512
	// ShortFooterSize is the length of the footer that old Virtual PC wrote:
	// the record without its last byte.
	ShortFooterSize = 511
)

// NoOffset stands in an offset field that points nowhere.
const NoOffset uint64 = 1<<64 - 1

// FormatVersion is the only version of the footer and of the dynamic header.
const FormatVersion uint32 = 0x00010000

// FeatureTemporary and FeatureReserved are the bits of Footer.Features. The
// reserved bit is always set.
const (
	FeatureTemporary uint32 = 1 << 0
	FeatureReserved  uint32 = 1 << 1
)

const (
	footerCookie   = "conectix"
	poisonedCookie = "v_poison"
)

// Offsets in the footer.
const (
	footerCookieAt         = 0
	footerFeaturesAt       = 8
	footerVersionAt        = 12
	footerDataOffsetAt     = 16
	footerTimestampAt      = 24
	footerCreatorAt        = 28
	footerCreatorVersionAt = 32
	footerCreatorOSAt      = 36
	footerOriginalSizeAt   = 40
	footerCurrentSizeAt    = 48
	footerCylindersAt      = 56
	footerHeadsAt          = 58
	footerSectorsAt        = 59
	footerTypeAt           = 60
	footerChecksumAt       = 64
	footerIDAt             = 68
	footerSavedStateAt     = 84
	footerHiddenAt         = 85
	footerReservedAt       = 86
)

// DiskType says how the image keeps the disk's bytes.
type DiskType uint32

// The types that exist; 0, 1, 5 and 6 are reserved.
const (
	Fixed        DiskType = 2
	Dynamic      DiskType = 3
	Differencing DiskType = 4
)

// String is the type's word, "type 5" for one that doesn't exist.
func (t DiskType) String() string {
	switch t {
	case Fixed:
		return "fixed"
	case Dynamic:
		return "dynamic"
	case Differencing:
		return "differencing"
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Footer is the record at the end of every image, copied to the front of
// dynamic and differencing ones (Microsoft VHD specification 1.0, "Hard Disk
// Footer Format"). Every byte of the record is here, so that decoding and
// encoding someone else's footer loses nothing.
type Footer struct {
	Poisoned       bool // put out of use by tapdisk's resize or coalesce: never write to it
	Features       uint32
	Version        uint32
	DataOffset     uint64 // of the dynamic header, bytes; NoOffset in a fixed image
	Timestamp      Time   // of creation
	Creator        Creator
	CreatorVersion uint32
	CreatorOS      HostOS
	OriginalSize   uint64 // bytes, at creation; libvhdi takes the disk's size from here
	CurrentSize    uint64 // bytes
	Geometry       Geometry
	Type           DiskType
	Checksum       uint32 // as it was read; Encode computes its own
	ID             UUID
	SavedState     uint8     // 1 while a machine is suspended with the disk in use
	Hidden         uint8     // 1 in a XenServer image that is only a parent
	Reserved       [426]byte // zero, or what another program put there

	// HiddenChecksum says that the stored checksum is the one for Hidden = 0
	// and was accepted: early XenServer hid an image without mending it.
	HiddenChecksum bool
}

// NewFooter is the footer of a new image of size bytes, which every reader
// shows by its current size. Its ID is random; DataOffset is where a dynamic
// header follows the copy of the footer. size must be a positive multiple of
// 512.
//
// The creator is Windows: a name of our own would be shown by geometry in
// qemu up to 9, and lose the end of the disk; "tap" would promise a batmap.
func NewFooter(size int64, t DiskType, now time.Time) *Footer {
	f := &Footer{
		Features:       FeatureReserved,
		Version:        FormatVersion,
		DataOffset:     FooterSize,
		Timestamp:      TimeOf(now),
		Creator:        CreatorWindows,
		CreatorVersion: creatorVersion(10, 0),
		CreatorOS:      HostWindows,
		OriginalSize:   uint64(size),
		CurrentSize:    uint64(size),
		Geometry:       GeometryFor(size),
		Type:           t,
		ID:             NewUUID(),
	}
	if t == Fixed {
		f.DataOffset = NoOffset
	}
	return f
}

// DecodeFooter reads a footer of 512 bytes, or of 511, where the byte missing
// at the end counts as zero. It checks the cookie and the checksum alone:
// Validate judges the fields.
//
// Errors are *Error. A wrong length (ErrBounds) or cookie (ErrCookie) comes
// without a footer; a wrong checksum (ErrChecksum) comes with the footer as it
// was read, to be shown but not trusted.
func DecodeFooter(b []byte) (*Footer, error) {
	if len(b) != FooterSize && len(b) != ShortFooterSize {
		return nil, &Error{Structure: "footer", Err: ErrBounds, Detail: fmt.Sprintf("%d bytes, not %d or %d", len(b), FooterSize, ShortFooterSize)}
	}
	var whole [FooterSize]byte
	copy(whole[:], b)
	cookie := string(whole[footerCookieAt : footerCookieAt+8])
	if cookie != footerCookie && cookie != poisonedCookie {
		return nil, cookieError("footer", footerCookie, cookie)
	}
	f := new(Footer)
	f.Poisoned = cookie == poisonedCookie
	f.decode(&whole)
	return f, f.verify(&whole)
}

func (f *Footer) decode(b *[FooterSize]byte) {
	be := binary.BigEndian
	f.Features = be.Uint32(b[footerFeaturesAt:])
	f.Version = be.Uint32(b[footerVersionAt:])
	f.DataOffset = be.Uint64(b[footerDataOffsetAt:])
	f.Timestamp = Time(be.Uint32(b[footerTimestampAt:]))
	copy(f.Creator[:], b[footerCreatorAt:])
	f.CreatorVersion = be.Uint32(b[footerCreatorVersionAt:])
	copy(f.CreatorOS[:], b[footerCreatorOSAt:])
	f.OriginalSize = be.Uint64(b[footerOriginalSizeAt:])
	f.CurrentSize = be.Uint64(b[footerCurrentSizeAt:])
	f.Geometry.Cylinders = be.Uint16(b[footerCylindersAt:])
	f.Geometry.Heads = b[footerHeadsAt]
	f.Geometry.Sectors = b[footerSectorsAt]
	f.Type = DiskType(be.Uint32(b[footerTypeAt:]))
	f.Checksum = be.Uint32(b[footerChecksumAt:])
	copy(f.ID[:], b[footerIDAt:])
	f.SavedState = b[footerSavedStateAt]
	f.Hidden = b[footerHiddenAt]
	copy(f.Reserved[:], b[footerReservedAt:])
}

// verify compares the checksum, and notes the one wrong checksum that is right
// for what wrote it.
func (f *Footer) verify(b *[FooterSize]byte) error {
	sum := checksum(b[:], footerChecksumAt)
	if sum == f.Checksum {
		return nil
	}
	early := f.CreatorVersion == creatorVersion(0, 1) || f.CreatorVersion == creatorVersion(1, 1)
	// The sum is of bytes and complemented: without Hidden it is more by it.
	if f.Hidden != 0 && f.Creator.isTap() && early && sum+uint32(f.Hidden) == f.Checksum {
		f.HiddenChecksum = true
		return nil
	}
	return checksumError("footer", f.Checksum, sum)
}

// Encode writes the footer's 512 bytes to b, with its checksum computed anew.
// It panics if b is shorter.
func (f *Footer) Encode(b []byte) {
	b = (*[FooterSize]byte)(b)[:]
	be := binary.BigEndian
	cookie := footerCookie
	if f.Poisoned {
		cookie = poisonedCookie
	}
	copy(b[footerCookieAt:], cookie)
	be.PutUint32(b[footerFeaturesAt:], f.Features)
	be.PutUint32(b[footerVersionAt:], f.Version)
	be.PutUint64(b[footerDataOffsetAt:], f.DataOffset)
	be.PutUint32(b[footerTimestampAt:], uint32(f.Timestamp))
	copy(b[footerCreatorAt:], f.Creator[:])
	be.PutUint32(b[footerCreatorVersionAt:], f.CreatorVersion)
	copy(b[footerCreatorOSAt:], f.CreatorOS[:])
	be.PutUint64(b[footerOriginalSizeAt:], f.OriginalSize)
	be.PutUint64(b[footerCurrentSizeAt:], f.CurrentSize)
	be.PutUint16(b[footerCylindersAt:], f.Geometry.Cylinders)
	b[footerHeadsAt] = f.Geometry.Heads
	b[footerSectorsAt] = f.Geometry.Sectors
	be.PutUint32(b[footerTypeAt:], uint32(f.Type))
	copy(b[footerIDAt:], f.ID[:])
	b[footerSavedStateAt] = f.SavedState
	b[footerHiddenAt] = f.Hidden
	copy(b[footerReservedAt:], f.Reserved[:])
	be.PutUint32(b[footerChecksumAt:], checksum(b, footerChecksumAt))
}

// MayHaveBatmap tells whether a batmap is to be looked for after the BAT:
// tapdisk's images of version 1.1 may have one, later ones do.
func (f *Footer) MayHaveBatmap() bool {
	return f.Type != Fixed && f.Creator.isTap() && f.CreatorVersion > creatorVersion(0, 1)
}

// LittleEndianBitmaps tells whether sector bitmaps have their least
// significant bit first, as tapdisk 0.1 wrote them (see Bitmap.ReverseBits).
func (f *Footer) LittleEndianBitmaps() bool {
	return f.Creator.isTap() && f.CreatorVersion == creatorVersion(0, 1)
}
