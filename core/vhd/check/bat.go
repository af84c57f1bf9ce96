package check

import "github.com/vhdmount/vhdmount/core/vhd/format"

const (
	// maxEntries is how many entries of a BAT are looked at: as many as package
	// vhd opens an image with, 2 TiB in blocks of 256 KiB. A sparse file of
	// 16 GiB can claim 4 Gi of them at no cost, and every pass would read them.
	maxEntries = 8 << 20

	// batChunk is how many entries are read at once.
	batChunk = 64 << 10

	// windowBlocks is how many placed blocks are sorted at once: 16 MiB of
	// memory, and as much again to sort them, enough for 4 TiB of blocks of the
	// usual size in one go.
	windowBlocks = 2 << 20

	// maxBuckets divides the file for counting, so that windows of it can be
	// chosen that hold few enough blocks. Sector numbers have 32 bits: a
	// bucket is 2^20 sectors, and without an overlap it has room for half as
	// many blocks, far fewer than a window.
	bucketShift = 20
	maxBuckets  = 1 << (32 - bucketShift)
)

// runSize is the length of a block in the file, bitmap and data, in bytes.
func (img *image) runSize() int64 { return img.header.BitmapSize() + int64(img.header.BlockSize) }

// entries calls fn for the entries of the BAT, in order, up to maxEntries: some
// at a time, the first of which is that of block first.
func (img *image) entries(fn func(first int64, sectors []uint32)) error {
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
		fn(first, decoded[:n])
	}
	return nil
}

// census is what the first pass over the BAT finds.
type census struct {
	buckets []int64 // blocks by where in the file they begin
}

// checkEntries judges each entry by itself and counts those that have a place.
func (img *image) checkEntries() (*census, error) {
	count := &census{make([]int64, min(img.dataEnd/format.SectorSize>>bucketShift+1, maxBuckets))}
	allocated, last := int64(0), img.lastPlace()
	err := img.entries(func(first int64, sectors []uint32) {
		for i, sector := range sectors {
			block := first + int64(i)
			if sector == format.UnallocatedBlock {
				img.checkUnallocated(block)
				continue
			}
			if block < img.blocks {
				allocated++
			}
			if int64(sector) <= last {
				count.buckets[sector>>bucketShift]++
			} else {
				img.notInFile(block, sector)
			}
		}
	})
	if img.leaf {
		img.report.Allocated = allocated
	}
	return count, err
}

// lastPlace is the last sector of the file at which a block can begin and still
// lie in it, whatever else lies there; negative where no block can. It is none
// that stands for no block: UnallocatedBlock is greater, whatever the file's
// size.
func (img *image) lastPlace() int64 {
	room := img.dataEnd - img.runSize()
	if room < 0 {
		return -1
	}
	return min(room/format.SectorSize, int64(format.UnallocatedBlock)-1)
}

// notInFile reports a block of which some or all lies beyond the data.
func (img *image) notInFile(block int64, sector uint32) {
	if img.found.full() { // its numbers would be made values for nothing
		img.found.drop(img.blockSeverity(block))
		return
	}
	start, last := int64(sector)*format.SectorSize, img.dataEnd/format.SectorSize
	if start >= img.info.Size {
		img.block(img.blockSeverity(block), block, "BAT entry points past the end of the file (sector %d of %d) — restore the block from a backup", sector, last)
		return
	}
	img.block(img.blockSeverity(block), block, "runs past the end of the data (sectors %d to %d of %d) — restore the block from a backup",
		sector, (start+img.runSize())/format.SectorSize-1, last)
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
// at most limit at a time, for which a bucket must have room. A bucket with
// more blocks than a window can only have overlapping ones; the first of them
// show that.
func (img *image) windows(count *census, limit int64, fn func([]format.Place) error) error {
	var total int64
	for _, n := range count.buckets {
		total += n
	}
	buf, scratch := make([]format.Place, 0, min(total, limit)), make([]format.Place, min(total, limit))
	for from := 0; from < len(count.buckets); {
		to, n := from, int64(0)
		for to < len(count.buckets) && (to == from || n+count.buckets[to] <= limit) {
			n += count.buckets[to]
			to++
		}
		if n > 0 {
			blocks, err := img.collect(buf[:0:min(n, limit)], from, to)
			if err != nil {
				return err
			}
			format.SortPlaces(blocks, scratch)
			if err := fn(blocks); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}

// collect fills blocks, which is empty, to its capacity at most, with those
// that begin in the buckets [from, to), in the order of their numbers.
func (img *image) collect(blocks []format.Place, from, to int) ([]format.Place, error) {
	low, high := int64(from)<<bucketShift, min(int64(to)<<bucketShift-1, img.lastPlace())
	err := img.entries(func(first int64, sectors []uint32) {
		for i, sector := range sectors {
			if at := int64(sector); at >= low && at <= high && len(blocks) < cap(blocks) {
				blocks = append(blocks, format.PlaceOf(first+int64(i), sector))
			}
		}
	})
	return blocks, err
}
