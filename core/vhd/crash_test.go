package vhd_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

var crashStates = flag.Int("crash.states", 30, "states looked at for each point of a crash program that has too many to look at all")

// The disks of the crash programs: four sectors a block, and a last block that
// the disk ends in.
const (
	crashSectors = 30
	crashBlock   = 4 * 512
)

// tag is the content of a sector: a number repeated. 0 is a sector of zeros.
type tag uint64

func (v tag) sector() []byte {
	var b [512]byte
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], uint64(v))
	}
	return b[:]
}

// step is an operation of a crash program on whole sectors.
type step struct {
	op    string // write, zero, discard, flush, reopen
	first int
	n     int
}

func (s step) String() string { return fmt.Sprintf("%s %d+%d", s.op, s.first, s.n) }

// history is what a program did: the content after each step, and how many
// calls of the storage had been made when the step had ended.
type history struct {
	crash *storagetest.Crash
	steps []step
	ends  []int     // points
	after [][]tag   // contents; after[0] is before the first step
	wrote [][][]tag // what step i may have put in each sector while it ran
}

// run runs a program on the disk of c and records it. Tags count up from next.
func run(t *testing.T, c *storagetest.Crash, steps []step, next tag) *history {
	t.Helper()
	h := &history{crash: c, steps: steps}
	img := open(t, c, "/disk.vhd")
	h.after = append(h.after, tags(t, img))
	for _, s := range steps {
		cur := slices.Clone(h.after[len(h.after)-1])
		wrote := make([][]tag, crashSectors)
		off, n := int64(s.first)*512, int64(s.n)*512
		switch s.op {
		case "write":
			var b []byte
			for i := range s.n {
				b = append(b, next.sector()...)
				cur[s.first+i] = next
				wrote[s.first+i] = []tag{next}
				next++
			}
			_, err := img.WriteAt(b, off)
			must(t, err)
		case "zero":
			must(t, img.WriteZeroes(off, n))
		case "discard":
			must(t, img.Discard(off, n))
		case "flush":
			must(t, img.Flush())
		case "reopen":
			must(t, img.Close())
			img = open(t, c, "/disk.vhd")
		}
		if s.op == "zero" || s.op == "discard" {
			got := tags(t, img)
			for i := s.first; i < s.first+s.n; i++ {
				if got[i] != 0 && (s.op == "zero" || got[i] != cur[i]) {
					t.Fatalf("%v: sector %d reads as %d", s, i, got[i])
				}
				cur[i] = got[i]
				wrote[i] = []tag{0}
			}
		}
		if got := tags(t, img); !slices.Equal(got, cur) {
			t.Fatalf("%v: reads %v, want %v", s, got, cur)
		}
		h.after, h.wrote, h.ends = append(h.after, cur), append(h.wrote, wrote), append(h.ends, c.Points())
	}
	must(t, img.Close())
	return h
}

// tags reads a disk of tags.
func tags(t *testing.T, img *vhd.Image) []tag {
	t.Helper()
	b := make([]byte, img.Size())
	_, err := img.ReadAt(b, 0)
	must(t, err)
	list := make([]tag, crashSectors)
	for i := range list {
		sector := b[i*512:][:512]
		list[i] = tag(binary.BigEndian.Uint64(sector))
		if !bytes.Equal(sector, list[i].sector()) {
			t.Fatalf("sector %d holds two contents: %x …", i, sector[:16])
		}
	}
	return list
}

// allowed is what each sector may hold after the power went at a point: its
// content at the last flush that had ended, or one that was written since.
func (h *history) allowed(point int) [][]tag {
	base := 0 // steps before the end of the last flush
	for i, s := range h.steps {
		if (s.op == "flush" || s.op == "reopen") && h.ends[i] <= point {
			base = i + 1
		}
	}
	list := make([][]tag, crashSectors)
	for i := range list {
		list[i] = []tag{h.after[base][i]}
		for s := base; s < len(h.steps) && (s == 0 || h.ends[s-1] <= point); s++ {
			list[i] = append(list[i], h.wrote[s][i]...)
		}
	}
	return list
}

// verify looks at one state: it opens, its structure is sound, every sector is
// one of those allowed. It returns what the sectors hold.
func verify(t *testing.T, m *storagetest.Memory, allowed [][]tag) ([]tag, error) {
	t.Helper()
	r, err := check.Run("/disk.vhd", check.Options{FS: m, Bitmaps: true})
	if err != nil {
		return nil, err
	}
	if r.Damaged() {
		return nil, fmt.Errorf("check: %v", r.Findings)
	}
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: m})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	got := tags(t, img)
	for i, v := range got {
		if !slices.Contains(allowed[i], v) {
			return nil, fmt.Errorf("sector %d holds %d, not one of %v", i, v, allowed[i])
		}
	}
	return got, nil
}

// explore cuts the power at every point of h and looks at the states: all of
// them where they are few. It returns how many it looked at, and some of them
// for a second life.
func explore(t *testing.T, h *history, from int, states int) (looked int, lives []*storagetest.Memory) {
	t.Helper()
	for point := from; point <= h.crash.Points(); point++ {
		cut := h.crash.Cut(point)
		n, choose := cut.States(), storagetest.Nth
		if n > uint64(states) {
			n, choose = uint64(states), storagetest.Random
		}
		allowed := h.allowed(point)
		for i := range n {
			if _, err := verify(t, cut.State(choose(i)), allowed); err != nil {
				t.Fatalf("program %v\npower cut after %d calls (%s), state %d of %d: %v",
					h.steps, point, h.crash.Describe(point), i, cut.States(), err)
			}
			looked++
			if rand.N(200) == 0 && len(lives) < 20 {
				lives = append(lives, cut.State(choose(i)))
			}
		}
	}
	return looked, lives
}

// randomProgram is a program of n steps.
func randomProgram(r *rand.Rand, n int) []step {
	var steps []step
	for range n {
		s := step{op: []string{"write", "write", "write", "write", "zero", "discard", "flush", "flush", "reopen"}[r.IntN(9)]}
		if s.op != "flush" && s.op != "reopen" {
			s.first = r.IntN(crashSectors)
			s.n = 1 + r.IntN(min(9, crashSectors-s.first))
			if r.IntN(3) == 0 { // a whole block
				s.first = s.first / 4 * 4
				s.n = min(4, crashSectors-s.first)
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// crashDisks makes the disks on which the programs run.
var crashDisks = map[string]func(t *testing.T, m storage.FS){
	"fixed": func(t *testing.T, m storage.FS) {
		create(t, m, "/disk.vhd", format.Fixed, crashSectors*512, 0)
	},
	"dynamic": func(t *testing.T, m storage.FS) {
		create(t, m, "/disk.vhd", format.Dynamic, crashSectors*512, crashBlock)
	},
	"dynamic, blocks of a sector": func(t *testing.T, m storage.FS) {
		create(t, m, "/disk.vhd", format.Dynamic, crashSectors*512, 512)
	},
	"differencing": func(t *testing.T, m storage.FS) { crashChild(t, m, crashBlock) },
	// The first block's bitmap is where the footer was, without a gap.
	"differencing, blocks of two sectors": func(t *testing.T, m storage.FS) { crashChild(t, m, 1024) },
}

// crashChild makes /disk.vhd over a parent that holds tags.
func crashChild(t *testing.T, m storage.FS, block int64) {
	t.Helper()
	create(t, m, "/base.vhd", format.Dynamic, crashSectors*512, crashBlock)
	var b []byte
	for i := range crashSectors {
		b = append(b, tag(1000+i).sector()...)
	}
	fill(t, m, "/base.vhd", b)
	must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: m, BlockSize: block}))
}

// TestNothingIsLostToAPowerCut runs random programs, cuts the power at every
// point, and looks at what may be left; then goes on from what was left and
// cuts it again: what one crash lost must not come back after the second.
func TestNothingIsLostToAPowerCut(t *testing.T) {
	programs := 4
	if testing.Short() {
		programs = 1
	}
	for name, prepare := range crashDisks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			looked := 0
			for seed := range uint64(programs) {
				r := rand.New(rand.NewPCG(seed, 1))
				m := storagetest.NewMemory()
				prepare(t, m)
				h := run(t, storagetest.NewCrashFrom(m), randomProgram(r, 12), 5000)
				n, lives := explore(t, h, 0, *crashStates)
				looked += n
				for _, life := range lives {
					again := run(t, storagetest.NewCrashFrom(life), randomProgram(r, 6), 9000)
					n, _ := explore(t, again, 0, max(1, *crashStates/10))
					looked += n
				}
			}
			t.Logf("%d states", looked)
		})
	}
}

// TestACrashedImageIsOpenedWithoutRepair is the killed process: all that was
// written is in the file, nothing was closed.
func TestACrashedImageIsOpenedWithoutRepair(t *testing.T) {
	for name, prepare := range crashDisks {
		t.Run(name, func(t *testing.T) {
			m := storagetest.NewMemory()
			prepare(t, m)
			h := run(t, storagetest.NewCrashFrom(m), []step{
				{"write", 1, 3}, {"flush", 0, 0}, {"write", 9, 5}, {"discard", 8, 4}, {"write", 2, 1}, {"flush", 0, 0}, {"write", 20, 10},
			}, 5000)
			for point := range h.crash.Points() + 1 {
				if _, err := verify(t, h.crash.Cut(point).State(storagetest.All), h.allowed(point)); err != nil {
					t.Errorf("killed after %d calls (%s): %v", point, h.crash.Describe(point), err)
				}
			}
		})
	}
}
