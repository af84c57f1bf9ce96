package vhd_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// maxFuzzDisk is the largest disk that is read to its end, in bytes.
const maxFuzzDisk = 1 << 20

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

// Whatever the bytes, nothing panics, opening changes nothing, and what opens
// for writing keeps what is written and all the rest.
func FuzzOpen(f *testing.F) {
	f.Add(sample().encode(), true)
	tap, batmap, next := byTapdisk(format.Dynamic, 3*4096, 4096)
	tap.block(1, pageBlock(tap, next), tap.bits(1, 3), noise(4096))
	f.Add(tap.seal(batmap).encode(), true)
	child := childOf(format.UUID{}, "base.raw", locator{format.CodeMacX, []byte("file://./base.raw")})
	child.block(2, 10, child.bits(0, 2, 5, 1), noise(4096))
	f.Add(child.encode(), true)
	f.Add([]byte("vhdxfile"), false)
	fixed := make([]byte, 2048)
	format.NewFooter(1536, format.Fixed, sample().footer.Timestamp.Time()).Encode(fixed[1536:])
	f.Add(fixed, false)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		b = bytes.Clone(b) // what a fuzzer hands over is its own
		if mend {
			reseal(b)
		}
		fsys := storagetest.NewMemory()
		writeFile(t, fsys, "/disk.vhd", b)
		writeFile(t, fsys, "/base.raw", noise(familySize))
		for _, o := range []vhd.Options{{ReadOnly: true}, {}} {
			o.FS = fsys
			img, err := vhd.Open("/disk.vhd", o)
			if err != nil {
				if !strings.Contains(err.Error(), "/disk.vhd") || strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("error %q", err)
				}
				continue
			}
			readsWhatItCan(t, img)
			must(t, img.Close())
			if !bytes.Equal(contentOf(t, fsys, "/disk.vhd"), b) {
				t.Fatal("reading changed the file")
			}
			if !o.ReadOnly && img.Size() <= maxFuzzDisk {
				keepsWhatIsWritten(t, fsys)
			}
		}
	})
}

// readsWhatItCan reads and maps an image, whatever errors that brings.
func readsWhatItCan(t *testing.T, img *vhd.Image) {
	t.Helper()
	n := min(img.Size(), maxFuzzDisk)
	p := make([]byte, 4096)
	for off := int64(0); off < n; off += int64(len(p)) {
		img.ReadAt(p[:min(int64(len(p)), n-off)], off)
	}
	for range img.Extents(0, n) {
	}
	if a := img.Allocated(); a < 0 || a > img.Size() {
		t.Errorf("%d bytes allocated of %d", a, img.Size())
	}
}

// keepsWhatIsWritten writes to the first and the last block of /disk.vhd.
func keepsWhatIsWritten(t *testing.T, fsys *storagetest.Memory) {
	t.Helper()
	img := open(t, fsys, "/disk.vhd")
	want := readAll(t, img)
	for _, off := range []int64{0, img.Size() - 300} {
		must(t, write(img, "written", off+5))
		copy(want[off+5:], "written")
	}
	must(t, img.Close())
	img = open(t, fsys, "/disk.vhd")
	defer img.Close()
	if !bytes.Equal(readAll(t, img), want) {
		t.Fatal("what was written or what was there is lost")
	}
}
