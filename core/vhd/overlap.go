package vhd

import (
	"slices"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// maxPlaces is how many blocks are put in order at once: 16 MiB of memory,
	// enough for 4 TiB in blocks of 2 MiB.
	maxPlaces = 2 << 20
	// A bucket is 2^20 sectors of the file, of which 2^32 can be told apart. It
	// has room for half as many blocks: fewer than are put in order at once.
	bucketShift = 20
	buckets     = 1 << (32 - bucketShift)
)

// place is where a block begins, a sector, above the block's number: in the
// order of places, which is that of the file.
type place uint64

func (p place) sector() uint32 { return uint32(p >> 32) }
func (p place) block() int64   { return int64(uint32(p)) }

// checkBAT looks at every entry: in the file, and touching neither metadata
// nor another block. A damaged map is not written through.
//
// Blocks are put in order by parts of the file, so that the largest BAT takes
// little more memory than the BAT.
func (l *layer) checkBAT() error {
	counts, total, err := l.countPlaces()
	if err != nil {
		return err
	}
	metadata := l.metadata()
	buf := make([]place, min(total, maxPlaces)+1)
	kept := 0 // of the part before: its last block may reach into the next
	for from := 0; from < buckets; {
		to, n := from, 0
		for to < buckets && (to == from || n+counts[to] <= maxPlaces) {
			n += counts[to]
			to++
		}
		if n > 0 {
			places := l.collectPlaces(buf, kept, from, to)
			if err := l.checkPlaces(places, metadata); err != nil {
				return err
			}
			kept = copy(buf, places[len(places)-1:])
		}
		from = to
	}
	return nil
}

// countPlaces counts blocks by the bucket that they begin in; damage where one
// is not in the file.
func (l *layer) countPlaces() (counts []int, total int, err error) {
	counts = make([]int, buckets)
	for b, sector := range l.blocks.bat {
		if sector == format.UnallocatedBlock {
			continue
		}
		if err := l.checkEntry(int64(b), sector); err != nil {
			return nil, 0, err
		}
		counts[sector>>bucketShift]++
		total++
	}
	return counts, total, nil
}

// collectPlaces puts the blocks that begin in the buckets [from, to) into buf,
// in order, behind those that are kept. What a bucket holds beyond the end of
// buf, it has no room for: the others overlap already.
func (l *layer) collectPlaces(buf []place, kept, from, to int) []place {
	n := kept
	for b, sector := range l.blocks.bat {
		if at := int(sector >> bucketShift); sector != format.UnallocatedBlock && at >= from && at < to && n < len(buf) {
			buf[n] = place(sector)<<32 | place(b)
			n++
		}
	}
	if places := buf[:n]; !slices.IsSorted(places) {
		slices.Sort(places)
	}
	return buf[:n]
}

// checkPlaces looks at blocks that are neighbours in the file.
func (l *layer) checkPlaces(places []place, metadata []span) error {
	stride := l.blocks.stride()
	end := func(p place) int64 { return l.blocks.bitmapOffset(p.sector()) + stride }
	for i := 1; i < len(places); i++ {
		if p, q := places[i-1], places[i]; end(p) > l.blocks.bitmapOffset(q.sector()) {
			return l.errorf(blockName(q.block()), corrupt("BAT entry (sector %d) overlaps block %d (sector %d)", q.sector(), p.block(), p.sector()))
		}
	}
	for _, s := range metadata {
		limit := min(roundUp(s.end, format.SectorSize)/format.SectorSize, int64(format.UnallocatedBlock)) // no block begins there or later
		i, _ := slices.BinarySearch(places, place(limit)<<32)
		if i == 0 {
			continue
		}
		if p := places[i-1]; end(p) > s.start {
			return l.errorf(blockName(p.block()), corrupt("BAT entry (sector %d) points into %s (bytes %d to %d)", p.sector(), s.what, s.start, s.end))
		}
	}
	return nil
}
