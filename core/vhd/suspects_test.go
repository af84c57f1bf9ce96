package vhd_test

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// suspect is a good image that fuzzers begin with; parent is nil where it
// has none.
type suspect struct{ child, parent []byte }

// suspects are small images of every kind, as the engine and others lay them
// out.
func suspects(f *testing.F) []suspect {
	f.Helper()
	parent := goodParent()
	short, noEnd := smallImage(format.Dynamic, 4), smallImage(format.Dynamic, 4)
	short.short, noEnd.noEnd = true, true
	list := []suspect{
		{child: smallImage(format.Dynamic, 4).encode()},
		{child: smallByTapdisk(format.Dynamic)},
		{child: short.encode()},
		{child: noEnd.encode()},
		{child: fixedImage()},
		{child: byEngine(f, vhd.CreateOptions{Type: format.Dynamic, Size: smallSize, BlockSize: 512})},
		{child: childImage(parentID).encode(), parent: parent},
		{child: smallByTapdisk(format.Differencing), parent: parent},
		{child: childImage(format.UUID{}).encode(), parent: noise(smallSize)},
		{child: childImage(parentID).encode(), parent: grandchild()},
	}
	return append(list, byQEMU(f)...)
}

// smallSize is the size of these disks, in bytes: five blocks and a half.
const (
	smallBlock = 1024
	smallSize  = 5*smallBlock + 512
)

// parentID is the UUID of parents here: a fuzzer's inputs are good for one
// that stays the same.
var parentID = format.UUID{0x76, 0x68, 0x64}

// smallImage has blocks 0, 2 and 3, from a sector of the file on; block 2 lacks a
// sector.
func smallImage(kind format.DiskType, first uint32) *layout {
	l := newLayout(kind, smallSize, smallBlock)
	l.block(0, first, l.bits(), noise(smallBlock))
	l.block(2, first+3, l.bits(1, 1), noise(smallBlock))
	l.block(3, first+6, l.bits(), noise(smallBlock))
	return l
}

// smallByTapdisk has a batmap, which calls block 2 whole.
func smallByTapdisk(kind format.DiskType) []byte {
	l, batmap, next := byTapdisk(kind, smallSize, smallBlock)
	if kind == format.Differencing {
		l.header.ParentID, l.header.ParentName = parentID, "parent.vhd"
	}
	l.block(1, uint32(next/512), l.bits(0, 1), noise(smallBlock))
	l.block(2, uint32(next/512)+3, l.bits(), noise(smallBlock))
	batmap.Set(2, 1)
	return l.seal(batmap).encode()
}

// goodParent is a dynamic image that children here may have for a parent. In
// block 1 there is something under a clear bit.
func goodParent() []byte {
	l := smallImage(format.Dynamic, 4)
	l.block(1, 13, l.bits(0, 1), noise(smallBlock))
	l.footer.ID = parentID
	return l.encode()
}

// childImage is over a parent of its folder.
func childImage(parent format.UUID) *layout {
	l := smallImage(format.Differencing, 6)
	l.header.ParentID, l.header.ParentName = parent, "parent.vhd"
	data := []byte("file://./parent.vhd")
	l.header.Locators[0] = format.Locator{Code: format.CodeMacX, DataSpace: 512, DataLength: uint32(len(data)), DataOffset: 2048}
	l.put(2048, data)
	return l
}

// grandchild is a parent that has a raw one itself.
func grandchild() []byte {
	l := childImage(format.UUID{})
	l.header.Locators[0], l.header.ParentName = format.Locator{}, "raw.img"
	l.footer.ID = parentID
	return l.encode()
}

func fixedImage() []byte {
	b := append(noise(1536), make([]byte, 512)...)
	format.NewFooter(1536, format.Fixed, time.Unix(1700000000, 0)).Encode(b[1536:])
	return b
}

// byQEMU are images around the records that qemu-img wrote: those of package
// format's tests, with the BAT, the end and the data that belong to them.
func byQEMU(f *testing.F) []suspect {
	f.Helper()
	var list []suspect
	for _, name := range []string{"qemu-dynamic-512-on.dynamic", "qemu-dynamic-512-off.dynamic", "qemu-dynamic-100M-off.dynamic", "qemu-fixed-512-off.footer"} {
		b, err := os.ReadFile("format/testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) == format.FooterSize {
			list = append(list, suspect{child: append(noise(512), b...)})
			continue
		}
		bat := bytes.Repeat([]byte{0xff}, 512)
		list = append(list, suspect{child: slices.Concat(b, bat, b[:format.FooterSize])})
	}
	return list
}

// byEngine is a new image with something written to it.
func byEngine(f *testing.F, o vhd.CreateOptions) []byte {
	f.Helper()
	fsys := storagetest.NewMemory()
	o.FS = fsys
	must := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	must(vhd.Create("/new.vhd", o))
	img, err := vhd.Open("/new.vhd", vhd.Options{FS: fsys})
	must(err)
	_, err = img.WriteAt(noise(1500), 700)
	must(err)
	must(img.Close())
	file, err := fsys.Open("/new.vhd", 0)
	must(err)
	defer file.Close()
	size, err := file.Size()
	must(err)
	b := make([]byte, size)
	_, err = file.ReadAt(b, 0)
	must(err)
	return b
}
