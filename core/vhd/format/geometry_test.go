package format

import (
	"math"
	"math/rand/v2"
	"testing"
)

// specGeometry is "CHS Calculation" of the specification's appendix, word for
// word as C programs have it.
func specGeometry(size int64) Geometry {
	const top = 65535 * 16 * 255
	secs := size / 512
	if size%512 != 0 {
		secs++
	}
	if secs < 1 {
		secs = 1
	}
	if secs > top {
		secs = top
	}
	var cth, heads, spt int64
	if secs >= 65535*16*63 {
		spt, heads = 255, 16
		cth = secs / spt
	} else {
		spt = 17
		cth = secs / spt
		heads = (cth + 1023) / 1024
		if heads < 4 {
			heads = 4
		}
		if cth >= heads*1024 || heads > 16 {
			spt, heads = 31, 16
			cth = secs / spt
		}
		if cth >= heads*1024 {
			spt, heads = 63, 16
			cth = secs / spt
		}
	}
	return Geometry{Cylinders: uint16(cth / heads), Heads: uint8(heads), Sectors: uint8(spt)}
}

func TestGeometryFor(t *testing.T) {
	tests := []struct {
		size int64
		want Geometry
	}{
		{0, Geometry{0, 4, 17}},
		{-1, Geometry{0, 4, 17}},
		{512, Geometry{0, 4, 17}},
		{34816, Geometry{1, 4, 17}},
		{4194304, Geometry{120, 4, 17}},     // Windows 10, 4 MiB
		{104865792, Geometry{1004, 12, 17}}, // qemu-img, 100M
		{536870912, Geometry{1040, 16, 63}}, // Virtual PC, 512 MiB
		{1 << 30, Geometry{2080, 16, 63}},
		{65535 * 16 * 63 * 512, Geometry{16191, 16, 255}}, // where 255 sectors a track begin
		{65535*16*63*512 - 512, Geometry{65534, 16, 63}},
		{65535 * 16 * 255 * 512, Geometry{65535, 16, 255}},
		{65535*16*255*512 - 512, Geometry{65534, 16, 255}},
		{MaxSize, Geometry{65535, 16, 255}},
		{math.MaxInt64, Geometry{65535, 16, 255}},
	}
	for _, tt := range tests {
		if got := GeometryFor(tt.size); got != tt.want {
			t.Errorf("%d bytes: %v, want %v", tt.size, got, tt.want)
		}
	}
}

func TestGeometryAgreesWithTheSpecification(t *testing.T) {
	check := func(size int64) {
		t.Helper()
		got, want := GeometryFor(size), specGeometry(size)
		if got != want {
			t.Fatalf("%d bytes: %v, want %v", size, got, want)
		}
		if rounded := ceilDiv(max(size, 1), 512) * 512; got.Bytes() > rounded {
			t.Fatalf("%d bytes: %v makes %d", size, got, got.Bytes())
		}
	}
	for sectors := range int64(600_000) { // beyond all changes of heads and of 31 to 63 sectors a track
		check(sectors * 512)
	}
	r := rand.New(rand.NewPCG(11, 12))
	for range 100_000 {
		check(r.Int64N(1 << (10 + r.IntN(53))))
	}
}

func TestGeometryBytes(t *testing.T) {
	for g, want := range map[Geometry]int64{
		{}:                0,
		{1, 4, 17}:        34816,
		{65535, 16, 255}:  136899993600,
		{65535, 255, 255}: 65535 * 255 * 255 * 512,
	} {
		if g.Bytes() != want {
			t.Errorf("%v: %d bytes, want %d", g, g.Bytes(), want)
		}
		if g.IsMax() != (want == 136899993600) {
			t.Errorf("%v: IsMax is %v", g, g.IsMax())
		}
	}
}
