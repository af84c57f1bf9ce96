package check

import (
	"io"
	"math"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// holes knows where a file has no data, for one who goes through it upwards: a
// sparse file of terabytes is then no more work than what is in it.
type holes struct {
	finder storage.HoleFinder // nil where the file can't tell
	from   int64              // what was last asked
	start  int64              // the first byte from there on that may not be zero
	end    int64              // the end of that run
}

func newHoles(f storage.File) *holes {
	finder, _ := f.(storage.HoleFinder)
	return &holes{finder: finder, from: math.MaxInt64}
}

// data is the first byte at or after off that may not be zero, math.MaxInt64
// if there is none. Where the file can't tell, that is off.
func (h *holes) data(off int64) int64 {
	if h.finder == nil {
		return off
	}
	if off < h.from || off >= h.end {
		start, end, err := h.finder.NextData(off)
		switch {
		case err == io.EOF:
			start, end = math.MaxInt64, math.MaxInt64
		case err != nil:
			return off // reading will tell what is wrong
		}
		h.from, h.start, h.end = off, start, end
	}
	return max(off, h.start)
}
