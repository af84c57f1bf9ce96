package check

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// footers is what stands in the two places of an image's footer.
type footers struct {
	end, start       *format.Footer // nil where there is no valid one
	endErr, startErr error          // why there is none
	endAt            int64          // offset of the end footer, bytes; the file's size without one
	short            bool           // the end footer is one of 511 bytes
	header           bool           // something like a dynamic header follows the start
}

// readFooters reads both places of a file of size bytes. Only a read that
// fails is an error.
func readFooters(f storage.File, size int64) (footers, error) {
	foot := footers{endAt: size, endErr: format.ErrCookie, startErr: format.ErrCookie}
	if err := foot.readEnd(f, size, format.FooterSize); err != nil {
		return foot, err
	}
	if foot.end == nil && size%format.SectorSize == format.ShortFooterSize {
		if err := foot.readEnd(f, size, format.ShortFooterSize); err != nil {
			return foot, err
		}
		foot.short = foot.end != nil
	}
	return foot, foot.readStart(f, size)
}

// readEnd looks for a footer of length bytes at the end of the file.
func (foot *footers) readEnd(f storage.File, size, length int64) error {
	if size < length {
		return nil
	}
	buf := make([]byte, length)
	if err := readFull(f, buf, size-length); err != nil {
		return err
	}
	foot.end, foot.endErr = decodeFooter(buf)
	if foot.end != nil {
		foot.endAt = size - length
	}
	return nil
}

// readStart looks for the copy of the footer, and for a dynamic header in its
// usual place.
func (foot *footers) readStart(f storage.File, size int64) error {
	if size < format.FooterSize {
		return nil
	}
	buf := make([]byte, min(size, format.FooterSize+format.HeaderSize))
	if err := readFull(f, buf, 0); err != nil {
		return err
	}
	foot.start, foot.startErr = decodeFooter(buf[:format.FooterSize])
	if rest := buf[format.FooterSize:]; len(rest) == format.HeaderSize {
		_, err := format.DecodeHeader(rest)
		foot.header = !errors.Is(err, format.ErrCookie)
	}
	return nil
}

// decodeFooter is a footer that can be trusted, or why there is none.
func decodeFooter(b []byte) (*format.Footer, error) {
	f, err := format.DecodeFooter(b)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// choose is the footer that counts, as tapdisk chooses it, and the offset at
// which data must end.
func (foot *footers) choose() (f *format.Footer, dataEnd int64) {
	if foot.end != nil {
		return foot.end, foot.endAt
	}
	return foot.start, foot.endAt
}

// notVHD tells whether nothing in the file speaks of a VHD.
func (foot *footers) notVHD() bool {
	return errors.Is(foot.endErr, format.ErrCookie) && errors.Is(foot.startErr, format.ErrCookie) && !foot.header
}

// checkFileSize: a file is a whole number of sectors, or ends with a footer
// that lacks its last byte.
func (img *image) checkFileSize() {
	if img.info.Size%format.SectorSize != 0 && !img.foot.short {
		img.at("file").damage("size of %d bytes is not a multiple of %d — the file was cut short or has something appended",
			img.info.Size, format.SectorSize)
	}
}

// checkFooters judges the two footers against each other.
func (img *image) checkFooters() {
	foot := &img.foot
	switch {
	case foot.end == nil && foot.start == nil:
		img.at("footer").damage("no valid footer at the end (%s) nor at the start (%s) — restore the image from a backup",
			detail(foot.endErr), detail(foot.startErr))
	case foot.end == nil:
		img.checkEndMissing()
	case foot.end.Type == format.Fixed:
		img.checkShort()
		if foot.start != nil {
			img.compareFooters()
		}
	case foot.start == nil:
		img.checkShort()
		img.at("footer copy").damage("no valid copy at the start (%s); qemu refuses the image — copy the disk to a new image",
			detail(foot.startErr))
	default:
		img.checkShort()
		img.compareFooters()
	}
}

// checkEndMissing is for an image that is left with the copy at its start: a
// host that crashed under tapdisk leaves those.
func (img *image) checkEndMissing() {
	if img.foot.start.Type == format.Fixed {
		img.at("footer").damage("a fixed disk has none at its end (%s) — copy the disk to a new image", detail(img.foot.endErr))
		return
	}
	img.at("footer").warn("no valid one at the end of the file (%s); the copy at the start is good — mounted for writing, the image gets one with the first write",
		detail(img.foot.endErr))
}

// checkShort is for old Virtual PC images.
func (img *image) checkShort() {
	if img.foot.short {
		img.at("footer").warn("has %d bytes, as old versions of Virtual PC wrote it — copy the disk to a new image", format.ShortFooterSize)
	}
}

// compareFooters: Virtual PC leaves an old timestamp in the copy, a resize of
// some tools old sizes. Another type or id means that one of the two belongs
// to another image.
func (img *image) compareFooters() {
	end, start := img.foot.end, img.foot.start
	at := img.at("footer copy")
	if end.Type != start.Type || end.ID != start.ID {
		at.damage("is another disk's: %v %v, but the footer says %v %v — find out which is right, and copy the disk to a new image",
			start.Type, start.ID, end.Type, end.ID)
		return
	}
	if end.Type == format.Fixed {
		return // what a fixed disk has at its start is data
	}
	different := footerDifferences(end, start)
	switch {
	case len(different) > 0:
		at.warn("differs from the footer in %s; programs that read the copy (qemu) see another disk — copy the disk to a new image",
			strings.Join(different, ", "))
	case end.Timestamp != start.Timestamp:
		at.note("has another timestamp than the footer (%v, %v), as Virtual PC leaves it",
			start.Timestamp, end.Timestamp)
	}
}

// footerDifferences names what two footers of one disk disagree on, with both
// values, beside the timestamp and what early XenServer versions did to the
// hidden mark.
func footerDifferences(end, start *format.Footer) []string {
	var list []string
	differ := func(what string, a, b any) {
		if a != b {
			list = append(list, fmt.Sprintf("%s (%v, footer %v)", what, a, b))
		}
	}
	differ("current size", start.CurrentSize, end.CurrentSize)
	differ("original size", start.OriginalSize, end.OriginalSize)
	differ("data offset", start.DataOffset, end.DataOffset)
	differ("geometry", chs(start.Geometry), chs(end.Geometry))
	differ("creator", start.Creator, end.Creator)
	differ("creator version", start.CreatorVersion, end.CreatorVersion)
	differ("creator host", start.CreatorOS, end.CreatorOS)
	differ("format version", start.Version, end.Version)
	differ("features", start.Features, end.Features)
	differ("saved state", start.SavedState, end.SavedState)
	differ("mark of a resize (v_poison)", start.Poisoned, end.Poisoned)
	if !start.HiddenChecksum && !end.HiddenChecksum {
		differ("hidden mark", start.Hidden, end.Hidden)
	}
	if start.Reserved != end.Reserved {
		list = append(list, "reserved bytes")
	}
	return list
}

// readFull fills p from off, which lies in the file as it was measured.
func readFull(f storage.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: read at %d: %w", f.Name(), off, io.ErrUnexpectedEOF)
	}
	return err
}

// detail is what an error of the format says, with its field but without the
// structure's name, which the finding has already.
func detail(err error) string {
	var damage *format.Error
	if !errors.As(err, &damage) {
		return err.Error()
	}
	text := damage.Err.Error()
	if damage.Field != "" {
		text = damage.Field + ": " + text
	}
	if damage.Detail != "" {
		text += ": " + damage.Detail
	}
	return text
}
