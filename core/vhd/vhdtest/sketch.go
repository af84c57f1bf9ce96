package vhdtest

import (
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// sketch is a sparse image as another program would lay it out, put together
// by hand: the engine's writing has no part in it.
type sketch struct {
	footer *format.Footer
	copy   *format.Footer // at the start; nil: as the footer
	header *format.Header
	bat    []uint32
	batmap format.Bitmap // nil: none
	blocks []byte        // what follows the tables
}

// tapVersion is the creator version of today's tapdisk: a batmap is there.
const tapVersion = 1<<16 | 3

func newSketch(t format.DiskType, sectors, block int) *sketch {
	size := int64(sectors) * format.SectorSize
	s := &sketch{
		footer: format.NewFooter(size, t, time.Unix(1_700_000_000, 0)),
		header: format.NewHeader(size, int64(block)*format.SectorSize),
	}
	s.bat = make([]uint32, s.header.MaxTableEntries)
	for i := range s.bat {
		s.bat[i] = format.UnallocatedBlock
	}
	return s
}

// byTapdisk makes it an image of tapdisk's, with room for a batmap, in which
// the blocks named are called full.
func (s *sketch) byTapdisk(full ...int) *sketch {
	s.footer.Creator, s.footer.CreatorVersion, s.footer.CreatorOS = format.CreatorTap, tapVersion, format.HostOS{}
	s.batmap = make(format.Bitmap, format.BatmapSectors(int64(s.footer.CurrentSize))*format.SectorSize)
	for _, b := range full {
		s.batmap.Set(b, 1)
	}
	return s
}

// resized makes it a disk that had other sectors once, whose footer's copy at
// the start was left as it was then: valid, but the one at the end counts.
func (s *sketch) resized(sectors int) *sketch {
	size := int64(sectors) * format.SectorSize
	s.footer.OriginalSize = uint64(size)
	old := *s.footer
	old.CurrentSize, old.Geometry = uint64(size), format.GeometryFor(size)
	s.copy = &old
	return s
}

// tables is where the blocks begin, in bytes of the file.
func (s *sketch) tables() int64 {
	end := int64(s.header.TableOffset) + format.BATSize(int64(len(s.bat)))
	if s.batmap != nil {
		end += format.BatmapHeaderSize + int64(len(s.batmap))
	}
	return end
}

// block puts block b next, with these of its sectors: where a tag is, the bit
// is set.
func (s *sketch) block(b int, sectors map[int]Tag) *sketch {
	s.bat[b] = uint32((s.tables() + int64(len(s.blocks))) / format.SectorSize)
	bits := make(format.Bitmap, s.header.BitmapSize())
	tags := make([]Tag, s.header.BlockSize/format.SectorSize)
	for i, v := range sectors {
		bits.Set(i, 1)
		tags[i] = v
	}
	s.blocks = append(append(s.blocks, bits...), Encode(tags)...)
	return s
}

// whole is a block's sectors, tagged from first on.
func whole(sectors, first int) map[int]Tag {
	tags := map[int]Tag{}
	for i := range sectors {
		tags[i] = Whole(uint32(first + i))
	}
	return tags
}

// bytes is the file.
func (s *sketch) bytes() []byte {
	at := int(s.header.TableOffset)
	file := make([]byte, s.tables())
	if s.copy != nil {
		s.copy.Encode(file)
	} else {
		s.footer.Encode(file)
	}
	s.header.Encode(file[s.footer.DataOffset:])
	n := int(format.BATSize(int64(len(s.bat))))
	for i := range file[at : at+n] {
		file[at+i] = 0xff
	}
	format.EncodeBAT(file[at:], s.bat)
	if s.batmap != nil {
		h := format.BatmapHeader{
			Offset: uint64(at + n + format.BatmapHeaderSize), Sectors: uint32(len(s.batmap) / format.SectorSize),
			Version: format.BatmapVersion, Checksum: format.BatmapChecksum(s.batmap, format.BatmapVersion),
		}
		h.Encode(file[at+n : at+n+format.BatmapHeaderSize])
		copy(file[at+n+format.BatmapHeaderSize:], s.batmap)
	}
	file = append(file, s.blocks...)
	end := make([]byte, format.FooterSize)
	s.footer.Encode(end)
	return append(file, end...)
}

// write makes the image, as edit leaves it; nil leaves it as it is.
func (s *sketch) write(fsys storage.FS, edit func(b []byte) []byte) error {
	b := s.bytes()
	if edit != nil {
		b = edit(b)
	}
	return writeFile(fsys, Name, b)
}

func writeFile(fsys storage.FS, name string, b []byte) error {
	f, err := fsys.Create(name, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// shortFooter takes the footer's last byte away, as old Virtual PC did.
func shortFooter(b []byte) []byte { return b[:len(b)-1] }

// noEndFooter puts other bytes where the end footer was, and more behind: a
// host crashed under tapdisk.
func noEndFooter(b []byte) []byte {
	return append(b[:len(b)-format.FooterSize], Encode([]Tag{Whole(0xbad), Whole(0xbad), Whole(0xbad), Whole(0xbad), Whole(0xbad)})...)
}

// badCopy spoils the footer's copy at the start.
func badCopy(b []byte) []byte {
	b[100] ^= 1
	return b
}
