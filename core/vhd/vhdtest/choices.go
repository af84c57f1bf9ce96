package vhdtest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// choice is one of a cut's states to look at.
type choice struct {
	choose storagetest.Chooser
	number uint64
	of     uint64 // states of the cut
	sample bool   // number counts those looked at
}

// String tells which it is.
func (c choice) String() string {
	if c.sample {
		return fmt.Sprintf("sample %d of %d states", c.number, c.of)
	}
	return fmt.Sprintf("state %d of %d", c.number, c.of)
}

// news tells, for each unit of a cut, from which version on it is new; nil:
// everything is.
type news []int

// newVersions is what of the units is new against those of the call before:
// nothing of one that is as it was. A sync that took units away leaves states
// that were possible before. What both have comes in the same order in both.
func newVersions(before, now []storagetest.Unit) news {
	n := make(news, len(now))
	for i, u := range now {
		n[i] = 1
		same := func(b storagetest.Unit) bool { return b.Sector == u.Sector && b.File == u.File }
		if k := slices.IndexFunc(before, same); k >= 0 {
			n[i] = before[k].Versions + 1
			before = before[k+1:]
		}
	}
	return n
}

// any tells whether the units have anything new.
func (n news) any(units []storagetest.Unit) bool {
	for i, u := range units {
		if n[i] <= u.Versions {
			return true
		}
	}
	return false
}

// has tells whether choice number i of all keeps anything new.
func (n news) has(units []storagetest.Unit, i uint64) bool {
	choose := storagetest.Nth(i)
	for k, u := range units {
		if choose(u) >= n[k] {
			return true
		}
	}
	return false
}

// choices are the states of a cut to look at, of those that have something
// new: all if the cut has no more than limit. Else everything kept, nothing
// kept, all but each one thing, nothing but each, and as many at random as the
// limit leaves.
func choices(cut *storagetest.Cut, n news, limit uint64, r *rand.Rand) iter.Seq[choice] {
	return func(yield func(choice) bool) {
		states, units := cut.States(), cut.Units()
		if n != nil && !n.any(units) {
			yield(choice{choose: storagetest.All, of: states})
			return
		}
		if states > limit {
			sample(units, n, choice{of: states, sample: true}, limit, r, yield)
			return
		}
		for i := range states {
			if n != nil && !n.has(units, i) {
				continue
			}
			if !yield(choice{choose: storagetest.Nth(i), number: i, of: states}) {
				return
			}
		}
	}
}

// sample yields limit of the states.
func sample(units []storagetest.Unit, n news, c choice, limit uint64, r *rand.Rand, yield func(choice) bool) {
	corners := n.corners(units)
	for i := range limit {
		c.number = i
		if i < uint64(len(corners)) {
			c.choose = corners[i]
		} else {
			c.choose = n.keep(units, storagetest.Random(r.Uint64()), r)
		}
		if !yield(c) {
			return
		}
	}
}

// keep is choose, but that one of the new things is kept.
func (n news) keep(units []storagetest.Unit, choose storagetest.Chooser, r *rand.Rand) storagetest.Chooser {
	var fresh []int
	for i, first := range n {
		if first <= units[i].Versions {
			fresh = append(fresh, i)
		}
	}
	if len(fresh) == 0 {
		return choose
	}
	return butFor(fresh[r.IntN(len(fresh))], choose, storagetest.All)
}

// corners are everything, nothing, and each thing by itself lost or kept, as
// far as anything new is in it.
func (n news) corners(units []storagetest.Unit) []storagetest.Chooser {
	list := []storagetest.Chooser{storagetest.All}
	if n == nil {
		list = append(list, storagetest.None)
	}
	fresh := 0 // units with something new
	for i := range n {
		if n[i] <= units[i].Versions {
			fresh++
		}
	}
	for i := range units {
		isNew := n == nil || n[i] <= units[i].Versions
		if n == nil || fresh > 1 || !isNew {
			list = append(list, butFor(i, storagetest.All, storagetest.None))
		}
		if isNew {
			list = append(list, butFor(i, storagetest.None, storagetest.All))
		}
	}
	return list
}

// butFor chooses by most, but for the unit that comes as number i by one.
func butFor(i int, most, one storagetest.Chooser) storagetest.Chooser {
	n := -1
	return func(u storagetest.Unit) int {
		if n++; n == i {
			return one(u)
		}
		return most(u)
	}
}
