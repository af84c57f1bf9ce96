package describe

import (
	"errors"
	"fmt"
	"io"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Salvage describes what can be read of an image that can't be opened: its
// footer and its header, as they stand, wrong checksums and all. What is wrong
// with them is in the warnings. It reports false where there is no structure
// of a VHD at all.
func Salvage(name string) (Disk, bool) {
	f, err := storage.OS.Open(name, 0)
	if err != nil {
		return Disk{}, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Disk{}, false
	}
	s := salvage{file: f, name: name, disk: Disk{Image: name, Warnings: []string{}, Partial: true}}
	s.layer = Layer{Image: name, Type: "unknown", FileSize: info.Size, FileAllocated: info.Allocated}
	foot := s.footer(info.Size)
	if foot == nil {
		return Disk{}, false
	}
	s.layer.Type, s.layer.VirtualSize, s.layer.Footer = foot.Type.String(), foot.Size(format.SizeAuto), footer(foot)
	if foot.Type != format.Fixed {
		s.header(foot.DataOffset)
	}
	s.disk.VirtualSize = s.layer.VirtualSize
	s.disk.Layers = []Layer{s.layer}
	return s.disk, true
}

type salvage struct {
	file  storage.File
	name  string
	disk  Disk
	layer Layer
}

func (s *salvage) warn(place string, err error) {
	s.disk.Warnings = append(s.disk.Warnings, fmt.Sprintf("%s: %s: %v", s.name, place, err))
}

// footer is the first footer that can be made out, a good one before a bad
// one; nil if there is none.
func (s *salvage) footer(fileSize int64) *format.Footer {
	var bad *format.Footer
	for _, place := range []struct {
		source vhd.FooterSource
		offset int64
		length int
	}{
		{vhd.FromEnd, fileSize - format.FooterSize, format.FooterSize},
		{vhd.FromShortEnd, fileSize - format.ShortFooterSize, format.ShortFooterSize},
		{vhd.FromCopy, 0, format.FooterSize},
	} {
		b, err := s.read(place.offset, place.length)
		if err != nil {
			continue
		}
		f, err := format.DecodeFooter(b)
		if err == nil {
			s.layer.FooterSource = place.source.String()
			return f
		}
		if f != nil && bad == nil {
			bad = f
			s.layer.FooterSource = place.source.String()
			s.warn("footer at the "+place.source.String(), err)
		}
	}
	return bad
}

func (s *salvage) header(offset uint64) {
	if offset > uint64(s.layer.FileSize) {
		s.warn("dynamic header", fmt.Errorf("its offset %d is past the end of the file (%d bytes)", offset, s.layer.FileSize))
		return
	}
	b, err := s.read(int64(offset), format.HeaderSize)
	if err != nil {
		s.warn("dynamic header", err)
		return
	}
	h, err := format.DecodeHeader(b)
	if err != nil {
		s.warn("dynamic header", err)
	}
	if h != nil {
		s.layer.Header = header(h, s.name)
		s.blocks(h)
	}
}

// maxBlocks is how many blocks are counted at most: as many as a disk may have
// that can be opened. They are read in a blink, also where they are a hole.
const maxBlocks = 8 << 20

// blocks counts the entries of the BAT, as far as it is in the file.
func (s *salvage) blocks(h *format.Header) {
	if h.Validate() != nil || s.layer.VirtualSize <= 0 {
		return // its numbers are no measure
	}
	left := h.Blocks(s.layer.VirtualSize)
	if most := min(int64(h.MaxTableEntries), maxBlocks); left > most {
		s.warn("BAT", fmt.Errorf("a disk of %d blocks, of which the first %d are counted", left, most))
		left = most
	}
	var entries [1024]uint32
	for at := int64(h.TableOffset); left > 0; at += int64(len(entries)) * 4 {
		n := min(left, int64(len(entries)))
		b, err := s.read(at, int(n)*4)
		if err != nil {
			s.warn("BAT", err)
			return
		}
		format.DecodeBAT(entries[:n], b)
		for _, e := range entries[:n] {
			if e != format.UnallocatedBlock {
				s.layer.AllocatedBlocks++
			}
		}
		s.layer.Blocks, left = s.layer.Blocks+n, left-n
	}
}

func (s *salvage) read(offset int64, length int) ([]byte, error) {
	if offset < 0 {
		return nil, errors.New("the file is too short")
	}
	b := make([]byte, length)
	_, err := s.file.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("cut off by the end of the file")
	}
	return b, err
}
