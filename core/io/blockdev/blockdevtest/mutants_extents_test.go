package blockdevtest

import (
	"iter"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

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
