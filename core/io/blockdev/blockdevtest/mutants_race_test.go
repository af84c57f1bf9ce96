package blockdevtest

import (
	"io"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// pieces does an access in parts of size bytes, between which others come.
func pieces(f func([]byte, int64) (int, error), p []byte, off int64, size int) (int, error) {
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

func TestCatchesRaces(t *testing.T) {
	torn := func() *mutant {
		return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
			return pieces(m.WriteAt, p, off, 64)
		}}
	}
	// readModifyWrite writes whole units, without a lock.
	readModifyWrite := func(unit int64) func() *mutant {
		return func() *mutant {
			return &mutant{writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
				first := off / unit * unit
				b := make([]byte, min(unit, m.Size()-first))
				if off-first+int64(len(p)) > int64(len(b)) {
					return m.WriteAt(p, off)
				}
				if _, err := m.ReadAt(b, first); err != nil {
					return 0, err
				}
				runtime.Gosched()
				n := copy(b[off-first:], p)
				_, err := m.WriteAt(b, first)
				return n, err
			}}
		}
	}
	runMutants(t, []mutantTest{
		{"torn writes", "overlap", "no single write", torn},
		{"a neighbour's sector is written back", "disjoint", "wrong content", readModifyWrite(4096)},
		{"a neighbour's bytes are written back", "disjoint", "units of 100 bytes", readModifyWrite(512)},
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
}

func TestTornReadsPassOnlyWhereTheyAreAllowed(t *testing.T) {
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
}
