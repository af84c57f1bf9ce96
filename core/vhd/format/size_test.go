package format

import (
	"errors"
	"math"
	"testing"
)

// TestSizeByCreator is the table of who takes a disk's size from where, with a
// disk whose geometry falls short of it.
func TestSizeByCreator(t *testing.T) {
	const current = 1 << 30
	g := GeometryFor(current)
	if g.Bytes() >= current {
		t.Fatalf("%v doesn't fall short of %d", g, current)
	}
	tests := []struct {
		creator Creator
		want    int64
	}{
		{CreatorVPC, g.Bytes()},
		{CreatorQEMU, g.Bytes()},
		{CreatorQEMUForce, current},
		{CreatorWindows, current},
		{CreatorDisk2VHD, current},
		{CreatorTap, current},
		{CreatorXenConvert, current},
		{CreatorAzure, current},
		{CreatorVirtualBox, current},
		{CreatorVirtualServer, current},
		{CreatorDiscUtils, current},
		{Creator{}, current},
		{Creator{'v', 'p', 'c', 0}, current},
	}
	for _, tt := range tests {
		f := &Footer{Creator: tt.creator, CurrentSize: current, OriginalSize: 1, Geometry: g}
		if got := f.Size(SizeAuto); got != tt.want {
			t.Errorf("%q: %d bytes, want %d", tt.creator, got, tt.want)
		}
		if got := f.Size(SizeGeometry); got != g.Bytes() {
			t.Errorf("%q by geometry: %d bytes, want %d", tt.creator, got, g.Bytes())
		}
		if got := f.Size(SizeFooter); got != current {
			t.Errorf("%q by footer: %d bytes, want %d", tt.creator, got, current)
		}
	}
}

func TestSizeNeverBelievesAnImpossibleGeometry(t *testing.T) {
	largest := Geometry{Cylinders: 65535, Heads: 16, Sectors: 255}
	tests := []struct {
		name     string
		current  uint64
		geometry Geometry
		want     int64
	}{
		{"largest geometry, small disk", 1 << 20, largest, 1 << 20},
		{"largest geometry, large disk", 200 << 30, largest, 200 << 30},
		{"largest geometry, its own size", 136899993600, largest, 136899993600},
		{"one below the largest", 200 << 30, Geometry{65534, 16, 255}, 65534 * 16 * 255 * 512},
		{"product of zero", 1 << 20, Geometry{0, 4, 17}, 1 << 20},
		{"no geometry", 1 << 20, Geometry{}, 1 << 20},
		{"product above the size", 34815, Geometry{1, 4, 17}, 34304},
		{"product as the size", 34816, Geometry{1, 4, 17}, 34816},
		{"product below the size", 34816 + 512, Geometry{1, 4, 17}, 34816},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []Creator{CreatorVPC, CreatorQEMU} {
				f := &Footer{Creator: c, CurrentSize: tt.current, Geometry: tt.geometry}
				if got := f.Size(SizeAuto); got != tt.want {
					t.Errorf("%v: %d bytes, want %d", c, got, tt.want)
				}
			}
		})
	}
}

func TestSizeIsWholeSectorsAndPositive(t *testing.T) {
	for current, want := range map[uint64]int64{
		0: 0, 511: 0, 512: 512, 1023: 512, math.MaxInt64: math.MaxInt64 &^ 511, math.MaxUint64: math.MaxInt64 &^ 511,
	} {
		f := &Footer{Creator: CreatorWindows, CurrentSize: current}
		if got := f.Size(SizeAuto); got != want {
			t.Errorf("current size %d: %d bytes, want %d", current, got, want)
		}
	}
}

func TestParseSizeFrom(t *testing.T) {
	for s, want := range map[string]SizeFrom{"": SizeAuto, "auto": SizeAuto, "geometry": SizeGeometry, "footer": SizeFooter} {
		got, err := ParseSizeFrom(s)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
		if s != "" && got.String() != s {
			t.Errorf("%q prints as %q", s, got)
		}
	}
	for _, s := range []string{"chs", "Auto", " footer"} {
		if _, err := ParseSizeFrom(s); !errors.Is(err, ErrField) {
			t.Errorf("%q: %v, want %v", s, err, ErrField)
		}
	}
}
