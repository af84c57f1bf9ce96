package vhdtest

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"path"
	"runtime"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Name is the image that is the disk when a program begins.
const Name = "/disk.vhd"

// Tags of a first life count up from firstTag, those of a second one from
// secondTag: what a crash has lost is told from what was written since.
const (
	firstTag  = 1 << 20
	secondTag = 1 << 24
)

// Options say how much is explored, and how.
type Options struct {
	States     int         // different states to look at, at least
	Seed       uint64      // another one makes other random programs and samples
	Operations []Operation // nil: Operations
	// Wrap puts something between the engine and the storage; it is called
	// for each program. nil: nothing.
	Wrap func(storage.FS) storage.FS
	// Show puts something before the images that programs work on. What it
	// starts by itself no program has run beside another: give it Operations
	// that aren't Concurrent. nil: nothing.
	Show Show
	// Workers is how many programs run at once; 0: as many as Go uses CPUs.
	Workers int
}

// Explore runs programs on a kind of disk and looks at what power cuts may
// leave, until it has seen o.States different states. An error is a *Failure,
// or why it could not begin.
func Explore(k Kind, o Options) (*Report, error) {
	began := time.Now()
	x, err := newExplorer(k, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	workers := o.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(x.work)
	}
	wg.Wait()
	x.report.Kind, x.report.States, x.report.Elapsed = k.Name, len(x.states), time.Since(began)
	return &x.report, x.failed
}

// explorer is an exploration under way.
type explorer struct {
	Options
	kind   Kind
	start  *storagetest.Memory // never changed
	hash   maphash.Seed
	parent string // of the image; empty: none
	sample uint64 // states looked at, at most, of a point
	album  album  // of first lives

	// mu guards what follows. It is a leaf.
	mu     sync.Mutex
	gen    *generator
	states map[uint64]struct{}
	report Report
	failed error
}

func newExplorer(k Kind, o Options) (*explorer, error) {
	x := &explorer{Options: o, kind: k, start: storagetest.NewMemory(), hash: maphash.MakeSeed(), states: map[uint64]struct{}{}}
	x.album.views = map[uint64]view{}
	if err := k.Make(x.start); err != nil {
		return nil, err
	}
	img, err := vhd.Open(Name, vhd.Options{FS: x.start, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	if layers := img.Layers(); len(layers) > 1 {
		x.parent = layers[1].Name
	}
	sectors := int(img.Size() / format.SectorSize)
	if err := img.Close(); err != nil {
		return nil, err
	}
	x.gen = newGenerator(k, sectors, o)
	x.sample = uint64(min(max(o.States/200, 48), 1<<16))
	return x, nil
}

// work explores programs until there is enough, or one has failed.
func (x *explorer) work() {
	sight := &eyes{}
	for {
		x.mu.Lock()
		done := x.failed != nil || len(x.states) >= x.Options.States
		var j job
		if !done {
			j = x.gen.next()
		}
		x.mu.Unlock()
		if done {
			return
		}
		if err := x.explore(j, sight); err != nil {
			x.mu.Lock()
			if x.failed == nil {
				x.failed = err
			}
			x.mu.Unlock()
		}
	}
}

// explore explores one program and the second lives of some of its states.
func (x *explorer) explore(j job, sight *eyes) error {
	e := &exploration{explorer: x, eyes: sight, program: j.program, rand: rand.New(rand.NewPCG(x.Seed, j.number<<8|4)), sample: x.sample}
	if !j.short {
		e.sample = max(16, x.sample/16)
	}
	lives, err := e.run(x.start, Name, firstTag, j.prefix)
	e.finish()
	if err != nil {
		return err
	}
	for _, l := range lives {
		again := &exploration{explorer: x, eyes: sight, program: j.program, rand: e.rand, sample: max(8, x.sample/32)}
		again.life = &Program{Before: x.gen.random(e.rand, 2+e.rand.IntN(4))}
		_, err := again.run(l.state, l.image, secondTag, 0)
		again.finish()
		if err != nil {
			return err
		}
	}
	return nil
}

// life is a state to go on from.
type life struct {
	state *storagetest.Memory
	image string
}

// exploration is one program explored, or a second life.
type exploration struct {
	*explorer
	eyes    *eyes
	program Program
	life    *Program
	rand    *rand.Rand
	sample  uint64

	player *player
	units  []storagetest.Unit // of the point before
	named  string             // the temporary name that another was given for
	report Report
	hashes []uint64
	lives  []life
}

// run runs the program on what start holds and cuts the power at every point
// after the first prefix steps.
func (e *exploration) run(start *storagetest.Memory, image string, tag uint32, prefix int) ([]life, error) {
	program := e.program
	if e.life != nil {
		program = *e.life
		e.report.Lives++
	}
	e.report.Programs++
	if len(program.Beside) > 0 {
		e.report.Beside++
	}
	v := &verifier{eyes: e.eyes, hash: e.hash, parent: e.parent, seen: map[uint64]view{}, kept: contents{}, count: func(h uint64) { e.hashes = append(e.hashes, h) }}
	if e.life == nil {
		v.shared = &e.album
		defer func() { v.shared.add(v.seen) }()
	}
	var err error
	if v.baseline, err = findings(start, image); err != nil {
		return nil, e.failure(-1, "", err)
	}
	if e.player, err = newPlayer(start, image, tag, e.Wrap, e.Show); err == nil {
		err = e.player.run(program)
	}
	if err != nil {
		return nil, e.failure(-1, "", err)
	}
	p := e.player
	points := p.crash.Points()
	if err := p.end(); err != nil {
		return nil, e.failure(-1, "", fmt.Errorf("closing: %w", err))
	}
	if e.life == nil {
		e.report.Flushes, e.report.Syncs, e.report.MostSync = p.costs.flushes, p.costs.syncs, p.costs.most
	}
	from := 0
	if prefix > 0 {
		from = p.ends[prefix-1] + 1
	}
	for point := from; point <= points; point++ {
		if err := e.cut(v, point, point == from); err != nil {
			return nil, err
		}
	}
	return e.lives, nil
}

// cut looks at the states that a power cut at a point may leave; at any but
// the first, only at those that could not have been left a call before, unless
// less is allowed now.
func (e *exploration) cut(v *verifier, point int, first bool) error {
	e.report.Points++
	cut, r := e.player.crash.Cut(point), e.player.history.at(point)
	news := newVersions(e.units, cut.Units())
	e.units = cut.Units()
	switch {
	case first || r.fresh:
		news = nil
	case e.hidden(e.player.crash.Call(point)):
		return nil
	}
	for c := range choices(cut, news, e.sample, e.rand) {
		m := cut.State(c.choose)
		e.report.Looked++
		if err := v.verify(m, r); err != nil {
			return e.failure(point, c.String(), err)
		}
		if e.life == nil && len(e.lives) < 2 && e.rand.IntN(100) == 0 {
			e.lives = append(e.lives, life{m, v.image})
		}
	}
	return nil
}

// hidden tells whether a call has changed a file that has no name of its own
// yet: nobody opens it, whatever a power cut makes of it. The calls are asked
// about in their order.
func (e *exploration) hidden(call storagetest.Call) bool {
	if path.Ext(call.Path) != ".tmp" {
		return false
	}
	if call.Op == storagetest.OpLink || call.Op == storagetest.OpRename {
		e.named = call.Path
	}
	return call.Path != e.named
}

func (e *exploration) failure(point int, state string, err error) error {
	f := &Failure{Kind: e.kind.Name, Program: e.program, Life: e.life, Point: point, State: state, Err: err}
	if point >= 0 {
		f.Call = e.player.crash.Describe(point)
	}
	var broken *ruleError
	if errors.As(err, &broken) {
		f.Rule = broken.rule
	}
	return f
}

// finish adds what was done to the report of all.
func (e *exploration) finish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.hashes {
		e.states[h] = struct{}{}
	}
	e.explorer.report.Add(&e.report)
}
