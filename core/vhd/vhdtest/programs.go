package vhdtest

import (
	"math/rand/v2"
	"slices"
)

// generator makes the programs of an exploration: all short ones, then random
// ones, some of them with steps beside one another.
type generator struct {
	ops     []Operation
	sectors int // of the disk
	block   int // sectors of a block; of a fixed disk, any number
	letters []Step
	short   [][]Step // programs still to come, in order
	seed    uint64
	made    uint64
}

// exhaustive is the length up to which all programs are made.
const exhaustive = 3

func newGenerator(k Kind, sectors int, o Options) *generator {
	g := &generator{ops: o.Operations, sectors: sectors, block: k.Block, seed: o.Seed}
	if g.ops == nil {
		g.ops = Operations()
	}
	if g.block == 0 {
		g.block = 4
	}
	for i := range g.ops {
		g.letters = append(g.letters, g.typical(&g.ops[i])...)
	}
	g.enumerate()
	return g
}

// typical is the steps by which an operation takes part in the short programs:
// a part of a block, a range over two blocks, a whole block.
func (g *generator) typical(op *Operation) []Step {
	b := g.block
	fit := func(first, count, arg int) Step {
		first = min(first, g.sectors-1)
		return Step{Op: op, First: first, Count: min(count, g.sectors-first), Arg: arg}
	}
	switch {
	case !op.Ranged:
		return []Step{{Op: op, Arg: op.Arg / 3}}
	case op.Arg > 0:
		return []Step{fit(1, b, 1), fit(1, b, op.Arg/3)}
	case op.Name == "write":
		return []Step{fit(0, 1, 0), fit(b-1, 2, 0), fit(b, b, 0)}
	case op.Name == "part":
		return []Step{fit(b, 2, 0)}
	default:
		return []Step{fit(b, b, 0)}
	}
}

// enumerate lists all programs of the letters: the shorter ones first, those
// of a length in an order that a seed has shuffled.
func (g *generator) enumerate() {
	last := [][]Step{nil}
	for range exhaustive {
		var longer [][]Step
		for _, p := range last {
			for _, s := range g.letters {
				longer = append(longer, append(slices.Clone(p), s))
			}
		}
		last = longer
		shuffled := slices.Clone(longer)
		rand.New(rand.NewPCG(g.seed, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		g.short = append(g.short, shuffled...)
	}
}

// job is a program to explore.
type job struct {
	number  uint64
	program Program
	// prefix is how many of its first steps make a program of their own: the
	// points in them are explored there.
	prefix int
	short  bool
}

// next is the next program. Of four, two are short as long as there are any.
func (g *generator) next() job {
	n := g.made
	g.made++
	if len(g.short) > 0 && (n < uint64(len(g.letters)) || n%4 < 2) {
		steps := g.short[0]
		g.short = g.short[1:]
		return job{number: n, short: true, prefix: len(steps) - 1, program: Program{Before: steps, careful: n%2 == 0}}
	}
	r := rand.New(rand.NewPCG(g.seed, n<<8|2))
	if n%4 == 3 && slices.ContainsFunc(g.ops, func(op Operation) bool { return op.Concurrent }) {
		return job{number: n, program: g.beside(r)}
	}
	return job{number: n, program: Program{Before: g.random(r, 6+r.IntN(8)), careful: n%8 < 4}}
}

// random is n steps.
func (g *generator) random(r *rand.Rand, n int) []Step {
	steps := make([]Step, n)
	for i := range steps {
		steps[i] = g.step(r, func(*Operation) bool { return true })
	}
	return steps
}

// beside is a program with steps that go beside one another.
func (g *generator) beside(r *rand.Rand) Program {
	p := Program{Before: g.random(r, 1+r.IntN(4)), After: g.random(r, r.IntN(3)), Seed: r.Uint64()}
	for range 2 + r.IntN(2) {
		steps := make([]Step, 1+r.IntN(4))
		for i := range steps {
			steps[i] = g.step(r, func(op *Operation) bool { return op.Concurrent })
		}
		p.Beside = append(p.Beside, steps)
	}
	return p
}

// step is a random step of one of the operations that fit. Writes and flushes
// are as frequent as all others together.
func (g *generator) step(r *rand.Rand, fit func(op *Operation) bool) Step {
	for {
		op := &g.ops[r.IntN(len(g.ops))]
		switch r.IntN(6) {
		case 0, 1:
			op = g.named("write", op)
		case 2:
			op = g.named("flush", op)
		}
		if !fit(op) {
			continue
		}
		s := Step{Op: op}
		if op.Arg > 0 {
			s.Arg = r.IntN(op.Arg)
		}
		if op.Ranged {
			s.First, s.Count = g.span(r)
		}
		return s
	}
}

func (g *generator) named(name string, otherwise *Operation) *Operation {
	if i := slices.IndexFunc(g.ops, func(op Operation) bool { return op.Name == name }); i >= 0 {
		return &g.ops[i]
	}
	return otherwise
}

// span is a random range: often a whole block, most often less than three.
func (g *generator) span(r *rand.Rand) (first, count int) {
	first = r.IntN(g.sectors)
	switch r.IntN(8) {
	case 0, 1:
		first -= first % g.block
		count = g.block
	case 2:
		count = 1 + r.IntN(g.sectors)
	default:
		count = 1 + r.IntN(2*g.block+1)
	}
	return first, min(count, g.sectors-first)
}
