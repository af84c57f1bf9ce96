package format

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"testing"
)

// seedRecords adds the golden records' part from off on.
func seedRecords(f *testing.F, off, n int) {
	f.Helper()
	for _, b := range records(f) {
		if len(b) >= off+n {
			f.Add(b[off : off+n])
		}
	}
}

// FuzzFooter: whatever the bytes, decoding doesn't panic, what it returns can
// be judged and measured, and encoding gives the bytes back but for the
// checksum.
func FuzzFooter(f *testing.F) {
	seedRecords(f, 0, FooterSize)
	f.Fuzz(func(t *testing.T, b []byte) {
		footer, err := DecodeFooter(b)
		if (footer == nil) && err == nil || err != nil && !errors.As(err, new(*Error)) {
			t.Fatalf("%v, %v", footer, err)
		}
		if footer == nil {
			return
		}
		for _, from := range []SizeFrom{SizeAuto, SizeGeometry, SizeFooter} {
			if size := footer.Size(from); size < 0 || size%SectorSize != 0 {
				t.Errorf("size from %v is %d", from, size)
			}
		}
		footer.Oddities()
		if footer.Validate() == nil && footer.Type != Fixed && footer.DataOffset+HeaderSize < footer.DataOffset {
			t.Errorf("data offset %d is valid", footer.DataOffset)
		}
		again := make([]byte, FooterSize)
		footer.Encode(again)
		if _, err := DecodeFooter(again); err != nil {
			t.Errorf("encoded: %v", err)
		}
		clear(again[footerChecksumAt : footerChecksumAt+4])
		whole := make([]byte, FooterSize)
		copy(whole, b)
		clear(whole[footerChecksumAt : footerChecksumAt+4])
		if !bytes.Equal(again, whole) {
			t.Errorf("encoded\n%x\nwas\n%x", again, whole)
		}
	})
}

// FuzzHeader: as FuzzFooter, for the dynamic header.
func FuzzHeader(f *testing.F) {
	seedRecords(f, FooterSize, HeaderSize)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if (h == nil) && err == nil || err != nil && !errors.As(err, new(*Error)) {
			t.Fatalf("%v, %v", h, err)
		}
		if h == nil {
			return
		}
		h.Oddities()
		h.TypeOddities(Dynamic)
		h.TypeOddities(Differencing)
		if h.Validate() == nil {
			if size := h.BitmapSize(); size <= 0 || size%SectorSize != 0 || size*8 < int64(h.BlockSize)/SectorSize {
				t.Errorf("block of %d has a bitmap of %d", h.BlockSize, size)
			}
			h.ValidateSize(MaxSize)
		}
		again := make([]byte, HeaderSize)
		h.Encode(again)
		if _, err := DecodeHeader(again); err != nil {
			t.Errorf("encoded: %v", err)
		}
		clear(again[headerChecksumAt : headerChecksumAt+4])
		was := bytes.Clone(b)
		clear(was[headerChecksumAt : headerChecksumAt+4])
		if !bytes.Equal(again, was) {
			t.Errorf("encoded\n%x\nwas\n%x", again, was)
		}
	})
}

// FuzzLocatorPath: decoding never panics and never lets a NUL or an empty path
// through, and what it finds comes back when it is encoded again.
func FuzzLocatorPath(f *testing.F) {
	for _, code := range []LocatorCode{CodeW2ru, CodeW2ku} {
		f.Add(uint32(code), []byte(le(`.\parent.vhd`)))
		f.Add(uint32(code), []byte(le(`C:\a\Größe 💾.vhd`)))
		f.Add(uint32(code), []byte(le(`\\server\share`)))
		f.Add(uint32(code), []byte("\x3d\xd8a\x00"))
	}
	f.Add(uint32(CodeMacX), []byte("file://./Gr%C3%B6%20%zz.vhd"))
	f.Add(uint32(CodeMacX), []byte("file:///srv/%2e%2e/a"))
	f.Add(uint32(CodeMacX), []byte("file://localhost//a"))
	f.Add(uint32(CodeWi2r), []byte(".\\Gr\xf6\xdfe.vhd"))
	f.Add(uint32(CodeMac), []byte("alias"))
	f.Fuzz(func(t *testing.T, code uint32, data []byte) {
		p, err := DecodeLocatorPath(LocatorCode(code), data)
		if err != nil {
			if !errors.As(err, new(*Error)) {
				t.Errorf("%T is no *Error", err)
			}
			return
		}
		if p.Path == "" || bytes.IndexByte([]byte(p.Path), 0) >= 0 || p.Absolute != path.IsAbs(p.Path) {
			t.Fatalf("%x: %+v", data, p)
		}
		checkComesBack(t, p)
	})
}

// checkComesBack encodes p with every code that can express it.
func checkComesBack(t *testing.T, p ParentPath) {
	t.Helper()
	for _, code := range []LocatorCode{CodeW2ru, CodeW2ku, CodeMacX} {
		data, err := EncodeLocatorPath(code, p.Path)
		if err != nil {
			continue
		}
		back, err := DecodeLocatorPath(code, data)
		if err != nil {
			t.Errorf("%v of %q: %q: %v", code, p.Path, data, err)
		} else if path.Clean(back.Path) != path.Clean(p.Path) || back.Absolute != p.Absolute {
			t.Errorf("%v of %+v: %q: comes back as %+v", code, p, data, back)
		}
	}
}

// FuzzBAT: entries and bytes are one to one.
func FuzzBAT(f *testing.F) {
	f.Add([]byte{0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff})
	seedRecords(f, 0, FooterSize)
	f.Fuzz(func(t *testing.T, b []byte) {
		entries := make([]uint32, len(b)/4)
		DecodeBAT(entries, b)
		again := bytes.Clone(b)
		clear(again[:4*len(entries)])
		EncodeBAT(again, entries)
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x became %x", b, entries, again)
		}
		second := make([]uint32, len(entries))
		DecodeBAT(second, again)
		if !slices.Equal(entries, second) {
			t.Errorf("%x, then %x", entries, second)
		}
	})
}

// FuzzBitmap holds each answer against the model's.
func FuzzBitmap(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 0x01, 0xff}, uint16(3), uint16(70))
	f.Add(bytes.Repeat([]byte{0xff}, 20), uint16(0), uint16(160))
	f.Fuzz(func(t *testing.T, b []byte, first, limit uint16) {
		if len(b) == 0 || len(b) > 512 {
			return
		}
		bitmap, model := Bitmap(bytes.Clone(b)), make(naiveBitmap, 8*len(b))
		for i := range model {
			model[i] = b[i/8]>>(7-i%8)&1 == 1
		}
		from, to := int(first)%len(model), int(limit)%(len(model)+1)
		model.compare(t, bitmap)
		model.compareRuns(t, bitmap, from, to)
		model.compareCounts(t, bitmap, to)
		if from < to {
			bitmap.Set(from, to-from)
			model.fill(from, to-from, true)
			model.compare(t, bitmap)
			bitmap.Clear(from, to-from)
			model.fill(from, to-from, false)
			model.compare(t, bitmap)
		}
	})
}

// FuzzBatmap: as FuzzFooter, for the batmap's header.
func FuzzBatmap(f *testing.F) {
	f.Add(rawBatmapHeader(nil))
	f.Add(rawBatmapHeader(func(b []byte) { b[29] = 1 }))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeBatmapHeader(b)
		if (h == nil) == (err == nil) {
			t.Fatalf("%v, %v", h, err)
		}
		if h == nil {
			return
		}
		if err := h.Validate(4096); err == nil && h.Offset+uint64(h.Sectors)*SectorSize < h.Offset {
			t.Errorf("offset %d is valid", h.Offset)
		}
		again := make([]byte, BatmapHeaderSize)
		h.Encode(again)
		if !bytes.Equal(again, b) {
			t.Errorf("encoded\n%x\nwas\n%x", again, b)
		}
	})
}
