package blockdevtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// verifyChunk is how much is read at once to be compared, in bytes. It is no
// power of two, so that the reads meet borders anywhere.
const verifyChunk = 200<<10 + 1

// garbage is what a buffer holds before it is read into.
const garbage = 0xa5

// model is what a device must hold.
type model struct {
	want    []byte
	initial []byte // what a new device holds
	discard DiscardModel
}

func newModel(size int64, initial io.ReaderAt, discard DiscardModel) (*model, error) {
	m := &model{want: make([]byte, size), initial: make([]byte, size), discard: discard}
	if initial != nil {
		n, err := initial.ReadAt(m.initial, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("initial content: %w", err)
		}
		clear(m.initial[n:])
	}
	copy(m.want, m.initial)
	return m, nil
}

// size is the device's, in bytes.
func (m *model) size() int64 { return int64(len(m.want)) }

// verify compares [off, off+n) of dev with the model.
func (m *model) verify(dev blockdev.Device, off, n int64) error {
	for end := off + n; off < end; {
		c := min(end-off, verifyChunk)
		got, err := readExactly(dev.ReadAt, off, c)
		if err != nil {
			return err
		}
		if err := compare(got, m.want[off:off+c], off); err != nil {
			return err
		}
		off += c
	}
	return nil
}

// verifyAround is verify for a range and a little on both sides of it.
func (m *model) verifyAround(dev blockdev.Device, off, n int64) error {
	const margin = 4096
	first, end := max(0, off-margin), min(m.size(), off+n+margin)
	return m.verify(dev, first, end-first)
}

// adopt takes over what a Discard of [off, off+n) left in its whole sectors,
// each of which must be something that a Discard may leave.
func (m *model) adopt(dev blockdev.Device, off, n int64) error {
	first, end := wholeSectors(off, n)
	if first >= end {
		return nil
	}
	got, err := readExactly(dev.ReadAt, first, end-first)
	if err != nil {
		return err
	}
	zero := make([]byte, blockdev.SectorSize)
	for at := first; at < end; at += blockdev.SectorSize {
		sector := got[at-first:][:blockdev.SectorSize]
		want := m.want[at:][:blockdev.SectorSize]
		switch {
		case m.discard&DiscardKeeps != 0 && bytes.Equal(sector, want):
		case m.discard&DiscardZeros != 0 && bytes.Equal(sector, zero):
		case m.discard&DiscardInitial != 0 && bytes.Equal(sector, m.initial[at:][:blockdev.SectorSize]):
		default:
			return fmt.Errorf("sector at offset %d begins with % x after Discard, which is none of what it may be (before: % x)", at, sector[:8], want[:8])
		}
		copy(want, sector)
	}
	return nil
}

// wholeSectors is the part of [off, off+n) that is whole sectors; none if end
// is not after first.
func wholeSectors(off, n int64) (first, end int64) {
	first = (off + blockdev.SectorSize - 1) / blockdev.SectorSize * blockdev.SectorSize
	return first, (off + n) / blockdev.SectorSize * blockdev.SectorSize
}

// readExactly reads [off, off+n) by read into a buffer that holds garbage and
// has room for more, and checks that all of the range and no more was filled.
func readExactly(read func([]byte, int64) (int, error), off, n int64) ([]byte, error) {
	buf := bytes.Repeat([]byte{garbage}, int(n)+16)
	got, err := read(buf[:n], off)
	if err != nil {
		return nil, fmt.Errorf("reading %d bytes at offset %d: %w", n, off, err)
	}
	if int64(got) != n {
		return nil, fmt.Errorf("reading %d bytes at offset %d: a short read of %d", n, off, got)
	}
	if bytes.Count(buf[n:], []byte{garbage}) != 16 {
		return nil, fmt.Errorf("reading %d bytes at offset %d: wrote past the end of the buffer", n, off)
	}
	return buf[:n], nil
}

// compare tells where got, read at off, isn't want.
func compare(got, want []byte, off int64) error {
	if bytes.Equal(got, want) {
		return nil
	}
	first, bad := -1, 0
	for i := range got {
		if got[i] != want[i] {
			bad++
			if first < 0 {
				first = i
			}
		}
	}
	end := min(first+8, len(got))
	return fmt.Errorf("wrong content at offset %d: % x, want % x (%d of %d bytes differ)",
		off+int64(first), got[first:end], want[first:end], bad, len(got))
}
