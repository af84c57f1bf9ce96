package storagetest

import (
	"fmt"
	"math/rand/v2"
)

// Unit is something that was not stable when the power was cut, and that a
// state has to decide, independently of the others.
type Unit struct {
	File   string // the file's first name; empty for the journal of names
	Sector int64  // -1 for the file's size
	// Versions is the number of things that were done to it and are not
	// stable, at least 1.
	Versions int
}

// String names the unit.
func (u Unit) String() string {
	switch {
	case u.File == "":
		return "names"
	case u.Sector < 0:
		return u.File + ": size"
	default:
		return fmt.Sprintf("%s: sector %d", u.File, u.Sector)
	}
}

// Chooser decides how much of a unit the disk has: 0 is what was stable,
// u.Versions is the last that was done to it. It is called once for each unit,
// in the order of Units.
type Chooser func(u Unit) int

// All is a disk that had written everything.
func All(u Unit) int { return u.Versions }

// None is a disk that had written nothing but what was synced.
func None(Unit) int { return 0 }

// Nth is the choice number n of all: those below Cut.States are all different
// choices. Where there are too many to go through, take Random.
func Nth(n uint64) Chooser {
	return func(u Unit) int {
		choice := n % (uint64(u.Versions) + 1)
		n /= uint64(u.Versions) + 1
		return int(choice)
	}
}

// Random decides by the seed: how much is kept on the whole, and then each
// unit. It is good for one State.
func Random(seed uint64) Chooser {
	r := rand.New(rand.NewPCG(seed, 0))
	keep := r.Float64()
	return func(u Unit) int {
		if r.Float64() < keep {
			return u.Versions
		}
		return r.IntN(u.Versions)
	}
}
