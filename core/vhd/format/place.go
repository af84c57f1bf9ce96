package format

import "slices"

// Place is a block and where it begins in the file: its BAT entry, a sector,
// above its number. So the order of Places as numbers is that of the file, and
// of blocks in one sector that of their numbers.
type Place uint64

// PlaceOf is the place of a block that begins at a sector.
func PlaceOf(block int64, sector uint32) Place { return Place(sector)<<32 | Place(uint32(block)) }

// Sector is where the block begins, a sector of the file.
func (p Place) Sector() uint32 { return uint32(p >> 32) }

// Block is the block's number.
func (p Place) Block() int64 { return int64(uint32(p)) }

// A digit of a sector's number, by which places are put in order; three make
// the whole of its 32 bits.
const (
	digitBits   = 11
	digitValues = 1 << digitBits
	digits      = 3
)

func (p Place) digit(i int) int { return int(p>>(32+digitBits*i)) & (digitValues - 1) }

// SortPlaces puts places in the order of the file, those of one sector in the
// order in which they come. scratch has room for as many; what it holds is
// lost. It panics if scratch is shorter.
//
// A BAT can have millions of entries in any order. Sorted digit by digit they
// cost the same whatever the order, and a few nanoseconds each.
func SortPlaces(places, scratch []Place) {
	if slices.IsSorted(places) {
		return
	}
	var starts [digits][digitValues]uint32
	for _, p := range places {
		for i := range digits {
			starts[i][p.digit(i)]++
		}
	}
	from, to := places, scratch[:len(places)]
	for i := range digits {
		if starts[i][places[0].digit(i)] == uint32(len(places)) {
			continue // all have the same
		}
		sum := uint32(0)
		for v, n := range starts[i] {
			starts[i][v] = sum
			sum += n
		}
		for _, p := range from {
			at := &starts[i][p.digit(i)]
			to[*at] = p
			*at++
		}
		from, to = to, from
	}
	if &from[0] != &places[0] {
		copy(places, from)
	}
}
