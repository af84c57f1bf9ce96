package storagetest

const (
	sectorSize   = 512 // bytes; what a disk writes whole or not at all
	chunkSectors = 64  // one word of bits
)

type sector [sectorSize]byte

// Two sectors that are never written to, and told apart by their address.
var (
	zeroSector = new(sector) // has space and reads as zeros
	holeSector = new(sector) // has none, whatever the lower layer has there
)

// chunk is a run of sectors; nil is a hole, or what the lower layer has.
type chunk struct {
	sectors [chunkSectors]*sector
	own     uint64                 // those that nobody else has: they may be changed in place
	synced  *[chunkSectors]*sector // the sectors as of the last sync; nil if unchanged since
}

// sparse is the bytes of a file: what was written, by sector, over a frozen
// lower layer. It knows no size; bytes past the end are zeros. The caller
// locks.
type sparse struct {
	chunks   chunks
	lower    *sparse // never changed, without a lower of its own; may be nil
	lowerEnd int64   // the sectors of lower from here on don't show
	dirty    []*chunk
}

// at is sector i, not to be written to; nil for a hole.
func (s *sparse) at(i int64) *sector {
	if c := s.chunks.get(i / chunkSectors); c != nil {
		switch p := c.sectors[i%chunkSectors]; p {
		case nil:
		case holeSector:
			return nil
		default:
			return p
		}
	}
	if s.lower != nil && i < s.lowerEnd {
		return s.lower.at(i)
	}
	return nil
}

// chunk is the chunk of sector i, made if need be.
func (s *sparse) chunk(i int64) *chunk {
	c := s.chunks.get(i / chunkSectors)
	if c == nil {
		c = new(chunk)
		s.chunks.put(i/chunkSectors, c)
	}
	return c
}

// change is the chunk of sector i, for changing: what dropUnsynced needs is
// kept.
func (s *sparse) change(i int64) *chunk {
	c := s.chunk(i)
	if c.synced == nil {
		was := c.sectors
		c.synced, c.own = &was, 0
		s.dirty = append(s.dirty, c)
	}
	return c
}

// set makes p, which others may have too, sector i; nil makes a hole.
func (s *sparse) set(i int64, p *sector) {
	s.change(i)
	s.place(i, p)
}

// place is set for something that is synced.
func (s *sparse) place(i int64, p *sector) {
	if p == nil && s.lower != nil && i < s.lowerEnd {
		p = holeSector
	}
	c := s.chunk(i)
	c.sectors[i%chunkSectors] = p
	c.own &^= 1 << (i % chunkSectors)
}

// store copies p to sector i from byte from on.
func (s *sparse) store(i int64, from int, p []byte) {
	c, slot := s.change(i), i%chunkSectors
	if c.own&(1<<slot) == 0 {
		fresh := new(sector)
		if old := s.at(i); old != nil && len(p) < sectorSize {
			*fresh = *old
		}
		c.sectors[slot] = fresh
		c.own |= 1 << slot
	}
	copy(c.sectors[slot][from:], p)
}

// share is sector i as it is now: later writes go to a copy.
func (s *sparse) share(i int64) *sector {
	if c := s.chunks.get(i / chunkSectors); c != nil {
		c.own &^= 1 << (i % chunkSectors)
	}
	return s.at(i)
}

// pieces calls f for each sector that [off, off+n) touches, with the part of
// it that is touched.
func pieces(off, n int64, f func(i int64, from, to int)) {
	for end := off + n; off < end; {
		i, from := off/sectorSize, off%sectorSize
		to := min(sectorSize, from+end-off)
		f(i, int(from), int(to))
		off += to - from
	}
}

func (s *sparse) readAt(p []byte, off int64) {
	for i, from := off/sectorSize, off%sectorSize; len(p) > 0; i, from = i+1, 0 {
		n := min(len(p), int(sectorSize-from))
		if data := s.at(i); data != nil {
			copy(p[:n], data[from:])
		} else {
			clear(p[:n])
		}
		p = p[n:]
	}
}

func (s *sparse) writeAt(p []byte, off int64) {
	pieces(off, int64(len(p)), func(i int64, from, to int) {
		s.store(i, from, p[:to-from])
		p = p[to-from:]
	})
}

// zero makes holes of whole sectors, and writes zeros to the others.
func (s *sparse) zero(off, n int64) {
	pieces(off, n, func(i int64, from, to int) {
		switch {
		case s.at(i) == nil:
		case to-from == sectorSize:
			s.set(i, nil)
		default:
			s.store(i, from, zeroSector[:to-from])
		}
	})
}

// reserve gives holes space.
func (s *sparse) reserve(off, n int64) {
	pieces(off, n, func(i int64, _, _ int) {
		if s.at(i) == nil {
			s.set(i, zeroSector)
		}
	})
}

// cut makes everything from size bytes on a hole. It is not undone by
// dropUnsynced: a size is metadata, and not lost with the pages.
func (s *sparse) cut(size int64) {
	i, keep := size/sectorSize, size%sectorSize
	if keep > 0 {
		s.cutSector(i, keep)
		i++
	}
	s.lowerEnd = min(s.lowerEnd, i)
	for k, c := range s.chunks.all {
		switch first := k * chunkSectors; {
		case first >= i:
			s.chunks.put(k, nil)
			c.synced = nil // it may be among the dirty ones still
		case first+chunkSectors > i:
			clear(c.sectors[i-first:])
			c.own &= 1<<(i-first) - 1
			if c.synced != nil {
				clear(c.synced[i-first:])
			}
		}
	}
}

// cutSector zeroes sector i from byte keep on, now and as of the last sync.
func (s *sparse) cutSector(i, keep int64) {
	if s.at(i) != nil {
		s.store(i, int(keep), zeroSector[keep:])
	}
	c, slot := s.chunks.get(i/chunkSectors), i%chunkSectors
	if c == nil || c.synced == nil {
		return
	}
	was := c.synced[slot]
	if was == nil && s.lower != nil && i < s.lowerEnd {
		was = s.lower.at(i)
	}
	if was != nil && was != holeSector {
		short := *was
		clear(short[keep:])
		c.synced[slot] = &short
	}
}

// sync makes what is there what dropUnsynced goes back to.
func (s *sparse) sync() {
	for _, c := range s.dirty {
		c.synced = nil
	}
	s.dirty = nil
}

// dropUnsynced takes back what was stored since the last sync.
func (s *sparse) dropUnsynced() {
	for _, c := range s.dirty {
		if c.synced != nil {
			c.sectors, c.own, c.synced = *c.synced, 0, nil
		}
	}
	s.dirty = nil
}

// frozen is a copy of s as it is now, in one layer, for others to build on.
// It shares the sectors and costs a chunk for each that was changed.
func (s *sparse) frozen() *sparse {
	all := &sparse{}
	if s.lower != nil {
		for k, c := range s.lower.chunks.all {
			if (k+1)*chunkSectors > s.lowerEnd {
				c = s.merged(k)
			}
			all.chunks.put(k, c)
		}
	}
	for k, c := range s.chunks.all {
		c.own = 0
		all.chunks.put(k, s.merged(k))
	}
	return all
}

// merged is chunk k of both layers; nil if all of it is a hole.
func (s *sparse) merged(k int64) *chunk {
	c := new(chunk)
	for slot := range c.sectors {
		c.sectors[slot] = s.at(k*chunkSectors + int64(slot))
	}
	if c.sectors == [chunkSectors]*sector{} {
		return nil
	}
	return c
}

// all yields the sectors that aren't holes, as at has them.
func (s *sparse) all(yield func(i int64, p *sector) bool) {
	for k, c := range s.chunks.all {
		var under *chunk
		if s.lower != nil {
			under = s.lower.chunks.get(k)
		}
		for slot, p := range c.sectors {
			i := k*chunkSectors + int64(slot)
			if p == nil && under != nil && i < s.lowerEnd {
				p = under.sectors[slot]
			}
			if p != nil && p != holeSector && !yield(i, p) {
				return
			}
		}
	}
	if s.lower == nil {
		return
	}
	for k, c := range s.lower.chunks.all {
		if s.chunks.get(k) != nil {
			continue
		}
		for slot, p := range c.sectors {
			if i := k*chunkSectors + int64(slot); p != nil && i < s.lowerEnd && !yield(i, p) {
				return
			}
		}
	}
}

// over is an empty layer on lower, all of which shows.
func over(lower *sparse) sparse {
	return sparse{lower: lower, lowerEnd: 1<<63 - 1}
}

// data tells whether sector i was written.
func (s *sparse) data(i int64) bool {
	p := s.at(i)
	return p != nil && p != zeroSector
}

// nextData is the first run of sectors from i on, up to but without end, that
// were written; ok is false where there is none.
func (s *sparse) nextData(i, end int64) (first, last int64, ok bool) {
	for first = i; first < end && !s.data(first); {
		first++
		if first%chunkSectors == 0 {
			first = s.nextChunk(first / chunkSectors)
		}
	}
	if first >= end {
		return 0, 0, false
	}
	for last = first + 1; last < end && s.data(last); {
		last++
	}
	return first, last, true
}

// nextChunk is the first sector of the first chunk from k on that either layer
// has.
func (s *sparse) nextChunk(k int64) int64 {
	const none = 1<<63 - 1
	next := int64(none)
	for l := s; l != nil; l = l.lower {
		if l.chunks.get(k) != nil {
			return k * chunkSectors
		}
		for have := range l.chunks.all {
			if have > k {
				next = min(next, have)
			}
		}
	}
	if next == none {
		return none
	}
	return next * chunkSectors
}

// allocated is the number of bytes that have space.
func (s *sparse) allocated() int64 {
	var bytes int64
	for range s.all {
		bytes += sectorSize
	}
	return bytes
}
