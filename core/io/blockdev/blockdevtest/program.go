package blockdevtest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// Op is what a step of a program does.
type Op uint8

// The operations. All but Flush and Reopen are on the step's range.
const (
	Read        Op = iota // ReadAt
	ReadNowait            // ReadAtNowait
	Write                 // WriteAt of bytes made from Step.Fill
	WriteNowait           // WriteAtNowait of such, and WriteAt where that would block
	WriteZeros            // WriteAt of zeros
	WriteZeroes           // WriteZeroes
	Discard               // Discard
	Extents               // Extents
	Flush                 // Flush
	Reopen                // close, and open again by the function of WithReopen
)

var opNames = [...]string{"Read", "ReadNowait", "Write", "WriteNowait", "WriteZeros", "WriteZeroes", "Discard", "Extents", "Flush", "Reopen"}

// String is the operation's name in Go.
func (o Op) String() string { return opNames[o] }

// changes tells whether the operation may alter a device.
func (o Op) changes() bool {
	return o == Write || o == WriteNowait || o == WriteZeros || o == WriteZeroes || o == Discard
}

// Step is one operation of a program.
type Step struct {
	Op       Op
	Off, Len int64  // bytes
	Fill     uint64 // what a Write's bytes are made from
}

// String is the step as Go source.
func (s Step) String() string {
	switch s.Op {
	case Flush, Reopen:
		return fmt.Sprintf("{Op: blockdevtest.%v},", s.Op)
	case Write, WriteNowait:
		return fmt.Sprintf("{Op: blockdevtest.%v, Off: %d, Len: %d, Fill: %d},", s.Op, s.Off, s.Len, s.Fill)
	default:
		return fmt.Sprintf("{Op: blockdevtest.%v, Off: %d, Len: %d},", s.Op, s.Off, s.Len)
	}
}

// bytes is what the step writes. They depend on their offset too, so that a
// sector that lands in another's place is seen.
func (s Step) bytes() []byte {
	p := make([]byte, s.Len)
	if s.Op == Write || s.Op == WriteNowait {
		fill(p, s.Off, s.Fill)
	}
	return p
}

// fill makes p from a seed, as the bytes at off.
func fill(p []byte, off int64, seed uint64) {
	var word [8]byte
	for i := 0; i < len(p); {
		at := uint64(off) + uint64(i)
		x := (at/8 + 1) * 0x9e3779b97f4a7c15
		x = (x ^ x>>29 ^ seed) * 0xbf58476d1ce4e5b9
		binary.LittleEndian.PutUint64(word[:], x^x>>32)
		i += copy(p[i:], word[at%8:])
	}
}

// Program is a sequence of steps.
type Program []Step

// String is the program as Go source, one step a line.
func (p Program) String() string {
	var b strings.Builder
	for _, s := range p {
		fmt.Fprintf(&b, "\t%v\n", s)
	}
	return b.String()
}

// generator makes random programs.
type generator struct {
	*rand.Rand
	size, blockSize int64 // bytes
	ops             []Op  // by weight
}

func newGenerator(c *config, size int64, seed uint64) *generator {
	ops := []Op{Read, Read, Read, ReadNowait, Write, Write, Write, Write, Write, Write, WriteNowait, WriteNowait,
		WriteZeros, WriteZeroes, WriteZeroes, Discard, Discard, Extents, Flush}
	if c.reopen != nil {
		ops = append(ops, Reopen)
	}
	return &generator{rand.New(rand.NewPCG(seed, uint64(size))), size, c.blockSize, ops}
}

// program is n random steps.
func (g *generator) program(n int) Program {
	p := make(Program, n)
	for i := range p {
		off, length := g.span()
		p[i] = Step{Op: g.ops[g.IntN(len(g.ops))], Off: off, Len: length, Fill: g.Uint64()}
	}
	return p
}

// span is a range within the device. It mostly begins and ends at, or next to,
// a border that some device cares for.
func (g *generator) span() (off, n int64) {
	off = g.point()
	switch g.IntN(8) {
	case 0: // to another border, however far
		if end := g.point(); end >= off {
			return off, end - off
		}
	case 1: // a whole block
		return off - off%g.blockSize, min(g.blockSize, g.size-(off-off%g.blockSize))
	case 2: // whole sectors
		off -= off % blockdev.SectorSize
		return off, min((1+g.Int64N(32))*blockdev.SectorSize, g.size-off)
	}
	return off, min(g.Int64N(3*blockdev.SectorSize), g.size-off)
}

// point is an offset in [0, size].
func (g *generator) point() int64 {
	unit := [...]int64{1, blockdev.SectorSize, 4096, 64 << 10, g.blockSize}[g.IntN(5)]
	at := g.Int64N(g.size/unit+1) * unit
	if g.IntN(3) == 0 {
		at += g.Int64N(7) - 3
	}
	return min(max(at, 0), g.size)
}
