package format

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// naiveBitmap is the model of a Bitmap: a bool a bit.
type naiveBitmap []bool

func (m naiveBitmap) fill(first, n int, v bool) {
	for i := first; i < first+n; i++ {
		m[i] = v
	}
}

func (m naiveBitmap) run(first, limit int) (n int, set bool) {
	if first >= limit {
		return 0, false
	}
	for i := first; i < limit && m[i] == m[first]; i++ {
		n++
	}
	return n, m[first]
}

func (m naiveBitmap) count(n int) (count int) {
	for _, v := range m[:n] {
		if v {
			count++
		}
	}
	return count
}

// compare holds every answer of b against the model's.
func (m naiveBitmap) compare(t *testing.T, b Bitmap) {
	t.Helper()
	for i, v := range m {
		if b.Get(i) != v {
			t.Fatalf("bit %d is %v, want %v in %x", i, b.Get(i), v, []byte(b))
		}
	}
}

func (m naiveBitmap) compareRuns(t *testing.T, b Bitmap, first, limit int) {
	t.Helper()
	n, set := b.Run(first, limit)
	wantN, wantSet := m.run(first, limit)
	if n != wantN || set != wantSet {
		t.Fatalf("Run(%d, %d) is %d, %v, want %d, %v in %x", first, limit, n, set, wantN, wantSet, []byte(b))
	}
}

func (m naiveBitmap) compareCounts(t *testing.T, b Bitmap, n int) {
	t.Helper()
	count := m.count(n)
	if got := b.Count(n); got != count {
		t.Fatalf("Count(%d) is %d, want %d in %x", n, got, count, []byte(b))
	}
	if got, want := b.AllSet(n), count == n; got != want {
		t.Fatalf("AllSet(%d) is %v, want %v in %x", n, got, want, []byte(b))
	}
	if got, want := b.AnySet(n), count > 0; got != want {
		t.Fatalf("AnySet(%d) is %v, want %v in %x", n, got, want, []byte(b))
	}
}

// TestBitmapAgainstModel runs random programs on bitmaps whose lengths are
// no multiple of a word too, and asks every question after each step.
func TestBitmapAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, size := range []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 64} {
		b, m := make(Bitmap, size), make(naiveBitmap, 8*size)
		for range 100 {
			first := r.IntN(len(m))
			n := r.IntN(len(m) - first + 1)
			if r.IntN(2) == 0 {
				b.Set(first, n)
				m.fill(first, n, true)
			} else {
				b.Clear(first, n)
				m.fill(first, n, false)
			}
			m.compare(t, b)
			m.compareCounts(t, b, r.IntN(len(m)+1))
			m.compareCounts(t, b, len(m))
			for range 20 {
				first := r.IntN(len(m))
				m.compareRuns(t, b, first, first+r.IntN(len(m)-first+1))
				m.compareRuns(t, b, first, len(m))
			}
		}
	}
}

// TestBitmapEveryRange sets and clears every range of a bitmap of two words
// and three bytes.
func TestBitmapEveryRange(t *testing.T) {
	const size = 19
	for first := range 8*size + 1 {
		for n := range 8*size - first + 1 {
			set, clear := make(Bitmap, size), Bitmap(bytes.Repeat([]byte{0xff}, size))
			set.Set(first, n)
			clear.Clear(first, n)
			if got := set.Count(8 * size); got != n {
				t.Fatalf("Set(%d, %d) set %d bits: %x", first, n, got, []byte(set))
			}
			if n == 0 {
				continue
			}
			if got, on := set.Run(first, 8*size); got != n || !on {
				t.Fatalf("Set(%d, %d) is a run of %d: %x", first, n, got, []byte(set))
			}
			if got, on := clear.Run(first, 8*size); got != n || on || clear.Count(8*size) != 8*size-n {
				t.Fatalf("Clear(%d, %d) is a run of %d: %x", first, n, got, []byte(clear))
			}
		}
	}
}

func TestBitmapMostSignificantBitFirst(t *testing.T) {
	b := Bitmap{0x80, 0x01, 0x40}
	var got []int
	for i := range 24 {
		if b.Get(i) {
			got = append(got, i)
		}
	}
	if len(got) != 3 || got[0] != 0 || got[1] != 15 || got[2] != 17 {
		t.Errorf("bits %v, want 0, 15 and 17", got)
	}
	b = make(Bitmap, 2)
	b.Set(7, 2)
	if !bytes.Equal(b, []byte{0x01, 0x80}) {
		t.Errorf("Set(7, 2) gives %x, want 0180", []byte(b))
	}
}

// TestBitmapRunCoversTheRange walks a bitmap by runs, as readers do: they
// alternate and add up.
func TestBitmapRunCoversTheRange(t *testing.T) {
	b := make(Bitmap, 512)
	b.Set(3, 1)
	b.Set(100, 1000)
	b.Set(1101, 60)
	b.Set(4095, 1)
	want := []int{3, 1, 96, 1000, 1, 60, 2934, 1}
	at := 0
	for i, n := range want {
		got, set := b.Run(at, 4096)
		if got != n || set != (i%2 == 1) {
			t.Fatalf("run %d at %d is %d, %v; want %d", i, at, got, set, n)
		}
		at += got
	}
	if at != 4096 {
		t.Errorf("runs end at %d", at)
	}
}

func TestBitmapOfNoBits(t *testing.T) {
	var b Bitmap
	b.Set(0, 0)
	b.Clear(0, -1)
	if n, set := b.Run(0, 0); n != 0 || set {
		t.Errorf("Run(0, 0) is %d, %v", n, set)
	}
	if n, set := (Bitmap{0xff}).Run(5, 3); n != 0 || set {
		t.Errorf("Run(5, 3) is %d, %v", n, set)
	}
	if !b.AllSet(0) || b.AnySet(0) || b.Count(0) != 0 {
		t.Error("no bits must be all set, none set, zero of them")
	}
}

// TestBitmapBeyondTheEndPanics: a caller that passes the end has a bug that
// must not reach memory next to the bitmap.
func TestBitmapBeyondTheEndPanics(t *testing.T) {
	room := make([]byte, 16)
	b := Bitmap(room[:2])
	for name, f := range map[string]func(){
		"Get":             func() { b.Get(16) },
		"Set":             func() { b.Set(10, 7) },
		"Set whole bytes": func() { b.Set(10, 22) },
		"Clear":           func() { b.Clear(10, 20) },
		"Run":             func() { b.Run(0, 17) },
		"Count":           func() { b.Count(17) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
				if !bytes.Equal(room[2:], make([]byte, 14)) {
					t.Errorf("memory after the bitmap was changed: %x", room)
				}
			}()
			clear(b)
			f()
		})
	}
}

func TestReverseBits(t *testing.T) {
	b := Bitmap{0x01, 0x80, 0xf0, 0x35}
	b.ReverseBits()
	if want := []byte{0x80, 0x01, 0x0f, 0xac}; !bytes.Equal(b, want) {
		t.Errorf("%x, want %x", []byte(b), want)
	}
}

func TestBitmapAllocatesNothing(t *testing.T) {
	b := make(Bitmap, 512)
	allocs := testing.AllocsPerRun(100, func() {
		b.Set(5, 3000)
		b.Clear(70, 100)
		b.Run(5, 4096)
		b.Count(4096)
		b.AllSet(4096)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
