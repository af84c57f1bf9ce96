package blockdevtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// maxShared is the length of the part of a device that all workers of
// checkOverlap fight for, in bytes.
const maxShared = 64 * blockdev.SectorSize

// overlap is a part of a device that several workers write at once. Each write
// stamps its sectors with its number, so that every sector tells where each of
// its bytes is from.
type overlap struct {
	dev    blockdev.Device
	c      *config
	m      *model
	off, n int64 // the shared range, whole sectors

	// mu guards last.
	mu   sync.Mutex
	last uint32 // the number of the latest write, from 1
}

// checkOverlap lets workers write, discard and read the same sectors at the
// same time. Each sector must be as some write left it, or as a discard may.
func checkOverlap(t *testing.T, c *config, size int64) error {
	return c.withDevice(t, size, func(dev blockdev.Device, m *model) error {
		o := &overlap{dev: dev, c: c, m: m, n: min(size, maxShared)}
		// In the middle of a device that has one: over the border of a block.
		o.off = max(0, min(c.blockSize-o.n/2, size-o.n)) / blockdev.SectorSize * blockdev.SectorSize
		fs := make([]func() error, 0, 2*workers)
		for w := range workers {
			fs = append(fs, func() error { return o.read(w, rounds) })
			if !c.readOnly {
				fs = append(fs, func() error { return o.change(w) })
			}
		}
		if err := withBystanders(dev, fs...); err != nil {
			return err
		}
		if err := o.verify(o.off, o.n, false); err != nil {
			return fmt.Errorf("after all writes: %w", err)
		}
		// Around it, a sector was discarded or not.
		m.discard |= DiscardKeeps
		if c.readOnly {
			m.discard = DiscardKeeps
		}
		return errors.Join(m.adopt(dev, 0, o.off), m.adopt(dev, o.off+o.n, size-o.off-o.n))
	})
}

// span is a random range of whole sectors in the shared one.
func (o *overlap) span(rnd *rand.Rand) (off, n int64) {
	sectors := o.n / blockdev.SectorSize
	first := rnd.Int64N(sectors)
	count := 1 + rnd.Int64N(min(sectors-first, 16))
	return o.off + first*blockdev.SectorSize, count * blockdev.SectorSize
}

func (o *overlap) change(w int) error {
	rnd := rand.New(rand.NewPCG(o.c.seed, uint64(w)))
	for range rounds {
		off, n := o.span(rnd)
		if k := rnd.IntN(16); k < 2 {
			if k == 0 { // a whole block, or what there is of one
				off -= off % o.c.blockSize
				n = min(o.c.blockSize, o.dev.Size()-off)
			}
			if _, err := blockdev.Discard(o.dev, off, n); err != nil {
				return fmt.Errorf("discard beside writers: %w", err)
			}
			continue
		}
		o.mu.Lock()
		o.last++
		number := o.last
		o.mu.Unlock()
		p := make([]byte, n)
		stamp(p, off, number)
		if _, err := o.dev.WriteAt(p, off); err != nil {
			return fmt.Errorf("WriteAt beside writers: %w", err)
		}
	}
	return nil
}

func (o *overlap) read(w, n int) error {
	rnd := rand.New(rand.NewPCG(o.c.seed, uint64(w)+1<<32))
	for range n {
		off, length := o.span(rnd)
		if err := o.verify(off, length, o.c.tornReads); err != nil {
			return fmt.Errorf("beside writers: %w", err)
		}
	}
	return nil
}

// verify reads a range of whole sectors and checks where each is from. A torn
// one may be from several writes.
func (o *overlap) verify(off, n int64, torn bool) error {
	p, err := readExactly(o.dev.ReadAt, off, n)
	if err != nil {
		return err
	}
	o.mu.Lock()
	last := o.last // at least what the read can have seen
	o.mu.Unlock()
	unit := int64(blockdev.SectorSize)
	if torn {
		unit = stampSize
	}
	for at := off; at < off+n; at += unit {
		if got := p[at-off:][:unit]; !o.known(got, at, last) {
			return fmt.Errorf("the sector at offset %d is of no single write: % x … % x",
				at, got[:8], got[len(got)-8:])
		}
	}
	return nil
}

// known tells whether p, read at off, is of the initial content, zeros, or
// whole of one write.
func (o *overlap) known(p []byte, off int64, last uint32) bool {
	if bytes.Equal(p, o.m.initial[off:][:len(p)]) ||
		o.c.discard&DiscardZeros != 0 && len(bytes.Trim(p, "\x00")) == 0 {
		return true
	}
	number := binary.LittleEndian.Uint32(p)
	want := make([]byte, len(p))
	stamp(want, off, number)
	return number >= 1 && number <= last && bytes.Equal(p, want)
}

// stampSize is what tells a write and a place, in bytes.
const stampSize = 8

// stamp fills p, at off, with the number of a write and each place.
func stamp(p []byte, off int64, number uint32) {
	for i := 0; i < len(p); i += stampSize {
		binary.LittleEndian.PutUint32(p[i:], number)
		binary.LittleEndian.PutUint32(p[i+4:], uint32((off+int64(i))/stampSize))
	}
}
