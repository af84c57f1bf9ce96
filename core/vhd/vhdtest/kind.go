package vhdtest

import (
	"errors"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// Kind is a sort of image that programs run on.
type Kind struct {
	Name  string
	Block int // sectors of a block; 0: a fixed disk
	// Syncs is what a flush may cost.
	Syncs int
	// Make makes the image Name, whose disk holds tags below 1<<20.
	Make func(fsys storage.FS) error
}

// The disk of most kinds: small, so that the states are, and ending in the
// middle of a block.
const (
	sectors = 10
	block   = 4
)

// staleSectors is the size of a disk before it was resized, by the footer's
// copy that the resize has left alone.
const staleSectors = 6

// Kinds are the sorts of images there are: every kind of disk, several block
// sizes, and what other programs and their crashes leave.
func Kinds() []Kind {
	return append(append(fixedKinds(), dynamicKinds()...), differencingKinds()...)
}

func fixedKinds() []Kind {
	fixed := func(edit func(b []byte) []byte) func(storage.FS) error {
		return func(fsys storage.FS) error {
			if err := create(fsys, Name, format.Fixed, sectors, 0); err != nil {
				return err
			}
			if err := fill(fsys, Name, 100); err != nil {
				return err
			}
			return rewrite(fsys, Name, edit)
		}
	}
	return []Kind{
		{"fixed", 0, 1, fixed(nil)},
		{"fixed, footer of 511 bytes", 0, 1, fixed(shortFooter)},
	}
}

func dynamicKinds() []Kind {
	empty := func(sectors, block int) func(storage.FS) error {
		return func(fsys storage.FS) error { return create(fsys, Name, format.Dynamic, sectors, block) }
	}
	// qemu's blocks begin right behind the BAT, on no page.
	half := func(edit func(b []byte) []byte) func(storage.FS) error {
		return func(fsys storage.FS) error {
			return newSketch(format.Dynamic, sectors, block).block(1, whole(block, 104)).write(fsys, edit)
		}
	}
	return []Kind{
		{"dynamic, blocks of 512 bytes", 1, 1, empty(sectors, 1)},
		{"dynamic, blocks of 1024 bytes", 2, 1, empty(sectors, 2)},
		{"dynamic, blocks of 2048 bytes", block, 1, empty(sectors, block)},
		{"dynamic, blocks of 4096 bytes", 8, 1, empty(2*sectors, 8)},
		{"dynamic, a BAT of two sectors, growing often", 1, 1, empty(140, 1)},
		{"dynamic, as qemu lays it out", block, 1, half(nil)},
		{"dynamic, footer of 511 bytes", block, 1, half(shortFooter)},
		{"dynamic, no footer at the end", block, 1, half(noEndFooter)},
		{"dynamic, bad footer at the start", block, 1, half(badCopy)},
		{"dynamic, stale footer copy", block, 1, func(fsys storage.FS) error {
			return newSketch(format.Dynamic, sectors, block).block(1, whole(block, 104)).resized(staleSectors).write(fsys, nil)
		}},
		// As a partial bitmap has to follow its data, a flush may cost two.
		{"dynamic, tapdisk's partial bitmaps", block, 2, func(fsys storage.FS) error {
			s := newSketch(format.Dynamic, sectors, block).byTapdisk()
			return s.block(0, map[int]Tag{1: Whole(101), 3: Whole(103)}).block(1, map[int]Tag{0: Whole(104)}).write(fsys, nil)
		}},
		{"dynamic, tapdisk's batmap", block, 1, func(fsys storage.FS) error {
			s := newSketch(format.Dynamic, sectors, block).byTapdisk(1)
			return s.block(1, whole(block, 104)).write(fsys, nil)
		}},
	}
}

func differencingKinds() []Kind {
	over := func(parent func(fsys storage.FS) error, o vhd.SnapshotOptions) func(storage.FS) error {
		return func(fsys storage.FS) error {
			if err := parent(fsys); err != nil {
				return err
			}
			o.FS = fsys
			return vhd.Snapshot(base, Name, o)
		}
	}
	blocks := func(n int) vhd.SnapshotOptions { return vhd.SnapshotOptions{BlockSize: int64(n) * format.SectorSize} }
	return []Kind{
		{"differencing, blocks of 512 bytes", 1, 2, over(dynamicBase, blocks(1))},
		{"differencing, blocks of 1024 bytes", 2, 2, over(dynamicBase, blocks(2))},
		{"differencing, blocks of 2048 bytes", block, 2, over(dynamicBase, blocks(block))},
		{"differencing, blocks of 8192 bytes", 16, 2, over(dynamicBase, blocks(16))},
		{"differencing, over a fixed parent", block, 2, over(fixedBase, blocks(block))},
		{"differencing, over a raw parent", block, 2, over(rawBase, vhd.SnapshotOptions{RawParent: true, BlockSize: block * format.SectorSize})},
		{"differencing, larger than its parent", block, 2, over(dynamicBase, vhd.SnapshotOptions{Size: (sectors + 5) * format.SectorSize, BlockSize: block * format.SectorSize})},
		{"differencing, tapdisk's partial bitmaps", block, 2, tapdiskChild(nil)},
		{"differencing, no footer at the end", block, 2, tapdiskChild(noEndFooter)},
	}
}

// base is the parent's name.
const base = "/base.vhd"

func dynamicBase(fsys storage.FS) error {
	if err := create(fsys, base, format.Dynamic, sectors, block); err != nil {
		return err
	}
	return fill(fsys, base, 100)
}

func fixedBase(fsys storage.FS) error {
	if err := create(fsys, base, format.Fixed, sectors, 0); err != nil {
		return err
	}
	return fill(fsys, base, 100)
}

func rawBase(fsys storage.FS) error { return writeFile(fsys, base, Encode(tagged(sectors, 100))) }

// tapdiskChild is a child of which a block has some sectors, and one has all
// by the batmap.
func tapdiskChild(edit func(b []byte) []byte) func(fsys storage.FS) error {
	return func(fsys storage.FS) error {
		if err := dynamicBase(fsys); err != nil {
			return err
		}
		parent, err := vhd.Open(base, vhd.Options{FS: fsys, ReadOnly: true})
		if err != nil {
			return err
		}
		s := newSketch(format.Differencing, sectors, block).byTapdisk(1)
		s.header.ParentID, s.header.ParentName = parent.Layers()[0].Footer.ID, base[1:]
		if err := parent.Close(); err != nil {
			return err
		}
		return s.block(1, whole(block, 204)).block(0, map[int]Tag{1: Whole(201), 3: Whole(203)}).write(fsys, edit)
	}
}

func create(fsys storage.FS, name string, t format.DiskType, sectors, block int) error {
	return vhd.Create(name, vhd.CreateOptions{FS: fsys, Type: t, Size: int64(sectors) * format.SectorSize, BlockSize: int64(block) * format.SectorSize})
}

// tagged is n tags from first on.
func tagged(n, first int) []Tag {
	tags := make([]Tag, n)
	for i := range tags {
		tags[i] = Whole(uint32(first + i))
	}
	return tags
}

// fill writes tags from first on to an image.
func fill(fsys storage.FS, name string, first int) (err error) {
	img, err := vhd.Open(name, vhd.Options{FS: fsys})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	_, err = img.WriteAt(Encode(tagged(int(img.Size()/format.SectorSize), first)), 0)
	return err
}

// rewrite makes a file what edit makes of its bytes.
func rewrite(fsys storage.FS, name string, edit func(b []byte) []byte) error {
	if edit == nil {
		return nil
	}
	f, err := fsys.Open(name, 0)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	if err = errors.Join(err, f.Close(), fsys.Remove(name)); err != nil {
		return err
	}
	return writeFile(fsys, name, edit(b))
}
