package vhd

import (
	"math"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// batmap is tapdisk's map of the blocks whose every sector is present. It is
// read, and stays true: a block with its bit set keeps its place and its
// bitmap (Image.Discard punches it without taking it out of the BAT), and one
// that becomes full need not be marked.
type batmap struct {
	bits format.Bitmap
}

// readBatmap reads the batmap where the image's creator promises one. One that
// is absent or doesn't match its checksum is ignored, as tapdisk does.
func (l *layer) readBatmap() error {
	if !l.footer.MayHaveBatmap() {
		return nil
	}
	at := roundUp(int64(l.header.TableOffset)+4*int64(len(l.blocks.bat)), format.SectorSize)
	var b [format.SectorSize]byte
	if at+format.SectorSize > l.info.Size {
		l.reserveBatmap(at)
		return nil
	}
	if err := l.read(b[:], at, "batmap header"); err != nil {
		return err
	}
	h, err := format.DecodeBatmapHeader(b[:])
	if err != nil {
		l.warnf("no batmap where its creator keeps one: %v", err)
		l.reserveBatmap(at)
		return nil
	}
	if h.Encrypted {
		return l.errorf("batmap header", ErrEncrypted)
	}
	l.claimBatmap(at, h)
	if h.Version > format.BatmapVersion {
		l.warnf("batmap ignored: version %#08x, newer than the last known, %#08x", h.Version, format.BatmapVersion)
		return nil
	}
	size := format.BatmapSectors(int64(l.footer.CurrentSize)) * format.SectorSize
	if int64(h.Sectors)*format.SectorSize < size || h.Offset > uint64(l.info.Size) || size > l.info.Size-int64(h.Offset) {
		l.warnf("batmap of %d sectors at offset %d ignored: it doesn't fit the disk or the file", h.Sectors, h.Offset)
		return nil
	}
	m := &batmap{bits: make(format.Bitmap, size)}
	if err := l.read(m.bits, int64(h.Offset), "batmap"); err != nil {
		return err
	}
	if sum := format.BatmapChecksum(m.bits, h.Version); sum != h.Checksum {
		l.warnf("batmap ignored: checksum %#08x, computed %#08x", h.Checksum, sum)
		return nil
	}
	l.batmap = m
	l.trustBatmap()
	return nil
}

// trustBatmap takes the blocks of the batmap as full, as tapdisk reads them.
func (l *layer) trustBatmap() {
	n := min(l.blocks.count, int64(len(l.batmap.bits))*8)
	for b := range n {
		if l.batmap.bits.Get(int(b)) && l.blocks.entry(b) != format.UnallocatedBlock {
			l.blocks.full.add(b)
		}
	}
}

// reserveBatmap keeps blocks off the sector after the BAT where no batmap's
// header is, but its creator's programs look for one whatever is there: the
// bits of a block's bitmap are the guest's to set, and that sector of it could
// be made a header that has tapdisk write where the guest wants, over the
// parent's locators for one. Where something else has the sector, as a locator
// in an image that was brought up from version 0.1, no block can be there anyway.
func (l *layer) reserveBatmap(at int64) {
	l.noBatmap = true
	place := span{at, at + format.SectorSize, "the sector in which its creator keeps the batmap's header"}
	for _, s := range l.metadata() {
		if s.start < place.end && s.end > place.start {
			return
		}
	}
	l.batmapSpans = []span{place}
}

// claimBatmap notes what the batmap's header, at its offset, says that the
// batmap takes. tapdisk writes all of it, however little the disk needs; and
// were a block to take it while it is ignored, the guest could make it valid.
func (l *layer) claimBatmap(at int64, h *format.BatmapHeader) {
	length := uint64(h.Sectors) * format.SectorSize
	start := int64(min(h.Offset, math.MaxInt64-length)) // past the end of any file either way
	l.batmapSpans = []span{
		{at, at + format.SectorSize, "the batmap header"},
		{start, start + int64(length), "the batmap"},
	}
}

// checkBatmap refuses a batmap that claims more than the file has, and one that
// calls a block whole that is not there: once allocated, the block would hide
// its parent.
func (l *layer) checkBatmap() error {
	if l.noBatmap {
		return nil
	}
	for _, s := range l.batmapSpans {
		if end := l.footerStart(); s.end > end {
			return l.errorf("batmap", corrupt("%s (bytes %d to %d) passes the end of the data (%d bytes): open it read-only", s.what, s.start, s.end, end))
		}
	}
	for b := range int64(len(l.blocks.bat)) {
		if l.batmap.has(b) && l.blocks.entry(b) == format.UnallocatedBlock {
			return l.errorf("batmap", corrupt("the bit of block %d is set, but the block is not allocated: open it read-only", b))
		}
	}
	return nil
}

// has tells whether block b's bit is set; a nil batmap has none.
func (m *batmap) has(b int64) bool {
	return m != nil && b < int64(len(m.bits))*8 && m.bits.Get(int(b))
}
