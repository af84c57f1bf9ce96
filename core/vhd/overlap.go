package vhd

import (
	"slices"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// maxPlaces is how many blocks are put in order at once: 8 MiB of memory, and
	// as much again to sort them, enough for 2 TiB in blocks of 2 MiB.
	maxPlaces = 1 << 20
	// A bucket is 2^20 sectors of the file, of which 2^32 can be told apart. It
	// has room for half as many blocks: fewer than are put in order at once.
	bucketShift = 20
	maxBuckets  = 1 << (32 - bucketShift)
)

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
	buf, scratch := make([]format.Place, min(total, maxPlaces)+1), make([]format.Place, min(total, maxPlaces)+1)
	kept := 0 // of the part before: its last block may reach into the next
	for from := 0; from < len(counts); {
		to, n := from, 0
		for to < len(counts) && (to == from || n+counts[to] <= maxPlaces) {
			n += counts[to]
			to++
		}
		if n > 0 {
			places := l.collectPlaces(buf, kept, from, to)
			format.SortPlaces(places, scratch)
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
	counts = make([]int, min(l.footerStart()/format.SectorSize>>bucketShift+1, maxBuckets))
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
// behind those that are kept. What a bucket holds beyond the end of buf, it has
// no room for: the others overlap already.
func (l *layer) collectPlaces(buf []format.Place, kept, from, to int) []format.Place {
	n := kept
	for b, sector := range l.blocks.bat {
		if at := int(sector >> bucketShift); at >= from && at < to && sector != format.UnallocatedBlock && n < len(buf) {
			buf[n] = format.PlaceOf(int64(b), sector)
			n++
		}
	}
	return buf[:n]
}

// checkPlaces looks at blocks that are neighbours in the file.
func (l *layer) checkPlaces(places []format.Place, metadata []span) error {
	stride := l.blocks.stride()
	end := func(p format.Place) int64 { return l.blocks.bitmapOffset(p.Sector()) + stride }
	for i := 1; i < len(places); i++ {
		if p, q := places[i-1], places[i]; end(p) > l.blocks.bitmapOffset(q.Sector()) {
			return l.errorf(blockName(q.Block()), corrupt("BAT entry (sector %d) overlaps block %d (sector %d)", q.Sector(), p.Block(), p.Sector()))
		}
	}
	for _, s := range metadata {
		limit := min(roundUp(s.end, format.SectorSize)/format.SectorSize, int64(format.UnallocatedBlock)) // no block begins there or later
		i, _ := slices.BinarySearch(places, format.PlaceOf(0, uint32(limit)))
		if i == 0 {
			continue
		}
		if p := places[i-1]; end(p) > s.start {
			return l.errorf(blockName(p.Block()), corrupt("BAT entry (sector %d) points into %s (bytes %d to %d): open it read-only", p.Sector(), s.what, s.start, s.end))
		}
	}
	return nil
}
