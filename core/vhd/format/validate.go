package format

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"time"
)

// newestTap is the creator version of the newest tapdisk there is.
var newestTap = creatorVersion(1, 3)

// Validate tells what makes an image with this footer unusable, as an *Error:
// ErrVersion, ErrField for the type, ErrBounds for a size of no sector or more
// than MaxSize, ErrField or ErrBounds for a data offset where no header can be. It
// does not compare with the file: that the header lies inside it is for the
// caller. A poisoned footer is valid: its image can be read, never written.
func (f *Footer) Validate() error {
	switch {
	case f.Version != FormatVersion:
		return f.errorf("format version", ErrVersion, "0x%08x, not 0x%08x", f.Version, FormatVersion)
	case f.Type < Fixed || f.Type > Differencing:
		return f.errorf("disk type", ErrField, "%d is none of 2, 3 and 4", uint32(f.Type))
	case f.CurrentSize < SectorSize || f.CurrentSize > MaxSize:
		return f.errorf("current size", ErrBounds, "%d bytes, not %d to %d", f.CurrentSize, SectorSize, int64(MaxSize))
	case f.Type == Fixed:
		return nil
	case f.DataOffset%SectorSize != 0:
		return f.errorf("data offset", ErrField, "%d is no multiple of %d", f.DataOffset, SectorSize)
	case f.DataOffset < FooterSize || f.DataOffset > math.MaxInt64-HeaderSize:
		return f.errorf("data offset", ErrBounds, "%d is no place for a header", f.DataOffset)
	}
	return nil
}

func (f *Footer) errorf(field string, sentinel error, format string, args ...any) error {
	return &Error{Structure: "footer", Field: field, Err: sentinel, Detail: fmt.Sprintf(format, args...)}
}

// Oddities tells what `vhd-util check` would call damage and readers put up
// with, one line each, the field first: "features: …". Timestamps are
// FutureOddities' matter, what Validate refuses is its own.
func (f *Footer) Oddities() []string {
	var o oddities
	o.add(f.Poisoned, "cookie: %s: a resize or coalesce has put the image out of use", poisonedCookie)
	o.add(f.Features&FeatureReserved == 0, "features: 0x%08x lacks the reserved bit", f.Features)
	o.add(f.Features&^(FeatureReserved|FeatureTemporary) != 0, "features: 0x%08x has unknown bits", f.Features)
	o.add(f.Type == Fixed && f.DataOffset != NoOffset, "data offset: 0x%016x in a fixed image, not all ones", f.DataOffset)
	o.add(f.Creator.isTap() && f.CreatorVersion > newestTap, "creator version: 0x%08x is newer than any tapdisk, 0x%08x", f.CreatorVersion, newestTap)
	o.add(f.CurrentSize%SectorSize != 0, "current size: %d bytes is no multiple of %d", f.CurrentSize, SectorSize)
	want := GeometryFor(int64(min(f.CurrentSize, math.MaxInt64)))
	o.add(f.Geometry.above(want), "geometry: %v is larger than the size's, %v", f.Geometry, want)
	o.add(f.SavedState > 1, "saved state: %d is neither 0 nor 1", f.SavedState)
	o.add(f.Hidden > 1, "hidden: %d is neither 0 nor 1", f.Hidden)
	o.add(f.Reserved != [len(f.Reserved)]byte{}, "reserved bytes: not all zero")
	o.add(f.ID.IsZero(), "unique id: null")
	return o
}

// FutureOddities tells whether the image was created later than now, in a
// line as Oddities has them.
func (f *Footer) FutureOddities(now time.Time) []string {
	var o oddities
	o.add(f.Timestamp.InFuture(now), "timestamp: %v lies in the future", f.Timestamp)
	return o
}

// Validate tells what makes an image with this header unusable, as an *Error:
// ErrVersion; ErrField for a block size that is no power of two from
// MinBlockSize to MaxBlockSize, or a table offset not aligned to a sector;
// ErrBounds for a table without entries or where none can be, and for a parent name
// too long to write. It does not compare with the file or the disk: see
// ValidateSize. The locators are judged one by one, by Locator.Validate.
func (h *Header) Validate() error {
	tableEnd := uint64(h.MaxTableEntries) * batEntrySize
	switch {
	case h.Version != FormatVersion:
		return h.errorf("header version", ErrVersion, "0x%08x, not 0x%08x", h.Version, FormatVersion)
	case bits.OnesCount32(h.BlockSize) != 1 || h.BlockSize < MinBlockSize || h.BlockSize > MaxBlockSize:
		return h.errorf("block size", ErrField, "%d bytes is no power of two from %d to %d", h.BlockSize, MinBlockSize, MaxBlockSize)
	case h.TableOffset%SectorSize != 0:
		return h.errorf("table offset", ErrField, "%d is no multiple of %d", h.TableOffset, SectorSize)
	case h.MaxTableEntries == 0:
		return h.errorf("max table entries", ErrBounds, "0")
	case h.TableOffset < FooterSize || h.TableOffset > math.MaxInt64-tableEnd:
		return h.errorf("table offset", ErrBounds, "%d is no place for a BAT of %d entries", h.TableOffset, h.MaxTableEntries)
	case h.parentNameUnits() > parentNameSize/2:
		return h.errorf("parent name", ErrBounds, "%d units of UTF-16, more than %d", h.parentNameUnits(), parentNameSize/2)
	}
	return nil
}

// ValidateSize tells whether the BAT has an entry for every block of a disk of
// size bytes; if not, an *Error wrapping ErrBounds. More entries are fine.
func (h *Header) ValidateSize(size int64) error {
	if blocks := h.Blocks(size); int64(h.MaxTableEntries) < blocks {
		return h.errorf("max table entries", ErrBounds, "%d for a disk of %d blocks", h.MaxTableEntries, blocks)
	}
	return nil
}

func (h *Header) parentNameUnits() int {
	text, _ := encodeUTF16(h.ParentName, binary.BigEndian)
	return len(text) / 2
}

func (h *Header) errorf(field string, sentinel error, format string, args ...any) error {
	return &Error{Structure: "dynamic header", Field: field, Err: sentinel, Detail: fmt.Sprintf(format, args...)}
}

// Oddities tells what `vhd-util check` would call damage and readers put up
// with, one line each, the field first. See TypeOddities for what depends on
// the disk's type, and FutureOddities.
func (h *Header) Oddities() []string {
	var o oddities
	o.add(h.DataOffset != NoOffset, "data offset: 0x%016x, not all ones", h.DataOffset)
	o.add(h.Reserved1 != 0 || h.Reserved2 != [len(h.Reserved2)]byte{}, "reserved bytes: not all zero")
	first := make(map[LocatorCode]int)
	for i, l := range h.Locators {
		if l.Code == CodeNone {
			o.add(l != Locator{}, "locator %d: unused, but not all zero", i)
			continue
		}
		if err := l.Validate(); err != nil {
			o.add(true, "locator %d: %v", i, err)
		}
		o.add(l.Reserved != 0, "locator %d: reserved bytes: not all zero", i)
		before, duplicate := first[l.Code]
		o.add(duplicate, "locator %d: code %v is that of locator %d", i, l.Code, before)
		if !duplicate {
			first[l.Code] = i
		}
	}
	return o
}

// TypeOddities tells which of the parent's fields are set in a disk that has
// no parent, or absent in one that has, in lines as Oddities has them. A null
// parent id is no oddity: the parent is raw.
func (h *Header) TypeOddities(t DiskType) []string {
	var o oddities
	located := h.Locators != [len(h.Locators)]Locator{}
	named := h.ParentName != "" || h.rawName != [parentNameSize]byte{}
	if t == Differencing {
		o.add(!named, "parent name: empty in a differencing image")
		o.add(!located, "locators: none in a differencing image")
		return o
	}
	o.add(named, "parent name: set in an image without a parent")
	o.add(located, "locators: set in an image without a parent")
	o.add(!h.ParentID.IsZero(), "parent unique id: set in an image without a parent")
	o.add(h.ParentTimestamp != 0, "parent timestamp: set in an image without a parent")
	return o
}

// FutureOddities tells whether the parent was modified later than now, in a
// line as Oddities has them.
func (h *Header) FutureOddities(now time.Time) []string {
	var o oddities
	o.add(h.ParentTimestamp.InFuture(now), "parent timestamp: %v lies in the future", h.ParentTimestamp)
	return o
}

// oddities collects lines.
type oddities []string

func (o *oddities) add(odd bool, format string, args ...any) {
	if odd {
		*o = append(*o, fmt.Sprintf(format, args...))
	}
}
