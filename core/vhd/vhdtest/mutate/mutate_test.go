package mutate

import (
	"bytes"
	"math/rand/v2"
	"path"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	batAt   = format.FooterSize + format.HeaderSize
	blocks  = 8
	batmap  = batAt + 512
	first   = batmap + 1024 // of the blocks
	stride  = 512 + 4096
	fileEnd = first + 3*stride
)

// good is a differencing image by tapdisk: three of eight blocks, a batmap, a
// locator.
func good() []byte {
	footer := format.NewFooter(blocks*4096, format.Differencing, time.Unix(1700000000, 0))
	footer.Creator, footer.CreatorVersion, footer.ID = format.CreatorTap, 1<<16|3, format.UUID{1, 2, 3}
	header := format.NewHeader(blocks*4096, 4096)
	header.ParentName = "parent.vhd"
	header.Locators[0] = format.Locator{Code: format.CodeMacX, DataSpace: 512, DataLength: 12, DataOffset: fileEnd}
	data := make([]byte, fileEnd+1024)
	footer.Encode(data)
	footer.Encode(data[fileEnd+512:])
	header.Encode(data[512:])
	for i := range data[batAt:batmap] {
		data[batAt+i] = 0xff
	}
	bat := []uint32{first / 512, format.UnallocatedBlock, (first + stride) / 512, (first + 2*stride) / 512}
	format.EncodeBAT(data[batAt:], bat)
	bits := data[batmap+512:][:512]
	bits[0] = 0x80
	h := format.BatmapHeader{Offset: batmap + 512, Sectors: 1, Version: format.BatmapVersion, Checksum: format.BatmapChecksum(bits, format.BatmapVersion)}
	h.Encode(data[batmap:])
	return data
}

func TestEmptyProgramChangesNothing(t *testing.T) {
	if !bytes.Equal(Image(good(), nil), good()) {
		t.Error("the image changed")
	}
}

func TestImageIsNotTouched(t *testing.T) {
	image := good()
	for seed := range uint64(200) {
		Image(image, program(seed))
	}
	if !bytes.Equal(image, good()) {
		t.Error("the argument changed")
	}
}

// program is a program at random.
func program(seed uint64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, 4+seed%40)
	rand.NewChaCha8(key).Read(b)
	return b
}

// seen is what the records of an image say, of the fields that have names.
type seen map[string]map[uint64]bool

func (s seen) note(name string, v uint64) {
	if s[name] == nil {
		s[name] = map[uint64]bool{}
	}
	s[name][v] = true
}

// noteRecords adds what one image has, wherever its records decode with their
// checksums right, and tells whether they all do.
func (s seen) noteRecords(image []byte) bool {
	r := find(image)
	for which, f := range map[string]*format.Footer{"front ": r.front, "end ": r.end} {
		if f == nil {
			continue
		}
		for _, field := range footerFields {
			s.note(which+field.name, field.get(f))
		}
		s.note(which+"creator", uint64(f.Creator[3])<<8|uint64(f.Creator[0]))
		if f.Poisoned {
			s.note(which+"cookie", 1)
		}
	}
	if r.header != nil {
		for _, field := range headerFields {
			s.note("header "+field.name, field.get(r.header))
		}
		for _, l := range r.header.Locators {
			for _, field := range locatorFields {
				s.note("locator "+field.name, field.get(&l))
			}
			s.note("locator code", uint64(l.Code))
		}
	}
	if r.batmap != nil {
		for _, field := range batmapFields {
			s.note("batmap "+field.name, field.get(r.batmap))
		}
	}
	return r.front != nil && r.end != nil && r.header != nil && r.batmap != nil
}

// TestEveryFieldTakesManyValues of programs at random, under checksums that
// are right.
func TestEveryFieldTakesManyValues(t *testing.T) {
	s := seen{}
	whole, image := 0, good()
	for seed := range uint64(6000) {
		if s.noteRecords(Image(image, program(seed))) {
			whole++
		}
	}
	if whole < 1500 {
		t.Errorf("%d of 6000 images have all their records", whole)
	}
	var want []string
	for _, f := range footerFields {
		want = append(want, "front "+f.name, "end "+f.name)
	}
	for _, f := range headerFields {
		want = append(want, "header "+f.name)
	}
	for _, f := range locatorFields {
		want = append(want, "locator "+f.name)
	}
	for _, f := range batmapFields {
		want = append(want, "batmap "+f.name)
	}
	for _, name := range want {
		if n := len(s[name]); n < 8 && name != "front cookie" && name != "end cookie" && (n < 4 || name != "front creator" && name != "end creator") {
			t.Errorf("%s has %d values", name, n)
		}
	}
}

// TestPrograms that are written by hand do what they say.
func TestPrograms(t *testing.T) {
	entry := func(image []byte, i int) uint32 {
		var e [1]uint32
		format.DecodeBAT(e[:], image[batAt+4*i:])
		return e[0]
	}
	image := Image(good(), []byte{0, 1, 1, 0, 0}) // entry 1 := entry 0
	if entry(image, 1) != first/512 {
		t.Errorf("a duplicate: %d", entry(image, 1))
	}
	image = Image(good(), []byte{0, 1, 1, 0, 1}) // … and one sector on
	if entry(image, 1) != first/512+1 {
		t.Errorf("an overlap: %d", entry(image, 1))
	}
	image = Image(good(), []byte{0, 5, 2, 1, 0}) // landmark 1: the header
	if entry(image, 5) != 1 {
		t.Errorf("into the header: %d", entry(image, 5))
	}
	image = Image(good(), []byte{1, 1, 1, 13}) // max table entries := the largest
	if h, err := format.DecodeHeader(image[512:batAt]); err != nil || h.MaxTableEntries != 1<<32-1 {
		t.Errorf("entries: %+v, %v", h, err)
	}
	image = Image(good(), []byte{9, 4, 0, 1}) // locator 0 names ../../etc/shadow
	h, err := format.DecodeHeader(image[512:batAt])
	if err != nil {
		t.Fatal(err)
	}
	l := h.Locators[0]
	if p, err := format.DecodeLocatorPath(l.Code, image[l.DataOffset:][:l.DataLength]); err != nil || path.Clean(p.Path) != "../../etc/shadow" {
		t.Errorf("the name: %+v, %v", p, err)
	}
	image = Image(good(), []byte{7, 1, 0, 0}) // batmap's bit 1 is set
	if b, err := format.DecodeBatmapHeader(image[batmap:][:512]); err != nil || image[b.Offset] != 0xc0 || b.Checksum != format.BatmapChecksum(image[b.Offset:][:512], b.Version) {
		t.Errorf("batmap: %+v, %v", b, err)
	}
}

// FuzzImage: nothing that an image or a program holds is too much, and what
// comes out is of bounded size, and the same again.
func FuzzImage(f *testing.F) {
	f.Add(good(), []byte{1, 1, 1, 13})
	f.Add(good()[:1600], program(7))
	f.Add([]byte("conectix"), program(8))
	f.Fuzz(func(t *testing.T, image, program []byte) {
		got := Image(image, program)
		if len(got) > len(image)+maxEdits*maxGrowth {
			t.Errorf("%d bytes became %d", len(image), len(got))
		}
		if !bytes.Equal(Image(image, program), got) {
			t.Error("twice the same gives two results")
		}
	})
}
