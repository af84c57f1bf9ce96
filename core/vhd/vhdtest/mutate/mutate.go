package mutate

// maxEdits bounds the instructions of a program that are carried out.
const maxEdits = 32

// Image is image, a whole file, changed as program says. Image itself is not
// touched. The same arguments give the same result; an empty program gives the
// records as package format writes them.
func Image(image, program []byte) []byte {
	r := find(image)
	t := &tape{program}
	for n := 0; n < maxEdits && t.more(); n++ {
		edits[t.pick(len(edits))](r, t)
	}
	return r.encode()
}

// edits are what an instruction can do, by its first byte; those that lead
// farthest are there several times.
var edits = []func(r *records, t *tape){
	(*records).editBAT, (*records).editHeader, (*records).editFooter, (*records).editLocator,
	(*records).editBAT, (*records).editBitmap, (*records).editBatmap, (*records).editBatmapBits,
	(*records).editBAT, (*records).editName, (*records).editParentID, (*records).fillBAT,
	(*records).editFile, (*records).spoil,
}

// tape is a program being read. Past its end there are zeros.
type tape struct{ rest []byte }

func (t *tape) more() bool { return len(t.rest) > 0 }

func (t *tape) byte() byte {
	if len(t.rest) == 0 {
		return 0
	}
	b := t.rest[0]
	t.rest = t.rest[1:]
	return b
}

// number is the next n bytes, the low ones first.
func (t *tape) number(n int) (v uint64) {
	for i := range n {
		v |= uint64(t.byte()) << (8 * i)
	}
	return v
}

// pick is one of n things; 0 if there are none.
func (t *tape) pick(n int) int {
	switch {
	case n <= 1:
		return 0
	case n <= 1<<8:
		return int(t.byte()) % n
	}
	return int(t.number(2)) % n
}
