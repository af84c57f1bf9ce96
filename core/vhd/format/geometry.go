package format

import "fmt"

// The largest geometry. An image that has it says nothing of its size by it.
const (
	maxCylinders = 65535
	maxHeads     = 16
	maxSectors   = 255

	maxGeometrySectors = maxCylinders * maxHeads * maxSectors
)

// Geometry is the disk's cylinders, heads, and sectors a track.
type Geometry struct {
	Cylinders uint16
	Heads     uint8
	Sectors   uint8
}

// Bytes is the size of a disk of this geometry: the product times 512.
func (g Geometry) Bytes() int64 {
	return int64(g.Cylinders) * int64(g.Heads) * int64(g.Sectors) * SectorSize
}

// String is "cylinders/heads/sectors".
func (g Geometry) String() string {
	return fmt.Sprintf("%d/%d/%d", g.Cylinders, g.Heads, g.Sectors)
}

// IsMax tells whether g is the largest geometry that writers use, (65535, 16,
// 255) or 127.5 GiB, which stands for any size from there on.
func (g Geometry) IsMax() bool {
	return g == Geometry{Cylinders: maxCylinders, Heads: maxHeads, Sectors: maxSectors}
}

// above tells whether g is larger than h as the four bytes on disk compare,
// which is how vhd-util check does it.
func (g Geometry) above(h Geometry) bool { return g.packed() > h.packed() }

func (g Geometry) packed() uint32 {
	return uint32(g.Cylinders)<<16 | uint32(g.Heads)<<8 | uint32(g.Sectors)
}

// GeometryFor is the geometry of a disk of size bytes by the specification's
// algorithm ("CHS Calculation"), as every writer computes it. Its product is
// often less than size, and at most size rounded up to a sector.
func GeometryFor(size int64) Geometry {
	sectors := min(max(1, ceilDiv(size, SectorSize)), maxGeometrySectors)
	if sectors >= maxCylinders*maxHeads*63 {
		return geometry(sectors, maxHeads, 255)
	}
	tracks := sectors / 17
	heads := max(4, ceilDiv(tracks, 1024))
	switch {
	case tracks < heads*1024 && heads <= maxHeads:
		return geometry(sectors, heads, 17)
	case sectors/31 < maxHeads*1024:
		return geometry(sectors, maxHeads, 31)
	default:
		return geometry(sectors, maxHeads, 63)
	}
}

func geometry(sectors, heads, perTrack int64) Geometry {
	return Geometry{Cylinders: uint16(sectors / perTrack / heads), Heads: uint8(heads), Sectors: uint8(perTrack)}
}

// ceilDiv is n/d rounded up, for any n and d > 0, without overflow.
func ceilDiv(n, d int64) int64 {
	q := n / d
	if n%d > 0 {
		q++
	}
	return q
}
