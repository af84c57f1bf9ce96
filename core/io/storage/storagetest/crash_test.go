package storagetest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

func TestPowerCutLeavesExactlyTheStatesOfTheModel(t *testing.T) {
	tests := []struct {
		name  string
		run   func(p program)
		files string // names to look at
		want  string // outcomes, separated by commas
	}{
		{"nothing done", func(p program) {}, "a", "-"},
		{"a sector overwritten", func(p program) {
			f := p.stable("a", "A")
			p.write(f, "B", 0)
		}, "a", "A,B"},
		{"a sector overwritten and synced", func(p program) {
			f := p.stable("a", "A")
			p.write(f, "B", 0)
			p.must(f.Sync())
		}, "a", "B"},
		{"two writes of a sector", func(p program) {
			f := p.stable("a", "A")
			p.write(f, "B", 0)
			p.write(f, "C", 0)
		}, "a", "A,B,C"},
		{"a torn write", func(p program) {
			f := p.stable("a", "..")
			p.write(f, "AB", 0)
		}, "a", "..,.B,A.,AB"},
		{"writes in any order", func(p program) {
			f := p.stable("a", "...")
			p.write(f, "A", 0)
			p.write(f, "B", 2)
		}, "a", "...,..B,A..,A.B"},
		{"parts of a sector add up", func(p program) {
			f := p.stable("a", ".")
			_, err := f.WriteAt(sectors("A")[:256], 0)
			p.must(err)
			_, err = f.WriteAt(sectors("A")[:256], 256)
			p.must(err)
		}, "a", ".,?,A"},
		{"size and data apart", func(p program) {
			f := p.stable("a", "A")
			p.write(f, "B", 1)
		}, "a", "A,A.,AB"},
		{"a hole between", func(p program) {
			f := p.stable("a", "A")
			p.write(f, "B", 3)
		}, "a", "A,A...,A..B"},
		{"extended by Truncate, then written", func(p program) {
			f := p.stable("a", "A")
			p.must(f.Truncate(1024))
			p.write(f, "B", 1)
		}, "a", "A,A.,AB"},
		{"sizes are kept in order", func(p program) {
			f := p.stable("a", "A")
			p.must(f.Truncate(1024))
			p.must(f.Truncate(2048))
		}, "a", "A,A.,A..."},
		{"cut off", func(p program) {
			f := p.stable("a", "ABC")
			p.must(f.Truncate(1024))
		}, "a", "AB,ABC"},
		{"cut off does not come back", func(p program) {
			f := p.stable("a", "ABC")
			p.must(f.Truncate(512))
			p.must(f.Truncate(1536))
		}, "a", "A,A..,ABC"},
		{"written, cut off, extended", func(p program) {
			f := p.stable("a", "AB")
			p.write(f, "C", 1)
			p.must(f.Truncate(512))
			p.must(f.Truncate(1024))
		}, "a", "A,A.,AB,AC"},
		{"cut off, extended, written", func(p program) {
			f := p.stable("a", "AB")
			p.must(f.Truncate(512))
			p.must(f.Truncate(1024))
			p.write(f, "D", 1)
		}, "a", "A,A.,AB,AD"},
		{"cut inside a sector", func(p program) {
			f := p.stable("a", "A")
			p.must(f.Truncate(256))
			p.must(f.Truncate(512))
			p.must(f.Sync())
		}, "a", "?"},
		{"cut off and synced", func(p program) {
			f := p.stable("a", "AB")
			p.must(f.Truncate(512))
			p.must(f.Sync())
			p.must(f.Truncate(1024))
		}, "a", "A,A."},
		{"written, and synced by who only reads", func(p program) {
			p.write(p.stable("a", "A"), "B", 0)
			f, err := p.fs.Open("a", 0)
			p.must(err)
			p.must(f.Sync())
		}, "a", "B"},
		{"a hole punched, sector by sector", func(p program) {
			f := p.stable("a", "ABC")
			p.must(f.PunchHole(512, 1024))
		}, "a", "A..,A.C,AB.,ABC"},
		{"a hole punched where one is", func(p program) {
			f := p.stable("a", "A")
			p.must(f.Truncate(1536))
			p.must(f.Sync())
			p.must(f.PunchHole(512, 1024))
		}, "a", "A.."},
		{"allocated", func(p program) {
			f := p.stable("a", "A")
			p.must(f.Allocate(0, 1024))
		}, "a", "A,A."},
		{"allocated inside", func(p program) {
			f := p.stable("a", "AB")
			p.must(f.Allocate(0, 1024))
		}, "a", "AB"},
		{"created", func(p program) { p.create("a", "") }, "a", ",-"},
		{"synced without its name", func(p program) {
			p.must(p.create("a", "A").Sync())
		}, "a", "-,A"},
		{"named without a sync", func(p program) {
			p.create("a", "A")
			p.must(p.fs.SyncDir("/"))
		}, "a", ",.,A"},
		{"another directory synced", func(p program) {
			p.must(p.create("a", "A").Sync())
			p.create("d/b", "")
			p.must(p.fs.SyncDir("d"))
			p.create("c", "")
		}, "a d/b c", "A  ,A  -"},
		{"a directory without changes synced", func(p program) {
			p.stable("d/x", "")
			p.must(p.fs.SyncDir("d"))
			p.must(p.create("a", "A").Sync())
			p.must(p.fs.SyncDir("d"))
		}, "a", "-,A"},
		{"renamed", func(p program) {
			p.stable("a", "A")
			p.stable("b", "B")
			p.must(p.fs.Rename("a", "b"))
		}, "a b", "- A,A B"},
		{"renamed, unsynced content", func(p program) {
			p.stable("b", "B")
			p.create("a", "A")
			p.must(p.fs.Rename("a", "b"))
		}, "b", ",.,A,B"},
		{"renamed into a directory", func(p program) {
			p.stable("a", "A")
			p.stable("d/x", "")
			p.must(p.fs.SyncDir("d"))
			p.must(p.fs.Rename("a", "d/a"))
			p.must(p.fs.SyncDir("d"))
		}, "a d/a", "- A"},
		{"names are kept in order", func(p program) {
			p.stable("a", "A")
			p.must(p.fs.Link("a", "b"))
			p.must(p.fs.Remove("a"))
		}, "a b", "- A,A -,A A"},
		{"removed", func(p program) {
			p.stable("a", "A")
			p.must(p.fs.Remove("a"))
		}, "a", "-,A"},
		{"removed and made again", func(p program) {
			p.stable("a", "A")
			p.must(p.fs.Remove("a"))
			p.must(p.create("a", "B").Sync())
		}, "a", "-,A,B"},
		{"two names, one file", func(p program) {
			f := p.stable("a", "A")
			p.must(p.fs.Link("a", "b"))
			p.must(p.fs.SyncDir("/"))
			p.write(f, "B", 0)
		}, "a b", "A A,B B"},
		{"two files apart", func(p program) {
			f, g := p.stable("a", "A"), p.stable("b", "B")
			p.write(f, "C", 0)
			p.write(g, "D", 0)
			p.must(g.Sync())
		}, "a b", "A D,C D"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := storagetest.NewCrash()
			test.run(program{t, c})
			got := outcomes(t, c, strings.Fields(test.files)...)
			want := strings.Split(test.want, ",")
			if !slices.Equal(got, want) {
				t.Errorf("outcomes %q, want %q", got, want)
			}
		})
	}
}

func TestEveryPointHasItsStates(t *testing.T) {
	c := storagetest.NewCrash()
	p := program{t, c}
	f := p.stable("a", "A") // create, write, sync, syncdir
	p.write(f, "B", 0)
	p.must(f.Sync())
	want := []struct {
		states   uint64
		all      string
		describe string
	}{
		{1, "-", "before the first call"},
		{2, "", "create a"},
		{8, "A", "write a 0+512"},
		{2, "A", "sync a"},
		{1, "A", "syncdir /"},
		{2, "B", "write a 0+512"},
		{1, "B", "sync a"},
	}
	if c.Points() != len(want)-1 || c.Syncs("a") != 2 {
		t.Fatalf("%d points, %d syncs", c.Points(), c.Syncs("a"))
	}
	// Forwards, then backwards: a Cut doesn't depend on the one before.
	for i := range 2 * len(want) {
		point := min(i, 2*len(want)-1-i)
		w := want[point]
		if n := c.Cut(point).States(); n != w.states {
			t.Errorf("point %d: %d states, want %d", point, n, w.states)
		}
		if got := letters(t, c.State(point, storagetest.All), "a"); got != w.all {
			t.Errorf("point %d: %q with all writes, want %q", point, got, w.all)
		}
		if got := c.Describe(point); got != w.describe {
			t.Errorf("point %d is %q, want %q", point, got, w.describe)
		}
	}
}

func TestUnitsSayWhatIsOpen(t *testing.T) {
	c := storagetest.NewCrash()
	p := program{t, c}
	f := p.stable("a", "A")
	p.write(f, "BC", 0)
	p.write(f, "D", 1)
	p.must(p.fs.Link("a", "b"))
	var got []string
	for _, u := range c.Cut(c.Points()).Units() {
		got = append(got, u.String()+strings.Repeat("*", u.Versions))
	}
	want := []string{"names*", "a: size*", "a: sector 0*", "a: sector 1**"}
	if !slices.Equal(got, want) {
		t.Errorf("units %q, want %q", got, want)
	}
	if n := c.Cut(c.Points()).States(); n != 2*2*2*3 {
		t.Errorf("%d states", n)
	}
}

func TestStatesBeyondCountingSaturate(t *testing.T) {
	c := storagetest.NewCrash()
	f := program{t, c}.create("a", "")
	program{t, c}.write(f, strings.Repeat("x", 100), 0)
	if n := c.Cut(c.Points()).States(); n != 1<<64-1 {
		t.Errorf("%d states", n)
	}
}

func TestStatesAreIndependent(t *testing.T) {
	c := storagetest.NewCrash()
	p := program{t, c}
	f := p.stable("a", "AB")
	p.write(f, "C", 0)
	cut := c.Cut(c.Points())
	first, second := cut.State(storagetest.All), cut.State(storagetest.All)
	g, err := first.Open("a", storage.ReadWrite)
	p.must(err)
	p.write(g, "XYZ", 0)
	p.must(g.Truncate(512))
	p.must(g.Truncate(1536))
	p.must(first.Rename("a", "b"))
	p.write(f, "Q", 1)
	for name, m := range map[string]*storagetest.Memory{"made before": second, "made after": cut.State(storagetest.All)} {
		if got := letters(t, m, "a"); got != "CB" {
			t.Errorf("the state %s has %q", name, got)
		}
	}
	if got := letters(t, first, "b"); got != "X.." {
		t.Errorf("the changed state has %q", got)
	}
}

func TestCrashOfAState(t *testing.T) {
	m := storagetest.NewMemory()
	p := program{t, m}
	live := p.create("d/a", "AB")
	p.must(m.Link("d/a", "d/b"))

	c := storagetest.NewCrashFrom(m)
	p.write(live, "X", 0) // no business of c's
	if got := outcomes(t, c, "d/a", "d/b"); !slices.Equal(got, []string{"AB AB"}) {
		t.Fatalf("it begins with %q", got)
	}
	f, err := c.Open("d/a", storage.ReadWrite)
	p.must(err)
	program{t, c}.write(f, "C", 1)
	p.must(c.Remove("d/a"))
	want := []string{"- AB", "- AC", "AB AB", "AC AC"}
	if got := outcomes(t, c, "d/a", "d/b"); !slices.Equal(got, want) {
		t.Errorf("outcomes %q, want %q", got, want)
	}
	if got := letters(t, m, "d/a"); got != "XB" {
		t.Errorf("the file system that it began with has %q", got)
	}
	// A state is begun with as well as what made it.
	again := storagetest.NewCrashFrom(c.State(c.Points(), storagetest.All))
	if got := outcomes(t, again, "d/a", "d/b"); !slices.Equal(got, []string{"- AC"}) {
		t.Errorf("the second begins with %q", got)
	}
}
