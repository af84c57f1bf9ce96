package blockdevtest

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// span is a range, in bytes.
type span struct{ off, n int64 }

// outside are ranges that don't lie within a device of size bytes; those of
// buffers are short enough to have one.
func outside(size int64) (buffers, lengths []span) {
	buffers = []span{
		{-1, 0}, {-1, 1}, {-1, 2}, {-blockdev.SectorSize, 2 * blockdev.SectorSize}, {math.MinInt64, 1},
		{size, 1}, {size - 1, 2}, {size - blockdev.SectorSize, blockdev.SectorSize + 1}, {0, size + 1},
		{size + 1, 0}, {size + 1, 1}, {size + blockdev.SectorSize, blockdev.SectorSize},
		{math.MaxInt64, 0}, {math.MaxInt64, 1}, {math.MaxInt64 - 511, blockdev.SectorSize},
	}
	lengths = []span{
		{0, -1}, {size, -1}, {blockdev.SectorSize, -blockdev.SectorSize}, {0, math.MinInt64},
		{0, math.MaxInt64}, {1, math.MaxInt64}, {size, math.MaxInt64}, {math.MaxInt64, math.MaxInt64},
		{size - 1, math.MaxInt64 - size + 2}, {math.MinInt64, math.MaxInt64},
	}
	return buffers, append(lengths, buffers...)
}

// checkRanges checks that what doesn't lie within the device is refused whole.
func checkRanges(t *testing.T, c *config, size int64) error {
	return c.withDevice(t, size, func(dev blockdev.Device, m *model) error {
		if !c.readOnly {
			whole := Step{Op: Write, Len: size, Fill: c.seed}
			if _, err := dev.WriteAt(whole.bytes(), 0); err != nil {
				return err
			}
			copy(m.want, whole.bytes())
		}
		buffers, lengths := outside(size)
		for _, s := range buffers {
			if err := refusesBuffer(dev, c, s); err != nil {
				return err
			}
		}
		for _, s := range lengths {
			if err := refusesLength(dev, c, s); err != nil {
				return err
			}
		}
		if err := acceptsNothing(dev, c, size); err != nil {
			return err
		}
		return m.verify(dev, 0, size)
	})
}

// refusesBuffer checks the methods that take a buffer.
func refusesBuffer(dev blockdev.Device, c *config, s span) error {
	n, err := dev.ReadAt(make([]byte, s.n), s.off)
	if !errors.Is(err, blockdev.ErrOutOfRange) || n != 0 {
		return fmt.Errorf("ReadAt of %d bytes at offset %d = %d, %v; want 0, %w", s.n, s.off, n, err, blockdev.ErrOutOfRange)
	}
	n, err = blockdev.ReadAtNowait(dev, make([]byte, s.n), s.off)
	if !errors.Is(err, blockdev.ErrOutOfRange) && !errors.Is(err, blockdev.ErrWouldBlock) || n != 0 {
		return fmt.Errorf("ReadAtNowait of %d bytes at offset %d = %d, %v; want 0, %w", s.n, s.off, n, err, blockdev.ErrOutOfRange)
	}
	n, err = dev.WriteAt(make([]byte, s.n), s.off)
	if !c.refusal(err) || n != 0 {
		return fmt.Errorf("WriteAt of %d bytes at offset %d = %d, %v; want 0, %w", s.n, s.off, n, err, blockdev.ErrOutOfRange)
	}
	n, err = blockdev.WriteAtNowait(dev, make([]byte, s.n), s.off)
	if !c.refusal(err) && !errors.Is(err, blockdev.ErrWouldBlock) || n != 0 {
		return fmt.Errorf("WriteAtNowait of %d bytes at offset %d = %d, %v; want 0, %w", s.n, s.off, n, err, blockdev.ErrOutOfRange)
	}
	return nil
}

// refusesLength checks the methods that take a length.
func refusesLength(dev blockdev.Device, c *config, s span) error {
	if _, err := blockdev.Discard(dev, s.off, s.n); !c.refusal(err) {
		return fmt.Errorf("discard of %d bytes at offset %d: %v, want %w", s.n, s.off, err, blockdev.ErrOutOfRange)
	}
	if err := blockdev.WriteZeroes(dev, s.off, s.n); !c.refusal(err) {
		return fmt.Errorf("WriteZeroes of %d bytes at offset %d: %v, want %w", s.n, s.off, err, blockdev.ErrOutOfRange)
	}
	yields := 0
	for e, err := range blockdev.Extents(dev, s.off, s.n) {
		if yields++; !errors.Is(err, blockdev.ErrOutOfRange) {
			return fmt.Errorf("extents of %d bytes at offset %d: %+v, %v, want %w", s.n, s.off, e, err, blockdev.ErrOutOfRange)
		}
	}
	if yields != 1 {
		return fmt.Errorf("extents of %d bytes at offset %d yields %d times, want one %w", s.n, s.off, yields, blockdev.ErrOutOfRange)
	}
	return nil
}

// refusal tells whether err is right for a change that lies outside.
func (c *config) refusal(err error) bool {
	return errors.Is(err, blockdev.ErrOutOfRange) || c.readOnly && errors.Is(err, blockdev.ErrReadOnly)
}

// acceptsNothing checks empty ranges, which lie within the device up to and at
// its end.
func acceptsNothing(dev blockdev.Device, c *config, size int64) error {
	for _, off := range []int64{0, 1, size - 1, size} {
		if n, err := dev.ReadAt(nil, off); n != 0 || err != nil {
			return fmt.Errorf("ReadAt of nothing at offset %d of %d = %d, %v", off, size, n, err)
		}
		for _, op := range []Op{Write, WriteZeroes, Discard} {
			err := change(dev, Step{Op: op, Off: off})
			if err != nil && !(c.readOnly && errors.Is(err, blockdev.ErrReadOnly)) {
				return fmt.Errorf("%v of nothing at offset %d of %d: %w", op, off, size, err)
			}
		}
		for e, err := range blockdev.Extents(dev, off, 0) {
			return fmt.Errorf("extents of nothing at offset %d of %d yields %+v, %v", off, size, e, err)
		}
	}
	return nil
}

// checkUsage checks that Allocated stays within the device, that reading and
// asking allocate nothing, and that a device full of data is all allocated.
func checkUsage(t *testing.T, c *config, size int64) error {
	return c.withDevice(t, size, func(dev blockdev.Device, m *model) error {
		before := blockdev.Allocated(dev)
		if before < 0 || before > size {
			return fmt.Errorf("Allocated() = %d of %d bytes", before, size)
		}
		err := errors.Join(m.verify(dev, 0, size), verifyExtents(dev, m, 0, size), verifyNowait(dev, m, 0, size))
		if err != nil {
			return err
		}
		if after := blockdev.Allocated(dev); after > before {
			return fmt.Errorf("Allocated() grew from %d to %d by reading", before, after)
		}
		if c.readOnly {
			return nil
		}
		if _, err := dev.WriteAt(Step{Op: Write, Len: size, Fill: c.seed}.bytes(), 0); err != nil {
			return err
		}
		if full := blockdev.Allocated(dev); full != size {
			return fmt.Errorf("Allocated() = %d, want all %d bytes, which were written", full, size)
		}
		return nil
	})
}
