package vhdtest

import (
	"fmt"
	"math"
	"slices"
	"sync"
)

// put is a value given to one half of a sector.
type put struct {
	value uint32
	qemu  uint32 // what qemu reads then: it goes by no bitmap, and may see what a crash has lost
	sure  bool   // it took the place of what was there
	by    *event
}

// event is a step that was done, or the reading of what one left.
type event struct {
	what   string
	stable bool // what had ended before it began was on stable storage when it had ended
	tidy   bool // the image was closed when it had ended
	// begin and end order the events; one that never ended has no end.
	begin, end int
	// from and to are numbers of calls of the storage: those recorded before
	// it began, and when it had ended.
	from, to int
	image    string // the disk from its end on; empty: as before
	sectors  int    // the size of the disk from its end on; 0: as before
}

const never = math.MaxInt

// history is what a program did, for the rules to be held against. It is safe
// for concurrent use.
type history struct {
	mu      sync.Mutex // guards all
	clock   int
	events  []*event
	puts    [][2][]put // by sector and half; the first is what was there before
	start   event
	crashed bool // some step has ended as in a crash
}

// newHistory begins with what the disk shows, and what qemu would see of it.
func newHistory(image string, content, qemu []Tag) *history {
	h := &history{start: event{what: "before", begin: -1, end: -1, from: -1, image: image, sectors: len(content)}}
	for i, v := range content {
		h.grow(i + 1)
		for k := range 2 {
			h.puts[i][k][0].value, h.puts[i][k][0].qemu = v.part(k), qemu[i].part(k)
		}
	}
	return h
}

// grow makes room for n sectors; new ones begin as zeros.
func (h *history) grow(n int) {
	for len(h.puts) < n {
		first := put{sure: true, by: &h.start}
		h.puts = append(h.puts, [2][]put{{first}, {first}})
	}
}

// begin notes that a step begins, after points calls.
func (h *history) begin(s Step, points int) *event {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.event(s.String(), points)
	if s.Op.Changes == nil {
		return e
	}
	h.grow(s.First + s.Count)
	for i := s.First; i < s.First+s.Count; i++ {
		c := s.Op.Changes(s, i)
		for k, concerned := range []bool{c.Front, c.Back} {
			if concerned {
				h.puts[i][k] = append(h.puts[i][k], put{value: c.Value.part(k), qemu: c.Value.part(k), sure: !c.Unsure, by: e})
			}
		}
	}
	return e
}

func (h *history) event(what string, points int) *event {
	h.clock++
	e := &event{what: what, begin: h.clock, end: never, from: points, to: never}
	h.events = append(h.events, e)
	return e
}

// ended notes that a step has ended well.
func (h *history) ended(e *event, op *Operation, points int, image string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	e.end, e.to, e.stable, e.image = h.clock, points, op.Stable, image
	// After a crash an image that nobody writes to stays as it was left.
	h.crashed = h.crashed || op.Crashes
	e.tidy = op.Tidy && !h.crashed
}

// sized notes the size that the step e has given the disk, in sectors.
func (h *history) sized(e *event, sectors int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.sectors = sectors
	h.grow(sectors)
}

// succeeded tells whether the last step has ended well.
func (h *history) succeeded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events[len(h.events)-1].end != never
}

// moment is the clock now.
func (h *history) moment() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

// observed notes what the disk shows, and what qemu would see of it, in the
// sectors where anything was put since a moment: from now on that, and nothing
// that was put before.
func (h *history) observed(content, qemu []Tag, points, since int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.event("observed", points)
	h.clock++
	e.end, e.to = h.clock, points
	for i, v := range content {
		for k := range 2 {
			if list := h.puts[i][k]; list[len(list)-1].by.begin < since {
				continue
			}
			h.puts[i][k] = append(h.puts[i][k], put{value: v.part(k), qemu: qemu[i].part(k), sure: true, by: e})
		}
	}
}

// settle decides, by what the disk shows, what e was not sure of.
func (h *history) settle(e *event, content []Tag) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.puts {
		for k := range 2 {
			list := h.puts[i][k]
			last := len(list) - 1
			if list[last].by != e || list[last].sure {
				continue
			}
			if i < len(content) && content[i].part(k) == list[last].value {
				list[last].sure = true
			} else {
				h.puts[i][k] = list[:last]
			}
		}
	}
}

// rules is what the history allows at one moment.
type rules struct {
	halves [][2][]uint32 // what each half of a sector may hold
	qemu   [][2][]uint32 // … and as qemu reads it
	put    []bool        // sectors that anything was put in
	sizes  []int         // of the disk, in sectors
	images []string      // that may be the disk, the newest first
	must   string        // the one that is there for certain, at least
	tidy   bool          // the image is closed
	fresh  bool          // something has just become stable: less is allowed than a call before

	values []uint32 // in which those of halves and qemu are
}

// at is what is allowed after a power cut at a point.
func (h *history) at(point int) *rules {
	h.mu.Lock()
	defer h.mu.Unlock()
	covered := -1 // what had ended before this moment is stable
	for _, e := range h.events {
		if e.stable && e.to <= point {
			covered = max(covered, e.begin)
		}
	}
	return h.rules(func(e *event) bool { return e.from < point || e.to <= point }, func(e *event) bool { return e.end < covered }, point)
}

// now is what the disk may show while nothing runs and nothing was lost.
func (h *history) now() *rules {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rules(func(*event) bool { return true }, func(e *event) bool { return e.end != never }, never-1)
}

// rules is what is allowed when the begun events may have had an effect and
// the covered ones must have had theirs.
func (h *history) rules(begun, covered func(e *event) bool, point int) *rules {
	n := len(h.puts)
	r := &rules{halves: make([][2][]uint32, n), qemu: make([][2][]uint32, n), put: make([]bool, n), values: make([]uint32, 0, 4*n)}
	for i := range h.puts {
		for k := range 2 {
			r.allow(i, k, h.puts[i][k], begun, covered)
			for _, p := range h.puts[i][k][1:] {
				r.put[i] = r.put[i] || begun(p.by)
			}
		}
	}
	r.images, r.must, r.sizes = []string{h.start.image}, h.start.image, []int{h.start.sectors}
	for _, e := range h.events {
		r.tidy = r.tidy || e.tidy && e.to == point
		r.fresh = r.fresh || e.stable && e.to == point
		if e.sectors > 0 && e.to <= point {
			r.sizes = r.sizes[:0]
		}
		if e.sectors > 0 && begun(e) {
			r.sizes = append(r.sizes, e.sectors)
		}
		if e.image != "" && e.image != r.images[0] && e.from < point {
			r.images = slices.Insert(r.images, 0, e.image)
			if e.to <= point {
				r.must = e.image
			}
		}
	}
	return r
}

// allow finds the values that half k of sector i may hold: each that was put,
// unless one that must be there was put later. For qemu it is the same as qemu
// reads it.
func (r *rules) allow(i, k int, puts []put, begun, covered func(e *event) bool) {
	latest := -1 // the latest beginning of a put that must be there
	for _, p := range puts {
		if p.sure && p.by.begin > latest && (p.by.end < 0 || covered(p.by)) {
			latest = p.by.begin
		}
	}
	first, same := len(r.values), true
	for _, p := range puts {
		if p.by.end >= latest && (p.by.end < 0 || begun(p.by)) {
			r.values = append(r.values, p.value)
			same = same && p.qemu == p.value
		}
	}
	r.halves[i][k] = r.values[first:]
	r.qemu[i][k] = r.halves[i][k]
	if same {
		return
	}
	first = len(r.values)
	for _, p := range puts {
		if p.by.end >= latest && (p.by.end < 0 || begun(p.by)) {
			r.values = append(r.values, p.value, p.qemu)
		}
	}
	r.qemu[i][k] = r.values[first:]
}

// judge holds what a disk shows against the rules.
func (r *rules) judge(content []Tag) error {
	if !slices.Contains(r.sizes, len(content)) {
		return &ruleError{1, fmt.Sprintf("the disk has %d sectors, not one of %v", len(content), r.sizes)}
	}
	return r.compare(content, r.halves)
}

// judgeQEMU holds what qemu sees against the rules.
func (r *rules) judgeQEMU(content []Tag) error {
	if err := r.compare(content, r.qemu); err != nil {
		return &ruleError{5, "as qemu reads it: " + err.Error()}
	}
	return nil
}

func (r *rules) compare(content []Tag, halves [][2][]uint32) error {
	for i, v := range content {
		for k := range 2 {
			if set := halves[i][k]; !slices.Contains(set, v.part(k)) {
				return &ruleError{r.broken(i, k), fmt.Sprintf("sector %d holds %v: its half %d must be one of %v", i, v, k, set)}
			}
		}
	}
	return nil
}

// broken is the rule that a half breaks that holds what it must not.
func (r *rules) broken(sector, half int) int {
	switch {
	case !r.put[sector]:
		return 4
	case len(r.halves[sector][half]) == 1:
		return 2
	default:
		return 3
	}
}

// ruleError is a rule of the package's doc broken.
type ruleError struct {
	rule int
	text string
}

func (e *ruleError) Error() string { return fmt.Sprintf("rule %d: %s", e.rule, e.text) }
