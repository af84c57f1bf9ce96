package check

import (
	"slices"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// maxEntries is how many entries of a BAT are looked at: as many as package
	// vhd opens an image with, 2 TiB in blocks of 256 KiB. A sparse file of
	// 16 GiB can claim 4 Gi of them at no cost, and every pass would read them.
	maxEntries = 8 << 20

	// batChunk is how many entries are read at once.
	batChunk = 16 << 10

	// windowBlocks is how many placed blocks are sorted at once: 16 MiB of
	// memory, enough for 4 TiB of blocks of the usual size in one go.
	windowBlocks = 2 << 20

	// buckets divides the file for counting, so that windows of it can be
	// chosen that hold few enough blocks. Sector numbers have 32 bits: a
	// bucket is 2^20 sectors, and without an overlap it has room for half as
	// many blocks, far fewer than a window.
	bucketShift = 20
	buckets     = 1 << (32 - bucketShift)
)

// placed is a block with its place: the first sector above, the block's number
// below, so that sorting orders by place.
type placed uint64

func placedAt(sector uint32, block int64) placed { return placed(sector)<<32 | placed(block) }
func (p placed) sector() uint32                  { return uint32(p >> 32) }
func (p placed) block() int64                    { return int64(uint32(p)) }

// runSize is the length of a block in the file, bitmap and data, in bytes.
func (img *image) runSize() int64 { return img.header.BitmapSize() + int64(img.header.BlockSize) }

// entries calls fn for each entry of the BAT, in order, up to maxEntries.
func (img *image) entries(fn func(block int64, sector uint32)) error {
	total := min(int64(img.header.MaxTableEntries), maxEntries)
	buf := make([]byte, min(batChunk, total)*entrySize)
	decoded := make([]uint32, min(batChunk, total))
	for first := int64(0); first < total; first += batChunk {
		n := min(batChunk, total-first)
		chunk := buf[:n*entrySize]
		if err := readFull(img.file, chunk, int64(img.header.TableOffset)+first*entrySize); err != nil {
			return err
		}
		format.DecodeBAT(decoded[:n], chunk)
		for i, sector := range decoded[:n] {
			fn(first+int64(i), sector)
		}
	}
	return nil
}

// census is what the first pass over the BAT finds.
type census struct {
	buckets [buckets]int64 // blocks by where in the file they begin
}

// checkEntries judges each entry by itself and counts those that have a place.
func (img *image) checkEntries() (*census, error) {
	count := &census{}
	err := img.entries(func(block int64, sector uint32) {
		if sector == format.UnallocatedBlock {
			img.checkUnallocated(block)
			return
		}
		if img.leaf && block < img.blocks {
			img.report.Allocated++
		}
		if img.inFile(block, sector) {
			count.buckets[sector>>bucketShift]++
		}
	})
	return count, err
}

// inFile tells whether a block lies in the file, whatever else lies there.
func (img *image) inFile(block int64, sector uint32) bool {
	start := int64(sector) * format.SectorSize
	if start <= img.dataEnd-img.runSize() {
		return true
	}
	last := img.dataEnd / format.SectorSize
	if start >= img.info.Size {
		img.block(img.blockSeverity(block), block, "BAT entry points past the end of the file (sector %d of %d) — restore the block from a backup", sector, last)
		return false
	}
	img.block(img.blockSeverity(block), block, "runs past the end of the data (sectors %d to %d of %d) — restore the block from a backup",
		sector, (start+img.runSize())/format.SectorSize-1, last)
	return false
}

// fits is inFile without the words, for the passes after the first.
func (img *image) fits(sector uint32) bool {
	return sector != format.UnallocatedBlock && int64(sector)*format.SectorSize <= img.dataEnd-img.runSize()
}

// blockSeverity is how much damage to a block's entry matters: nothing reads
// the entries past the disk's end until the disk grows.
func (img *image) blockSeverity(block int64) Severity {
	if block >= img.blocks {
		return Warning
	}
	return Damage
}

// windows calls fn with the blocks in the file, in the order of their places,
// at most limit at a time, for which a bucket must have room. A bucket with more blocks than a window can only have
// overlapping ones; the first of them show that.
func (img *image) windows(count *census, limit int64, fn func([]placed) error) error {
	var total int64
	for _, n := range count.buckets {
		total += n
	}
	buf := make([]placed, 0, min(total, limit))
	for from := 0; from < buckets; {
		to, n := from, int64(0)
		for to < buckets && (to == from || n+count.buckets[to] <= limit) {
			n += count.buckets[to]
			to++
		}
		if n > 0 {
			blocks, err := img.collect(buf[:0:min(n, limit)], from, to)
			if err != nil {
				return err
			}
			if err := fn(blocks); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}

// collect fills blocks, which is empty, to its capacity at most, with those
// that begin in the buckets [from, to), sorted.
func (img *image) collect(blocks []placed, from, to int) ([]placed, error) {
	err := img.entries(func(block int64, sector uint32) {
		b := int(sector >> bucketShift)
		if b >= from && b < to && img.fits(sector) && len(blocks) < cap(blocks) {
			blocks = append(blocks, placedAt(sector, block))
		}
	})
	slices.Sort(blocks)
	return blocks, err
}
