package format

import (
	"fmt"
	"math"
)

// Limits of a disk's size, in bytes.
const (
	// MaxSize is the largest disk that is read. Sectors are numbered in 32
	// bits by the BAT, which ends a file, and so a disk, at 2 TiB.
	MaxSize = 2 << 40
	// MaxNewSize is the largest disk to make: what Microsoft's programs and
	// qemu open.
	MaxNewSize = 2040 << 30
)

// SizeFrom says which of the footer's fields gives the disk's size.
type SizeFrom int

const (
	// SizeAuto goes by the creator, as its own reader would.
	SizeAuto SizeFrom = iota
	// SizeGeometry takes the product of the geometry.
	SizeGeometry
	// SizeFooter takes the current size.
	SizeFooter
)

// ParseSizeFrom reads "auto" or "", "geometry", "footer".
func ParseSizeFrom(s string) (SizeFrom, error) {
	switch s {
	case "", "auto":
		return SizeAuto, nil
	case "geometry":
		return SizeGeometry, nil
	case "footer":
		return SizeFooter, nil
	}
	return SizeAuto, fmt.Errorf("size from %q: %w (auto, geometry or footer)", s, ErrField)
}

// String is the word that ParseSizeFrom reads.
func (s SizeFrom) String() string {
	switch s {
	case SizeGeometry:
		return "geometry"
	case SizeFooter:
		return "footer"
	default:
		return "auto"
	}
}

// Size is the disk's size in bytes, a multiple of 512: the current size
// rounded down, or the product of the geometry.
//
// Programs disagree on which. SizeAuto follows the image's creator: Virtual PC
// and qemu without force_size show a disk by its geometry, everyone else by
// its current size, and so do those two for the largest geometry, which says
// nothing. A product of zero, or one above the current size, is never
// believed.
func (f *Footer) Size(from SizeFrom) int64 {
	current := int64(min(f.CurrentSize, math.MaxInt64)) &^ (SectorSize - 1)
	product := f.Geometry.Bytes()
	switch from {
	case SizeGeometry:
		return product
	case SizeFooter:
		return current
	}
	byGeometry := f.Creator == CreatorVPC || f.Creator == CreatorQEMU
	if byGeometry && !f.Geometry.IsMax() && 0 < product && product <= current {
		return product
	}
	return current
}
