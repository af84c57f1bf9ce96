package blockdev_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
)

// spy has every ability, does nothing, and notes each call.
type spy struct{ calls []string }

func (s *spy) note(format string, a ...any) { s.calls = append(s.calls, fmt.Sprintf(format, a...)) }

func (s *spy) ReadAt(p []byte, off int64) (int, error) {
	s.note("ReadAt %d+%d", off, len(p))
	return len(p), nil
}

func (s *spy) WriteAt(p []byte, off int64) (int, error) {
	s.note("WriteAt %d+%d", off, len(p))
	return len(p), nil
}

func (s *spy) ReadAtNowait(p []byte, off int64) (int, error) {
	s.note("ReadAtNowait %d+%d", off, len(p))
	return len(p), nil
}

func (s *spy) WriteAtNowait(p []byte, off int64) (int, error) {
	s.note("WriteAtNowait %d+%d", off, len(p))
	return len(p), nil
}

func (s *spy) Discard(off, n int64) error {
	s.note("Discard %d+%d", off, n)
	return nil
}

func (s *spy) WriteZeroes(off, n int64) error {
	s.note("WriteZeroes %d+%d", off, n)
	return nil
}

func (s *spy) Extents(off, n int64) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		s.note("Extents %d+%d", off, n)
		yield(blockdev.Extent{Offset: off, Length: n, Kind: blockdev.Zero, Depth: 3, File: "f", FileOffset: 9}, nil)
	}
}

func (s *spy) Allocated() int64 {
	s.note("Allocated")
	return 512
}

func (s *spy) Flush() error {
	s.note("Flush")
	return nil
}

func (s *spy) Close() error {
	s.note("Close")
	return nil
}

func (s *spy) Size() int64 { return 8192 }

// wrapper is a Device around another, and what its doc says of it.
type wrapper struct {
	name    string
	wrap    func(t *testing.T, dev blockdev.Device) blockdev.Device
	shift   int64 // added to offsets, in bytes
	writes  bool  // writing abilities are forwarded, else ErrReadOnly
	usage   []string
	closing string // what Close calls
}

// wrappers are all of the package's.
var wrappers = []wrapper{
	{
		name: "Section",
		wrap: func(t *testing.T, dev blockdev.Device) blockdev.Device {
			s, err := blockdev.NewSection(dev, 1024, 4096)
			noError(t, err)
			return s
		},
		shift: 1024, writes: true, usage: []string{"Extents 1024+4096", "Allocated"}, closing: "Flush",
	},
	{
		name:  "ReadOnly",
		wrap:  func(_ *testing.T, dev blockdev.Device) blockdev.Device { return blockdev.ReadOnly(dev) },
		usage: []string{"Allocated"}, closing: "Close",
	},
	{
		name:   "Gate",
		wrap:   func(_ *testing.T, dev blockdev.Device) blockdev.Device { return blockdev.NewGate(dev) },
		writes: true, usage: []string{"Allocated"}, closing: "Close",
	},
}

func TestWrappersForwardWhatTheySay(t *testing.T) {
	for _, w := range wrappers {
		t.Run(w.name, func(t *testing.T) {
			s := new(spy)
			dev := w.wrap(t, s)
			// calls checks what reached the device below since it was last called.
			calls := func(want ...string) {
				t.Helper()
				if !slices.Equal(s.calls, want) {
					t.Errorf("calls %q, want %q", s.calls, want)
				}
				s.calls = nil
			}
			at := func(method string, off, n int64) string {
				return fmt.Sprintf("%s %d+%d", method, off+w.shift, n)
			}

			_, err := dev.ReadAt(make([]byte, 3), 5)
			noError(t, err)
			calls(at("ReadAt", 5, 3))
			_, err = dev.(blockdev.NowaitReader).ReadAtNowait(make([]byte, 4), 6)
			noError(t, err)
			calls(at("ReadAtNowait", 6, 4))
			sameExtents(t, dev, 7, 8, blockdev.Extent{Offset: 7, Length: 8, Kind: blockdev.Zero, Depth: 3, File: "f", FileOffset: 9})
			calls(at("Extents", 7, 8))
			dev.(blockdev.Usage).Allocated()
			calls(w.usage...)
			noError(t, dev.Flush())
			calls("Flush")

			for method, err := range map[string]error{
				"WriteAt":       second(dev.WriteAt(make([]byte, 9), 10)),
				"WriteAtNowait": readOnlyIfNone(blockdev.WriteAtNowait(dev, make([]byte, 9), 10)),
				"Discard":       dev.(blockdev.Discarder).Discard(10, 9),
				"WriteZeroes":   dev.(blockdev.ZeroWriter).WriteZeroes(10, 9),
			} {
				forwarded := slices.Contains(s.calls, at(method, 10, 9))
				if forwarded != w.writes || errors.Is(err, blockdev.ErrReadOnly) == w.writes {
					t.Errorf("%s: forwarded %v, error %v", method, forwarded, err)
				}
			}
			s.calls = nil

			noError(t, dev.Close())
			noError(t, dev.Close())
			if got := slices.Compact(s.calls); !slices.Equal(got, []string{w.closing}) {
				t.Errorf("Close calls %q, want %q", got, w.closing)
			}
		})
	}
}

func second(_ int, err error) error { return err }

// readOnlyIfNone is second for an ability that a wrapper which refuses writes has
// no need to have.
func readOnlyIfNone(_ int, err error) error {
	if errors.Is(err, blockdev.ErrWouldBlock) {
		return blockdev.ErrReadOnly
	}
	return err
}

func TestWrappersFallBackOnDevicesWithoutAbilities(t *testing.T) {
	for _, w := range wrappers {
		t.Run(w.name, func(t *testing.T) {
			below := plain{blockdev.NewMemory(8192)}
			write(t, below, 0, 8192)
			dev := w.wrap(t, below)
			n := dev.Size()
			if _, err := blockdev.ReadAtNowait(dev, make([]byte, 1), 0); !errors.Is(err, blockdev.ErrWouldBlock) {
				t.Errorf("ReadAtNowait: %v", err)
			}
			sameExtents(t, dev, 0, n, blockdev.Extent{Length: n, Kind: blockdev.Data, FileOffset: w.shift})
			if got := blockdev.Allocated(dev); got != n {
				t.Errorf("Allocated() = %d, want all %d", got, n)
			}
			if !w.writes {
				return
			}
			_, err := blockdev.Discard(dev, 0, n)
			noError(t, err)
			if got := string(content(t, dev)); got != strings.Repeat("x", int(n)) {
				t.Error("a Discard that nobody can do changed the content")
			}
			noError(t, blockdev.WriteZeroes(dev, 1, n-2))
			want := strings.Repeat("x", 1) + strings.Repeat("\x00", int(n-2)) + "x"
			if got := string(content(t, dev)); got != want {
				t.Error("WriteZeroes didn't write zeros")
			}
		})
	}
}

func TestSectionConforms(t *testing.T) {
	for _, off := range []int64{0, pageSize + 1536} {
		t.Run(fmt.Sprintf("offset=%d", off), func(t *testing.T) {
			blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
				return section(t, blockdev.NewMemory(off+size+1024), off, size)
			}, blockdevtest.WithSizes(512, 9*512, 160<<10), blockdevtest.WithBlockSize(pageSize))
		})
	}
	t.Run("without abilities", func(t *testing.T) {
		blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
			return section(t, plain{blockdev.NewMemory(size + 1024)}, 512, size)
		}, blockdevtest.WithSizes(160<<10), blockdevtest.WithDiscard(blockdevtest.DiscardKeeps))
	})
}

func TestReadOnlyConforms(t *testing.T) {
	b := []byte(strings.Repeat("content ", 10<<10))
	blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
		m := blockdev.NewMemory(size)
		_, err := m.WriteAt(b[:min(size, int64(len(b)))], 0)
		noError(t, err)
		return blockdev.ReadOnly(m)
	}, blockdevtest.WithReadOnly(), blockdevtest.WithInitial(strings.NewReader(string(b))),
		blockdevtest.WithSizes(512, 9*512, 160<<10))
}

func section(t *testing.T, dev blockdev.Device, off, n int64) *blockdev.Section {
	t.Helper()
	s, err := blockdev.NewSection(dev, off, n)
	noError(t, err)
	return s
}
