package check

import (
	"fmt"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// newestTapdisk is the last creator version of tapdisk that is known, 1.3.
const newestTapdisk = 1<<16 | 3

// checkFooter judges the fields of the footer that counts, its size aside.
func (img *image) checkFooter() {
	img.checkCookie()
	img.checkFeatures()
	img.checkVersion()
	img.checkCreator()
	img.checkStates()
	img.checkFooterReserved()
	img.checkCreationTime()
}

// checkCookie: a resize or coalesce puts an image out of use by its cookie.
func (img *image) checkCookie() {
	if img.footer.Poisoned {
		img.at("footer").damage("cookie is v_poison: a resize or coalesce was interrupted — finish it with vhd-util revert and its journal")
	}
	if img.footer.HiddenChecksum {
		img.at("footer").note("checksum is as if the disk were not hidden, as early XenServer versions left it")
	}
}

func (img *image) checkFeatures() {
	features := img.footer.Features
	if features&format.FeatureReserved == 0 {
		img.at("footer").damage("features %#x lack the bit that is always set (%d) — copy the disk to a new image", features, format.FeatureReserved)
	}
	if extra := features &^ (format.FeatureReserved | format.FeatureTemporary); extra != 0 {
		img.at("footer").damage("features %#x have bits that no version of the format knows (%#x) — copy the disk to a new image", features, extra)
	}
}

func (img *image) checkVersion() {
	if v := img.footer.Version; v != format.FormatVersion {
		img.at("footer").damage("format version is %#08x, not %#08x — use a newer version of this program", v, format.FormatVersion)
	}
}

// checkCreator is about tapdisk, the one creator whose versions change what
// an image means.
func (img *image) checkCreator() {
	v := img.footer.CreatorVersion
	if string(img.footer.Creator[:3]) == "tap" && v > newestTapdisk {
		img.at("footer").damage("written by tapdisk %d.%d, newer than the last known, 1.3 — use a newer version of this program", v>>16, v&0xFFFF)
	}
	if img.footer.LittleEndianBitmaps() {
		img.at("footer").warn("written by tapdisk 0.1, whose bitmaps have their bits in reverse; the image must not be written to — copy the disk to a new image")
	}
}

func (img *image) checkStates() {
	if s := img.footer.SavedState; s > 1 {
		img.at("footer").damage("saved state is %d, neither 0 nor 1 — copy the disk to a new image", s)
	}
	if h := img.footer.Hidden; h > 1 {
		img.at("footer").damage("hidden mark is %d, neither 0 nor 1 — copy the disk to a new image", h)
	}
	if img.footer.ID.IsZero() {
		img.at("footer").damage("unique id is null, so that no child can name this disk — copy the disk to a new image")
	}
}

func (img *image) checkFooterReserved() {
	if img.footer.Reserved != [len(img.footer.Reserved)]byte{} {
		img.at("footer").damage("reserved bytes are not zero — copy the disk to a new image")
	}
}

func (img *image) checkCreationTime() {
	img.checkTime("footer", "creation time", img.footer.Timestamp)
}

// checkTime reports a time in the future.
func (img *image) checkTime(place, what string, t format.Time) {
	if !img.opt.IgnoreTimestamps && t.InFuture(img.opt.Now) {
		img.at(place).warn("%s %v lies in the future — check the clock", what, t)
	}
}

// checkType judges the type and the field that must agree with it. It is
// false where the type says nothing to go on with.
func (img *image) checkType() bool {
	f := img.footer
	switch f.Type {
	case format.Fixed:
		if f.DataOffset != format.NoOffset {
			img.at("footer").damage("data offset of a fixed disk is %#x, not %#x — copy the disk to a new image", f.DataOffset, format.NoOffset)
		}
	case format.Dynamic, format.Differencing:
	default:
		img.at("footer").damage("disk type is %d, none of 2 (fixed), 3 (dynamic), 4 (differencing) — restore the image from a backup", uint32(f.Type))
		return false
	}
	return true
}

// checkSize judges the sizes and the geometry, and sets the disk's size. It
// is false where there is none to go on with.
func (img *image) checkSize() bool {
	f, at := img.footer, img.at("footer")
	switch size := f.CurrentSize; {
	case size < format.SectorSize:
		at.damage("current size of %d bytes is less than a sector — restore the image from a backup", size)
		return false
	case size > format.MaxSize:
		at.damage("current size of %d bytes is over the format's limit of %d — restore the image from a backup", size, int64(format.MaxSize))
		return false
	case size%format.SectorSize != 0:
		at.warn("current size of %d bytes is not a multiple of %d; the rest is left out", size, format.SectorSize)
	case size > format.MaxNewSize:
		at.note("current size of %d bytes is over the %d that qemu opens", size, int64(format.MaxNewSize))
	}
	if f.OriginalSize != f.CurrentSize {
		at.note("original size is %d bytes, current size %d: the disk was resized; libvhdi goes by the original size", f.OriginalSize, f.CurrentSize)
	}
	img.checkGeometry()
	if img.leaf {
		img.size = f.Size(img.opt.SizeFrom)
	} else {
		img.size = f.Size(format.SizeAuto)
	}
	if img.size == 0 {
		at.damage("size from the geometry %s is 0 bytes — take the footer's size", chs(f.Geometry))
	}
	return img.size > 0
}

// checkGeometry: vhd-util compares geometries as numbers and refuses one above
// its own. qemu's are often so: the largest one under force_size, and one that
// fits its rounded size otherwise. Only one that promises more than there is
// misleads a reader.
func (img *image) checkGeometry() {
	g := img.footer.Geometry
	size := int64(img.footer.CurrentSize)
	want := format.GeometryFor(size)
	if number(g) <= number(want) {
		return
	}
	if g.IsMax() || g.Bytes() <= size {
		img.at("footer").note("geometry %s is above the usual one for the size, %s; vhd-util check refuses it", chs(g), chs(want))
		return
	}
	img.at("footer").damage("geometry %s makes %d bytes, more than the current size of %d — copy the disk to a new image", chs(g), g.Bytes(), size)
}

// number is a geometry as the number that its four bytes make.
func number(g format.Geometry) uint32 {
	return uint32(g.Cylinders)<<16 | uint32(g.Heads)<<8 | uint32(g.Sectors)
}

// chs is a geometry as it is usually written.
func chs(g format.Geometry) string {
	return fmt.Sprintf("%d/%d/%d", g.Cylinders, g.Heads, g.Sectors)
}

// checkFixed: the data of a fixed disk lie before the footer.
func (img *image) checkFixed() {
	size := int64(img.footer.CurrentSize)
	if size > img.dataEnd {
		img.at("file").damage("has %d bytes of data, less than the disk's %d — restore the end from a backup", img.dataEnd, size)
		return
	}
	rest := img.dataEnd - size
	if img.leaf {
		img.report.LeakedBytes = rest
	}
	if rest >= format.SectorSize {
		img.at("file").note("has %d bytes between the end of the disk and the footer", rest)
	}
}
