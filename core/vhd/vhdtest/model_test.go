package vhdtest

import (
	"slices"
	"strings"
	"testing"
)

// story is a history of a disk of four sectors that hold 100 to 103.
type story struct {
	*history
	ops map[string]*Operation
}

func newStory() story {
	s := story{newHistory("a", tagged(4, 100), tagged(4, 100)), map[string]*Operation{}}
	for _, op := range Operations() {
		s.ops[op.Name] = &op
	}
	return s
}

// do is a step that made the calls from one point to another.
func (s story) do(op string, first, count int, tag uint32, from, to int) *event {
	e := s.begin(Step{Op: s.ops[op], First: first, Count: count, tag: tag}, from)
	s.ended(e, s.ops[op], to, "a")
	return e
}

// breaks tells which rule a disk breaks at a point, 0 for none.
func (s story) breaks(point int, tags ...Tag) int {
	err := s.at(point).judge(tags)
	if err == nil {
		return 0
	}
	return err.(*ruleError).rule
}

func TestRulesOfAFlush(t *testing.T) {
	s := newStory()
	s.do("write", 1, 2, 7, 0, 2) // 7 and 8
	s.do("flush", 0, 0, 0, 2, 5)
	s.do("write", 2, 1, 20, 5, 6)
	tests := []struct {
		name  string
		point int
		disk  []Tag
		rule  int
	}{
		{"before anything", 0, tagged(4, 100), 0},
		{"a write that has not begun", 0, []Tag{Whole(100), Whole(7), Whole(102), Whole(103)}, 4},
		{"a write in part", 1, []Tag{Whole(100), Whole(101), Whole(8), Whole(103)}, 0},
		{"zeros", 1, []Tag{Whole(100), 0, Whole(102), Whole(103)}, 3},
		{"another sector's data", 1, []Tag{Whole(100), Whole(8), Whole(102), Whole(103)}, 3},
		{"a sector never written", 1, []Tag{Whole(1), Whole(101), Whole(102), Whole(103)}, 4},
		{"halves of two writes", 1, []Tag{Whole(100), Whole(7)&^0xffffffff | 101, Whole(102), Whole(103)}, 0},
		{"lost before the flush has ended", 4, tagged(4, 100), 0},
		{"lost after it", 5, tagged(4, 100), 2},
		{"kept after it", 5, []Tag{Whole(100), Whole(7), Whole(8), Whole(103)}, 0},
		{"written since", 6, []Tag{Whole(100), Whole(7), Whole(20), Whole(103)}, 0},
		{"written since and lost", 6, []Tag{Whole(100), Whole(7), Whole(8), Whole(103)}, 0},
		{"older than the flush", 6, []Tag{Whole(100), Whole(7), Whole(102), Whole(103)}, 3},
		{"another size", 6, tagged(3, 100), 1},
	}
	for _, test := range tests {
		if got := s.breaks(test.point, test.disk...); got != test.rule {
			t.Errorf("%s: breaks rule %d, want %d", test.name, got, test.rule)
		}
	}
}

// A flush covers what had ended when it began, whoever asked for it.
func TestAFlushDoesNotCoverWhatRanBesideIt(t *testing.T) {
	s := newStory()
	w := s.begin(Step{Op: s.ops["write"], First: 0, Count: 1, tag: 7}, 0)
	f := s.begin(Step{Op: s.ops["flush"]}, 0)
	s.ended(w, s.ops["write"], 1, "a")
	s.ended(f, s.ops["flush"], 2, "a")
	for _, first := range []Tag{Whole(100), Whole(7)} {
		if rule := s.breaks(2, first, Whole(101), Whole(102), Whole(103)); rule != 0 {
			t.Errorf("sector 0 holds %v: breaks rule %d", first, rule)
		}
	}
}

// A step that failed may have done anything of what it was to do, and a flush
// that failed is none.
func TestAStepThatFailedMayHaveDoneAnything(t *testing.T) {
	s := newStory()
	s.begin(Step{Op: s.ops["write"], First: 0, Count: 1, tag: 7}, 0)
	s.begin(Step{Op: s.ops["flush"]}, 1)
	for _, first := range []Tag{Whole(100), Whole(7)} {
		disk := []Tag{first, Whole(101), Whole(102), Whole(103)}
		if err := s.now().judge(disk); err != nil || s.breaks(9, disk...) != 0 {
			t.Errorf("sector 0 holds %v: %v", first, err)
		}
	}
	if s.breaks(9, 0, Whole(101), Whole(102), Whole(103)) != 3 {
		t.Error("zeros are let pass")
	}
}

func TestWhatADiscardLeavesIsSettledByReading(t *testing.T) {
	s := newStory()
	e := s.do("discard", 0, 2, 0, 0, 1)
	s.settle(e, []Tag{0, Whole(101), Whole(102), Whole(103)})
	s.do("flush", 0, 0, 0, 1, 2)
	if rule := s.breaks(2, 0, Whole(101), Whole(102), Whole(103)); rule != 0 {
		t.Errorf("what was read breaks rule %d", rule)
	}
	for _, disk := range [][]Tag{tagged(4, 100), {0, 0, Whole(102), Whole(103)}} {
		if s.breaks(2, disk...) == 0 {
			t.Errorf("%v is let pass", disk)
		}
	}
}

func TestWhatACrashHasLostMustNotComeBack(t *testing.T) {
	s := newStory()
	s.do("write", 0, 1, 7, 0, 1)
	s.observed(tagged(4, 100), tagged(4, 100), 1, -1) // it was lost
	s.do("flush", 0, 0, 0, 1, 2)
	if rule := s.breaks(2, Whole(7), Whole(101), Whole(102), Whole(103)); rule == 0 {
		t.Error("a lost write comes back, and that is let pass")
	}
	if rule := s.breaks(2, tagged(4, 100)...); rule != 0 {
		t.Errorf("what was seen breaks rule %d", rule)
	}
}

func TestTheDiskIsTheNewestImageOnceItIsMade(t *testing.T) {
	s := newStory()
	e := s.begin(Step{Op: s.ops["snapshot"]}, 3)
	s.ended(e, s.ops["snapshot"], 6, "b")
	tests := []struct {
		point  int
		images []string
		must   string
	}{{3, []string{"a"}, "a"}, {4, []string{"b", "a"}, "a"}, {6, []string{"b", "a"}, "b"}}
	for _, test := range tests {
		if r := s.at(test.point); !slices.Equal(r.images, test.images) || r.must != test.must {
			t.Errorf("at %d: %v, at least %s", test.point, r.images, r.must)
		}
	}
}

func TestAMessageNamesTheSectorAndTheRule(t *testing.T) {
	err := newStory().at(0).judge([]Tag{Whole(100), Whole(101), Whole(5), Whole(103)})
	if err == nil || !strings.Contains(err.Error(), "rule 4: sector 2 holds 5") {
		t.Errorf("got %v", err)
	}
}
