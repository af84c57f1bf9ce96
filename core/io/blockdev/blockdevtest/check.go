package blockdevtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Check runs a program on a new device of size bytes and compares the device
// with the model after each step, and as a whole at the end. The error says
// what is wrong after which step. A step Reopen is done only where there is a
// function for it (WithReopen); t is handed to that and to open.
func Check(t *testing.T, open OpenFunc, size int64, p Program, opts ...Option) error {
	t.Helper()
	return newConfig(open, opts).check(t, size, p)
}

func (c *config) check(t *testing.T, size int64, p Program) error {
	x := &executor{t: t, c: c, dev: c.open(t, size)}
	var err error
	if x.model, err = newModel(size, c.initial, c.discard); err == nil {
		err = x.run(p)
	}
	return errors.Join(err, x.dev.Close())
}

// executor runs programs on a device and its model.
type executor struct {
	t     *testing.T
	c     *config
	dev   blockdev.Device
	model *model
}

// wholeEvery is the number of steps after which the whole device is compared.
const wholeEvery = 64

func (x *executor) run(p Program) error {
	for i, s := range p {
		err := x.step(s)
		if err == nil && s.Op != Flush && s.Op != Reopen {
			err = x.model.verifyAround(x.dev, s.Off, s.Len)
		}
		if err == nil && (s.Op == Reopen || i%wholeEvery == wholeEvery-1) {
			err = x.model.verify(x.dev, 0, x.model.size())
		}
		if err != nil {
			return fmt.Errorf("step %d, %v: %w", i+1, s, err)
		}
	}
	if err := x.end(); err != nil {
		return fmt.Errorf("at the end, after %d steps: %w", len(p), err)
	}
	return nil
}

// end compares the whole device, before and after it was closed and opened.
func (x *executor) end() error {
	size := x.model.size()
	if err := errors.Join(x.model.verify(x.dev, 0, size), verifyExtents(x.dev, x.model, 0, size)); err != nil {
		return err
	}
	if x.c.reopen == nil {
		return nil
	}
	if err := x.step(Step{Op: Reopen}); err != nil {
		return err
	}
	return errors.Join(x.model.verify(x.dev, 0, size), verifyExtents(x.dev, x.model, 0, size))
}

// step does s on the device and on the model.
func (x *executor) step(s Step) error {
	if s.Op.changes() && x.c.readOnly {
		return x.refused(s)
	}
	switch s.Op {
	case Read:
		return x.model.verify(x.dev, s.Off, s.Len)
	case ReadNowait:
		return verifyNowait(x.dev, x.model, s.Off, s.Len)
	case Write, WriteZeros:
		return x.write(s, x.dev.WriteAt)
	case WriteNowait:
		return x.writeNowait(s)
	case WriteZeroes:
		clear(x.model.want[s.Off:][:s.Len])
		return blockdev.WriteZeroes(x.dev, s.Off, s.Len)
	case Discard:
		done, err := blockdev.Discard(x.dev, s.Off, s.Len)
		if err != nil || !done {
			return err
		}
		return x.model.adopt(x.dev, s.Off, s.Len)
	case Extents:
		return verifyExtents(x.dev, x.model, s.Off, s.Len)
	case Flush:
		return x.dev.Flush()
	case Reopen:
		if x.c.reopen != nil {
			x.dev = x.c.reopen(x.t, x.dev)
		}
		return nil
	}
	return fmt.Errorf("operation %d is none", s.Op)
}

// writeNowait does a WriteAtNowait. One that would block must have changed
// nothing, and the WriteAt after it succeed.
func (x *executor) writeNowait(s Step) error {
	before := append([]byte(nil), x.model.want[s.Off:][:s.Len]...)
	err := x.write(s, func(p []byte, off int64) (int, error) { return blockdev.WriteAtNowait(x.dev, p, off) })
	if !errors.Is(err, blockdev.ErrWouldBlock) {
		return err
	}
	copy(x.model.want[s.Off:], before)
	if err := x.model.verify(x.dev, s.Off, s.Len); err != nil {
		return fmt.Errorf("WriteAtNowait that would block: %w", err)
	}
	return x.write(s, x.dev.WriteAt)
}

// write does a WriteAt, or what is like it. The device must neither change the
// buffer nor keep it.
func (x *executor) write(s Step, writeAt func([]byte, int64) (int, error)) error {
	p := s.bytes()
	copy(x.model.want[s.Off:], p)
	n, err := writeAt(p, s.Off)
	if err != nil {
		return err
	}
	if int64(n) != s.Len {
		return fmt.Errorf("WriteAt returned %d", n)
	}
	if err := compare(p, x.model.want[s.Off:][:s.Len], s.Off); err != nil {
		return fmt.Errorf("WriteAt changed its buffer: %w", err)
	}
	for i := range p {
		p[i] = garbage
	}
	return nil
}

// refused does a change to a read-only device.
func (x *executor) refused(s Step) error {
	err := change(x.dev, s)
	if errors.Is(err, blockdev.ErrReadOnly) {
		return nil
	}
	if s.Op == WriteNowait && errors.Is(err, blockdev.ErrWouldBlock) {
		return nil
	}
	if err == nil && (s.Len == 0 || s.Op == Discard) {
		return nil // it had nothing to do, or did nothing: the content tells
	}
	return fmt.Errorf("on a read-only device: %v, want %w", err, blockdev.ErrReadOnly)
}

// change does one of the operations that change a device.
func change(dev blockdev.Device, s Step) error {
	switch s.Op {
	case WriteZeroes:
		return blockdev.WriteZeroes(dev, s.Off, s.Len)
	case Discard:
		_, err := blockdev.Discard(dev, s.Off, s.Len)
		return err
	case WriteNowait:
		_, err := blockdev.WriteAtNowait(dev, s.bytes(), s.Off)
		return err
	default:
		_, err := dev.WriteAt(s.bytes(), s.Off)
		return err
	}
}

// programs is how many random programs are run on each size.
const programs = 2

func checkPrograms(t *testing.T, c *config, size int64) error {
	for seed := c.seed; seed < c.seed+programs; seed++ {
		p := newGenerator(c, size, seed).program(c.ops)
		if err := c.check(t, size, p); err != nil {
			p, err = c.shrink(t, size, p, err)
			return fmt.Errorf("%w\nseed %d (-blockdevtest.seed=%d), size %d, cut down to %d steps:\n%v", err, seed, seed, size, len(p), p)
		}
	}
	return nil
}

// shrinkAttempts bounds the devices that are opened to cut a program down.
const shrinkAttempts = 100

// shrink takes steps out of a program that fails with err as long as it fails,
// and returns what is left with its error.
func (c *config) shrink(t *testing.T, size int64, p Program, err error) (Program, error) {
	for attempts, cut := 0, (len(p)+1)/2; cut > 0; {
		shorter := false
		for at := 0; at < len(p) && attempts < shrinkAttempts; attempts++ {
			q := append(append(Program{}, p[:at]...), p[min(at+cut, len(p)):]...)
			if e := c.check(t, size, q); e != nil {
				p, err, shorter = q, e, true
			} else {
				at += cut
			}
		}
		if attempts == shrinkAttempts {
			break
		}
		if !shorter || cut > len(p) {
			cut /= 2
		}
	}
	return p, err
}
