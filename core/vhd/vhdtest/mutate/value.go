package mutate

import "math"

// bounds are values at which integers, sizes and counts turn.
var bounds = []uint64{
	0, 1, 511, 512, 1023, 1024, 1536, 4096, 64 << 10, 1 << 20, 2 << 20, 256 << 20,
	math.MaxInt32, math.MaxUint32, 2040 << 30, 2 << 40, math.MaxInt64, math.MaxUint64,
	math.MaxUint32 / 512, math.MaxUint32 * 512, math.MaxInt64 &^ 511, math.MaxUint64 &^ 511,
}

// nearby is what is added to a bound or a landmark; the first by far the most
// often, as a program that ends has zeros.
var nearby = []uint64{0, 1, ^uint64(0), 512, ^uint64(511), 8, ^uint64(7)}

// value is the next value of a program for a field of which now is the present
// one. Of an offset it is in bytes or in sectors.
func (r *records) value(t *tape, now uint64) uint64 {
	how := t.byte()
	var v uint64
	switch how % 5 {
	case 0:
		v = r.landmarks[t.pick(len(r.landmarks))]
	case 1:
		v = bounds[t.pick(len(bounds))]
	case 2:
		v = now
	case 3:
		v = 1 << (t.byte() % 64)
	default:
		return t.number(8)
	}
	if how&0x40 != 0 {
		v /= sector
	}
	if how&0x80 != 0 {
		v += nearby[t.pick(len(nearby))]
	}
	return v
}
