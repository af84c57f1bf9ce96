package storagetest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

func testReadAtEnd(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(1000, 1))
	tests := []struct {
		name   string
		off    int64
		n      int
		want   int
		wanted error
	}{
		{"whole", 0, 1000, 1000, nil},
		{"inside", 400, 600, 600, nil},
		{"across", 400, 601, 600, io.EOF},
		{"last byte", 999, 2, 1, io.EOF},
		{"at the end", 1000, 1, 0, io.EOF},
		{"far past the end", 1 << 40, 1, 0, io.EOF},
		{"nothing", 500, 0, 0, nil},
	}
	for _, test := range tests {
		p := make([]byte, test.n)
		n, err := f.ReadAt(p, test.off)
		// As io.ReaderAt has it, EOF may come with the file's last byte.
		if n != test.want || err != test.wanted && (err != io.EOF || test.off+int64(n) != 1000 || n < test.n) {
			t.Errorf("%s: ReadAt = %d, %v, want %d, %v", test.name, n, err, test.want, test.wanted)
		}
		if n > 0 && !bytes.Equal(p[:n], pattern(1000, 1)[test.off:test.off+int64(n)]) {
			t.Errorf("%s: other bytes", test.name)
		}
	}
}

func testWritePastEnd(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(700, 1))
	write(t, f, pattern(100, 2), 9000)
	want := growTo(pattern(700, 1), 9000)
	expectContent(t, f, append(want, pattern(100, 2)...))
	write(t, f, nil, 20000)
	if size, err := f.Size(); size != 9100 || err != nil {
		t.Errorf("a write of nothing past the end: size %d, %v", size, err)
	}
}

func testTruncate(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(10000, 1))
	for _, size := range []int64{5000, 100, 9000, 0, 4096} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Size(); got != size || err != nil {
			t.Errorf("after Truncate(%d): size %d, %v", size, got, err)
		}
	}
	expectContent(t, f, make([]byte, 4096))

	write(t, f, pattern(10000, 3), 0)
	for _, size := range []int64{3333, 10000} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	expectContent(t, f, growTo(pattern(10000, 3)[:3333], 10000))
}

func testAllocate(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(5000, 1))
	if !supported(t, "Allocate", f.Allocate(1000, 100000)) {
		return
	}
	expectContent(t, f, growTo(pattern(5000, 1), 101000))
	if info, err := f.Stat(); err != nil || info.Allocated < 101000 {
		t.Errorf("%d bytes allocated, %v", info.Allocated, err)
	}
	if err := f.Allocate(0, 10); err != nil {
		t.Error(err)
	}
	if err := f.Allocate(200000, 0); err != nil {
		t.Error(err)
	}
	expectContent(t, f, growTo(pattern(5000, 1), 101000))
}

func testPunchHole(t *testing.T, s suite) {
	const size = 256 << 10
	f := s.create(t, "a", pattern(size, 1))
	if err := f.Sync(); err != nil { // so that its space is accounted for
		t.Fatal(err)
	}
	before, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if !supported(t, "PunchHole", f.PunchHole(64<<10, 128<<10)) {
		return
	}
	want := pattern(size, 1)
	clear(want[64<<10 : 192<<10])
	for _, r := range [][2]int64{{1000, 10}, {size - 5, 100}, {size + 4096, 4096}, {50, 0}} {
		if err := f.PunchHole(r[0], r[1]); err != nil {
			t.Error(err)
		}
		clear(want[min(r[0], size):min(r[0]+r[1], size)])
	}
	expectContent(t, f, want)
	after, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if after.Allocated > before.Allocated-64<<10 {
		t.Errorf("%d bytes allocated before, %d after", before.Allocated, after.Allocated)
	}
}

func testNextData(t *testing.T, s suite) {
	f := s.create(t, "a", nil)
	h, ok := f.(storage.HoleFinder)
	if !ok {
		t.Skip("the files are no storage.HoleFinder")
	}
	if _, _, err := h.NextData(0); err != io.EOF {
		t.Errorf("NextData of an empty file: error %v", err)
	}
	const size = 8 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	write(t, f, pattern(100, 1), 2<<20)
	write(t, f, pattern(64<<10, 2), 5<<20)
	var found []int64
	for off := int64(0); ; {
		start, end, err := h.NextData(off)
		if err == io.EOF {
			break
		}
		if err != nil || start < off || end <= start || end > size {
			t.Fatalf("NextData(%d) = %d, %d, %v", off, start, end, err)
		}
		found = append(found, start, end)
		off = end
	}
	for _, byteAt := range []int64{2 << 20, 2<<20 + 99, 5 << 20, 5<<20 + 64<<10 - 1} {
		if !covered(found, byteAt) {
			t.Errorf("NextData finds no data at %d: %d", byteAt, found)
		}
	}
	if start, _, err := h.NextData(5<<20 + 1000); start != 5<<20+1000 || err != nil {
		t.Errorf("NextData inside data = %d, %v", start, err)
	}
	for _, off := range []int64{size, size + 1, 1 << 40} {
		if _, _, err := h.NextData(off); err != io.EOF {
			t.Errorf("NextData(%d): error %v", off, err)
		}
	}
}

// covered tells whether off lies in one of the runs, start and end in turn.
func covered(runs []int64, off int64) bool {
	for i := 0; i < len(runs); i += 2 {
		if runs[i] <= off && off < runs[i+1] {
			return true
		}
	}
	return false
}

func testNowait(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(10000, 1))
	r, ok := f.(storage.NowaitReaderAt)
	if !ok {
		t.Skip("the files are no storage.NowaitReaderAt")
	}
	p := make([]byte, 4096)
	for _, off := range []int64{0, 5000, 9000, 10000, 20000} {
		n, err := r.ReadAtNowait(p, off)
		if errors.Is(err, storage.ErrWouldBlock) {
			continue
		}
		have := int(min(4096, max(0, 10000-off)))
		if n != have || (err == io.EOF) != (have < 4096) || err != nil && err != io.EOF {
			t.Errorf("ReadAtNowait(4096 bytes, %d) = %d, %v", off, n, err)
		}
		if have > 0 && !bytes.Equal(p[:have], pattern(10000, 1)[off:off+int64(have)]) {
			t.Errorf("ReadAtNowait(4096 bytes, %d): other bytes", off)
		}
	}
}

func testHugeHole(t *testing.T, s suite) {
	const size = 2 << 40
	f := s.create(t, "a", nil)
	if err := f.Truncate(size); err != nil {
		if errors.Is(err, storage.ErrNoSpace) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	write(t, f, pattern(100, 1), size-50)
	p := make([]byte, 60)
	if n, err := f.ReadAt(p, size-60); n != 60 || err != nil {
		t.Fatalf("ReadAt = %d, %v", n, err)
	}
	if want := append(make([]byte, 10), pattern(50, 1)...); !bytes.Equal(p, want) {
		t.Errorf("read %v, not %v", p, want)
	}
	info, err := f.Stat()
	if err != nil || info.Size != size+50 || info.Allocated > 1<<20 {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	if h, ok := f.(storage.HoleFinder); ok {
		if start, _, err := h.NextData(1); err != nil || start <= 1<<40 || start > size-50 {
			t.Errorf("NextData(1) = %d, %v", start, err)
		}
	}
}

func testNonsense(t *testing.T, s suite) {
	f := s.create(t, "a", pattern(100, 1))
	p := make([]byte, 10)
	calls := map[string]func() error{
		"ReadAt(-1)":            func() error { _, err := f.ReadAt(p, -1); return err },
		"WriteAt(-1)":           func() error { _, err := f.WriteAt(p, -1); return err },
		"WriteAt past 2^63":     func() error { _, err := f.WriteAt(p, math.MaxInt64-5); return err },
		"Truncate(-1)":          func() error { return f.Truncate(-1) },
		"Allocate(-1, 10)":      func() error { return f.Allocate(-1, 10) },
		"Allocate(10, -1)":      func() error { return f.Allocate(10, -1) },
		"Allocate past 2^63":    func() error { return f.Allocate(math.MaxInt64-5, 10) },
		"PunchHole(-1, 10)":     func() error { return f.PunchHole(-1, 10) },
		"PunchHole(10, -1)":     func() error { return f.PunchHole(10, -1) },
		"Open of an empty name": func() error { _, err := s.fs.Open(s.path("a")+"/b", 0); return err },
	}
	for name, call := range calls {
		if err := call(); err == nil || err == io.EOF {
			t.Errorf("%s: error %v", name, err)
		}
	}
	expectContent(t, f, pattern(100, 1))
}

// testConcurrent has each goroutine own a part of the file; the race detector
// watches.
func testConcurrent(t *testing.T, s suite) {
	const workers, part = 4, 10000 // parts share sectors and pages
	f := s.create(t, "a", make([]byte, workers*part))
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			p, off := make([]byte, part), int64(w*part)
			for round := range 10 {
				want := pattern(part, byte(w*10+round))
				if _, err := f.WriteAt(want, off); err != nil {
					t.Error(err)
				}
				if _, err := f.ReadAt(p, off); err != nil && err != io.EOF {
					t.Error(err)
				}
				if !bytes.Equal(p, want) {
					t.Errorf("worker %d read other bytes than it wrote", w)
				}
				_, _ = f.Size()
				_, _ = f.Stat()
				if round%5 == 0 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	var want []byte
	for w := range workers {
		want = append(want, pattern(part, byte(w*10+9))...)
	}
	expectContent(t, f, want)
}
