package blktap_test

import (
	"errors"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// served is the disk of a guest whose Close takes everything down: the disk,
// the session and the device.
type served struct {
	blockdev.Device
	s *shown
}

func (d served) Close() error { return errors.Join(d.Device.Close(), d.s.close()) }

// servedTrim is a served disk that can discard.
type servedTrim struct {
	served
	blockdev.Discarder
}

func serve(t *testing.T, k *blktaptest.Kernel, dev blockdev.Device) blockdev.Device {
	t.Helper()
	s := show(t, k, dev, blktap.Options{})
	d := served{s.open(t), s}
	if trim, ok := d.Device.(blockdev.Discarder); ok {
		return servedTrim{d, trim}
	}
	return d
}

func conform(t *testing.T, v blktaptest.Variant, opts ...blktaptest.Option) {
	t.Helper()
	blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
		return serve(t, blktaptest.New(t, v, opts...), blockdev.NewMemory(size))
	}, blockdevtest.WithBlockSize(64<<10), blockdevtest.WithSizes(512, 9*512, 300<<10))
}

// TestConformance runs the suite of all disks through the ring, as each module
// has it, in order and in disorder.
func TestConformance(t *testing.T) {
	for _, v := range blktaptest.Variants {
		t.Run(v.String(), func(t *testing.T) {
			t.Run("in order", func(t *testing.T) { conform(t, v) })
			t.Run("reordered", func(t *testing.T) { conform(t, v, blktaptest.WithScheduler(1)) })
			t.Run("guarded", func(t *testing.T) {
				conform(t, v, blktaptest.WithGuard(), blktaptest.WithScheduler(2))
			})
		})
	}
}

// TestReadOnlyConforms runs the suite on a disk that may not be written to.
func TestReadOnlyConforms(t *testing.T) {
	for _, v := range blktaptest.Variants {
		t.Run(v.String(), func(t *testing.T) {
			blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
				k := blktaptest.New(t, v)
				s := show(t, k, blockdev.NewMemory(size), blktap.Options{ReadOnly: true})
				return served{s.open(t), s}
			}, blockdevtest.WithReadOnly(), blockdevtest.WithSizes(300<<10))
		})
	}
}
