package blockdev_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// plain is a Device without any optional ability.
type plain struct{ blockdev.Device }

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write fills [off, off+n) of dev with the letter x.
func write(t *testing.T, dev blockdev.Device, off, n int64) {
	t.Helper()
	got, err := dev.WriteAt(bytes.Repeat([]byte("x"), int(n)), off)
	if err != nil || int64(got) != n {
		t.Fatalf("WriteAt of %d bytes at %d = %d, %v", n, off, got, err)
	}
}

// content is all of dev.
func content(t *testing.T, dev blockdev.Device) []byte {
	t.Helper()
	p := make([]byte, dev.Size())
	if _, err := dev.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func sameExtents(t *testing.T, dev blockdev.Device, off, n int64, want ...blockdev.Extent) {
	t.Helper()
	var got []blockdev.Extent
	for e, err := range blockdev.Extents(dev, off, n) {
		noError(t, err)
		got = append(got, e)
	}
	if !slices.Equal(got, want) {
		t.Errorf("extents of %d bytes at %d:\n got %+v\nwant %+v", n, off, got, want)
	}
}

func TestCheckRange(t *testing.T) {
	const most = math.MaxInt64
	tests := []struct {
		name         string
		size, off, n int64
		ok           bool
	}{
		{"all", 512, 0, 512, true},
		{"the last byte", 512, 511, 1, true},
		{"nothing at the end", 512, 512, 0, true},
		{"nothing past the end", 512, 513, 0, false},
		{"a byte past the end", 512, 512, 1, false},
		{"over the end", 512, 511, 2, false},
		{"negative offset", 512, -1, 1, false},
		{"negative offset, nothing", 512, -1, 0, false},
		{"negative length", 512, 1, -1, false},
		{"the sum overflows", 512, 1, most, false},
		{"the sum overflows to within", 512, most, most, false},
		{"the least offset", 512, math.MinInt64, 1, false},
		{"the least length", 512, 0, math.MinInt64, false},
		{"both the least", 512, math.MinInt64, math.MinInt64, false},
		{"the largest device", most, 0, most, true},
		{"its last byte", most, most - 1, 1, true},
		{"its end", most, most, 0, true},
		{"past its end", most, most, 1, false},
		{"over its end", most, most - 1, 2, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := blockdev.CheckRange(tt.size, tt.off, tt.n)
			if tt.ok != (err == nil) {
				t.Fatalf("CheckRange(%d, %d, %d) = %v", tt.size, tt.off, tt.n, err)
			}
			if tt.ok {
				return
			}
			var r *blockdev.RangeError
			if !errors.Is(err, blockdev.ErrOutOfRange) || !errors.As(err, &r) {
				t.Fatalf("the error is %T", err)
			}
			if want := (blockdev.RangeError{Offset: tt.off, Length: tt.n, Size: tt.size}); *r != want {
				t.Errorf("the error has %+v, want %+v", *r, want)
			}
		})
	}
}

func TestRangeErrorSaysTheNumbers(t *testing.T) {
	err := blockdev.CheckRange(512, 511, 2)
	if want := "2 bytes at offset 511: beyond the end of the device of 512 bytes"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestExtentKindsHaveWords(t *testing.T) {
	got := []string{blockdev.Hole.String(), blockdev.Zero.String(), blockdev.Data.String()}
	if s := strings.Join(got, " "); s != "hole zero data" {
		t.Errorf("got %q", s)
	}
}

func TestDiscardFallbackKeepsTheBytes(t *testing.T) {
	dev := plain{blockdev.NewMemory(2048)}
	write(t, dev, 0, 2048)
	done, err := blockdev.Discard(dev, 0, 2048)
	if done || err != nil {
		t.Errorf("Discard = %v, %v; want false, nil", done, err)
	}
	if got := content(t, dev); bytes.Count(got, []byte("x")) != 2048 {
		t.Error("the content changed")
	}
	if _, err := blockdev.Discard(dev, 1, math.MaxInt64); !errors.Is(err, blockdev.ErrOutOfRange) {
		t.Errorf("out of range: %v", err)
	}
	if done, err := blockdev.Discard(dev.Device, 0, 512); !done || err != nil {
		t.Errorf("Discard of a Discarder = %v, %v; want true, nil", done, err)
	}
}

// failsAfter is a device whose n+1st write fails.
type failsAfter struct {
	plain
	n      int
	writes []int // lengths
}

func (f *failsAfter) WriteAt(p []byte, off int64) (int, error) {
	if len(f.writes) == f.n {
		return 0, blockdev.ErrNoSpace
	}
	f.writes = append(f.writes, len(p))
	return f.plain.WriteAt(p, off)
}

func TestWriteZeroesFallbackWritesZeros(t *testing.T) {
	const size = 200 << 10
	dev := &failsAfter{plain: plain{blockdev.NewMemory(size)}, n: 100}
	write(t, dev, 0, size)
	noError(t, blockdev.WriteZeroes(dev, 511, 150<<10))
	got := content(t, dev)
	if n := bytes.Count(got, []byte{0}); n != 150<<10 {
		t.Errorf("%d bytes are zero, want %d", n, 150<<10)
	}
	if got[510] != 'x' || got[511] != 0 || got[511+150<<10-1] == 'x' {
		t.Error("the zeros are elsewhere")
	}
	if slices.Max(dev.writes[1:]) > 64<<10 {
		t.Errorf("writes of %d bytes", dev.writes)
	}
	for _, r := range [][2]int64{{-1, 1}, {1, math.MaxInt64}, {size, 1}, {0, size + 1}} {
		if err := blockdev.WriteZeroes(dev, r[0], r[1]); !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("%d bytes at %d: %v", r[1], r[0], err)
		}
	}
	if !bytes.Equal(got, content(t, dev)) {
		t.Error("a range that is refused was written in part")
	}
}

func TestWriteZeroesFallbackStopsAtAnError(t *testing.T) {
	dev := &failsAfter{plain: plain{blockdev.NewMemory(256 << 10)}, n: 2}
	if err := blockdev.WriteZeroes(dev, 0, 256<<10); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("the error is %v", err)
	}
	if len(dev.writes) != 2 {
		t.Errorf("%d writes went through, want 2", len(dev.writes))
	}
}

func TestOtherFallbacks(t *testing.T) {
	dev := plain{blockdev.NewMemory(2048)}
	if n, err := blockdev.ReadAtNowait(dev, make([]byte, 1), 0); n != 0 || !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("ReadAtNowait = %d, %v", n, err)
	}
	if got := blockdev.Allocated(dev); got != 2048 {
		t.Errorf("Allocated = %d, want all", got)
	}
	sameExtents(t, dev, 1, 600, blockdev.Extent{Offset: 1, Length: 600, Kind: blockdev.Data, FileOffset: 1})
	sameExtents(t, dev, 2048, 0)
	for e, err := range blockdev.Extents(dev, 2048, 1) {
		if !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("out of range: %+v, %v", e, err)
		}
	}
}
