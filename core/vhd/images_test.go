package vhd_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// foreign is an image as some program leaves it, and what it shows there.
type foreign struct {
	name  string
	build func() (*layout, []byte)
}

// block2M is the block size that all other programs use.
const block2M = 2 << 20

// tapdisk1_3 is the creator version of today's tapdisk.
const tapdisk1_3 = 1<<16 | 3

// byTapdisk lays out an empty image as vhd-util does: batmap header and
// batmap right after the BAT. It returns where the next thing goes.
func byTapdisk(kind format.DiskType, size, block int64) (l *layout, batmap format.Bitmap, next int64) {
	l = newLayout(kind, size, block)
	l.footer.Creator, l.footer.CreatorVersion, l.footer.CreatorOS = format.CreatorTap, tapdisk1_3, format.HostOS{}
	at := l.batAt + format.BATSize(int64(len(l.bat)))
	batmap = make(format.Bitmap, format.BatmapSectors(size)*512)
	return l, batmap, at + 512 + int64(len(batmap))
}

// seal puts the batmap in place, with its checksum.
func (l *layout) seal(batmap format.Bitmap) *layout {
	at := l.batAt + format.BATSize(int64(len(l.bat)))
	h := format.BatmapHeader{
		Offset: uint64(at + 512), Sectors: uint32(len(batmap) / 512), Version: format.BatmapVersion,
		Checksum: format.BatmapChecksum(batmap, format.BatmapVersion),
	}
	var b [format.BatmapHeaderSize]byte
	h.Encode(b[:])
	l.put(at, b[:])
	l.put(at+512, batmap)
	return l
}

// pageBlock is the sector for a block at or after byte off whose data begins
// on a page, as tapdisk places it.
func pageBlock(l *layout, off int64) uint32 {
	bitmap := l.header.BitmapSize()
	return uint32(((off+bitmap+4095)&^4095 - bitmap) / 512)
}

func foreigners() []foreign {
	return slices.Concat(bySize(), byTapdisks(), oddlyLaidOut())
}

// bySize are those that differ in what they take for the disk's size.
func bySize() []foreign {
	return []foreign{
		{"qemu, data on no page", func() (*layout, []byte) {
			content := noise(4 * block2M)
			clear(content[2*block2M : 3*block2M])
			l := newLayout(format.Dynamic, 4*block2M, block2M)
			l.footer.Creator, l.footer.CreatorVersion = format.CreatorQEMUForce, 0x50003
			l.block(0, 4, l.bits(), content)
			l.block(1, 4101, l.bits(), content[block2M:][:block2M])
			l.block(3, 8198, l.bits(), content[3*block2M:])
			return l, content
		}},
		{"qemu, shown by its geometry", func() (*layout, []byte) {
			l, content := sample(), sampleContent()
			l.footer.Creator, l.footer.Geometry = format.CreatorQEMU, format.Geometry{Cylinders: 2, Heads: 4, Sectors: 5}
			return l, content[:2*4*5*512]
		}},
		{"Virtual PC, shown by its geometry", func() (*layout, []byte) {
			l, content := sample(), sampleContent()
			l.footer.Creator, l.footer.Geometry = format.CreatorVPC, format.Geometry{Cylinders: 3, Heads: 4, Sectors: 3}
			return l, content[:3*4*3*512]
		}},
		{"VirtualBox, with a small geometry", func() (*layout, []byte) {
			l := sample()
			l.footer.Creator, l.footer.Geometry = format.CreatorVirtualBox, format.Geometry{Cylinders: 2, Heads: 4, Sectors: 5}
			return l, sampleContent()
		}},
		{"Azure", func() (*layout, []byte) {
			l := sample()
			l.footer.Creator = format.CreatorAzure
			return l, sampleContent()
		}},
	}
}

func byTapdisks() []foreign {
	return []foreign{
		{"tapdisk, bitmaps in part", func() (*layout, []byte) {
			content := zeros(4 * block2M)
			l, batmap, next := byTapdisk(format.Dynamic, 4*block2M, block2M)
			for i, b := range []int{2, 0} {
				data := zeros(block2M)
				copy(data[512*(8+i):], noise(512*100))
				copy(content[b*block2M:], data)
				l.block(b, pageBlock(l, next+int64(i)*(block2M+8192)), l.bits(8+i, 100), data)
			}
			return l.seal(batmap), content
		}},
		{"tapdisk, a block known full by the batmap", func() (*layout, []byte) {
			content := zeros(4 * block2M)
			copy(content[block2M:], noise(block2M))
			l, batmap, next := byTapdisk(format.Dynamic, 4*block2M, block2M)
			l.block(1, pageBlock(l, next), l.bits(), content[block2M:][:block2M])
			batmap.Set(1, 1)
			return l.seal(batmap), content
		}},
		{"tapdisk, crashed: blocks over the footer", func() (*layout, []byte) {
			content := zeros(4 * block2M)
			copy(content[block2M:], noise(block2M))
			l, batmap, next := byTapdisk(format.Dynamic, 4*block2M, block2M)
			l.block(1, pageBlock(l, next), l.bits(), content[block2M:][:block2M])
			l.noEnd = true
			return l.seal(batmap), content
		}},
		{"tapdisk, batmap not saved", func() (*layout, []byte) {
			content := zeros(4 * block2M)
			copy(content[block2M:], noise(block2M))
			l, batmap, next := byTapdisk(format.Dynamic, 4*block2M, block2M)
			l.block(1, pageBlock(l, next), l.bits(), content[block2M:][:block2M])
			return l.seal(batmap), content // its bit is clear
		}},
	}
}

func oddlyLaidOut() []foreign {
	return []foreign{
		{"prepared to be resized: spare BAT entries", func() (*layout, []byte) {
			l := sample()
			for len(l.bat) < 1000 {
				l.bat = append(l.bat, format.UnallocatedBlock)
			}
			l.header.MaxTableEntries = 1000
			moveBlocks(l, map[int]uint32{0: 30, 2: 50, 3: 70})
			return l, sampleContent()
		}},
		{"a block beyond the disk, after it was made smaller", func() (*layout, []byte) {
			l := sample()
			l.bat = append(l.bat, format.UnallocatedBlock)
			l.header.MaxTableEntries++
			l.block(6, 40, l.bits(), noise(4096))
			return l, sampleContent()
		}},
		{"out of order, block 0 last", func() (*layout, []byte) {
			l := sample()
			moveBlocks(l, map[int]uint32{3: 7, 2: 16, 0: 25})
			return l, sampleContent()
		}},
		{"gaps between blocks", func() (*layout, []byte) {
			l := sample()
			moveBlocks(l, map[int]uint32{0: 11, 3: 100, 2: 333})
			return l, sampleContent()
		}},
		{"stale bytes between the blocks and the footer", func() (*layout, []byte) {
			l := sample()
			l.put(40*512, noise(50000))
			return l, sampleContent()
		}},
		{"BAT behind the blocks", func() (*layout, []byte) {
			l := sample()
			l.batAt, l.header.TableOffset = 64*512, 64*512
			return l, sampleContent()
		}},
		{"header away from the footer's copy", func() (*layout, []byte) {
			l := sample()
			l.header.TableOffset, l.batAt = 512, 512
			l.footer.DataOffset = 64 * 512
			l.put(64*512, make([]byte, 1024))
			return l, sampleContent()
		}},
		{"blocks of 512 bytes", func() (*layout, []byte) {
			l := newLayout(format.Dynamic, 64*512, 512)
			content := zeros(64 * 512)
			for i, b := range []int{63, 0, 5, 6, 7} {
				copy(content[b*512:], noise(512))
				l.block(b, uint32(10+2*i), l.bits(), content[b*512:][:512])
			}
			return l, content
		}},
		{"one sector", func() (*layout, []byte) {
			l := newLayout(format.Dynamic, 512, block2M)
			l.block(0, 4, l.bits(), noise(512))
			return l, noise(512)
		}},
	}
}

// moveBlocks gives the sample's blocks other places.
func moveBlocks(l *layout, to map[int]uint32) {
	l.bytes = nil
	for b, sector := range to {
		l.block(b, sector, l.bits(), sampleContent()[b*4096:][:4096])
	}
}

func TestForeignImages(t *testing.T) {
	for _, f := range foreigners() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			fsys := storagetest.NewMemory()
			l, want := f.build()
			l.write(t, fsys, "/disk.vhd")
			before := contentOf(t, fsys, "/disk.vhd")
			img := open(t, fsys, "/disk.vhd")
			if img.Size() != int64(len(want)) {
				t.Fatalf("it shows %d bytes, want %d", img.Size(), len(want))
			}
			if !bytes.Equal(readAll(t, img), want) {
				t.Error("wrong bytes")
			}
			must(t, img.Close())
			if !bytes.Equal(contentOf(t, fsys, "/disk.vhd"), before) {
				t.Error("reading changed the file")
			}
			staysGood(t, fsys, "/disk.vhd", want)
			discardsWell(t, fsys)
		})
	}
}

// discardsWell gives up much of /disk.vhd, which has no parent, and sees that
// it reads as zeros and the image stays clean.
func discardsWell(t *testing.T, fsys storage.FS) {
	t.Helper()
	img := open(t, fsys, "/disk.vhd")
	model := readAll(t, img)
	size := img.Size()
	for _, d := range [][2]int64{{size / 2, size - size/2}, {0, 512}, {100, min(3000, size-100)}} {
		must(t, img.Discard(d[0], d[1]))
		if from, to := (d[0]+511)&^511, (d[0]+d[1])&^511; from < to {
			clear(model[from:to])
		}
	}
	must(t, img.Flush())
	churn(t, img, model, 77)
	must(t, img.Close())
	checkClean(t, fsys, "/disk.vhd")
	img = open(t, fsys, "/disk.vhd")
	defer img.Close()
	if !bytes.Equal(readAll(t, img), model) {
		t.Error("wrong bytes after discards")
	}
}

// What lies in the file beyond the size that is shown is another program's to
// show: it stays.
func TestWritingKeepsWhatIsBeyondTheGeometry(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := sample()
	l.footer.Creator, l.footer.Geometry = format.CreatorVPC, format.Geometry{Cylinders: 3, Heads: 3, Sectors: 3}
	l.write(t, fsys, "/disk.vhd")
	img := open(t, fsys, "/disk.vhd")
	shown := img.Size() // 3½ blocks
	if shown != 27*512 {
		t.Fatalf("shows %d bytes", shown)
	}
	must(t, write(img, "x", shown-1))
	must(t, write(img, "y", 4096))
	must(t, img.WriteZeroes(0, 4096))
	must(t, img.Close())
	checkClean(t, fsys, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, SizeFrom: format.SizeFooter})
	must(t, err)
	defer img.Close()
	if got, want := readAll(t, img), sampleContent(); !bytes.Equal(got[shown:], want[shown:]) {
		t.Error("bytes beyond the geometry were lost")
	}
}

// A discard up to the end that the geometry shows covers the last block, of
// which more is in the file.
func TestDiscardKeepsWhatIsBeyondTheGeometry(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := sample()
	l.footer.Creator, l.footer.Geometry = format.CreatorVPC, format.Geometry{Cylinders: 3, Heads: 3, Sectors: 3}
	l.write(t, fsys, "/disk.vhd")
	img := open(t, fsys, "/disk.vhd")
	shown := img.Size()
	must(t, img.Discard(3*4096, shown-3*4096))
	must(t, img.Close())
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, SizeFrom: format.SizeFooter})
	must(t, err)
	defer img.Close()
	if got, want := readAll(t, img), sampleContent(); !bytes.Equal(got[shown:], want[shown:]) {
		t.Error("bytes beyond the geometry were lost")
	}
}

func TestSizeFromEitherField(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := sample()
	l.footer.Creator, l.footer.Geometry = format.CreatorVPC, format.Geometry{Cylinders: 2, Heads: 4, Sectors: 5}
	l.write(t, fsys, "/disk.vhd")
	for from, want := range map[format.SizeFrom]int64{format.SizeAuto: 40 * 512, format.SizeGeometry: 40 * 512, format.SizeFooter: 41 * 512} {
		img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, SizeFrom: from})
		must(t, err)
		if img.Size() != want {
			t.Errorf("size from %v: %d, want %d", from, img.Size(), want)
		}
		must(t, img.Close())
	}
}

// tapdisk 0.1 wrote the bits of a byte the other way around.
func TestLittleEndianBitmapsAreRead(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := newLayout(format.Dynamic, 8192, 4096)
	l.footer.Creator, l.footer.CreatorVersion = format.CreatorTap, 1
	bits := make(format.Bitmap, 512)
	bits[0] = 0b0000_0101 // sectors 0 and 2
	l.block(1, 10, bits, noise(4096))
	l.write(t, fsys, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	want := zeros(8192)
	copy(want[4096:], noise(512))
	copy(want[4096+1024:], noise(2048)[1024:1536])
	if !bytes.Equal(readAll(t, img), want) {
		t.Error("wrong sectors")
	}
}

// The bytes under a clear bit are nobody's on a disk without a parent, as
// tapdisk has it.
func TestClearBitsReadAsZerosWhateverIsUnderThem(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := newLayout(format.Dynamic, 8192, 4096)
	l.block(0, 10, l.bits(1, 2, 6, 1), noise(4096))
	l.write(t, fsys, "/disk.vhd")
	want := zeros(8192)
	copy(want[512:1536], noise(1536)[512:])
	copy(want[6*512:7*512], noise(4096)[6*512:])
	img := open(t, fsys, "/disk.vhd")
	if !bytes.Equal(readAll(t, img), want) {
		t.Error("wrong sectors")
	}
	// A write of a part of such a sector doesn't bring its neighbours back.
	must(t, write(img, "part", 5*512+100))
	copy(want[5*512+100:], "part")
	if !bytes.Equal(readAll(t, img), want) {
		t.Error("wrong sectors after a write")
	}
	must(t, img.Close())
	img = open(t, fsys, "/disk.vhd")
	defer img.Close()
	if !bytes.Equal(readAll(t, img), want) {
		t.Error("wrong sectors after the next open")
	}
}

func TestBatmapIsTrustedOverTheBitmap(t *testing.T) {
	fsys := storagetest.NewMemory()
	l, batmap, next := byTapdisk(format.Dynamic, 2*block2M, block2M)
	l.block(0, pageBlock(l, next), l.bits(0, 1), noise(block2M)) // tapdisk has not written the bitmap
	batmap.Set(0, 1)
	l.seal(batmap).write(t, fsys, "/disk.vhd")
	img := open(t, fsys, "/disk.vhd")
	defer img.Close()
	if !img.Layers()[0].Batmap {
		t.Error("no batmap is reported")
	}
	if got := readAll(t, img); !bytes.Equal(got[:block2M], noise(block2M)) {
		t.Error("the block is not shown whole")
	}
}

func TestBatmapThatIsNoGoodIsIgnoredAndSaid(t *testing.T) {
	tests := map[string]func(h *format.BatmapHeader){
		"wrong checksum":  func(h *format.BatmapHeader) { h.Checksum++ },
		"past the end":    func(h *format.BatmapHeader) { h.Offset = 1 << 40 },
		"beyond any file": func(h *format.BatmapHeader) { h.Offset = 1<<64 - 1 },
		"too short":       func(h *format.BatmapHeader) { h.Sectors = 0 },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l, batmap, next := byTapdisk(format.Dynamic, 2*block2M, block2M)
			l.block(0, pageBlock(l, next), l.bits(0, 1), append(noise(512), zeros(block2M-512)...))
			batmap.Set(0, 1)
			l.seal(batmap)
			at := l.batAt + 512
			h, err := format.DecodeBatmapHeader(l.bytes[at:][:512])
			must(t, err)
			spoil(h)
			h.Encode(l.bytes[at:])
			l.write(t, fsys, "/disk.vhd")
			img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			defer img.Close()
			if img.Layers()[0].Batmap || !strings.Contains(strings.Join(img.Warnings(), "\n"), "batmap") {
				t.Errorf("batmap in use: %v; warnings %q", img.Layers()[0].Batmap, img.Warnings())
			}
			if got := readAll(t, img); !bytes.Equal(got[:512], noise(512)) || !bytes.Equal(got[512:], zeros(2*block2M-512)) {
				t.Error("wrong bytes")
			}
		})
	}
}

// A batmap may say of a block that isn't there that it is whole. When the
// block comes, that must not have become a lie.
func TestBatmapBitOfAnAbsentBlockDoesNotHideTheParent(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/base.vhd", format.Dynamic, 2*block2M, 0)
	fill(t, fsys, "/base.vhd", noise(2*block2M))
	l, batmap, next := byTapdisk(format.Differencing, 2*block2M, block2M)
	l.header.ParentID, l.header.ParentName = idOf(t, fsys, "/base.vhd"), "base.vhd"
	batmap.Set(1, 1)
	l.put(next, nil)
	l.seal(batmap).write(t, fsys, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
	if errors.Is(err, vhd.ErrCorrupt) {
		return // refused for writing: as good
	}
	must(t, err)
	must(t, write(img, string(zeros(512)), block2M+512))
	must(t, img.Close())
	want := noise(2 * block2M)
	clear(want[block2M+512:][:512])
	img = open(t, fsys, "/disk.vhd")
	defer img.Close()
	if !bytes.Equal(readAll(t, img), want) {
		t.Error("the batmap's bit hides the parent")
	}
}

func TestEncryptedImagesAreRefused(t *testing.T) {
	fsys := storagetest.NewMemory()
	l, batmap, _ := byTapdisk(format.Dynamic, 2*block2M, block2M)
	l.seal(batmap)
	h, err := format.DecodeBatmapHeader(l.bytes[l.batAt+512:][:512])
	must(t, err)
	h.KeyHash.Set = 1
	h.Encode(l.bytes[l.batAt+512:])
	l.write(t, fsys, "/disk.vhd")
	for _, readOnly := range []bool{true, false} {
		_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: readOnly})
		wantError{vhd.ErrEncrypted, []string{"batmap"}}.check(t, err, "/disk.vhd")
	}
}

// A differencing image by tapdisk: three locators after the batmap, some of
// its sectors, and a batmap whose clear bits say nothing.
func TestDifferencingImageByTapdisk(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/vm/base.vhd", format.Dynamic, 4*block2M, 0)
	fill(t, fsys, "/vm/base.vhd", noise(4*block2M))
	l, batmap, next := byTapdisk(format.Differencing, 4*block2M, block2M)
	l.header.ParentID, l.header.ParentName = idOf(t, fsys, "/vm/base.vhd"), "base.vhd"
	for i, loc := range []locator{
		{format.CodeMacX, []byte("file://./base.vhd")},
		pathLocator(t, format.CodeW2ku, "./base.vhd"),
		pathLocator(t, format.CodeW2ru, "base.vhd"),
	} {
		l.header.Locators[i] = format.Locator{Code: loc.code, DataSpace: 512, DataLength: uint32(len(loc.data)), DataOffset: uint64(next)}
		l.put(next, append(bytes.Clone(loc.data), make([]byte, 512-len(loc.data))...))
		next += 512
	}
	want := noise(4 * block2M)
	clear(want[block2M:][:block2M])
	clear(want[3*block2M+10*512:][:5*512])
	l.block(3, pageBlock(l, next), l.bits(10, 5), zeros(block2M))
	l.block(1, pageBlock(l, next+block2M+8192), l.bits(), zeros(block2M))
	batmap.Set(1, 1)
	l.seal(batmap).write(t, fsys, "/vm/disk.vhd")
	staysGood(t, fsys, "/vm/disk.vhd", want)
}
