package blockdev

import "iter"

// ExtentKind says what stands behind a range of a device.
type ExtentKind uint8

const (
	// Hole is held by no layer; it reads as zeros.
	Hole ExtentKind = iota
	// Zero is held by a layer and known to read as zeros.
	Zero
	// Data is held by a layer and must be read to be known.
	Data
)

// String is the kind's word in `map`: hole, zero or data.
func (k ExtentKind) String() string {
	switch k {
	case Hole:
		return "hole"
	case Zero:
		return "zero"
	default:
		return "data"
	}
}

// Extent is a range of a device with one origin.
type Extent struct {
	Offset, Length int64 // bytes of the device
	Kind           ExtentKind
	Depth          int    // 0 the top layer, 1 its parent …; -1 for a Hole
	File           string // name of the file that holds it; empty for a Hole or where there is none
	FileOffset     int64  // bytes from the start of File
}

// End is the offset of the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// ExtentMapper is a Device that knows where its bytes come from.
type ExtentMapper interface {
	// Extents yields the extents of [off, off+n) in ascending order, without a
	// gap and clipped to the range. Neighbours may be of the same kind. An
	// error ends the sequence. The device may be written to meanwhile: then
	// each extent was true at some moment during the iteration.
	Extents(off, n int64) iter.Seq2[Extent, error]
}

// Extents yields the extents of dev; a device that isn't an ExtentMapper is
// one Data extent.
func Extents(dev Device, off, n int64) iter.Seq2[Extent, error] {
	if m, ok := dev.(ExtentMapper); ok {
		return m.Extents(off, n)
	}
	return func(yield func(Extent, error) bool) {
		if err := CheckRange(dev.Size(), off, n); err != nil {
			yield(Extent{}, err)
			return
		}
		if n > 0 {
			yield(Extent{Offset: off, Length: n, Kind: Data, FileOffset: off}, nil)
		}
	}
}
