package blockdev_test

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"math"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func TestNewSectionRefuses(t *testing.T) {
	dev := blockdev.NewMemory(4096)
	tests := []struct {
		name       string
		off, n     int64
		outOfRange bool
	}{
		{"nothing", 512, 0, false},
		{"a part of a sector", 512, 100, false},
		{"a start within a sector", 100, 512, false},
		{"past the end", 4096, 512, true},
		{"over the end", 3584, 1024, true},
		{"a negative offset", -512, 1024, true},
		{"a negative length", 512, -512, true},
		{"a sum that overflows", 512, math.MaxInt64 - 511, true},
		{"an offset close to the largest", math.MaxInt64 - 511, 512, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := blockdev.NewSection(dev, tt.off, tt.n)
			if s != nil || err == nil || errors.Is(err, blockdev.ErrOutOfRange) != tt.outOfRange {
				t.Errorf("NewSection(%d, %d) = %v, %v", tt.off, tt.n, s, err)
			}
		})
	}
}

func TestSectionTouchesNothingAroundIt(t *testing.T) {
	dev := blockdev.NewMemory(4096)
	write(t, dev, 0, 4096)
	s := section(t, dev, 1024, 2048)
	noError(t, s.WriteZeroes(0, 2048))
	want := append(append(bytes.Repeat([]byte("x"), 1024), make([]byte, 2048)...), bytes.Repeat([]byte("x"), 1024)...)
	if !bytes.Equal(content(t, dev), want) {
		t.Error("the zeros aren't the section")
	}
	for _, r := range [][2]int64{{-1, 1}, {2048, 1}, {2047, 2}, {-1024, 512}, {1, math.MaxInt64}, {math.MaxInt64, 1}} {
		if err := s.WriteZeroes(r[0], r[1]); !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("WriteZeroes of %d bytes at %d, which the parent has: %v", r[1], r[0], err)
		}
	}
	var r *blockdev.RangeError
	if _, err := s.ReadAt(make([]byte, 2), 2047); !errors.As(err, &r) || r.Size != 2048 || r.Offset != 2047 {
		t.Errorf("the error speaks of another device than the section: %v", err)
	}
	if !bytes.Equal(content(t, dev), want) {
		t.Error("what was refused was done")
	}
}

func TestSectionLeavesItsParentOpen(t *testing.T) {
	dev := blockdev.NewMemory(4096)
	s := section(t, dev, 512, 512)
	write(t, s, 0, 512)
	noError(t, s.Close())
	if got := content(t, dev); got[511] != 0 || got[512] != 'x' || got[1023] != 'x' || got[1024] != 0 {
		t.Error("the parent doesn't hold what was written")
	}
	other := section(t, dev, 512, 512)
	noError(t, dev.Close())
	noError(t, other.Close())
}

// unflushable is a device that can't flush.
type unflushable struct{ blockdev.Device }

func (unflushable) Flush() error { return io.ErrNoProgress }

func TestSectionCloseSaysWhenItCouldNotFlush(t *testing.T) {
	s := section(t, unflushable{blockdev.NewMemory(4096)}, 0, 512)
	if err := s.Close(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("first Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestSectionCountsItsOwnAllocation(t *testing.T) {
	dev := blockdev.NewMemory(8 * pageSize)
	write(t, dev, 0, 1)          // before the section
	write(t, dev, 2*pageSize, 1) // half in it
	write(t, dev, 5*pageSize, 1) // in it
	write(t, dev, 7*pageSize, 1) // after it
	s := section(t, dev, 2*pageSize+pageSize/2, 4*pageSize)
	if got, want := s.Allocated(), int64(pageSize/2+pageSize); got != want {
		t.Errorf("Allocated() = %d, want %d", got, want)
	}
}

// scattered says that every other sector is a hole, and counts how often it
// says something.
type scattered struct {
	plain
	usage int64
	said  int
}

func (s *scattered) Allocated() int64 { return s.usage }

func (s *scattered) Extents(off, n int64) iter.Seq2[blockdev.Extent, error] {
	return func(yield func(blockdev.Extent, error) bool) {
		for at := off; at < off+n; at += 512 {
			e := blockdev.Extent{Offset: at, Length: 512, Kind: blockdev.Data}
			if at/512%2 == 1 {
				e.Kind, e.Depth = blockdev.Hole, -1
			}
			s.said++
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestSectionAllocationIsBoundedWork(t *testing.T) {
	const most = 4096 // extents that are looked at
	tests := []struct {
		name           string
		sectors, usage int64
		want           int64
	}{
		{"all of them", most, math.MaxInt64, most / 2 * 512},
		{"what lies behind counts as held", 3 * most, math.MaxInt64, (most/2 + 2*most) * 512},
		{"clipped to the parent's", 3 * most, most * 512, most * 512},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := &scattered{plain: plain{blockdev.NewMemory(tt.sectors*512 + 1024)}, usage: tt.usage}
			if got := section(t, dev, 1024, tt.sectors*512).Allocated(); got != tt.want {
				t.Errorf("Allocated() = %d, want %d", got, tt.want)
			}
			if dev.said > most+1 {
				t.Errorf("it took %d extents", dev.said)
			}
		})
	}
}

func TestReadOnlyOwnsItsDevice(t *testing.T) {
	dev := blockdev.NewMemory(4096)
	write(t, dev, 0, 512)
	r := blockdev.ReadOnly(dev)
	for _, off := range []int64{0, -1, math.MaxInt64} {
		if n, err := r.WriteAt([]byte("y"), off); n != 0 || !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("WriteAt at %d = %d, %v", off, n, err)
		}
	}
	if done, err := blockdev.Discard(r, 0, 512); !done || !errors.Is(err, blockdev.ErrReadOnly) {
		t.Errorf("Discard = %v, %v", done, err)
	}
	if got := content(t, r); got[0] != 'x' || got[511] != 'x' {
		t.Error("the content changed")
	}
	write(t, dev, 512, 1) // who has the device itself may still write
	if got := content(t, r); got[512] != 'x' {
		t.Error("a write below isn't seen")
	}
	noError(t, r.Close())
	if err := dev.Flush(); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("the device below is open after Close: %v", err)
	}
	if _, err := r.WriteAt([]byte("y"), 0); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("WriteAt after Close: %v", err)
	}
}
