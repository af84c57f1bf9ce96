package format

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPlaceKeepsBlockAndSector(t *testing.T) {
	for _, c := range []struct {
		block  int64
		sector uint32
	}{{0, 0}, {1, 0}, {0, 1}, {1<<32 - 1, 0xFFFFFFFE}, {8<<20 - 1, 4}} {
		if p := PlaceOf(c.block, c.sector); p.Block() != c.block || p.Sector() != c.sector {
			t.Errorf("PlaceOf(%d, %d) has block %d, sector %d", c.block, c.sector, p.Block(), p.Sector())
		}
	}
	if PlaceOf(9, 1) >= PlaceOf(0, 2) || PlaceOf(1, 2) >= PlaceOf(2, 2) {
		t.Error("places are not in the order of the file, then of the blocks")
	}
}

func TestSortPlaces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sectors := map[string]func(i int) uint32{
		"in order":           func(i int) uint32 { return uint32(i) * 9 },
		"backwards":          func(i int) uint32 { return ^uint32(i) },
		"shuffled":           func(int) uint32 { return rng.Uint32() },
		"one sector":         func(int) uint32 { return 77 },
		"low digit alone":    func(int) uint32 { return rng.Uint32N(1 << 11) },
		"middle digit alone": func(int) uint32 { return rng.Uint32N(1<<11) << 11 },
		"high digit alone":   func(int) uint32 { return rng.Uint32N(1<<10) << 22 },
		"two low digits":     func(int) uint32 { return rng.Uint32N(1 << 22) },
		"few sectors":        func(int) uint32 { return rng.Uint32N(10) << 10 },
	}
	for name, sector := range sectors {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 1000, 5000} {
				places := make([]Place, n)
				for i := range places {
					places[i] = PlaceOf(int64(i), sector(i))
				}
				want := slices.Sorted(slices.Values(places))
				scratch := make([]Place, n+1)
				scratch[n] = 1
				SortPlaces(places, scratch)
				if !slices.Equal(places, want) {
					t.Errorf("%d places are out of order", n)
				}
				if scratch[n] != 1 {
					t.Errorf("%d places took more of the scratch space than that", n)
				}
			}
		})
	}
}

// TestSortPlacesKeepsEquals: those of one sector stay as they come.
func TestSortPlacesKeepsEquals(t *testing.T) {
	places := []Place{PlaceOf(3, 5), PlaceOf(1, 4), PlaceOf(2, 5), PlaceOf(0, 4)}
	SortPlaces(places, make([]Place, len(places)))
	if want := []Place{PlaceOf(1, 4), PlaceOf(0, 4), PlaceOf(3, 5), PlaceOf(2, 5)}; !slices.Equal(places, want) {
		t.Errorf("got %x, want %x", places, want)
	}
}
