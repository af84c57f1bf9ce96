package check

import (
	"slices"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// batmapOptional is the creator version of tapdisk, 1.1, whose images may have
// been brought up from 0.1 without a batmap.
const batmapOptional = 1<<16 | 1

// checkBatmap reads and judges tapdisk's batmap. An image by anyone else has
// none, whatever stands after its BAT. It leaves img.batmap nil where the map
// can't be read.
func (img *image) checkBatmap() error {
	if !img.footer.MayHaveBatmap() {
		return nil
	}
	h, err := img.readBatmapHeader()
	if err != nil || h == nil {
		return err
	}
	if h.Encrypted {
		img.encrypted = true
		img.at("batmap").warn("a key hash is set: the data is encrypted, and this program neither reads nor writes it")
		h.Encrypted = false // what else is wrong with it counts all the same
	}
	if err := h.Validate(img.header.MaxTableEntries); err != nil {
		img.at("batmap").damage("%s — copy the disk to a new image", detail(err))
		return nil
	}
	length := int64(h.Sectors) * format.SectorSize
	summed := format.BatmapSectors(int64(img.footer.CurrentSize)) * format.SectorSize
	switch {
	case int64(h.Offset) > img.dataEnd-length:
		img.at("batmap").damage("%d bytes at %#x run past the end of the data (%#x) — copy the disk to a new image", length, h.Offset, img.dataEnd)
		return nil
	case length < summed:
		img.at("batmap").damage("%d bytes are too few for the current size of %d, which needs %d — copy the disk to a new image", length, img.footer.CurrentSize, summed)
		return nil
	}
	img.claim(extent{start: int64(h.Offset), end: int64(h.Offset) + length, name: "batmap"})
	return img.readBatmap(h, summed)
}

// readBatmapHeader reads the header after the BAT, nil where it is damaged or,
// in an image that may lack it, not there.
func (img *image) readBatmapHeader() (*format.BatmapHeader, error) {
	start := int64(img.header.TableOffset) + format.BATSize(int64(img.header.MaxTableEntries))
	raw := make([]byte, format.BatmapHeaderSize)
	if start+format.BatmapHeaderSize <= img.dataEnd {
		if err := readFull(img.file, raw, start); err != nil {
			return nil, err
		}
	}
	h, err := format.DecodeBatmapHeader(raw)
	if err != nil {
		if img.footer.CreatorVersion != batmapOptional {
			img.at("batmap").damage("none after the BAT, at %#x, where tapdisk looks for it (%s) — copy the disk to a new image", start, detail(err))
		}
		img.batmapPlace = start
		return nil, nil
	}
	img.claim(extent{start: start, end: start + format.BatmapHeaderSize, name: "batmap header"})
	return h, nil
}

// batmapPlace names the extent of claimBatmapPlace.
const batmapPlace = "place of the batmap header"

// claimBatmapPlace keeps blocks off the sector where tapdisk looks for a
// batmap's header and there is none: the bits of a block's bitmap could make it
// one. What else has the sector is written by no guest.
func (img *image) claimBatmapPlace() {
	e := extent{start: img.batmapPlace, end: img.batmapPlace + format.BatmapHeaderSize, name: batmapPlace}
	taken := func(c extent) bool { return c.start < e.end && e.start < c.end }
	if e.start > 0 && e.end <= img.dataEnd && !slices.ContainsFunc(img.claimed, taken) {
		img.claim(e)
	}
}

// readBatmap reads as much of the map as its checksum covers, at most 128 KiB.
func (img *image) readBatmap(h *format.BatmapHeader, length int64) error {
	data := make([]byte, length)
	if err := readFull(img.file, data, int64(h.Offset)); err != nil {
		return err
	}
	if sum := format.BatmapChecksum(data, h.Version); sum != h.Checksum {
		img.at("batmap").damage("checksum is %#08x, stored %#08x — copy the disk to a new image", sum, h.Checksum)
		return nil
	}
	img.batmap = data
	return nil
}

// full tells whether the batmap says that every sector of a block is there.
func (img *image) full(block int64) bool {
	return block < int64(len(img.batmap))*8 && img.batmap.Get(int(block))
}

// checkUnallocated: a block that isn't there can't be full.
func (img *image) checkUnallocated(block int64) {
	if block < img.blocks && img.full(block) {
		img.block(Damage, block, "is not allocated, but full by the batmap — copy the disk to a new image")
	}
}
