package vhd_test

import (
	"bytes"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	tapdisk1_1 = 1<<16 | 1
	tapdisk1_2 = 1<<16 | 2
)

// withoutBatmap is an empty image by tapdisk that has no batmap, over a raw
// parent if it is differencing. The BAT ends where a block can begin, and the
// footer is there.
func withoutBatmap(t *testing.T, fsys storage.FS, kind format.DiskType, version uint32) (l *layout, place int64) {
	t.Helper()
	l, _, _ = byTapdisk(kind, 512*block2M, block2M)
	l.footer.CreatorVersion = version
	if kind == format.Differencing {
		l.header.ParentName = "raw.img"
		writeFile(t, fsys, "/vm/raw.img", noise(512))
	}
	place = l.batAt + format.BATSize(int64(len(l.bat)))
	if (place+512)%4096 != 0 {
		t.Fatalf("no block begins at %d", place)
	}
	return l, place
}

// forgedBatmap is a batmap's header that would have tapdisk write over the
// dynamic header.
func forgedBatmap() format.Bitmap {
	b := make(format.Bitmap, format.BatmapHeaderSize)
	h := format.BatmapHeader{Offset: 512, Sectors: 1, Version: format.BatmapVersion}
	h.Encode(b)
	return b
}

func readAt(t *testing.T, img *vhd.Image, off, n int64) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := img.ReadAt(b, off)
	must(t, err)
	return b
}

// tapdisk looks for a batmap's header behind the BAT of an image that is its
// own by the footer, whatever is there. A guest that could have its block's
// bitmap there would write the header by its choice of sectors.
func TestNoGuestMakesABatmap(t *testing.T) {
	for name, c := range map[string]struct {
		kind    format.DiskType
		version uint32
		before  []byte // what is behind the BAT, before the footer
	}{
		"differencing 1.3, the footer behind the BAT": {format.Differencing, tapdisk1_3, nil},
		"differencing 1.3, zeros behind the BAT":      {format.Differencing, tapdisk1_3, make([]byte, 512)},
		"differencing 1.2":                            {format.Differencing, tapdisk1_2, make([]byte, 512)},
		"differencing 1.1":                            {format.Differencing, tapdisk1_1, make([]byte, 512)},
		"differencing 1.1, something else there":      {format.Differencing, tapdisk1_1, bytes.Repeat([]byte{'x'}, 512)},
		"dynamic 1.3":                                 {format.Dynamic, tapdisk1_3, nil},
		"dynamic 1.1":                                 {format.Dynamic, tapdisk1_1, make([]byte, 512)},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l, place := withoutBatmap(t, fsys, c.kind, c.version)
			l.put(place, c.before)
			l.write(t, fsys, "/vm/disk.vhd")
			img := open(t, fsys, "/vm/disk.vhd")
			for s := range 4096 {
				if forgedBatmap().Get(s) {
					must(t, write(img, string(noise(512)), int64(s)*512))
				}
			}
			must(t, img.Close())
			b := contentOf(t, fsys, "/vm/disk.vhd")
			if h, err := format.DecodeBatmapHeader(b[place:][:512]); err == nil {
				t.Errorf("tapdisk would find a batmap at %d", h.Offset)
			}
			bat := make([]uint32, len(l.bat))
			format.DecodeBAT(bat, b[l.batAt:])
			if first := int64(bat[0]) * 512; first < place+512 || bat[0] == format.UnallocatedBlock {
				t.Errorf("block 0 is at %d, the batmap's header has its place at %d", first, place)
			}
			img = open(t, fsys, "/vm/disk.vhd")
			defer img.Close()
			got := readAt(t, img, 512, 512) // 't', the first byte, has its bit 1 set
			if !bytes.Equal(got, noise(512)) {
				t.Error("what was written is gone")
			}
		})
	}
}

// TestABlockInThePlaceOfABatmapIsNotWrittenTo: it may be read.
func TestABlockInThePlaceOfABatmapIsNotWrittenTo(t *testing.T) {
	for name, version := range map[string]uint32{"1.1": tapdisk1_1, "1.2": tapdisk1_2, "1.3": tapdisk1_3} {
		t.Run(name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l, place := withoutBatmap(t, fsys, format.Dynamic, version)
			l.block(3, uint32(place/512), l.bits(), noise(block2M))
			l.write(t, fsys, "/vm/disk.vhd")
			_, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys})
			wantError{vhd.ErrCorrupt, []string{"block 3", "points into the sector in which its creator keeps the batmap's header"}}.check(t, err, "/vm/disk.vhd")
			img, err := vhd.Open("/vm/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			defer img.Close()
			got := readAt(t, img, 3*block2M, block2M)
			if !bytes.Equal(got, noise(block2M)) {
				t.Error("it shows something else")
			}
		})
	}
}

// Only tapdisk keeps batmaps; and an image that it brought up from version 0.1
// may have a locator in the batmap's place, which no guest writes to.
func TestThePlaceOfABatmapThatNobodyLooksFor(t *testing.T) {
	for name, change := range map[string]func(l *layout, place int64){
		"another creator": func(l *layout, place int64) {
			l.footer.Creator = format.CreatorWindows
			l.block(3, uint32(place/512), l.bits(), noise(block2M))
		},
		"a locator": func(l *layout, place int64) {
			data := []byte("file://./raw.img")
			l.header.Locators[0] = format.Locator{Code: format.CodeMacX, DataSpace: 512, DataLength: uint32(len(data)), DataOffset: uint64(place)}
			l.put(place, data)
			l.put(place+512, nil)
			l.block(3, pageBlock(l, place+512), l.bits(), noise(block2M))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l, place := withoutBatmap(t, fsys, format.Differencing, tapdisk1_1)
			change(l, place)
			l.write(t, fsys, "/vm/disk.vhd")
			img := open(t, fsys, "/vm/disk.vhd")
			must(t, write(img, "written", 5))
			must(t, img.Close())
			img = open(t, fsys, "/vm/disk.vhd")
			defer img.Close()
			if got := readAt(t, img, 5, 7); string(got) != "written" {
				t.Errorf("it shows %q", got)
			}
		})
	}
}

// TestBatmapOfAVersionToComeIsIgnored, as tapdisk does, and left alone.
func TestBatmapOfAVersionToComeIsIgnored(t *testing.T) {
	fsys := storagetest.NewMemory()
	l, batmap, next := byTapdisk(format.Dynamic, 2*block2M, block2M)
	l.block(1, pageBlock(l, next), l.bits(0, 8), noise(block2M))
	batmap.Set(1, 1)
	l.seal(batmap)
	at := l.batAt + format.BATSize(int64(len(l.bat)))
	h, err := format.DecodeBatmapHeader(l.bytes[at:][:512])
	must(t, err)
	h.Version = format.BatmapVersion + 1
	h.Encode(l.bytes[at:])
	l.write(t, fsys, "/disk.vhd")
	img := open(t, fsys, "/disk.vhd")
	defer img.Close()
	got := readAt(t, img, block2M+8*512, 512)
	if !bytes.Equal(got, zeros(512)) || img.Layers()[0].Batmap {
		t.Error("the batmap was believed")
	}
}
