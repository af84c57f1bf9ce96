package storagetest_test

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

var someUnits = []storagetest.Unit{{Versions: 1}, {Versions: 3}, {Versions: 2}}

func choices(choose storagetest.Chooser) [3]int {
	var c [3]int
	for i, u := range someUnits {
		c[i] = choose(u)
	}
	return c
}

func TestNthGoesThroughAllChoices(t *testing.T) {
	seen := map[[3]int]bool{}
	for n := range uint64(2 * 4 * 3) {
		seen[choices(storagetest.Nth(n))] = true
	}
	if len(seen) != 2*4*3 {
		t.Errorf("%d different choices of %d", len(seen), 2*4*3)
	}
	for _, end := range [][3]int{choices(storagetest.None), choices(storagetest.All)} {
		if !seen[end] {
			t.Errorf("%v is not among them", end)
		}
	}
}

func TestRandomIsRepeatableAndReachesAll(t *testing.T) {
	seen := map[[3]int]bool{}
	for seed := range uint64(2000) {
		c := choices(storagetest.Random(seed))
		if again := choices(storagetest.Random(seed)); c != again {
			t.Fatalf("seed %d: %v, then %v", seed, c, again)
		}
		for i, u := range someUnits {
			if c[i] < 0 || c[i] > u.Versions {
				t.Fatalf("seed %d: %v", seed, c)
			}
		}
		seen[c] = true
	}
	if len(seen) != 2*4*3 {
		t.Errorf("%d different choices of %d", len(seen), 2*4*3)
	}
}
