package vhdtest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// player runs a program on a disk and notes its history.
type player struct {
	crash    *storagetest.Crash
	disk     *Disk
	schedule *scheduler
	history  *history
	next     atomicTag
	crashed  bool  // a step has ended as in a crash
	ends     []int // points: calls made when each step of a sequence had ended
	costs    costs
}

// atomicTag counts the tags given out.
type atomicTag struct {
	mu   sync.Mutex
	next uint32 // guarded by mu
}

// take is the first of n numbers that nobody else gets.
func (a *atomicTag) take(n int) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := a.next
	a.next += uint32(n)
	return first
}

// costs counts the syncs that flushes of the image that is the disk at first
// have cost of that image's file, with nothing going on beside them and no crash
// before: a bitmap that one has taken from a full block costs more.
type costs struct {
	flushes, syncs, most int
}

func (c *costs) add(syncs int) {
	c.flushes++
	c.syncs += syncs
	c.most = max(c.most, syncs)
}

// newPlayer begins with what start holds. Between the engine and the storage
// is what wrap makes, and before the engine what show does; nil is nothing.
// Tags count up from first.
func newPlayer(start *storagetest.Memory, image string, first uint32, wrap func(storage.FS) storage.FS, show Show) (*player, error) {
	p := &player{crash: storagetest.NewCrashFrom(start)}
	p.next.next = first
	var below storage.FS = p.crash
	if wrap != nil {
		below = wrap(below)
	}
	p.schedule = newScheduler(below)
	p.disk = newDisk(p.schedule.FS, image, show)
	content, err := p.disk.read()
	if err != nil {
		return nil, err
	}
	qemu, err := p.qemu(content)
	if err != nil {
		return nil, err
	}
	p.history = newHistory(image, content, qemu)
	return p, nil
}

// qemu is what qemu would see of the disk as it is in the page cache.
func (p *player) qemu(content []Tag) ([]Tag, error) {
	return new(qemu).reads(p.crash, p.disk.Name, content)
}

// run runs the program. An error is what the engine returned or showed that
// it must not.
func (p *player) run(program Program) error {
	if err := p.sequence(program.Before, program.careful); err != nil {
		return err
	}
	if len(program.Beside) > 0 {
		if err := p.beside(program); err != nil {
			return err
		}
	}
	return p.sequence(program.After, program.careful)
}

// end closes the disk.
func (p *player) end() error { return p.disk.Close() }

func (p *player) sequence(steps []Step, careful bool) error {
	for _, s := range steps {
		syncs := p.crash.Syncs(Name)
		e, err := p.step(s)
		if s.Op.Name == "flush" && p.disk.made == 0 && !p.crashed {
			p.costs.add(p.crash.Syncs(Name) - syncs)
		}
		if err == nil {
			err = p.look(s, e, careful)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
		p.ends = append(p.ends, p.crash.Points())
	}
	return nil
}

// step does one step.
func (p *player) step(s Step) (*event, error) {
	s.tag = p.next.take(s.Count)
	e := p.history.begin(s, p.crash.Points())
	if err := s.Op.Run(p.disk, s); err != nil {
		return e, err
	}
	p.history.ended(e, s.Op, p.crash.Points(), p.disk.Name)
	return e, nil
}

// look reads the disk and holds it against the model: where the step leaves it
// open what the disk shows, and after every step of a careful program. (The
// others read nothing: what the engine has not been asked for it has not
// cached.)
func (p *player) look(s Step, e *event, careful bool) error {
	unsure := s.Op.Changes != nil && s.Op.Changes(s, s.First).Unsure
	if !s.Op.Crashes && !s.Op.Resizes && !unsure && (!careful || p.disk.img == nil) {
		return nil
	}
	content, err := p.disk.read()
	if err != nil {
		return err
	}
	p.history.sized(e, len(content))
	if s.Op.Crashes {
		return p.observe(content)
	}
	if err := p.history.now().judge(content); err != nil {
		return fmt.Errorf("reads wrong: %w", err)
	}
	p.history.settle(e, content)
	return nil
}

// observe notes what a step has left that the model can't tell: no more may be
// lost than to a power cut.
func (p *player) observe(content []Tag) error {
	p.crashed = true
	points := p.crash.Points()
	if err := p.history.at(points).judge(content); err != nil {
		return fmt.Errorf("reads wrong: %w", err)
	}
	qemu, err := p.qemu(content)
	if err != nil {
		return err
	}
	p.history.observed(content, qemu, points, -1)
	return nil
}

// beside runs the steps that go beside one another, and reads what they have
// left.
func (p *player) beside(program Program) error {
	if _, err := p.disk.Image(); err != nil {
		return err
	}
	errs := make([]error, len(program.Beside))
	tasks := make([]func(), len(program.Beside))
	for i, steps := range program.Beside {
		tasks[i] = func() {
			for _, s := range steps {
				if _, err := p.step(s); err != nil {
					errs[i] = fmt.Errorf("%v: %w", s, err)
					return
				}
			}
		}
	}
	since := p.history.moment()
	p.schedule.run(program.Seed, tasks)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	content, err := p.disk.read()
	if err != nil {
		return err
	}
	if err := p.history.now().judge(content); err != nil {
		return fmt.Errorf("reads wrong after all: %w", err)
	}
	p.history.observed(content, content, p.crash.Points(), since)
	return nil
}
