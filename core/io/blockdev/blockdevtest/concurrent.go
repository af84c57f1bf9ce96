package blockdevtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	workers = 4
	rounds  = 150 // operations a worker
)

// crowd runs functions at the same time and waits for all of them.
func crowd(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// bystanders use a device in the ways that must not disturb its writers, until
// stop is closed.
func bystanders(dev blockdev.Device, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := dev.Flush(); err != nil {
			return fmt.Errorf("flush beside writers: %w", err)
		}
		at := int64(0)
		for e, err := range blockdev.Extents(dev, 0, dev.Size()) {
			if err != nil {
				return fmt.Errorf("extents beside writers: %w", err)
			}
			if e.Offset != at || e.Length <= 0 {
				return fmt.Errorf("extents beside writers: %+v follows offset %d", e, at)
			}
			at = e.End()
		}
		if at != dev.Size() {
			return fmt.Errorf("extents beside writers end at %d of %d", at, dev.Size())
		}
		if a := blockdev.Allocated(dev); a < 0 || a > dev.Size() {
			return fmt.Errorf("Allocated() = %d of %d beside writers", a, dev.Size())
		}
		runtime.Gosched() // on one processor, writers get their turn too
	}
}

// withBystanders runs fs together, beside two bystanders.
func withBystanders(dev blockdev.Device, fs ...func() error) error {
	stop := make(chan struct{})
	var err error
	around := crowd(
		func() error { return bystanders(dev, stop) },
		func() error { return bystanders(dev, stop) },
		func() error { defer close(stop); err = crowd(fs...); return nil },
	)
	return errors.Join(err, around)
}

// checkDisjoint lets workers change units of their own at the same time, each
// the neighbour of another's: nobody's bytes may get lost, whatever is done
// beside it. A unit is less than a sector, a sector, and a block: the first
// shares sectors with others, the last may go as a whole.
func checkDisjoint(t *testing.T, c *config, size int64) error {
	for _, unit := range []int64{100, blockdev.SectorSize, c.blockSize} {
		err := c.withDevice(t, size, func(dev blockdev.Device, m *model) error {
			fs := make([]func() error, workers)
			for w := range fs {
				o := &owner{
					Rand: rand.New(rand.NewPCG(c.seed, uint64(w))),
					x:    &executor{c: c, dev: dev, model: m},
					w:    int64(w), unit: unit,
				}
				fs[w] = o.work
			}
			if err := withBystanders(dev, fs...); err != nil {
				return err
			}
			return m.verify(dev, 0, size)
		})
		if err != nil {
			return fmt.Errorf("workers on their own units of %d bytes: %w", unit, err)
		}
	}
	return nil
}

// owner has the units w, w+workers, … of a device to itself, and of the model,
// so that workers share both without a lock.
type owner struct {
	*rand.Rand
	x       *executor
	w, unit int64 // unit is in bytes
}

func (o *owner) work() error {
	size := o.x.model.size()
	units := (size + o.unit - 1) / o.unit
	if o.w >= units {
		return nil
	}
	own := (units - o.w + workers - 1) / workers
	ops := []Op{Read, ReadNowait, Write, Write, WriteNowait, WriteZeroes, Discard}
	for range rounds {
		// Close to the start more often than not, so that sectors are met again.
		first := (o.w + workers*o.Int64N(1+o.Int64N(own))) * o.unit
		length := min(o.unit, size-first)
		s := Step{Op: ops[o.IntN(len(ops))], Off: first, Len: length, Fill: o.Uint64()}
		if o.IntN(10) != 0 {
			from := o.Int64N(length)
			s.Off, s.Len = first+from, 1+o.Int64N(min(length-from, 3*blockdev.SectorSize))
		}
		err := o.x.step(s)
		if err == nil {
			err = o.x.model.verify(o.x.dev, s.Off, s.Len)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	return o.verify()
}

// verify compares all units of o.
func (o *owner) verify() error {
	size := o.x.model.size()
	for at := o.w * o.unit; at < size; at += workers * o.unit {
		if err := o.x.model.verify(o.x.dev, at, min(o.unit, size-at)); err != nil {
			return fmt.Errorf("once done: %w", err)
		}
	}
	return nil
}
