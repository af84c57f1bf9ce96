package vhd

import (
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// maxBATEntries bounds the BAT that is kept in memory: 32 MiB, enough for
// 2 TiB in blocks of 256 KiB.
const maxBATEntries = 8 << 20

// maxChainEntries bounds the BATs of a chain together: 128 MiB, enough for 32
// images of 2 TiB in blocks of 2 MiB.
const maxChainEntries = 32 << 20

// blockMap says where the blocks of a dynamic or differencing image are: its
// BAT in memory, and which blocks are known to hold every sector.
type blockMap struct {
	blockSize  int64 // bytes
	bitmapSize int64 // bytes before each block's data
	count      int64 // blocks that the disk has; the BAT may hold more
	bat        []uint32
	full       bitset // blocks whose sector bitmap is all ones
}

// bitset is a set of small numbers, safe for concurrent use.
type bitset []atomic.Uint64

func newBitset(n int64) bitset           { return make(bitset, (n+63)/64) }
func (s bitset) has(i int64) bool        { return s[i/64].Load()>>(i%64)&1 != 0 }
func (s bitset) add(i int64)             { s[i/64].Or(1 << (i % 64)) }
func (s bitset) remove(i int64)          { s[i/64].And(^(uint64(1) << (i % 64))) }
func (m *blockMap) entry(b int64) uint32 { return atomic.LoadUint32(&m.bat[b]) }

func (m *blockMap) setEntry(b int64, sector uint32) { atomic.StoreUint32(&m.bat[b], sector) }

// bitmapOffset and dataOffset are where the block that begins at sector has
// its bitmap and its data, in bytes of the file.
func (m *blockMap) bitmapOffset(sector uint32) int64 { return int64(sector) * format.SectorSize }
func (m *blockMap) dataOffset(sector uint32) int64   { return m.bitmapOffset(sector) + m.bitmapSize }

// stride is the bytes that a block takes in the file.
func (m *blockMap) stride() int64 { return m.bitmapSize + m.blockSize }

// sectors is how many sectors a block has.
func (m *blockMap) sectors() int { return int(m.blockSize / format.SectorSize) }

func (m *blockMap) allocated() int64 {
	var n int64
	for b := range m.count {
		if m.entry(b) != format.UnallocatedBlock {
			n++
		}
	}
	return n
}

// findBAT bounds the block allocation table by the file, before memory is taken
// for it.
func (l *layer) findBAT() error {
	h := l.header
	m := &blockMap{blockSize: int64(h.BlockSize), bitmapSize: h.BitmapSize()}
	m.count = (l.size + m.blockSize - 1) / m.blockSize
	entries, off := int64(h.MaxTableEntries), h.TableOffset
	switch {
	case off >= uint64(l.info.Size) || entries*4 > l.info.Size-int64(off):
		return l.errorf("BAT", corrupt("%d entries at offset %d pass the end of the file (%d bytes)", entries, off, l.info.Size))
	case entries < m.count:
		return l.errorf("BAT", corrupt("%d entries for a disk of %d blocks", entries, m.count))
	case entries > maxBATEntries:
		return l.errorf("BAT", &kindError{ErrTooLarge, fmt.Sprintf("%d entries are more than the %d that are supported", entries, maxBATEntries)})
	}
	l.blocks = m
	return nil
}

// readBAT reads the block allocation table.
func (l *layer) readBAT() error {
	m, entries, off := l.blocks, int64(l.header.MaxTableEntries), l.header.TableOffset
	m.bat = make([]uint32, entries)
	m.full = newBitset(entries)
	buf := make([]byte, min(entries*4, 1<<20))
	for done := int64(0); done < entries; {
		n := min(int64(len(buf))/4, entries-done)
		if err := l.read(buf[:n*4], int64(off)+done*4, "BAT"); err != nil {
			return err
		}
		format.DecodeBAT(m.bat[done:done+n], buf[:n*4])
		done += n
	}
	return nil
}

// span is a range of the file that one structure takes, in bytes.
type span struct {
	start, end int64
	what       string
}

// metadata lists the ranges that no block may touch.
func (l *layer) metadata() []span {
	bat := int64(l.header.TableOffset)
	spans := []span{
		{0, format.FooterSize, "the footer's copy"},
		{int64(l.footer.DataOffset), int64(l.footer.DataOffset) + format.HeaderSize, "the dynamic header"},
		{bat, roundUp(bat+4*int64(len(l.blocks.bat)), format.SectorSize), "the BAT"},
	}
	spans = append(spans, l.batmapSpans...)
	for i, loc := range l.header.Locators {
		if n, err := l.locatorSpace(i, loc); err == nil && n > 0 {
			spans = append(spans, span{int64(loc.DataOffset), int64(loc.DataOffset) + n, locatorName(i)})
		}
	}
	return spans
}

// checkEntry tells whether the block at sector lies in the file.
func (l *layer) checkEntry(b int64, sector uint32) error {
	end := l.blocks.bitmapOffset(sector) + l.blocks.stride()
	if limit := l.footerStart(); end > limit {
		return l.errorf(blockName(b), corrupt("BAT entry points past the end of the file (sector %d of %d)", sector, limit/format.SectorSize))
	}
	return nil
}

func blockName(b int64) string { return "block " + strconv.FormatInt(b, 10) }

// dataEnd is the end of the last thing in the file, in bytes: where the footer
// of a tidy image is.
func (l *layer) dataEnd() int64 {
	var end int64
	for _, s := range l.metadata() {
		end = max(end, s.end)
	}
	for b := range l.blocks.bat {
		if sector := l.blocks.entry(int64(b)); sector != format.UnallocatedBlock {
			end = max(end, l.blocks.bitmapOffset(sector)+l.blocks.stride())
		}
	}
	return roundUp(end, format.SectorSize)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// readBits reads bytes [from, to) of the sector bitmap of block b, which
// begins at sector, in the order that the specification has them.
func (l *layer) readBits(b int64, sector uint32, from, to int64) (format.Bitmap, error) {
	bits := make(format.Bitmap, to-from)
	err := l.read(bits, l.blocks.bitmapOffset(sector)+from, blockName(b)+": sector bitmap")
	if l.footer.LittleEndianBitmaps() {
		bits.ReverseBits()
	}
	return bits, err
}
