package blockdevtest

import (
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// mutant is a memory device of which some methods were replaced by wrong ones.
type mutant struct {
	*blockdev.Memory
	readAt      func(m *blockdev.Memory, p []byte, off int64) (int, error)
	writeAt     func(m *blockdev.Memory, p []byte, off int64) (int, error)
	writeNowait func(m *blockdev.Memory, p []byte, off int64) (int, error)
	nowait      func(m *blockdev.Memory, p []byte, off int64) (int, error)
	discard     func(m *blockdev.Memory, off, n int64) error
	zeroes      func(m *blockdev.Memory, off, n int64) error
	extents     func(m *blockdev.Memory, off, n int64) iter.Seq2[blockdev.Extent, error]
	usage       func(m *blockdev.Memory) int64
	size        func(m *blockdev.Memory) int64
	flush       func(m *blockdev.Memory) error
	close       func(m *blockdev.Memory) error
}

func (m *mutant) ReadAt(p []byte, off int64) (int, error) {
	if m.readAt != nil {
		return m.readAt(m.Memory, p, off)
	}
	return m.Memory.ReadAt(p, off)
}

func (m *mutant) WriteAt(p []byte, off int64) (int, error) {
	if m.writeAt != nil {
		return m.writeAt(m.Memory, p, off)
	}
	return m.Memory.WriteAt(p, off)
}

func (m *mutant) WriteAtNowait(p []byte, off int64) (int, error) {
	if m.writeNowait != nil {
		return m.writeNowait(m.Memory, p, off)
	}
	return m.WriteAt(p, off)
}

func (m *mutant) ReadAtNowait(p []byte, off int64) (int, error) {
	if m.nowait != nil {
		return m.nowait(m.Memory, p, off)
	}
	return m.Memory.ReadAtNowait(p, off)
}

func (m *mutant) Discard(off, n int64) error {
	if m.discard != nil {
		return m.discard(m.Memory, off, n)
	}
	return m.Memory.Discard(off, n)
}

func (m *mutant) WriteZeroes(off, n int64) error {
	if m.zeroes != nil {
		return m.zeroes(m.Memory, off, n)
	}
	return m.Memory.WriteZeroes(off, n)
}

func (m *mutant) Extents(off, n int64) iter.Seq2[blockdev.Extent, error] {
	if m.extents != nil {
		return m.extents(m.Memory, off, n)
	}
	return m.Memory.Extents(off, n)
}

func (m *mutant) Allocated() int64 {
	if m.usage != nil {
		return m.usage(m.Memory)
	}
	return m.Memory.Allocated()
}

func (m *mutant) Size() int64 {
	if m.size != nil {
		return m.size(m.Memory)
	}
	return m.Memory.Size()
}

func (m *mutant) Flush() error {
	if m.flush != nil {
		return m.flush(m.Memory)
	}
	return m.Memory.Flush()
}

func (m *mutant) Close() error {
	if m.close != nil {
		return m.close(m.Memory)
	}
	return m.Memory.Close()
}

// failing is what one of the suite's checks says of devices, "" if it passes.
func failing(t *testing.T, name string, open OpenFunc, opts ...Option) string {
	t.Helper()
	c := newConfig(open, append([]Option{WithSizes(512, 9*512, 160<<10), WithBlockSize(64 << 10)}, opts...))
	i := slices.IndexFunc(checks, func(k check) bool { return k.name == name })
	for _, size := range c.sizes {
		if err := checks[i].run(t, c, size); err != nil {
			return err.Error()
		}
	}
	return ""
}

// caught checks that the suite finds a mutant in a check, for a reason.
func caught(t *testing.T, open OpenFunc, by, because string, opts ...Option) {
	t.Helper()
	if msg := failing(t, by, open, opts...); !strings.Contains(msg, because) {
		t.Errorf("check %s doesn't say %q: %q", by, because, msg)
	}
}

type mutantTest struct {
	name    string
	by      string // the check that must find it
	because string // part of what it says
	mutant  func() *mutant
}

func runMutants(t *testing.T, tests []mutantTest, opts ...Option) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			caught(t, func(_ *testing.T, size int64) blockdev.Device {
				m := tt.mutant()
				m.Memory = blockdev.NewMemory(size)
				return m
			}, tt.by, tt.because, opts...)
		})
	}
}
