package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// alignment is what writers align a block's data to, in bytes: a smaller gap
// is no lost space.
const alignment = 4096

// extent is a range of the file with its owner.
type extent struct {
	start, end int64  // bytes
	name       string // of a structure, "" for a block
	block      int64
	told       bool // it has been reported to lie over a structure
}

func (e extent) String() string {
	if e.name == "" {
		return fmt.Sprintf("block %d (sectors %d to %d)", e.block, e.start/format.SectorSize, (e.end-1)/format.SectorSize)
	}
	return fmt.Sprintf("the %s (bytes %#x to %#x)", e.name, e.start, e.end-1)
}

// checkSpace walks everything that lies in the file of a dynamic disk.
func (img *image) checkSpace() error {
	img.claim(extent{start: 0, end: format.FooterSize, name: "footer copy"})
	img.claim(extent{start: int64(img.footer.DataOffset), end: int64(img.footer.DataOffset) + format.HeaderSize, name: headerPlace})
	img.claim(extent{start: int64(img.header.TableOffset), end: int64(img.header.TableOffset) + format.BATSize(int64(img.header.MaxTableEntries)), name: "BAT"})
	if err := img.checkBatmap(); err != nil {
		return err
	}
	if err := img.checkLocators(); err != nil {
		return err
	}
	img.claimBatmapPlace()
	count, err := img.checkEntries()
	if err != nil {
		return err
	}
	return img.sweepFile(count)
}

// claim says that a structure has a range of the file.
func (img *image) claim(e extent) {
	if e.end > e.start {
		img.claimed = append(img.claimed, e)
	}
}

// sweepFile goes through structures and blocks in the order of their places.
func (img *image) sweepFile(count *census) error {
	s := &sweep{img: img, structures: img.claimed}
	slices.SortFunc(s.structures, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	bitmaps := newBitmapCheck(img)
	size := img.runSize()
	err := img.windows(count, windowBlocks, func(blocks []format.Place) error {
		for _, p := range blocks {
			start := int64(p.Sector()) * format.SectorSize
			if !s.pass(extent{start: start, end: start + size, block: p.Block()}) {
				continue
			}
			if err := bitmaps.check(p.Block(), start); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.finish()
	bitmaps.finish()
	return nil
}

// sweep finds overlaps and gaps in extents that come sorted by their start.
type sweep struct {
	img        *image
	structures []extent // sorted, not passed yet
	far        extent   // of those passed, the one that reaches farthest
	next       extent   // the one being passed, where it overlaps
}

// pass takes the next block, after the structures that lie before it. It is
// false for a block that overlaps what came before.
func (s *sweep) pass(block extent) bool {
	for len(s.structures) > 0 && s.structures[0].start <= block.start {
		s.one(s.structures[0])
		s.structures = s.structures[1:]
	}
	return s.one(block)
}

// one takes the next extent.
func (s *sweep) one(e extent) bool {
	if e.start >= s.far.end {
		s.img.leaked(s.far.end, e.start)
		s.far = e
		return true
	}
	s.next = e
	s.overlap(&s.next, &s.far)
	if e.end > s.far.end {
		s.far = s.next
	}
	return false
}

// overlap reports two extents that share bytes, at the one that begins later
// or, where only one is a block, at that. A block that lies over several
// structures is reported once for them.
func (s *sweep) overlap(a, b *extent) {
	if a.name != "" && b.name == "" {
		a, b = b, a
	}
	switch {
	case a.name != "":
		s.img.at(a.name).damage("overlaps %v: bytes %#x to %#x — restore the image from a backup", b, a.start, a.end-1)
	case b.name == "":
		s.img.blockOverlap(min(s.img.blockSeverity(a.block), s.img.blockSeverity(b.block)), a, b)
	case b.name == batmapPlace:
		s.img.block(Warning, a.block, "begins in sector %d, up to where tapdisk looks for a batmap's header (%#x): the guest could make it one — copy the disk into a new image before it is written to",
			a.start/format.SectorSize, b.start)
	case !a.told:
		a.told = true
		s.img.blockOverlap(s.img.blockSeverity(a.block), a, b)
	}
}

func (img *image) blockOverlap(sev Severity, a, b *extent) {
	if img.found.full() { // its numbers would be made values for nothing
		img.found.drop(sev)
		return
	}
	img.block(sev, a.block, "sectors %d to %d overlap %v — restore the block from a backup",
		a.start/format.SectorSize, (a.end-1)/format.SectorSize, b)
}

// finish takes what structures are left, and the end.
func (s *sweep) finish() {
	for _, e := range s.structures {
		s.one(e)
	}
	s.img.leaked(s.far.end, s.img.dataEnd)
	s.img.reportLeaks()
}

// leak counts the gaps in a file.
type leak struct{ bytes, gaps int64 }

// leaked counts the gap from one offset to another, unless it is alignment.
func (img *image) leaked(from, to int64) {
	if to-from >= alignment {
		img.leak.bytes += to - from
		img.leak.gaps++
	}
}

// reportLeaks is one note for all gaps between blocks.
func (img *image) reportLeaks() {
	if img.leaf {
		img.report.LeakedBytes = img.leak.bytes
	}
	if img.leak.gaps > 0 {
		img.at("file").note("%d bytes belong to no block (gaps: %d) — a copy is smaller", img.leak.bytes, img.leak.gaps)
	}
}
