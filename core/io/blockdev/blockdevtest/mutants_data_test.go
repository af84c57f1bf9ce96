package blockdevtest

import (
	"bytes"
	"io"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func TestCatchesWrongWrites(t *testing.T) {
	runMutants(t, []mutantTest{
		{"drops one in eleven", "program", "wrong content", func() *mutant {
			var n atomic.Int64
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if n.Add(1)%11 == 0 {
					return len(p), nil
				}
				return m.WriteAt(p, off)
			}}
		}},
		{"stores a sector too far", "program", "wrong content", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if off%4096 == 0 && off+int64(len(p)) < m.Size()-512 && len(p) == 512 {
					off += 512
				}
				return m.WriteAt(p, off)
			}}
		}},
		{"pads to a sector", "program", "wrong content", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				n, err := m.WriteAt(p, off)
				if end := off + int64(n); err == nil && end%512 != 0 && n > 512 {
					_, _ = m.WriteAt(make([]byte, 512-end%512), end)
				}
				return n, err
			}}
		}},
		{"says less than it did", "program", "WriteAt returned", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				n, err := m.WriteAt(p, off)
				return n / 512 * 512, err
			}}
		}},
		{"keeps the buffer", "program", "wrong content", func() *mutant {
			var kept []byte
			var at int64
			return &mutant{
				writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
					n, err := m.WriteAt(p, off)
					kept, at = p[:n], off
					return n, err
				},
				readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
					_, _ = m.WriteAt(kept, at)
					return m.ReadAt(p, off)
				},
			}
		}},
		{"changes the buffer", "program", "changed its buffer", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				n, err := m.WriteAt(p, off)
				clear(p[:n/2])
				return n, err
			}}
		}},
	})
}

func TestCatchesWrongReads(t *testing.T) {
	runMutants(t, []mutantTest{
		{"a byte short", "program", "short read", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				n, err := m.ReadAt(p, off)
				if n > 512 && off%512 != 0 {
					n--
				}
				return n, err
			}}
		}},
		{"skips zeros", "initial", "wrong content", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				q := make([]byte, len(p))
				n, err := m.ReadAt(q, off)
				if len(bytes.Trim(q, "\x00")) > 0 {
					copy(p, q)
				}
				return n, err
			}}
		}},
		{"past the buffer", "program", "past the end of the buffer", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if rest := cap(p) - len(p); rest > 0 && off+int64(cap(p)) < m.Size() {
					_, _ = m.ReadAt(p[:cap(p)], off)
				}
				return m.ReadAt(p, off)
			}}
		}},
		{"nowait answers stale", "program", "wrong content", func() *mutant {
			return &mutant{nowait: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				clear(p)
				return len(p), blockdev.CheckRange(m.Size(), off, int64(len(p)))
			}}
		}},
		{"nowait fails", "program", "without waiting", func() *mutant {
			return &mutant{nowait: func(*blockdev.Memory, []byte, int64) (int, error) {
				return 0, io.ErrNoProgress
			}}
		}},
	})
}

func TestCatchesWrongBorders(t *testing.T) {
	runMutants(t, []mutantTest{
		{"writes up to the end before it refuses", "ranges", "wrong content", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if off >= 0 && off < m.Size() && int64(len(p)) > m.Size()-off {
					_, _ = m.WriteAt(p[:m.Size()-off], off)
				}
				return m.WriteAt(p, off)
			}}
		}},
		{"writes short at the end", "ranges", "WriteAt of", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if off >= 0 && off < m.Size() {
					p = p[:min(int64(len(p)), m.Size()-off)]
				}
				return m.WriteAt(p, off)
			}}
		}},
		{"short at the end, as a file", "ranges", "ReadAt of", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if off > m.Size() || off >= 0 && int64(len(p)) > m.Size()-off {
					return 0, io.EOF
				}
				return m.ReadAt(p, off)
			}}
		}},
		{"nothing at the end is an error", "ranges", "ReadAt of nothing", func() *mutant {
			return &mutant{readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if off >= m.Size() {
					return 0, blockdev.ErrOutOfRange
				}
				return m.ReadAt(p, off)
			}}
		}},
		{"a write that would block, and writes", "program", "WriteAtNowait that would block", func() *mutant {
			return &mutant{writeNowait: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if _, err := m.WriteAt(p, off); err != nil {
					return 0, err
				}
				return 0, blockdev.ErrWouldBlock
			}}
		}},
		{"nowait write out of range", "ranges", "WriteAtNowait of", func() *mutant {
			return &mutant{writeNowait: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if blockdev.CheckRange(m.Size(), off, int64(len(p))) != nil {
					return 0, nil
				}
				return m.WriteAt(p, off)
			}}
		}},
		{"nowait out of range", "ranges", "ReadAtNowait of", func() *mutant {
			return &mutant{nowait: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if blockdev.CheckRange(m.Size(), off, int64(len(p))) != nil {
					return 0, nil
				}
				return m.ReadAt(p, off)
			}}
		}},
	})
}

func TestCatchesWrongDiscardsAndZeros(t *testing.T) {
	naive := func(m *blockdev.Memory, off, n int64) error {
		if off < 0 || n < 0 || off+n > m.Size() { // overflows
			return blockdev.ErrOutOfRange
		}
		return nil
	}
	runMutants(t, []mutantTest{
		{"discard leaves garbage", "program", "none of what it may be", func() *mutant {
			return &mutant{discard: func(m *blockdev.Memory, off, n int64) error {
				if first, end := wholeSectors(off, n); n > 0 && first < end {
					_, _ = m.WriteAt([]byte("garbage"), first)
				}
				return blockdev.CheckRange(m.Size(), off, n)
			}}
		}},
		{"discard takes half sectors", "program", "wrong content", func() *mutant {
			return &mutant{discard: (*blockdev.Memory).WriteZeroes}
		}},
		{"discard overflows", "ranges", "discard of", func() *mutant { return &mutant{discard: naive} }},
		{"zeroes overflow", "ranges", "WriteZeroes of", func() *mutant {
			return &mutant{zeroes: func(m *blockdev.Memory, off, n int64) error {
				if err := naive(m, off, n); err != nil || blockdev.CheckRange(m.Size(), off, n) != nil {
					return err
				}
				return m.WriteZeroes(off, n)
			}}
		}},
		{"zeroes touch a neighbour", "program", "wrong content", func() *mutant {
			return &mutant{zeroes: func(m *blockdev.Memory, off, n int64) error {
				if off+n < m.Size() && n > 0 {
					n++
				}
				return m.WriteZeroes(off, n)
			}}
		}},
		{"zeroes stop short", "program", "wrong content", func() *mutant {
			return &mutant{zeroes: func(m *blockdev.Memory, off, n int64) error {
				if n > 512 {
					n -= n % 512
				}
				return m.WriteZeroes(off, n)
			}}
		}},
		{"zeroes are a discard", "program", "wrong content", func() *mutant {
			return &mutant{zeroes: (*blockdev.Memory).Discard}
		}},
	})
}
