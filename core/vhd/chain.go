package vhd

import (
	"sync"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// granule is the range of the disk that a chain resolves at once, in
	// bytes: at most 2048 runs.
	granule = 1 << 20
	// maxRuns bounds the runs that a chain keeps, about 6 MiB of them; what a
	// granule costs beside them counts as granuleCost.
	maxRuns     = 256 << 10
	granuleCost = 4
)

// run is a range of a disk that one layer holds, or none.
type run struct {
	end   int64 // bytes from the start of the granule, exclusive
	off   int64 // bytes of the layer's file, where the run starts
	layer int   // index into chain.layers; -1: nobody's, it reads as zeros
}

// chain is the parents of an image, nearest first: read-only, and so resolved
// once a granule, whatever its depth.
type chain struct {
	layers []*layer

	// mu guards cache and runs. It is a leaf.
	mu    sync.RWMutex
	cache map[int64][]run // by granule
	runs  int             // in all of cache, granuleCost for each granule included
}

func newChain(parents []*layer) *chain {
	return &chain{layers: parents, cache: map[int64][]run{}}
}

// peek is the runs of granule g if they are known.
func (c *chain) peek(g int64) ([]run, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	runs, ok := c.cache[g]
	return runs, ok
}

// resolve is the runs of granule g, ascending and without a gap.
func (c *chain) resolve(g int64) ([]run, error) {
	if runs, ok := c.peek(g); ok {
		return runs, nil
	}
	r := resolver{chain: c, base: g * granule, windows: make([]bitWindow, len(c.layers))}
	if err := r.walk(0, r.base, granule); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.cache[g]; !ok {
		c.cache[g] = r.runs
		c.runs += len(r.runs) + granuleCost
	}
	for old, runs := range c.cache { // any will do
		if c.runs <= maxRuns {
			break
		}
		if old != g {
			delete(c.cache, old)
			c.runs -= len(runs) + granuleCost
		}
	}
	return r.runs, nil
}

// resolver collects the runs of one granule.
type resolver struct {
	chain   *chain
	base    int64
	runs    []run
	windows []bitWindow // by layer
}

// add appends a run, one with its predecessor where they join.
func (r *resolver) add(layer int, off, n int64) {
	start := int64(0)
	if len(r.runs) > 0 {
		last := &r.runs[len(r.runs)-1]
		if last.layer == layer && (layer < 0 || last.off+last.end-r.startOf(len(r.runs)-1) == off) {
			last.end += n
			return
		}
		start = last.end
	}
	r.runs = append(r.runs, run{end: start + n, off: off, layer: layer})
}

func (r *resolver) startOf(i int) int64 {
	if i == 0 {
		return 0
	}
	return r.runs[i-1].end
}

// walk adds the runs of [off, off+n) of the disk as layer depth shows it.
func (r *resolver) walk(depth int, off, n int64) error {
	if depth == len(r.chain.layers) {
		r.add(-1, 0, n)
		return nil
	}
	l := r.chain.layers[depth]
	inside := max(0, min(n, l.size-off))
	if l.blocks == nil {
		if inside > 0 {
			r.add(depth, off, inside)
		}
	} else if err := r.walkBlocks(depth, off, inside); err != nil {
		return err
	}
	if inside < n {
		r.add(-1, 0, n-inside)
	}
	return nil
}

func (r *resolver) walkBlocks(depth int, off, n int64) error {
	m := r.chain.layers[depth].blocks
	for n > 0 {
		b, in := off/m.blockSize, off%m.blockSize
		c := min(n, m.blockSize-in)
		if err := r.walkBlock(depth, b, in, c); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

// walkBlock adds [in, in+n) of block b of a sparse layer.
func (r *resolver) walkBlock(depth int, b, in, n int64) error {
	l := r.chain.layers[depth]
	m := l.blocks
	sector := m.entry(b)
	if sector == format.UnallocatedBlock {
		return r.absent(depth, b*m.blockSize+in, n)
	}
	if err := l.checkEntry(b, sector); err != nil {
		return err
	}
	data := m.dataOffset(sector)
	if m.full.has(b) {
		r.add(depth, data+in, n)
		return nil
	}
	from, to := in/format.SectorSize/8, (in+n-1)/format.SectorSize/8+1
	bitmap, err := r.windows[depth].read(l, b, sector, from, to)
	if err != nil {
		return err
	}
	first := int(from) * 8
	for n > 0 {
		s := int(in/format.SectorSize) - first
		count, set := bitmap.Run(s, s+int(n/format.SectorSize))
		c := int64(count) * format.SectorSize
		if set {
			r.add(depth, data+in, c)
		} else if err := r.absent(depth, b*m.blockSize+in, c); err != nil {
			return err
		}
		in, n = in+c, n-c
	}
	return nil
}

// absent adds what a sparse layer doesn't hold: its parent's, or zeros.
func (r *resolver) absent(depth int, off, n int64) error {
	if r.chain.layers[depth].kind == KindDifferencing {
		return r.walk(depth+1, off, n)
	}
	r.add(-1, 0, n)
	return nil
}

// each calls f for the runs of [off, off+n): start and length in bytes of the
// disk, the run's layer, and where it is in that layer's file. With nowait,
// runs that are not known are blockdev.ErrWouldBlock.
func (c *chain) each(off, n int64, nowait bool, f func(off, n int64, layer int, at int64) error) error {
	for n > 0 {
		g, in := off/granule, off%granule
		runs, ok := c.peek(g)
		if !ok {
			if nowait {
				return blockdev.ErrWouldBlock
			}
			var err error
			if runs, err = c.resolve(g); err != nil {
				return err
			}
		}
		start := int64(0)
		for _, r := range runs {
			if r.end > in && n > 0 {
				k := min(n, r.end-in)
				if err := f(off, k, r.layer, r.off+in-start); err != nil {
					return err
				}
				off, n, in = off+k, n-k, in+k
			}
			start = r.end
		}
	}
	return nil
}

// zero tells whether nobody in the chain holds any of [off, off+n).
func (c *chain) zero(off, n int64) (bool, error) {
	zero := true
	err := c.each(off, n, false, func(_, _ int64, layer int, _ int64) error {
		zero = zero && layer < 0
		return nil
	})
	return zero, err
}
