package vhd_test

import (
	"bytes"
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/core/vhd/vhdtest/mutate"
)

// reseal gives the records of an image the checksums that their bytes have, so
// that what a fuzzer makes of them is looked at.
func reseal(b []byte) {
	footer := func(b []byte) *format.Footer {
		f, _ := format.DecodeFooter(b)
		if f != nil {
			f.Encode(b)
		}
		return f
	}
	if len(b) < 512 {
		return
	}
	footer(b[:512])
	f := footer(b[len(b)-512:])
	if f == nil || f.DataOffset > uint64(len(b)) || len(b)-int(f.DataOffset) < format.HeaderSize {
		return
	}
	header := b[f.DataOffset:][:format.HeaderSize]
	if h, _ := format.DecodeHeader(header); h != nil {
		h.Encode(header)
	}
}

// own is what a fuzzer hands over, to be changed; resealed if mend says so.
func own(b []byte, mend bool) []byte {
	b = bytes.Clone(b)
	if mend {
		reseal(b)
	}
	return b
}

// FuzzOpen: whatever the bytes of an image over a good parent, it keeps the
// promises of judge.
func FuzzOpen(f *testing.F) {
	for _, s := range suspects(f) {
		f.Add(s.child, true)
	}
	f.Add([]byte("vhdxfile"), false)
	good := goodParent()
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		judge(t, own(b, mend), good)
	})
}

// FuzzChain: as FuzzOpen, where the parent is hostile too.
func FuzzChain(f *testing.F) {
	for _, s := range suspects(f) {
		if s.parent != nil {
			f.Add(s.child, s.parent, true)
		}
	}
	f.Fuzz(func(t *testing.T, child, parent []byte, mend bool) {
		judge(t, own(child, mend), own(parent, mend))
	})
}

// FuzzFields: as FuzzChain, but what the fuzzer makes are programs that change
// good images field by field.
func FuzzFields(f *testing.F) {
	list := suspects(f)
	for i := range list {
		f.Add(uint8(i), []byte{}, []byte{})
		for _, program := range handWritten {
			f.Add(uint8(i), program, []byte{})
			f.Add(uint8(i), []byte{}, program)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, childProgram, parentProgram []byte) {
		s := list[int(which)%len(list)]
		child, parent := mutate.Image(s.child, childProgram), s.parent
		if parent != nil {
			parent = mutate.Image(parent, parentProgram)
		}
		judge(t, child, parent)
	})
}

// handWritten are programs that a fuzzer has to begin with: one of each edit.
var handWritten = [][]byte{
	{0, 1, 1, 0, 0},              // a duplicate entry
	{0, 1, 1, 0, 1},              // an overlap by all but a sector
	{0, 1, 2, 1, 0},              // into the header
	{0, 0, 2, 2, 2},              // into the end footer
	{0, 2, 0, 1, 13},             // an entry past any end
	{1, 0, 0, 1},                 // the BAT over the header
	{1, 1, 1, 13},                // 4 Gi entries
	{1, 2, 1, 11},                // blocks of 256 MiB
	{1, 2, 1, 3},                 // … of 512 bytes
	{2, 0, 1, 1, 15},             // a disk of 2 TiB
	{2, 1, 1, 1, 14},             // the end footer alone: 2040 GiB
	{2, 0, 2, 1, 1},              // of another type
	{3, 0, 0, 1, 16},             // a locator past any end
	{3, 0, 2, 1, 13},             // a locator of 4 GiB
	{5, 0, 0, 7, 1},              // bits cleared
	{6, 0, 0, 0},                 // the batmap over the footer
	{7, 1, 0, 0},                 // the batmap: an absent block is whole
	{9, 4, 0, 1},                 // a parent upwards
	{9, 1, 8},                    // its own name
	{10, 0},                      // a raw parent
	{10, 1},                      // its own id
	{11, 0, 255, 1, 7, 1},        // entries a sector apart
	{12, 0, 2}, {12, 1}, {12, 3}, // cut, cut short, a sector lost
	{13, 1, 64, 0, 3}, // a footer that is no good
}
