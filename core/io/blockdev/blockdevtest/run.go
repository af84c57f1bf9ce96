// Package blockdevtest is the conformance suite of blockdev.Device. Every
// implementation runs it, and every depth of one that can be stacked:
//
//	func TestConformance(t *testing.T) {
//		blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
//			return blockdev.NewMemory(size)
//		})
//	}
//
// The suite runs random programs of operations against a plain byte slice, and
// checks the borders of the device, its extents, what it says of itself, its
// end, and its users at the same time (run it under the race detector). Its
// oracle knows nothing of blocks, maps or chains.
//
// A program that fails is cut down to fewer steps and printed with its seed:
// -blockdevtest.seed runs that seed again, and Check runs the printed steps,
// to keep them as a test of their own.
package blockdevtest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

var seedFlag = flag.Uint64("blockdevtest.seed", 1, "seed of the conformance suite's random programs")

// OpenFunc makes a new device of size bytes. It fails t where it can't; what
// must be taken away afterwards it leaves to t.Cleanup. The suite closes the
// device.
type OpenFunc func(t *testing.T, size int64) blockdev.Device

// DiscardModel says what whole sectors may read as after a Discard. The values
// are bits: a device that may do several things has several.
type DiscardModel uint8

// What a discarded sector may read as.
const (
	DiscardZeros   DiscardModel = 1 << iota // zeros
	DiscardInitial                          // the content that a new device has: the parent's
	DiscardKeeps                            // as before
	discardAny     = DiscardZeros | DiscardInitial | DiscardKeeps
)

// config is what the options of a run say.
type config struct {
	open      OpenFunc
	reopen    func(t *testing.T, dev blockdev.Device) blockdev.Device
	initial   io.ReaderAt
	sizes     []int64 // bytes
	blockSize int64   // bytes
	readOnly  bool
	seed      uint64
	ops       int
	discard   DiscardModel
	tornReads bool
}

// Option changes what Run and Check do.
type Option func(*config)

// WithReopen lets programs close the device and open it again, as a new one
// with the old contents.
func WithReopen(f func(t *testing.T, dev blockdev.Device) blockdev.Device) Option {
	return func(c *config) { c.reopen = f }
}

// WithInitial is the content that a new device must show, such as its
// parent's: r as far as it reaches, and zeros after it. The default is zeros.
func WithInitial(r io.ReaderAt) Option { return func(c *config) { c.initial = r } }

// WithSizes are the sizes, in bytes, of the devices that the suite runs on.
// The default is one sector to a little over 4 MiB. The suite keeps three
// times a size in memory.
func WithSizes(sizes ...int64) Option { return func(c *config) { c.sizes = sizes } }

// WithBlockSize is the allocation unit of the device in bytes: the programs
// seek its borders, beside those of sectors, pages and 64 KiB. The default is
// 2 MiB.
func WithBlockSize(n int64) Option { return func(c *config) { c.blockSize = n } }

// WithReadOnly says that every write must be refused with ErrReadOnly and
// change nothing.
func WithReadOnly() Option { return func(c *config) { c.readOnly = true } }

// WithSeed is the seed of the first random program, in place of the flag's.
func WithSeed(n uint64) Option { return func(c *config) { c.seed = n } }

// WithOps is the length of a random program. The default is 300 steps.
func WithOps(n int) Option { return func(c *config) { c.ops = n } }

// WithDiscard says what a Discard may leave. The default is all that the
// interface allows, chosen anew for each sector.
func WithDiscard(m DiscardModel) Option { return func(c *config) { c.discard = m } }

// WithTornReads is for devices over something that lets a read see half of a
// write that runs at the same time, as files on most Linux file systems do: a
// read that overlaps a running write may then mix both within a sector. What
// a sector holds once all writes are done is never mixed.
func WithTornReads() Option { return func(c *config) { c.tornReads = true } }

func newConfig(open OpenFunc, opts []Option) *config {
	c := &config{
		open:      open,
		sizes:     []int64{blockdev.SectorSize, 9 * blockdev.SectorSize, 300 << 10, 4<<20 + 3*blockdev.SectorSize},
		blockSize: 2 << 20,
		seed:      *seedFlag,
		ops:       300,
		discard:   discardAny,
	}
	for _, o := range opts {
		o(c)
	}
	return c
}

// check is one of the suite's properties, on devices of one size. Its error
// says how a device breaks it; t only serves to open devices.
type check struct {
	name string
	run  func(t *testing.T, c *config, size int64) error
}

var checks = []check{
	{"size", checkSize},
	{"initial", checkInitial},
	{"program", checkPrograms},
	{"ranges", checkRanges},
	{"usage", checkUsage},
	{"disjoint", checkDisjoint},
	{"overlap", checkOverlap},
	{"close", checkClose},
	{"close-in-use", checkCloseInUse},
}

// Run checks that the devices that open makes are what blockdev.Device says.
// It runs subtests named size=BYTES/CHECK.
func Run(t *testing.T, open OpenFunc, opts ...Option) {
	t.Helper()
	c := newConfig(open, opts)
	for _, size := range c.sizes {
		t.Run(fmt.Sprintf("size=%d", size), func(t *testing.T) {
			for _, k := range checks {
				t.Run(k.name, func(t *testing.T) {
					if err := k.run(t, c, size); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// withDevice runs f on a new device and its model, and closes the device.
func (c *config) withDevice(t *testing.T, size int64, f func(blockdev.Device, *model) error) error {
	dev := c.open(t, size)
	m, err := newModel(size, c.initial, c.discard)
	if err == nil {
		err = f(dev, m)
	}
	return errors.Join(err, dev.Close())
}

func checkSize(t *testing.T, c *config, size int64) error {
	return c.withDevice(t, size, func(dev blockdev.Device, _ *model) error {
		if got := dev.Size(); got != size || got%blockdev.SectorSize != 0 {
			return fmt.Errorf("Size() = %d, want %d, whole sectors", got, size)
		}
		return nil
	})
}

func checkInitial(t *testing.T, c *config, size int64) error {
	return c.withDevice(t, size, func(dev blockdev.Device, m *model) error {
		return errors.Join(m.verify(dev, 0, size), verifyExtents(dev, m, 0, size))
	})
}
