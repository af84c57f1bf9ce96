package vhd

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// maxDiskSize bounds the size of a disk, in bytes: 2 TiB, which some writers
// reach, although Microsoft's own limit is 2040 GiB.
const maxDiskSize = 2 << 40

// layer is one file of a chain. Its fields are constant after open, but for
// what blockMap guards itself.
type layer struct {
	name     string
	dir      string // that the file is in, where an image and not the user named it
	file     storage.File
	info     storage.Info // as of open
	kind     Kind
	size     int64 // bytes of disk
	footer   *format.Footer
	footerAt FooterSource
	header   *format.Header // dynamic and differencing
	blocks   *blockMap      // dynamic and differencing
	batmap   *batmap        // nil: none that is valid
	// batmapSpans are what a batmap's header claims, whether or not it is valid;
	// where there is no header, the place for one.
	batmapSpans []span
	noBatmap    bool  // the creator keeps a batmap, but there is no header
	copyBad     bool  // the footer's copy at the start is not good
	conflict    error // its two footers contradict one another
	warnings    []string
}

func (l *layer) errorf(place string, err error) error {
	return &ImageError{Image: l.name, Place: place, Err: err}
}

func (l *layer) warnf(text string, args ...any) {
	l.warnings = append(l.warnings, l.name+": "+fmt.Sprintf(text, args...))
}

// read fills b from off of the file; place names what is read there.
func (l *layer) read(b []byte, off int64, place string) error {
	n, err := l.file.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = corrupt("truncated: %d bytes at offset %d pass the end of the file (%d bytes)", len(b), off, l.info.Size)
	}
	return l.errorf(place, translate(err))
}

// openRaw makes a layer of a file whose bytes are the disk's.
func openRaw(f storage.File, info storage.Info) (*layer, error) {
	l := &layer{name: f.Name(), file: f, info: info, kind: KindRaw}
	l.size = info.Size &^ (format.SectorSize - 1)
	if l.size == 0 {
		return nil, l.errorf("", corrupt("a raw image must hold a sector at least: %d bytes", info.Size))
	}
	return l, nil
}

// openLayer reads the footer and the dynamic header of a VHD, checking each
// against the file. It does not look at parents, nor yet at the BAT: see load.
func openLayer(f storage.File, info storage.Info, from format.SizeFrom) (*layer, error) {
	l := &layer{name: f.Name(), file: f, info: info}
	if err := l.readFooter(); err != nil {
		return nil, err
	}
	l.size = l.footer.Size(from)
	if err := l.checkSize(); err != nil {
		return nil, err
	}
	if l.footer.Type == format.Fixed {
		return l, l.checkFixed()
	}
	l.kind = KindDynamic
	if l.footer.Type == format.Differencing {
		l.kind = KindDifferencing
	}
	if err := l.readHeader(); err != nil {
		return nil, err
	}
	return l, l.findBAT()
}

// load reads the BAT of a sparse image, and the batmap.
func (l *layer) load() error {
	if l.blocks == nil {
		return nil
	}
	if err := l.readBAT(); err != nil {
		return err
	}
	return l.readBatmap()
}

func (l *layer) checkSize() error {
	size := l.size
	switch {
	case size < 0 || size > maxDiskSize:
		return l.errorf("footer", corrupt("disk of %d bytes is beyond the format's 2 TiB", uint64(size)))
	case size < format.SectorSize:
		return l.errorf("footer", corrupt("disk of %d bytes is smaller than a sector", size))
	case l.footer.CurrentSize%format.SectorSize != 0:
		l.warnf("the disk's size in the footer, %d bytes, is no multiple of 512: shown as %d", l.footer.CurrentSize, size)
	}
	return nil
}

func (l *layer) checkFixed() error {
	l.kind = KindFixed
	if end := l.footerStart(); l.size > end {
		return l.errorf("footer", corrupt("truncated: a fixed disk of %d bytes in a file with %d before its footer", l.size, end))
	}
	return nil
}

// footerStart is where the end footer begins, or the end of the file if it has
// none. No block reaches past it.
func (l *layer) footerStart() int64 {
	switch l.footerAt {
	case FromEnd:
		return l.info.Size - format.FooterSize
	case FromShortEnd:
		return l.info.Size - (format.FooterSize - 1)
	default:
		return l.info.Size
	}
}

func (l *layer) readHeader() error {
	off := l.footer.DataOffset
	if off < format.FooterSize || off%format.SectorSize != 0 || off > math.MaxInt64-format.HeaderSize {
		return l.errorf("footer", corrupt("data offset %d is no place for the dynamic header", off))
	}
	b := make([]byte, format.HeaderSize)
	if err := l.read(b, int64(off), "dynamic header"); err != nil {
		return err
	}
	h, err := format.DecodeHeader(b)
	if err == nil {
		err = h.Validate()
	}
	if err != nil {
		return l.errorf("", &renamed{ErrCorrupt, err})
	}
	l.header = h
	return nil
}

func (l *layer) describe(parent string) Layer {
	d := Layer{
		ID:   l.info.ID,
		Name: l.name, Kind: l.kind, Size: l.size, FileSize: l.info.Size, FileAllocated: l.info.Allocated,
		Footer: l.footer, FooterAt: l.footerAt, Header: l.header, Batmap: l.batmap != nil, Parent: parent,
	}
	if l.blocks != nil {
		d.Blocks, d.Allocated = l.blocks.count, l.blocks.allocated()
	}
	return d
}
