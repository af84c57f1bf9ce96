package vhd

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// readFooter finds the footer in use: the one at the end as tapdisk does,
// written whole or with 511 bytes; else the copy at the start.
func (l *layer) readFooter() error {
	if l.info.Size < format.FooterSize-1 {
		return l.notVHD()
	}
	end, at, endErr := l.readEndFooter()
	front, frontErr := l.readFooterCopy()
	switch {
	case end != nil:
		l.footer, l.footerAt = end, at
		l.compareCopies(end, front, frontErr)
	case front != nil:
		l.footer, l.footerAt = front, FromCopy
		l.warnf("no footer at the end of the file (%v): using the copy at its start", endErr)
	default:
		return l.noFooter(endErr, frontErr)
	}
	if err := l.footer.Validate(); err != nil {
		return l.errorf("", &renamed{ErrCorrupt, err})
	}
	return nil
}

func (l *layer) readEndFooter() (*format.Footer, FooterSource, error) {
	var b [format.FooterSize]byte
	if l.info.Size >= format.FooterSize {
		if err := l.read(b[:], l.info.Size-format.FooterSize, "footer"); err != nil {
			return nil, 0, err
		}
		f, err := format.DecodeFooter(b[:])
		if err == nil {
			return f, FromEnd, nil
		}
		if errors.Is(err, format.ErrChecksum) || l.info.Size%format.SectorSize != format.SectorSize-1 {
			return nil, 0, err
		}
	}
	short := b[:format.FooterSize-1]
	if err := l.read(short, l.info.Size-int64(len(short)), "footer"); err != nil {
		return nil, 0, err
	}
	f, err := format.DecodeFooter(short)
	return f0(f, err), FromShortEnd, err
}

// readFooterCopy reads the footer at the start of the file, where dynamic and
// differencing images keep a copy. A fixed disk's first sector is its guest's.
func (l *layer) readFooterCopy() (*format.Footer, error) {
	var b [format.FooterSize]byte
	if l.info.Size < format.FooterSize {
		return nil, format.ErrCookie
	}
	if err := l.read(b[:], 0, "footer copy"); err != nil {
		return nil, err
	}
	f, err := format.DecodeFooter(b[:])
	if err == nil && f.Type != format.Dynamic && f.Type != format.Differencing {
		err = format.ErrField
	}
	return f0(f, err), err
}

// f0 is f where it was decoded without an error.
func f0(f *format.Footer, err error) *format.Footer {
	if err != nil {
		return nil
	}
	return f
}

// compareCopies notes where the copy at the start is not what it should be.
func (l *layer) compareCopies(end, front *format.Footer, frontErr error) {
	if end.Type == format.Fixed && front == nil {
		return // a fixed disk has no copy: its guest's first sector is there
	}
	if front == nil {
		l.copyBad = true
		l.warnf("the footer's copy at the start of the file is not good: %v", frontErr)
		return
	}
	if front.Type != end.Type || front.ID != end.ID {
		both := fmt.Sprintf("the footer (%v, %v) and its copy (%v, %v) are of different images", end.Type, end.ID, front.Type, front.ID)
		l.conflict = l.errorf("footer", corrupt("%s: open it read-only", both))
		l.warnf("%s: shown is what the one at the end says", both)
		return
	}
	var a, b [format.FooterSize]byte
	end.Encode(a[:])
	front.Encode(b[:])
	if !bytes.Equal(a[:], b[:]) {
		l.copyBad = true // it would count if the one at the end were lost
		l.warnf("the footer and its copy differ: the one at the end counts")
	}
}

// noFooter says why there is no footer: nothing like one, or a damaged one.
func (l *layer) noFooter(endErr, frontErr error) error {
	for _, err := range []error{endErr, frontErr} {
		if err != nil && !errors.Is(err, format.ErrCookie) && !errors.Is(err, format.ErrField) {
			var image *ImageError
			if errors.As(err, &image) {
				return err
			}
			return l.errorf("", &renamed{ErrCorrupt, err})
		}
	}
	return l.notVHD()
}

func (l *layer) notVHD() error {
	return l.errorf("", &kindError{ErrNotVHD, fmt.Sprintf(
		"not a VHD image: no footer (cookie \"conectix\") at the end or at the start of its %d bytes", l.info.Size)})
}
