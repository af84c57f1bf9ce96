package vhdtest

import (
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// qemuView is what qemu reads of a dynamic disk whose file is b: it goes by the
// BAT alone, never looking at a bitmap. (It takes the footer at the start; the
// one at the end is for what it would read once that is mended.) ok is false
// for any other image.
func qemuView(b []byte, sectors int) (content []byte, ok bool) {
	if len(b) < format.FooterSize+format.HeaderSize {
		return nil, false
	}
	footer, err := format.DecodeFooter(b[:format.FooterSize])
	if err != nil {
		footer, err = format.DecodeFooter(b[len(b)-format.FooterSize:])
	}
	if err != nil || footer.Type != format.Dynamic || footer.DataOffset > uint64(len(b)-format.HeaderSize) {
		return nil, false
	}
	header, err := format.DecodeHeader(b[footer.DataOffset:][:format.HeaderSize])
	if err != nil || header.TableOffset > uint64(len(b)-4*int(header.MaxTableEntries)) {
		return nil, false
	}
	bat := make([]uint32, header.MaxTableEntries)
	format.DecodeBAT(bat, b[header.TableOffset:][:4*len(bat)])
	content = make([]byte, sectors*format.SectorSize)
	for block, sector := range bat {
		to := block * int(header.BlockSize)
		if sector == format.UnallocatedBlock || to >= len(content) {
			continue
		}
		from := int(sector)*format.SectorSize + int(header.BitmapSize())
		copy(content[to:min(len(content), to+int(header.BlockSize))], b[min(from, len(b)):])
	}
	return content, true
}

// qemuReads is the tags that qemu reads of an image whose file is b; of one
// that is not for qemu, what the engine reads.
func qemuReads(b []byte, engine []Tag) ([]Tag, error) {
	view, ok := qemuView(b, len(engine))
	if !ok {
		return engine, nil
	}
	tags, err := Decode(view)
	if err != nil {
		return nil, &ruleError{5, "as qemu reads it: " + err.Error()}
	}
	return tags, nil
}
