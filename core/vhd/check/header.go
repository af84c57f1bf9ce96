package check

import "github.com/vhdmount/vhdmount/core/vhd/format"

// headerPlace is the dynamic header in findings.
const headerPlace = "dynamic header"

// entrySize is the length of a BAT entry in bytes.
const entrySize = 4

// readHeader reads and judges the dynamic header. It leaves img.header nil
// where the block map can't be walked by it.
func (img *image) readHeader() error {
	off := img.footer.DataOffset
	if off < format.FooterSize || off%format.SectorSize != 0 || off > uint64(max(0, img.dataEnd-format.HeaderSize)) {
		img.at("footer").damage("data offset %#x leads to no dynamic header (data end at %#x) — restore the image from a backup", off, img.dataEnd)
		return nil
	}
	raw := make([]byte, format.HeaderSize)
	if err := readFull(img.file, raw, int64(off)); err != nil {
		return err
	}
	h, err := format.DecodeHeader(raw)
	if err != nil {
		img.at(headerPlace).damage("%s — restore the image from a backup", detail(err))
		return nil
	}
	img.checkHeaderFields(h)
	img.checkHeaderReserved(h)
	if img.checkBlockSize(h) && img.checkTable(h) {
		img.header = h
		img.checkEntryCount()
		img.countBlocks()
	}
	return nil
}

func (img *image) checkHeaderFields(h *format.Header) {
	if h.Version != format.FormatVersion {
		img.at(headerPlace).damage("version is %#08x, not %#08x — use a newer version of this program", h.Version, format.FormatVersion)
	}
	if h.DataOffset != format.NoOffset {
		img.at(headerPlace).damage("data offset is %#x, not %#x; tapdisk refuses the image — copy the disk to a new image", h.DataOffset, format.NoOffset)
	}
}

func (img *image) checkHeaderReserved(h *format.Header) {
	if h.Reserved1 != 0 || h.Reserved2 != [len(h.Reserved2)]byte{} {
		img.at(headerPlace).damage("reserved bytes are not zero — copy the disk to a new image")
	}
}

func (img *image) checkBlockSize(h *format.Header) bool {
	n := h.BlockSize
	if n >= format.MinBlockSize && n <= format.MaxBlockSize && n&(n-1) == 0 {
		return true
	}
	img.at(headerPlace).damage("block size of %d bytes is not a power of two from %d to %d — restore the image from a backup", n, format.MinBlockSize, format.MaxBlockSize)
	return false
}

// checkTable tells whether the BAT lies in the file, where it can be read.
func (img *image) checkTable(h *format.Header) bool {
	length := int64(h.MaxTableEntries) * entrySize
	switch off := h.TableOffset; {
	case off < format.FooterSize || off%format.SectorSize != 0:
		img.at(headerPlace).damage("table offset %#x is no place for a BAT — restore the image from a backup", off)
	case off > uint64(img.dataEnd) || length > img.dataEnd-int64(off):
		img.at("BAT").damage("%d entries at %#x run past the end of the data (%#x) — restore the image from a backup", h.MaxTableEntries, off, img.dataEnd)
	default:
		return true
	}
	return false
}

// checkEntryCount: a longer BAT than package vhd opens is damage, though the
// format allows it. No byte of the disk can be read here, and what the entries
// past maxEntries say was not looked at.
func (img *image) checkEntryCount() {
	if n := int64(img.header.MaxTableEntries); n > maxEntries {
		img.at("BAT").damage("%d entries are more than the %d that are supported; the rest were not looked at — convert the image to larger blocks with another program", n, maxEntries)
	}
}

// countBlocks holds the BAT's length against the disk's size. A longer one is
// for a resize to come; a shorter one leaves the end of the disk without a
// place.
func (img *image) countBlocks() {
	h := img.header
	img.blocks = h.Blocks(img.size)
	if entries := int64(h.MaxTableEntries); entries < img.blocks {
		img.at("BAT").damage("%d entries are too few for %d bytes in blocks of %d, which need %d — restore the image from a backup",
			entries, img.size, h.BlockSize, img.blocks)
	} else if all := h.Blocks(int64(img.footer.CurrentSize)); entries < all {
		img.at("BAT").warn("%d entries are too few for the current size of %d bytes, which needs %d; programs that go by it refuse the image",
			entries, img.footer.CurrentSize, all)
	}
	if img.leaf {
		img.report.Blocks = img.blocks
	}
}
