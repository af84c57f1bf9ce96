package blockdevtest

import (
	"io"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func TestCatchesWrongStates(t *testing.T) {
	closed := func(f func(m *blockdev.Memory, again bool) error) func() *mutant {
		return func() *mutant {
			var n atomic.Int64
			return &mutant{close: func(m *blockdev.Memory) error { return f(m, n.Add(1) > 1) }}
		}
	}
	runMutants(t, []mutantTest{
		{"size of a part of a sector", "size", "Size() =", func() *mutant {
			return &mutant{size: func(m *blockdev.Memory) int64 { return m.Size() - 1 }}
		}},
		{"size lost by Close", "close", "after Close", func() *mutant {
			return &mutant{size: func(m *blockdev.Memory) int64 {
				if m.Flush() != nil {
					return 0
				}
				return m.Size()
			}}
		}},
		{"second Close fails", "close", "second Close", closed(func(m *blockdev.Memory, again bool) error {
			if again {
				return blockdev.ErrClosed
			}
			return m.Close()
		})},
		{"Close does nothing", "close", "ReadAt after Close: <nil>", closed(func(*blockdev.Memory, bool) error { return nil })},
		{"Flush after Close", "close", "Flush after Close", func() *mutant {
			return &mutant{flush: func(*blockdev.Memory) error { return nil }}
		}},
		{"Flush with nothing to do", "close", "flush with nothing", func() *mutant {
			return &mutant{flush: func(*blockdev.Memory) error { return io.ErrNoProgress }}
		}},
		{"an error of its own while it closes", "close-in-use", "unexpected EOF", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				n, err := m.ReadAt(p, off)
				if err != nil {
					err = io.ErrUnexpectedEOF
				}
				return n, err
			}}
		}},
		{"usage past the size", "usage", "Allocated() =", func() *mutant {
			return &mutant{usage: func(m *blockdev.Memory) int64 { return m.Size() + 512 }}
		}},
		{"usage that misses data", "usage", "which were written", func() *mutant {
			return &mutant{usage: func(m *blockdev.Memory) int64 { return m.Allocated() / 1024 * 512 }}
		}},
		{"reading allocates", "usage", "by reading", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				n, err := m.ReadAt(p, off)
				_, _ = m.WriteAt(p[:n], off)
				return n, err
			}}
		}},
	})
}
