package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// naiveChecksum is the checksum as the specification words it, over a copy in
// which the field is zero.
func naiveChecksum(b []byte, at int) uint32 {
	zeroed := bytes.Clone(b)
	copy(zeroed[at:], make([]byte, 4))
	var sum uint32
	for _, c := range zeroed {
		sum += uint32(c)
	}
	return ^sum
}

// rawFooter is a footer put together by hand, each field with a value of its
// own, at the offsets of the specification.
func rawFooter(t *testing.T, edit func(b []byte)) []byte {
	t.Helper()
	b := make([]byte, 512)
	copy(b[0:], "conectix")
	copy(b[8:], "\x00\x00\x00\x02")
	copy(b[12:], "\x00\x01\x00\x00")
	copy(b[16:], "\x00\x00\x00\x00\x00\x00\x02\x00")
	copy(b[24:], "\x2d\x73\x45\x00")
	copy(b[28:], "tap\x00")
	copy(b[32:], "\x00\x01\x00\x03")
	copy(b[36:], "Wi2k")
	copy(b[40:], "\x00\x00\x00\x00\x40\x00\x00\x00")
	copy(b[48:], "\x00\x00\x00\x00\x80\x00\x00\x00")
	copy(b[56:], "\x10\x41\x10\x3f")
	copy(b[60:], "\x00\x00\x00\x03")
	copy(b[68:], "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f")
	if edit != nil {
		edit(b)
	}
	binary.BigEndian.PutUint32(b[64:], naiveChecksum(b, 64))
	return b
}

func TestDecodeFooterReadsEveryField(t *testing.T) {
	b := rawFooter(t, func(b []byte) {
		b[84], b[85] = 1, 1
		b[86], b[511] = 0xaa, 0xbb
	})
	got, err := DecodeFooter(b)
	if err != nil {
		t.Fatal(err)
	}
	want := &Footer{
		Features: 2, Version: 0x00010000, DataOffset: 512, Timestamp: 0x2d734500,
		Creator: CreatorTap, CreatorVersion: 0x00010003, CreatorOS: HostWindows,
		OriginalSize: 1 << 30, CurrentSize: 2 << 30,
		Geometry: Geometry{Cylinders: 4161, Heads: 16, Sectors: 63},
		Type:     Dynamic, Checksum: naiveChecksum(b, 64),
		ID:         UUID{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f},
		SavedState: 1, Hidden: 1,
	}
	want.Reserved[0], want.Reserved[425] = 0xaa, 0xbb
	if *got != *want {
		t.Errorf("decoded\n%+v\nwant\n%+v", got, want)
	}
	again := bytes.Repeat([]byte{0xee}, FooterSize) // every byte must be written
	got.Encode(again)
	if !bytes.Equal(again, b) {
		t.Errorf("encoded\n%x\nwas\n%x", again, b)
	}
}

func TestDecodeFooterOf511Bytes(t *testing.T) {
	whole := rawFooter(t, nil)
	short, err := DecodeFooter(whole[:ShortFooterSize])
	if err != nil {
		t.Fatal(err)
	}
	want, err := DecodeFooter(whole)
	if err != nil {
		t.Fatal(err)
	}
	if *short != *want {
		t.Errorf("the short footer decodes to\n%+v\nthe whole one to\n%+v", short, want)
	}
	whole = rawFooter(t, func(b []byte) { b[511] = 1 })
	if _, err := DecodeFooter(whole[:ShortFooterSize]); !errors.Is(err, ErrChecksum) {
		t.Errorf("a missing byte that was not zero: %v, want %v", err, ErrChecksum)
	}
}

func TestDecodeFooterRefuses(t *testing.T) {
	good := rawFooter(t, nil)
	tests := []struct {
		name string
		b    []byte
		want error
		text string
	}{
		{"nothing", nil, ErrBounds, "footer: out of bounds: 0 bytes, not 512 or 511"},
		{"too short", good[:510], ErrBounds, "510 bytes"},
		{"too long", append(bytes.Clone(good), 0), ErrBounds, "513 bytes"},
		{"zeros", make([]byte, 512), ErrCookie, `footer: wrong cookie: "\x00\x00\x00\x00\x00\x00\x00\x00", not "conectix"`},
		{"a VHDX", append([]byte("vhdxfile"), good[8:]...), ErrCookie, `"vhdxfile"`},
		{"upper case", append([]byte("CONECTIX"), good[8:]...), ErrCookie, `"CONECTIX"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := DecodeFooter(tt.b)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q, want %v with %q", err, tt.want, tt.text)
			}
			if f != nil {
				t.Errorf("a footer came with it: %+v", f)
			}
			var e *Error
			if !errors.As(err, &e) || e.Structure != "footer" {
				t.Errorf("not a footer's *Error: %#v", err)
			}
		})
	}
}

func TestWrongChecksumComesWithTheFooter(t *testing.T) {
	good := rawFooter(t, nil)
	for i := 8; i < FooterSize; i++ {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		f, err := DecodeFooter(b)
		if !errors.Is(err, ErrChecksum) {
			t.Fatalf("byte %d changed: %v, want %v", i, err, ErrChecksum)
		}
		if f == nil || f.Checksum != binary.BigEndian.Uint32(b[64:]) {
			t.Fatalf("byte %d changed: came with %+v", i, f)
		}
	}
	b := bytes.Clone(good)
	binary.BigEndian.PutUint32(b[64:], 0x12345678)
	_, err := DecodeFooter(b)
	if want := "footer: wrong checksum: stored 0x12345678, computed 0x"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %q, want %q…", err, want)
	}
}

func TestPoisonedCookieSurvives(t *testing.T) {
	b := rawFooter(t, func(b []byte) { copy(b, "v_poison") })
	f, err := DecodeFooter(b)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Poisoned {
		t.Error("not told as poisoned")
	}
	again := make([]byte, FooterSize)
	f.Encode(again)
	if !bytes.Equal(again, b) {
		t.Errorf("encoded with cookie %q", again[:8])
	}
}

// TestHiddenChecksum: early XenServer set hidden and left the checksum.
func TestHiddenChecksum(t *testing.T) {
	tests := []struct {
		name    string
		creator string
		version uint32
		hidden  byte
		ok      bool
	}{
		{"tap 0.1", "tap\x00", 0x00000001, 1, true},
		{"tap 1.1", "tap\x00", 0x00010001, 1, true},
		{"tap 1.1, another mark", "tap\x00", 0x00010001, 7, true},
		{"tap with a fourth letter", "tapx", 0x00010001, 1, true},
		{"tap 1.0", "tap\x00", 0x00010000, 1, false},
		{"tap 1.2", "tap\x00", 0x00010002, 1, false},
		{"tap 1.3", "tap\x00", 0x00010003, 1, false},
		{"qemu", "qemu", 0x00010001, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := rawFooter(t, func(b []byte) {
				copy(b[28:], tt.creator)
				binary.BigEndian.PutUint32(b[32:], tt.version)
			})
			b[85] = tt.hidden // after the checksum
			f, err := DecodeFooter(b)
			if tt.ok {
				if err != nil || !f.HiddenChecksum || f.Hidden != tt.hidden {
					t.Fatalf("%+v, %v; want it accepted and told", f, err)
				}
				mended := make([]byte, FooterSize)
				f.Encode(mended)
				if g, err := DecodeFooter(mended); err != nil || g.HiddenChecksum || g.Hidden != tt.hidden {
					t.Errorf("encoded and decoded: %+v, %v; want the checksum mended", g, err)
				}
			} else if !errors.Is(err, ErrChecksum) || f.HiddenChecksum {
				t.Errorf("%v; want %v", err, ErrChecksum)
			}
		})
	}
}

func TestHiddenWithRightChecksumIsNoTolerance(t *testing.T) {
	b := rawFooter(t, func(b []byte) {
		copy(b[32:], "\x00\x01\x00\x01")
		b[85] = 1
	})
	if f, err := DecodeFooter(b); err != nil || f.HiddenChecksum {
		t.Errorf("HiddenChecksum %v, %v", f.HiddenChecksum, err)
	}
}

func TestFooterRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		b := make([]byte, FooterSize)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		copy(b, []string{footerCookie, poisonedCookie}[r.IntN(2)])
		binary.BigEndian.PutUint32(b[64:], naiveChecksum(b, 64))
		f, err := DecodeFooter(b)
		if err != nil {
			t.Fatal(err)
		}
		again := make([]byte, FooterSize)
		f.Encode(again)
		if !bytes.Equal(again, b) {
			t.Fatalf("encoded\n%x\nwas\n%x", again, b)
		}
	}
}

func TestEncodeFooterStaysInItsSector(t *testing.T) {
	b := bytes.Repeat([]byte{0xee}, 2*FooterSize)
	NewFooter(1<<20, Dynamic, time.Now()).Encode(b)
	if !bytes.Equal(b[FooterSize:], bytes.Repeat([]byte{0xee}, FooterSize)) {
		t.Error("bytes after the footer were changed")
	}
}

func TestEncodeDoesNotChangeTheFooter(t *testing.T) {
	f := NewFooter(1<<20, Dynamic, time.Now())
	before := *f
	f.Encode(make([]byte, FooterSize))
	if !reflect.DeepEqual(*f, before) {
		t.Errorf("encoding changed\n%+v\nto\n%+v", before, *f)
	}
}

// TestNewFooterIsReadAlikeByAll holds new footers against the rules of the
// other readers: the creator's size is the current one, vhd-util check has
// nothing to say, libvhdi's original size agrees.
func TestNewFooterIsReadAlikeByAll(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 999, time.UTC)
	for _, size := range []int64{512, 1 << 20, 1<<30 + 512, 127 << 30, 128 << 30, MaxNewSize} {
		for _, kind := range []DiskType{Fixed, Dynamic, Differencing} {
			f := NewFooter(size, kind, now)
			if err := f.Validate(); err != nil {
				t.Errorf("%v of %d: %v", kind, size, err)
			}
			if odd := append(f.Oddities(), f.FutureOddities(now)...); len(odd) > 0 {
				t.Errorf("%v of %d: odd: %q", kind, size, odd)
			}
			if f.Size(SizeAuto) != size || f.OriginalSize != uint64(size) || f.CurrentSize != uint64(size) {
				t.Errorf("%v of %d: sizes %d, %d, %d", kind, size, f.Size(SizeAuto), f.OriginalSize, f.CurrentSize)
			}
			if f.Creator.String() != "win" || f.CreatorOS.String() != "Wi2k" || f.Features != 2 || f.MayHaveBatmap() {
				t.Errorf("%v of %d: creator %v on %v, features %d", kind, size, f.Creator, f.CreatorOS, f.Features)
			}
			if want := now.Truncate(time.Second); !f.Timestamp.Time().Equal(want) {
				t.Errorf("timestamp %v, want %v", f.Timestamp, want)
			}
			offset := uint64(512)
			if kind == Fixed {
				offset = 0xFFFFFFFFFFFFFFFF
			}
			if f.DataOffset != offset || f.Type != kind {
				t.Errorf("%v: data offset %#x, type %v", kind, f.DataOffset, f.Type)
			}
		}
	}
	if a, b := NewFooter(512, Fixed, now), NewFooter(512, Fixed, now); a.ID == b.ID {
		t.Error("two footers have one id")
	}
}

func TestTapdiskHabits(t *testing.T) {
	tests := []struct {
		creator              Creator
		version              uint32
		kind                 DiskType
		batmap, littleEndian bool
	}{
		{CreatorTap, 0x00000001, Dynamic, false, true},
		{CreatorTap, 0x00010001, Dynamic, true, false},
		{CreatorTap, 0x00010003, Differencing, true, false},
		{CreatorTap, 0x00010003, Fixed, false, false},
		{CreatorWindows, 0x000a0000, Dynamic, false, false},
		{CreatorQEMU, 0x00000001, Dynamic, false, false},
	}
	for _, tt := range tests {
		f := &Footer{Creator: tt.creator, CreatorVersion: tt.version, Type: tt.kind}
		if f.MayHaveBatmap() != tt.batmap || f.LittleEndianBitmaps() != tt.littleEndian {
			t.Errorf("%v %#x %v: batmap %v, little endian %v", tt.creator, tt.version, tt.kind, f.MayHaveBatmap(), f.LittleEndianBitmaps())
		}
	}
}

func TestDiskTypeString(t *testing.T) {
	for kind, want := range map[DiskType]string{Fixed: "fixed", Dynamic: "dynamic", Differencing: "differencing", 0: "type 0", 6: "type 6"} {
		if kind.String() != want {
			t.Errorf("%d is %q, want %q", uint32(kind), kind, want)
		}
	}
}
