package blockdevtest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// checkClose checks that Close may be called again, and that nothing works
// after it.
func checkClose(t *testing.T, c *config, size int64) error {
	dev := c.open(t, size)
	if err := dev.Flush(); err != nil {
		return errors.Join(fmt.Errorf("flush with nothing to do: %w", err), dev.Close())
	}
	for _, which := range []string{"first", "second", "third"} {
		if err := dev.Close(); err != nil {
			return fmt.Errorf("%s Close: %w", which, err)
		}
	}
	for _, u := range c.uses(dev) {
		if err := u.run(); !errors.Is(err, blockdev.ErrClosed) && !slices.ContainsFunc(u.also, func(also error) bool { return errors.Is(err, also) }) {
			return fmt.Errorf("%s after Close: %v, want %w", u.name, err, blockdev.ErrClosed)
		}
	}
	if got := dev.Size(); got != size {
		return fmt.Errorf("Size() = %d after Close, want %d", got, size)
	}
	return nil
}

// use is a call that a closed device must refuse.
type use struct {
	name string
	run  func() error
	also []error // other right answers beside ErrClosed
}

// uses is a call of each kind that dev has, on its first sector.
func (c *config) uses(dev blockdev.Device) []use {
	var readOnly []error
	if c.readOnly {
		readOnly = []error{blockdev.ErrReadOnly}
	}
	p := make([]byte, blockdev.SectorSize)
	n := int64(len(p))
	all := []use{
		{name: "ReadAt", run: func() error { _, err := dev.ReadAt(p, 0); return err }},
		{name: "WriteAt", run: func() error { _, err := dev.WriteAt(p, 0); return err }, also: readOnly},
		{name: "WriteAtNowait", run: func() error { _, err := blockdev.WriteAtNowait(dev, p, 0); return err }, also: append(readOnly, blockdev.ErrWouldBlock)},
		{name: "Flush", run: dev.Flush},
		{name: "WriteZeroes", run: func() error { return blockdev.WriteZeroes(dev, 0, n) }, also: readOnly},
		{name: "ReadAtNowait", run: func() error { _, err := blockdev.ReadAtNowait(dev, p, 0); return err }, also: []error{blockdev.ErrWouldBlock}},
	}
	if d, ok := dev.(blockdev.Discarder); ok {
		all = append(all, use{name: "Discard", run: func() error { return d.Discard(0, n) }, also: readOnly})
	}
	if m, ok := dev.(blockdev.ExtentMapper); ok {
		all = append(all, use{name: "Extents", run: func() error {
			var last error
			for _, last = range m.Extents(0, n) {
			}
			return last
		}})
	}
	return all
}

// checkCloseInUse closes a device while it is read, written and flushed: each
// call is done right or refused with ErrClosed, and none is after Close.
func checkCloseInUse(t *testing.T, c *config, size int64) error {
	dev := c.open(t, size)
	const users = 4
	var running, done sync.WaitGroup
	errs := make(chan error, users)
	running.Add(users)
	for u := range users {
		done.Go(func() {
			running.Done()
			errs <- useUntilClosed(dev, c, int64(u)*blockdev.SectorSize%size)
		})
	}
	running.Wait()
	err := dev.Close()
	done.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// useUntilClosed uses a sector of dev until it is told that dev is closed.
func useUntilClosed(dev blockdev.Device, c *config, off int64) error {
	p := make([]byte, blockdev.SectorSize)
	for range 1 << 20 {
		calls := []func() error{
			func() error { _, err := dev.ReadAt(p, off); return err },
			dev.Flush,
		}
		if !c.readOnly {
			calls = append(calls, func() error { _, err := dev.WriteAt(p, off); return err })
		}
		closed := false
		for _, call := range append(calls, calls...) { // each of them once more, after one has said so
			err := call()
			switch {
			case errors.Is(err, blockdev.ErrClosed):
				closed = true
			case err != nil:
				return fmt.Errorf("while the device is closed: %w", err)
			}
		}
		if closed {
			return nil
		}
	}
	return errors.New("the device was closed and never said so")
}
