package mutate

import "github.com/vhdmount/vhdmount/core/vhd/format"

// maxGrowth is what a program may add to a file at once, in bytes.
const maxGrowth = 64 << 10

// editFile changes the file around the records: where it ends, and which
// sector has which content.
func (r *records) editFile(t *tape) {
	kind := t.pick(6)
	from, to := r.place(t), r.place(t)
	r.after = append(r.after, func(data []byte) []byte {
		switch kind {
		case 0: // cut off
			return data[:min(from, len(data))]
		case 1: // the footer's last byte was never written
			return data[:max(0, len(data)-1)]
		case 2: // grown, with the footer left where it was
			return append(data, make([]byte, min(to, maxGrowth))...)
		case 3: // a sector is lost
			clear(data[min(to, len(data)):min(to+sector, len(data))])
		case 4: // a sector is somewhere else too
			copy(data[min(to, len(data)):], data[min(from, len(data)):min(from+sector, len(data))])
		default: // bytes came in between
			at := min(from, len(data))
			return append(data[:at:at], append(make([]byte, to%maxGrowth), data[at:]...)...)
		}
		return data
	})
}

// place is somewhere in the file, or a little beyond it.
func (r *records) place(t *tape) int {
	return int(min(r.value(t, uint64(len(r.data)/2)), uint64(len(r.data)+maxGrowth)))
}

// spoil changes a byte of a record once its checksum is in it.
func (r *records) spoil(t *tape) {
	starts := []int{0, r.endAt, r.headerAt, r.batAt, r.batmapAt}
	at, by := starts[t.pick(len(starts))]+t.pick(format.HeaderSize), t.byte()|1
	r.after = append(r.after, func(data []byte) []byte {
		if at >= 0 && at < len(data) {
			data[at] ^= by
		}
		return data
	})
}
