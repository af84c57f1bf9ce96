package format

import (
	"encoding/binary"
	"math/bits"
)

// Bitmap is a sector bitmap, a bit a sector of one block, or a batmap's map, a
// bit a block. The most significant bit of a byte is the first.
//
// It is not safe for concurrent use with Set or Clear. Indices outside of the
// bitmap panic.
type Bitmap []byte

// Get tells whether bit i is set.
func (b Bitmap) Get(i int) bool { return b[i>>3]&(0x80>>(i&7)) != 0 }

// Set sets n bits from first on.
func (b Bitmap) Set(first, n int) {
	b.fill(first, n, 0xff)
}

// Clear clears n bits from first on.
func (b Bitmap) Clear(first, n int) {
	b.fill(first, n, 0)
}

// fill gives n bits from first on the value of the bits of v, 0 or 0xff.
func (b Bitmap) fill(first, n int, v byte) {
	if n <= 0 {
		return
	}
	end := first + n
	head, tail := first>>3, end>>3
	headMask := byte(0xff) >> (first & 7)  // the bits from first on
	tailMask := ^(byte(0xff) >> (end & 7)) // the bits before end
	if head == tail {
		b.blend(head, headMask&tailMask, v)
		return
	}
	b.blend(head, headMask, v)
	repeat(b[head+1:tail:len(b)], v) // by len(b) it panics instead of growing into what follows
	if tailMask != 0 {
		b.blend(tail, tailMask, v)
	}
}

// repeat fills b with v, a word at a time.
func repeat(b []byte, v byte) {
	for ; len(b) >= 8; b = b[8:] {
		binary.BigEndian.PutUint64(b, uint64(v)*0x0101010101010101)
	}
	for i := range b {
		b[i] = v
	}
}

// blend takes the bits of mask from v, and leaves the others.
func (b Bitmap) blend(i int, mask, v byte) { b[i] = b[i]&^mask | v&mask }

// Run is how many bits from first on have the value of bit first, and that
// value: it stops before bit limit. It is 0 and false where first is limit or
// beyond.
func (b Bitmap) Run(first, limit int) (n int, set bool) {
	if first >= limit {
		return 0, false
	}
	set = b.Get(first)
	var same uint64 // a word of the run
	if set {
		same = ^same
	}
	for i := first; i < limit; {
		word, width := b.word(i)
		if run := bits.LeadingZeros64(word ^ same); run < width {
			return min(i+run, limit) - first, set
		}
		// From here on i is the first bit of a byte.
		for i += width; i+64 <= limit && binary.BigEndian.Uint64(b[i>>3:]) == same; {
			i += 64
		}
	}
	return limit - first, set
}

// word is the bits from i on, left-aligned, and how many of them there are: 57
// to 64 in the middle, 1 to 64 near the end.
func (b Bitmap) word(i int) (word uint64, width int) {
	at, shift := i>>3, i&7
	if at+8 <= len(b) {
		return binary.BigEndian.Uint64(b[at:]) << shift, 64 - shift
	}
	return uint64(b[at]) << (56 + shift), 8 - shift
}

// AllSet tells whether the first n bits are set. It is true of none.
func (b Bitmap) AllSet(n int) bool {
	run, set := b.Run(0, n)
	return n <= 0 || set && run == n
}

// AnySet tells whether one of the first n bits is set.
func (b Bitmap) AnySet(n int) bool {
	run, set := b.Run(0, n)
	return set || run < n
}

// Count is how many of the first n bits are set.
func (b Bitmap) Count(n int) int {
	if n <= 0 {
		return 0
	}
	count, whole := 0, n>>3
	at := 0
	for ; at+8 <= whole; at += 8 {
		count += bits.OnesCount64(binary.BigEndian.Uint64(b[at:]))
	}
	for ; at < whole; at++ {
		count += bits.OnesCount8(b[at])
	}
	if rest := n & 7; rest != 0 {
		count += bits.OnesCount8(b[whole] >> (8 - rest))
	}
	return count
}

// ReverseBits turns each byte of b around: between a bitmap as Bitmap has it
// and one with the least significant bit first (Footer.LittleEndianBitmaps).
func (b Bitmap) ReverseBits() {
	for i, v := range b {
		b[i] = bits.Reverse8(v)
	}
}
