package blockdevtest

import (
	"bytes"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// mutant is a memory device of which some methods were replaced by wrong ones.
type mutant struct {
	*blockdev.Memory
	readAt  func(m *blockdev.Memory, p []byte, off int64) (int, error)
	writeAt func(m *blockdev.Memory, p []byte, off int64) (int, error)
	nowait  func(m *blockdev.Memory, p []byte, off int64) (int, error)
	discard func(m *blockdev.Memory, off, n int64) error
	zeroes  func(m *blockdev.Memory, off, n int64) error
	extents func(m *blockdev.Memory, off, n int64) iter.Seq2[blockdev.Extent, error]
	usage   func(m *blockdev.Memory) int64
	size    func(m *blockdev.Memory) int64
	flush   func(m *blockdev.Memory) error
	close   func(m *blockdev.Memory) error
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

// extentsBy replaces the extents of a memory device by a function of each.
func extentsBy(f func(e blockdev.Extent, m *blockdev.Memory) []blockdev.Extent) func() *mutant {
	return func() *mutant {
		return &mutant{extents: func(m *blockdev.Memory, off, n int64) iter.Seq2[blockdev.Extent, error] {
			return func(yield func(blockdev.Extent, error) bool) {
				for e, err := range m.Extents(off, n) {
					if err != nil {
						yield(e, err)
						return
					}
					for _, e := range f(e, m) {
						if !yield(e, nil) {
							return
						}
					}
				}
			}
		}}
	}
}

func TestCatchesWrongExtents(t *testing.T) {
	type ext = blockdev.Extent
	runMutants(t, []mutantTest{
		{"of a hole where data is", "program", "something else than zeros", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			e.Kind, e.Depth = blockdev.Hole, -1
			return []ext{e}
		})},
		{"of known zeros where data is", "program", "something else than zeros", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			e.Kind, e.Depth = blockdev.Zero, 0
			return []ext{e}
		})},
		{"with holes left out", "initial", "end at", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			if e.Kind == blockdev.Hole {
				return nil
			}
			return []ext{e}
		})},
		{"not clipped at the start", "program", "doesn't begin where", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			e.Length += e.Offset % 4096
			e.Offset -= e.Offset % 4096
			return []ext{e}
		})},
		{"not clipped at the end", "program", "extents of", extentsBy(func(e ext, m *blockdev.Memory) []ext {
			e.Length = m.Size() - e.Offset
			return []ext{e}
		})},
		{"that overlap", "initial", "doesn't begin where", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			return []ext{e, e}
		})},
		{"that are empty", "initial", "empty", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			none := e
			none.Length = 0
			return []ext{none, e}
		})},
		{"of no kind", "initial", "no known kind", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			e.Kind = 7
			return []ext{e}
		})},
		{"with a hole that has a layer", "initial", "no layer", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			e.Depth = 0
			return []ext{e}
		})},
		{"with data that has no layer", "program", "held by no layer", extentsBy(func(e ext, _ *blockdev.Memory) []ext {
			e.Depth = -1
			return []ext{e}
		})},
		{"that end in silence out of range", "ranges", "yields 0 times", func() *mutant {
			return &mutant{extents: func(m *blockdev.Memory, off, n int64) iter.Seq2[ext, error] {
				if blockdev.CheckRange(m.Size(), off, n) != nil {
					return func(func(ext, error) bool) {}
				}
				return m.Extents(off, n)
			}}
		}},
	})
}

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

func TestCatchesRaces(t *testing.T) {
	pieces := func(f func([]byte, int64) (int, error), p []byte, off int64, size int) (int, error) {
		n := 0
		for piece := range slices.Chunk(p, size) {
			c, err := f(piece, off+int64(n))
			if err != nil {
				return 0, err
			}
			n += c
			runtime.Gosched()
		}
		return n, nil
	}
	torn := func() *mutant {
		return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
			return pieces(m.WriteAt, p, off, 64)
		}}
	}
	runMutants(t, []mutantTest{
		{"torn writes", "overlap", "no single write", torn},
		{"a neighbour's sector is written back", "disjoint", "wrong content", func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				first := off / 4096 * 4096
				page := make([]byte, min(4096, m.Size()-first))
				if off-first+int64(len(p)) > int64(len(page)) {
					return m.WriteAt(p, off)
				}
				if _, err := m.ReadAt(page, first); err != nil {
					return 0, err
				}
				runtime.Gosched()
				n := copy(page[off-first:], p)
				_, err := m.WriteAt(page, first)
				return n, err
			}}
		}},
		{"Flush fails while another writes", "disjoint", "flush beside writers", func() *mutant {
			var writers atomic.Int64
			return &mutant{
				writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
					writers.Add(1)
					defer writers.Add(-1)
					runtime.Gosched()
					return m.WriteAt(p, off)
				},
				flush: func(m *blockdev.Memory) error {
					if writers.Load() > 0 {
						return io.ErrNoProgress
					}
					return m.Flush()
				},
			}
		}},
	})
	t.Run("torn reads only where they are allowed", func(t *testing.T) {
		open := func(_ *testing.T, size int64) blockdev.Device {
			return &mutant{Memory: blockdev.NewMemory(size), readAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				if err := blockdev.CheckRange(m.Size(), off, int64(len(p))); err != nil {
					return 0, err
				}
				if len(p) == 0 || len(p) > maxShared {
					return m.ReadAt(p, off)
				}
				return pieces(m.ReadAt, p, off, 64)
			}}
		}
		caught(t, open, "overlap", "no single write", WithSizes(160<<10))
		if msg := failing(t, "overlap", open, WithSizes(160<<10), WithTornReads()); msg != "" {
			t.Errorf("WithTornReads: %s", msg)
		}
	})
}
