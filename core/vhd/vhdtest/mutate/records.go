package mutate

import (
	"bytes"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const sector = format.SectorSize

// records are the structures of an image, decoded, and where they are. One
// that the image lacks is nil, and so is what is found through it.
type records struct {
	data []byte // the file; the records' bytes in it are those of the start

	front    *format.Footer // at 0
	end      *format.Footer
	endAt    int
	header   *format.Header
	headerAt int
	bat      []uint32
	batAt    int
	batmap   *format.BatmapHeader
	batmapAt int

	// landmarks are offsets in the file and counts of it at which something
	// begins or ends.
	landmarks []uint64
	// after is what is done to the file when the records are in it.
	after []func(data []byte) []byte
}

// find decodes what there is, by the same ways as a reader.
func find(image []byte) *records {
	r := &records{data: bytes.Clone(image), endAt: len(image) - format.FooterSize}
	r.front = r.footerAt(0)
	if r.endAt > 0 {
		r.end = r.footerAt(r.endAt)
	}
	footer := r.front
	if footer == nil {
		footer = r.end
	}
	if footer != nil && footer.Type != format.Fixed {
		r.findHeader(footer)
	}
	r.findLandmarks(footer)
	return r
}

func (r *records) footerAt(at int) *format.Footer {
	if !r.has(uint64(at), format.FooterSize) {
		return nil
	}
	f, err := format.DecodeFooter(r.data[at:][:format.FooterSize])
	if err != nil {
		return nil
	}
	return f
}

func (r *records) findHeader(footer *format.Footer) {
	if !r.has(footer.DataOffset, format.HeaderSize) {
		return
	}
	r.headerAt = int(footer.DataOffset)
	h, err := format.DecodeHeader(r.data[r.headerAt:][:format.HeaderSize])
	if err != nil || !r.has(h.TableOffset, 4*int(h.MaxTableEntries)) {
		return
	}
	r.header, r.batAt = h, int(h.TableOffset)
	r.bat = make([]uint32, h.MaxTableEntries)
	format.DecodeBAT(r.bat, r.data[r.batAt:])
	at := r.batAt + int(format.BATSize(int64(len(r.bat))))
	if r.has(uint64(at), format.BatmapHeaderSize) {
		r.batmapAt = at
		r.batmap, _ = format.DecodeBatmapHeader(r.data[at:][:format.BatmapHeaderSize]) // nil: there is none
	}
}

// has tells whether [at, at+n) lies in the file.
func (r *records) has(at uint64, n int) bool {
	return n >= 0 && at <= uint64(len(r.data)) && n <= len(r.data)-int(at)
}

func (r *records) findLandmarks(footer *format.Footer) {
	r.landmarks = []uint64{0, sector, uint64(len(r.data)), uint64(max(0, r.endAt))}
	if footer != nil {
		r.landmarks = append(r.landmarks, footer.CurrentSize, footer.DataOffset)
	}
	if h := r.header; h != nil {
		r.landmarks = append(r.landmarks, h.TableOffset, h.TableOffset+uint64(4*len(r.bat)), uint64(h.MaxTableEntries), uint64(h.BlockSize), uint64(h.BitmapSize()))
		for _, l := range h.Locators {
			if l.Code != format.CodeNone {
				r.landmarks = append(r.landmarks, l.DataOffset)
			}
		}
	}
	if r.batmap != nil {
		r.landmarks = append(r.landmarks, uint64(r.batmapAt), r.batmap.Offset)
	}
	for _, s := range r.bat {
		if s != format.UnallocatedBlock && len(r.landmarks) < 64 {
			r.landmarks = append(r.landmarks, uint64(s)*sector)
		}
	}
}

// encode is the file with the records in their places.
func (r *records) encode() []byte {
	format.EncodeBAT(r.data[r.batAt:], r.bat)
	if r.batmap != nil {
		r.batmap.Encode(r.data[r.batmapAt:])
	}
	if r.header != nil {
		r.header.Encode(r.data[r.headerAt:])
	}
	if r.front != nil {
		r.front.Encode(r.data)
	}
	if r.end != nil {
		r.end.Encode(r.data[r.endAt:])
	}
	data := r.data
	for _, f := range r.after {
		data = f(data)
	}
	return data
}
