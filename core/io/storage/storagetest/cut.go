package storagetest

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// Cut is a moment at which the power is cut: what was stable then, and what
// wasn't. It never changes; its methods are safe for concurrent use.
type Cut struct {
	point   int
	names   map[string]*cutFile
	pending []cutName
	files   []*cutFile
	units   []Unit
}

// cutName is a nameChange.
type cutName struct {
	file     *cutFile
	add, del string
}

// cutFile is a file at that moment.
type cutFile struct {
	index    int // in files
	inode    *inode
	base     *sparse
	baseSize int64 // bytes
	known    facts // of base
	sizes    []sizeChange
	sectors  []cutSector // ascending
	modTime  time.Time
}

// cutSector is a sector that isn't stable.
type cutSector struct {
	sector   int64
	sum      uint64 // of what is stable
	versions []version
}

// Cut is the moment after the first point calls, 0 to Points. Going from one
// point to the next costs what the calls between them touched; going back
// starts over.
func (c *Crash) Cut(point int) *Cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && c.last.point == point {
		return c.last
	}
	if point < c.replay.point {
		c.replay = newReplay(c.base)
	}
	for c.replay.point < point {
		c.replay.play(&c.log[c.replay.point])
	}
	c.last = c.replay.cut()
	return c.last
}

// State is Cut(point).State(choose).
func (c *Crash) State(point int, choose Chooser) *Memory { return c.Cut(point).State(choose) }

// cut copies what play changes; the sectors are shared.
func (r *replay) cut() *Cut {
	cut := &Cut{point: r.point, names: map[string]*cutFile{}}
	if len(r.pending) > 0 {
		cut.units = append(cut.units, Unit{Sector: -1, Versions: len(r.pending)})
	}
	of := map[*replayFile]*cutFile{}
	for _, f := range r.order {
		if r.reachable(f) {
			of[f] = cut.add(f)
		}
	}
	for name, f := range r.names {
		cut.names[name] = of[f]
	}
	for _, n := range r.pending {
		cut.pending = append(cut.pending, cutName{of[n.file], n.add, n.del})
	}
	return cut
}

// reachable tells whether some choice gives the file a name.
func (r *replay) reachable(f *replayFile) bool {
	for _, named := range r.names {
		if named == f {
			return true
		}
	}
	return slices.ContainsFunc(r.pending, func(n nameChange) bool { return n.file == f })
}

// add adds a file and its units.
func (cut *Cut) add(f *replayFile) *cutFile {
	if !f.known.summed {
		f.known = facts{sum: f.base.sum(), summed: true, allocated: f.base.allocated(), measured: true}
	}
	to := &cutFile{index: len(cut.files), inode: f.inode, base: f.base, baseSize: f.baseSize, known: f.known, sizes: f.sizes, modTime: f.modTime}
	cut.files = append(cut.files, to)
	to.sectors = make([]cutSector, 0, len(f.sectors))
	for i, versions := range f.sectors {
		to.sectors = append(to.sectors, cutSector{i, sumSector(i, f.base.at(i)), versions})
	}
	slices.SortFunc(to.sectors, func(a, b cutSector) int { return cmp.Compare(a.sector, b.sector) })
	if len(to.sizes) > 0 {
		cut.units = append(cut.units, Unit{File: f.name, Sector: -1, Versions: len(to.sizes)})
	}
	for _, s := range to.sectors {
		cut.units = append(cut.units, Unit{File: f.name, Sector: s.sector, Versions: len(s.versions)})
	}
	return to
}

// Units is what isn't stable, in the order in which a Chooser is asked.
func (cut *Cut) Units() []Unit { return slices.Clone(cut.units) }

// States is the number of choices, math.MaxUint64 if there are more. Different
// choices may make the same state: where bytes were written that were there.
func (cut *Cut) States() uint64 {
	n := uint64(1)
	for _, u := range cut.units {
		over, product := bits.Mul64(n, uint64(u.Versions)+1)
		if over > 0 {
			return math.MaxUint64
		}
		n = product
	}
	return n
}

// State is the file system that one choice leaves. It belongs to the caller
// and is changed without any effect on others. It costs about as many steps as
// there are units and files, whatever the files' size.
func (cut *Cut) State(choose Chooser) *Memory {
	units := cut.units
	next := func() int {
		u := units[0]
		units = units[1:]
		return choose(u)
	}
	kept := 0
	if len(cut.pending) > 0 {
		kept = next()
	}
	inodes := make([]*inode, len(cut.files))
	m := &Memory{names: make(map[string]*inode, len(cut.names)+kept)}
	for i, f := range cut.files {
		inodes[i] = f.state(next)
		m.lastID = max(m.lastID, f.inode.id)
	}
	for name, f := range cut.names {
		m.names[name] = inodes[f.index]
	}
	for _, n := range cut.pending[:kept] {
		if n.del != "" {
			delete(m.names, n.del)
		}
		if n.add != "" {
			m.names[n.add] = inodes[n.file.index]
		}
	}
	return m
}

// state is the file as next chooses.
func (f *cutFile) state(next func() int) *inode {
	ino := &inode{id: f.inode.id, mode: f.inode.mode, data: over(f.base), size: f.baseSize, modTime: f.modTime}
	kept := 0
	if len(f.sizes) > 0 {
		if kept = next(); kept > 0 {
			ino.size = f.sizes[kept-1].size
		}
	}
	known := f.known
	if limit := min(ino.size, f.limit(kept, 0)); limit < f.baseSize {
		ino.data.cut(limit)
		known = facts{}
	}
	for _, s := range f.sectors {
		if k := next(); k > 0 {
			v := s.versions[k-1]
			room := min(ino.size, f.limit(kept, v.point)) - s.sector*sectorSize
			if room > 0 {
				ino.data.place(s.sector, v.upTo(room))
				known.sum += v.sum - s.sum
				known.summed = known.summed && room >= sectorSize
				known.measured = false
			}
		}
	}
	ino.data.sync()
	ino.known = known
	return ino
}

// limit is the smallest size that the first kept changes cut the file to after
// the point: nothing from before is behind it.
func (f *cutFile) limit(kept, point int) int64 {
	limit := int64(math.MaxInt64)
	for _, s := range f.sizes[:kept] {
		if s.cuts && s.point > point {
			limit = min(limit, s.size)
		}
	}
	return limit
}

// upTo is the version's data without what is n bytes or more from its start.
func (v version) upTo(n int64) *sector {
	if v.data == nil || n >= sectorSize {
		return v.data
	}
	short := *v.data
	clear(short[n:])
	return &short
}
