package storagetest_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// history is a file's contents, as the program saw them: the last synced
// first, and one for each call since.
type history [][]byte

// sectorAt is sector i of the content; nil past its end.
func sectorAt(p []byte, i int) []byte {
	if i*512 >= len(p) {
		return nil
	}
	return p[i*512 : min(len(p), i*512+512)]
}

// allows tells whether a power cut can leave got: a size that was, and each
// sector as it was at some time, or zeros, as far as the size exposes them.
func (h history) allows(got []byte) error {
	sizes := false
	for _, was := range h {
		sizes = sizes || len(was) == len(got)
	}
	if !sizes {
		return fmt.Errorf("size %d never was", len(got))
	}
	for i := 0; i*512 < len(got); i++ {
		if !h.allowsSector(i, sectorAt(got, i)) {
			return fmt.Errorf("sector %d never was so", i)
		}
	}
	return nil
}

func (h history) allowsSector(i int, got []byte) bool {
	for _, was := range h {
		s := sectorAt(was, i)
		padded := append(bytes.Clone(s), make([]byte, 512-len(s))...)
		same := 0
		for same < len(got) && got[same] == padded[same] {
			same++
		}
		// The size cuts, and what it cuts off reads as zeros.
		if len(bytes.Trim(got[same:], "\x00")) == 0 {
			return true
		}
	}
	return false
}

// TestRandomStatesKeepWhatWasSynced runs random programs on one file.
func TestRandomStatesKeepWhatWasSynced(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := storagetest.NewCrash()
		p := program{t, c}
		f := p.stable("a", "")
		points := []history{{nil}}
		first := c.Points()
		for range 40 {
			h := points[len(points)-1]
			off, n := r.Int64N(4000), r.Int64N(1500)
			if r.IntN(2) == 0 {
				off, n = off/512*512, n/512*512
			}
			synced := false
			switch r.IntN(8) {
			case 0:
				p.must(f.Truncate(off))
			case 1:
				p.must(f.PunchHole(off, n))
			case 2:
				p.must(f.Allocate(off, n))
			case 3:
				p.must(f.Sync())
				synced = true
			default:
				_, err := f.WriteAt(bytes.Repeat([]byte{byte(r.IntN(255) + 1)}, int(n)), off)
				p.must(err)
			}
			now, err := readFile(c, "a")
			p.must(err)
			if synced {
				h = nil
			}
			points = append(points, append(h[:len(h):len(h)], now))
		}
		checkPoints(t, seed, c, first, points)
	}
}

func checkPoints(t *testing.T, seed uint64, c *storagetest.Crash, first int, points []history) {
	t.Helper()
	for i, h := range points {
		cut := c.Cut(first + i)
		fail := func(format string, args ...any) {
			t.Fatalf("seed %d, point %d, %s: %s", seed, first+i, c.Describe(first+i), fmt.Sprintf(format, args...))
		}
		for what, pair := range map[string]struct {
			choose storagetest.Chooser
			want   []byte
		}{"all": {storagetest.All, h[len(h)-1]}, "none": {storagetest.None, h[0]}} {
			if got, err := readFile(cut.State(pair.choose), "a"); err != nil || !bytes.Equal(got, pair.want) {
				fail("with %s written: %d bytes, not %d, %v", what, len(got), len(pair.want), err)
			}
		}
		for n := range uint64(20) {
			got, err := readFile(cut.State(storagetest.Random(n)), "a")
			if err != nil {
				fail("%v", err)
			}
			if err := h.allows(got); err != nil {
				fail("choice %d: %v", n, err)
			}
		}
	}
}

// commit writes a record and then, in another sector, that it is there. It is
// the smallest program that depends on a sync.
func commit(p program, f storage.File, record string, barrier bool) {
	p.write(f, record, 1)
	if barrier {
		p.must(f.Sync())
	}
	p.write(f, "1", 0)
	p.must(f.Sync())
}

func TestAMissingBarrierIsFound(t *testing.T) {
	for _, barrier := range []bool{true, false} {
		c := storagetest.NewCrash()
		p := program{t, c}
		f := p.stable("a", "..")
		commit(p, f, "R", barrier)
		broken := 0
		for point := range c.Points() + 1 {
			cut := c.Cut(point)
			for i := range cut.States() {
				if letters(t, cut.State(storagetest.Nth(i)), "a") == "1." {
					broken++
				}
			}
		}
		if barrier != (broken == 0) {
			t.Errorf("barrier %v: %d states with the mark and not the record", barrier, broken)
		}
	}
}

func TestCrashIsSafeForConcurrentUse(t *testing.T) {
	c := storagetest.NewCrash()
	f := program{t, c}.stable("a", "........")
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for round := range 20 {
				if _, err := f.WriteAt(sectors("x"), int64(w)*512); err != nil {
					t.Error(err)
				}
				cut := c.Cut(c.Points())
				m := cut.State(storagetest.Random(uint64(round)))
				if _, err := readFile(m, "a"); err != nil {
					t.Error(err)
				}
				if round%5 == 0 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	if got := letters(t, c.State(c.Points(), storagetest.All), "a"); got != "xxxx...." {
		t.Errorf("%q", got)
	}
}

// BenchmarkState makes states of an image of 64 KiB with unsynced writes, and
// reads a sector of each.
func BenchmarkState(b *testing.B) {
	for _, units := range []int{4, 16, 64} {
		b.Run(fmt.Sprintf("units=%d", units), func(b *testing.B) {
			c := storagetest.NewCrash()
			f, err := c.Create("a", 0o600)
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, 64<<10)
			for i := range p {
				p[i] = byte(i) | 1
			}
			_, _ = f.WriteAt(p, 0)
			_ = f.Sync()
			_ = c.SyncDir("/")
			for i := range units {
				_, _ = f.WriteAt(p[:512], int64(i*512*128/units))
			}
			cut := c.Cut(c.Points())
			sector := p[:512]
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				m := cut.State(storagetest.Nth(n))
				n += 0x9E3779B97F4A7C15
				g, err := m.Open("a", 0)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := g.ReadAt(sector, 4096); err != nil && err != io.EOF {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "states/s")
		})
	}
}
