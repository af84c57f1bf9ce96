package vhdtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// Way is how a call of the storage fails.
type Way struct {
	Name  string
	Errno syscall.Errno
	Short int  // bytes that a read or a write does first: whole halves of sectors
	After bool // the call is done, and fails all the same
	On    bool // all calls fail from then on, until the step has ended
}

// Ways are all of them.
func Ways() []Way {
	return []Way{
		{Name: "EIO", Errno: syscall.EIO},
		{Name: "EIO from then on", Errno: syscall.EIO, On: true},
		{Name: "EIO after a part", Errno: syscall.EIO, Short: half},
		{Name: "EIO though done", Errno: syscall.EIO, After: true},
		{Name: "ENOSPC", Errno: syscall.ENOSPC},
		{Name: "ENOSPC from then on", Errno: syscall.ENOSPC, On: true},
		{Name: "ENOSPC after a part", Errno: syscall.ENOSPC, Short: 512},
		{Name: "EINTR", Errno: syscall.EINTR},
	}
}

// rules fail call number skip of those that will be made. A close that fails
// has closed the file, as on Linux.
func (w Way) rules(calls []storagetest.Call, skip int) []storagetest.Rule {
	r := storagetest.Rule{Skip: skip, Times: 1, Err: w.Errno, Short: w.Short, After: w.After}
	if w.On {
		r.Times = 0
	}
	if calls[skip].Op != storagetest.OpClose && !w.On {
		return []storagetest.Rule{r}
	}
	closing := r
	closing.Op, closing.After, closing.Skip = storagetest.OpClose, true, 0
	for _, c := range calls[:skip] {
		if c.Op == storagetest.OpClose {
			closing.Skip++
		}
	}
	return []storagetest.Rule{closing, r}
}

// FaultReport is what FailEach did.
type FaultReport struct {
	Kind      string
	Calls     int // that were made to fail, each in a run of its own
	Tolerated int // … of them, how many the engine made good
	ReadOnly  int // … how many left the device read-only
	States    int // looked at, that a power cut might have left then
}

// String is the report in a line.
func (r *FaultReport) String() string {
	return fmt.Sprintf("%-42s %6d calls failed (%d made good, %d ended writing), %7d states after a power cut then", r.Kind, r.Calls, r.Tolerated, r.ReadOnly, r.States)
}

// Add adds what was done on another kind.
func (r *FaultReport) Add(o *FaultReport) {
	r.Calls += o.Calls
	r.Tolerated += o.Tolerated
	r.ReadOnly += o.ReadOnly
	r.States += o.States
}

// FailEach makes every call of the storage fail that a step of each operation
// makes on a kind of disk (those that crash left out), one after another, in each of the ways. It demands
// that
//
//   - the error says what failed: the cause, the call, and the image;
//   - the device is as it was, for reading and for writing, or read-only for
//     good and says why, which only a failed sync may bring about;
//   - the rules hold in what is left, now and after a power cut then;
//   - the image can be closed, and be locked by another at once;
//   - what could not be made leaves no name behind.
//
// states is the number of states looked at for each point of a power cut.
func FailEach(k Kind, ways []Way, states uint64) (*FaultReport, error) {
	x, err := newExplorer(k, Options{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	report := &FaultReport{Kind: k.Name}
	for _, s := range x.gen.letters {
		if s.Op.Crashes {
			continue
		}
		clean := &trial{explorer: x, step: s}
		calls, err := clean.calls()
		if err != nil {
			return report, fmt.Errorf("%s: %v: %w", k.Name, s, err)
		}
		for _, w := range ways {
			for skip, c := range calls {
				if w.After && !canBeDone(c) {
					continue
				}
				t := &trial{explorer: x, step: s, way: w, rules: w.rules(calls, skip), states: states, report: report}
				if err := t.run(); err != nil {
					return report, fmt.Errorf("%s: %v, call %d (%v), %s: %w\nthe last calls:\n%s", k.Name, s, skip, c, w.Name, err, t.fault.Log(25))
				}
			}
		}
	}
	return report, nil
}

// canBeDone tells whether a call may fail though it is done, so that a caller
// can cope with it: not where it would have to know of a name that it was told
// it has not made.
func canBeDone(c storagetest.Call) bool {
	return c.Err == nil && c.Op != storagetest.OpCreate && c.Op != storagetest.OpLink && c.Op != storagetest.OpRename
}

// trial is one run of one step in which one call fails.
type trial struct {
	*explorer
	step   Step
	way    Way
	rules  []storagetest.Rule
	states uint64
	report *FaultReport

	player *player
	fault  *storagetest.Fault
	before int               // calls until the step began
	from   int               // points until then
	failed *storagetest.Call // the first that did
}

// begin brings the disk to where the step begins.
func (t *trial) begin() (err error) {
	t.player, err = newPlayer(t.start, Name, firstTag, func(fsys storage.FS) storage.FS {
		t.fault = storagetest.NewFault(fsys)
		return t.fault
	}, nil)
	if err != nil {
		return err
	}
	if err := t.player.sequence(t.prelude(), false); err != nil {
		return err
	}
	t.before, t.from = len(t.fault.Calls()), t.player.crash.Points()
	return nil
}

// calls are those that the step makes when none fails.
func (t *trial) calls() ([]storagetest.Call, error) {
	if err := t.begin(); err != nil {
		return nil, err
	}
	_, err := t.player.step(t.step)
	calls := t.fault.Calls()[t.before:]
	return calls, errors.Join(err, t.player.end())
}

// run does the step and lets its call fail.
func (t *trial) run() error {
	if err := t.begin(); err != nil {
		return err
	}
	for _, r := range t.rules {
		t.fault.Add(r)
	}
	e, err := t.player.step(t.step)
	t.fault.Heal()
	if t.failed = t.injected(); t.failed == nil {
		return errors.Join(errors.New("the call was not made"), err)
	}
	t.report.Calls++
	if err == nil {
		t.report.Tolerated++
		err = t.player.look(t.step, e, true)
	} else {
		err = t.judgeError(err)
	}
	if err != nil {
		return err
	}
	if err := t.goOn(); err != nil {
		return err
	}
	return t.powerCut()
}

// prelude brings the disk to a state in which there is something to lose: a
// block that is flushed, one that is not, one that was given up.
func (t *trial) prelude() []Step {
	named := func(name string, first, count int) Step {
		s := Step{Op: t.gen.named(name, nil)}
		s.First, s.Count = min(first, t.gen.sectors-1), count
		s.Count = min(s.Count, t.gen.sectors-s.First)
		return s
	}
	b := t.gen.block
	return []Step{named("write", 1, b), named("flush", 0, 0), named("discard", 0, b), named("part", b, 1)}
}

// injected is the first call of the step that was made to fail.
func (t *trial) injected() *storagetest.Call {
	for _, c := range t.fault.Calls()[t.before:] {
		if c.Injected {
			return &c
		}
	}
	return nil
}

// judgeError: it has the cause, and names the call and the image.
func (t *trial) judgeError(err error) error {
	if !errors.Is(err, t.way.Errno) {
		return fmt.Errorf("the error hides its cause, %v: %w", t.way.Errno, err)
	}
	for _, c := range t.fault.Calls()[t.before:] {
		if text := err.Error(); c.Injected && strings.Contains(text, string(c.Op)) && strings.Contains(text, path.Base(c.Path)) {
			return nil
		}
	}
	return fmt.Errorf("the error doesn't name the call and the file: %w", err)
}

// goOn uses the disk after the failure, closes it, and sees that nothing is
// left: no lock, no name.
func (t *trial) goOn() error {
	if err := t.leftovers(); err != nil {
		return err
	}
	d := t.player.disk
	if img := d.img; img != nil && img.Err() != nil {
		t.report.ReadOnly++
		if err := t.readOnly(img); err != nil {
			return err
		}
	} else if err := t.writable(); err != nil {
		return err
	}
	f, err := t.player.crash.Open(d.Name, storage.ReadWrite)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Lock(storage.Exclusive), f.Close()); err != nil {
		return fmt.Errorf("after closing: %w", err)
	}
	return nil
}

// writable: all is as if the step had not been, or had. A sync that failed as
// the image was closed may have taken what it was to keep.
func (t *trial) writable() error {
	p := t.player
	content, err := p.disk.read()
	if err != nil {
		return fmt.Errorf("reading after the failure: %w", err)
	}
	if t.failed.Op == storagetest.OpSync {
		err = p.observe(content)
	} else {
		err = p.history.now().judge(content)
	}
	if err != nil {
		return fmt.Errorf("after the failure: %w", err)
	}
	steps := t.prelude()
	if err := p.sequence(append(steps[2:], steps[:2]...), false); err != nil {
		return fmt.Errorf("after the failure: %w", err)
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("closing after the failure: %w", err)
	}
	return nil
}

// readOnly: a sync has failed, and the device says so; what it shows is no
// worse than after a power cut.
func (t *trial) readOnly(img *vhd.Image) error {
	p := t.player
	if t.failed.Op != storagetest.OpSync {
		return fmt.Errorf("read-only without a sync that failed: %w", img.Err())
	}
	content, err := readTags(img)
	if err != nil {
		return fmt.Errorf("reading after a failed sync: %w", err)
	}
	if err := p.history.at(p.crash.Points()).judge(content); err != nil {
		return fmt.Errorf("after a failed sync: %w", err)
	}
	for what, err := range map[string]error{
		"write":   second(img.WriteAt(make([]byte, 512), 0)),
		"zero":    img.WriteZeroes(0, 512),
		"discard": img.Discard(0, 512),
		"flush":   img.Flush(),
		"close":   p.end(),
	} {
		if !errors.Is(err, blockdev.ErrReadOnly) && !errors.Is(err, blockdev.ErrClosed) {
			return fmt.Errorf("%s after a failed sync: %v, want an error that says read-only", what, err)
		}
	}
	return nil
}

func second(_ int, err error) error { return err }

// leftovers are names made by a step that failed.
func (t *trial) leftovers() error {
	if t.player.history.succeeded() {
		return nil
	}
	left := map[string]bool{}
	for _, c := range t.fault.Calls()[t.before:] {
		done := c.Err == nil || c.Injected && t.way.After
		switch {
		case !done && c.Op == storagetest.OpRemove:
			return nil // it was tried
		case !done:
		case c.Op == storagetest.OpCreate:
			left[c.Path] = true
		case c.Op == storagetest.OpLink:
			left[c.NewPath] = true
		case c.Op == storagetest.OpRename:
			delete(left, c.Path)
			left[c.NewPath] = true
		case c.Op == storagetest.OpRemove:
			delete(left, c.Path)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	return nil
}

// powerCut looks at states that may be left from the step on.
func (t *trial) powerCut() error {
	baseline, err := findings(t.start, Name)
	if err != nil {
		return err
	}
	v := &verifier{eyes: &eyes{}, hash: t.hash, baseline: baseline, seen: map[uint64]view{}, kept: contents{}, count: func(uint64) {}, untidy: true}
	r := rand.New(rand.NewPCG(uint64(t.before), 5))
	for point := t.from; point <= t.player.crash.Points(); point++ {
		cut, rules := t.player.crash.Cut(point), t.player.history.at(point)
		for c := range choices(cut, nil, t.states, r) {
			t.report.States++
			if err := v.verify(cut.State(c.choose), rules); err != nil {
				return fmt.Errorf("power cut after %d calls (%s): %w", point, t.player.crash.Describe(point), err)
			}
		}
	}
	return nil
}
