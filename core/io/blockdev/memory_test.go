package blockdev_test

import (
	"errors"
	"math"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
)

// pageSize is the unit of a Memory, in bytes.
const pageSize = 64 << 10

func TestMemoryConforms(t *testing.T) {
	blockdevtest.Run(t, func(_ *testing.T, size int64) blockdev.Device {
		return blockdev.NewMemory(size)
	}, blockdevtest.WithDiscard(blockdevtest.DiscardZeros), blockdevtest.WithBlockSize(pageSize))
}

func TestNewMemoryPanicsOnSizesThatAreNoDisks(t *testing.T) {
	for _, size := range []int64{0, -512, 1, 511, 513, math.MaxInt64} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewMemory(%d) doesn't panic", size)
				}
			}()
			blockdev.NewMemory(size)
		}()
	}
}

func TestMemoryAllocatesWhatIsWritten(t *testing.T) {
	const size = 3*pageSize + 512 // the last page is a sector
	tests := []struct {
		name   string
		writes [][2]int64 // offset, length
		zeroes [][2]int64
		want   int64
	}{
		{"nothing", nil, nil, 0},
		{"one byte", [][2]int64{{5, 1}}, nil, pageSize},
		{"over a border", [][2]int64{{pageSize - 1, 2}}, nil, 2 * pageSize},
		{"the short last page", [][2]int64{{3*pageSize + 1, 1}}, nil, 512},
		{"all", [][2]int64{{0, size}}, nil, size},
		{"a page zeroed", [][2]int64{{0, size}}, [][2]int64{{pageSize, pageSize}}, size - pageSize},
		{"less than a page zeroed", [][2]int64{{0, size}}, [][2]int64{{pageSize + 1, pageSize - 1}}, size},
		{"the short last page zeroed", [][2]int64{{0, size}}, [][2]int64{{3 * pageSize, 512}}, size - 512},
		{"all zeroed", [][2]int64{{0, size}}, [][2]int64{{0, size}}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			byZeroes, byDiscard := blockdev.NewMemory(size), blockdev.NewMemory(size)
			for _, w := range tt.writes {
				write(t, byZeroes, w[0], w[1])
				write(t, byDiscard, w[0], w[1])
			}
			for _, z := range tt.zeroes {
				noError(t, byZeroes.WriteZeroes(z[0], z[1]))
				noError(t, byDiscard.Discard(z[0], z[1]))
			}
			if got := byZeroes.Allocated(); got != tt.want {
				t.Errorf("Allocated() = %d, want %d", got, tt.want)
			}
			if got := byDiscard.Allocated(); got != tt.want {
				t.Errorf("Allocated() = %d by Discard, want %d", got, tt.want)
			}
		})
	}
}

func TestMemoryExtentsAreItsPages(t *testing.T) {
	m := blockdev.NewMemory(6*pageSize + 512)
	for _, page := range []int64{1, 2, 4} {
		write(t, m, page*pageSize+7, 1)
	}
	data := func(off, end int64) blockdev.Extent {
		return blockdev.Extent{Offset: off, Length: end - off, Kind: blockdev.Data, FileOffset: off}
	}
	hole := func(off, end int64) blockdev.Extent {
		return blockdev.Extent{Offset: off, Length: end - off, Kind: blockdev.Hole, Depth: -1}
	}
	tests := []struct {
		name   string
		off, n int64
		want   []blockdev.Extent
	}{
		{"all", 0, m.Size(), []blockdev.Extent{
			hole(0, pageSize), data(pageSize, 3*pageSize), hole(3*pageSize, 4*pageSize),
			data(4*pageSize, 5*pageSize), hole(5*pageSize, m.Size()),
		}},
		{"clipped", pageSize + 1, 2*pageSize + 1, []blockdev.Extent{
			data(pageSize+1, 3*pageSize), hole(3*pageSize, 3*pageSize+2),
		}},
		{"within a page", 2*pageSize + 5, 9, []blockdev.Extent{data(2*pageSize+5, 2*pageSize+14)}},
		{"nothing", pageSize, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { sameExtents(t, m, tt.off, tt.n, tt.want...) })
	}
}

func TestMemoryExtentsAreOfTheMomentTheyBegin(t *testing.T) {
	m := blockdev.NewMemory(4 * pageSize)
	sum := int64(0)
	for e, err := range m.Extents(0, m.Size()) {
		noError(t, err)
		write(t, m, 3*pageSize, 1) // from within the loop: no lock is held
		sum += e.Length
		if e.Kind != blockdev.Hole {
			t.Errorf("%+v: written after the iteration began", e)
		}
	}
	if sum != m.Size() {
		t.Errorf("the extents cover %d of %d bytes", sum, m.Size())
	}
}

// A device may be as large as an offset can say: its last page begins less
// than a page before the largest one.
func TestMemoryOfTheLargestSize(t *testing.T) {
	const size = math.MaxInt64 - 511
	m := blockdev.NewMemory(size)
	write(t, m, size-3, 3)
	got := make([]byte, 4)
	if _, err := m.ReadAt(got, size-4); err != nil || string(got) != "\x00xxx" {
		t.Errorf("the last bytes are %q, %v", got, err)
	}
	last := int64(size / pageSize * pageSize)
	sameExtents(t, m, 0, size,
		blockdev.Extent{Length: last, Kind: blockdev.Hole, Depth: -1},
		blockdev.Extent{Offset: last, Length: size - last, Kind: blockdev.Data, FileOffset: last})
	if got := m.Allocated(); got != size-last {
		t.Errorf("Allocated() = %d, want %d", got, size-last)
	}
	noError(t, m.Discard(size-1024, 1024))
	if _, err := m.ReadAt(got, size-4); err != nil || string(got) != "\x00\x00\x00\x00" {
		t.Errorf("the last bytes are %q, %v after a discard", got, err)
	}
	noError(t, m.WriteZeroes(0, size))
	if got := m.Allocated(); got != 0 {
		t.Errorf("Allocated() = %d after all was zeroed", got)
	}
}

func TestMemoryAnswersWithoutWaiting(t *testing.T) {
	m := blockdev.NewMemory(pageSize)
	write(t, m, 1, 2)
	got := make([]byte, 4)
	if n, err := m.ReadAtNowait(got, 0); n != 4 || err != nil || string(got) != "\x00xx\x00" {
		t.Errorf("ReadAtNowait = %d, %v, %q", n, err, got)
	}
	noError(t, m.Close())
	if _, err := m.ReadAtNowait(got, 0); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
