package vhd_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// churn writes, zeroes and flushes all over an image, and keeps model the same
// by other means.
func churn(t *testing.T, img *vhd.Image, model []byte, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		off := r.Int64N(int64(len(model)))
		n := 1 + r.Int64N(min(int64(len(model))-off, 9000))
		if r.IntN(2) == 0 { // whole sectors
			off &^= 511
			n = min((n+511)&^511, int64(len(model))-off)
		}
		switch r.IntN(8) {
		case 0:
			must(t, img.WriteZeroes(off, n))
			clear(model[off:][:n])
		case 1:
			must(t, img.Flush())
		default:
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			_, err := img.WriteAt(p, off)
			must(t, err)
			copy(model[off:], p)
		}
	}
}

// staysGood opens an image, sees that it shows want, changes much of it, and
// sees that it is clean and shows what was written.
func staysGood(t *testing.T, fsys storage.FS, name string, want []byte) {
	t.Helper()
	model := bytes.Clone(want)
	for seed := range uint64(3) {
		img := open(t, fsys, name)
		if !bytes.Equal(readAll(t, img), model) {
			t.Fatalf("opened for the time number %d, it shows the wrong bytes", seed+1)
		}
		churn(t, img, model, seed)
		if !bytes.Equal(readAll(t, img), model) {
			t.Fatalf("changed for the time number %d, it shows the wrong bytes", seed+1)
		}
		must(t, img.Close())
		checkClean(t, fsys, name)
	}
	img, err := vhd.Open(name, vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	if !bytes.Equal(readAll(t, img), model) {
		t.Fatal("opened for the last time, it shows the wrong bytes")
	}
}

func TestFooterVariants(t *testing.T) {
	other := func(l *layout, change func(f *format.Footer)) {
		f := *l.footer
		change(&f)
		l.copy = &f
	}
	tests := []struct {
		name   string
		layout func(l *layout)
		bytes  func(b []byte) []byte // what is done to the file then
		at     vhd.FooterSource
		warns  string // a part of a warning; empty: there is none
	}{
		{"both good", nil, nil, vhd.FromEnd, ""},
		{"511 bytes", func(l *layout) { l.short = true }, nil, vhd.FromShortEnd, ""},
		{"none at the end", func(l *layout) { l.noEnd = true }, nil, vhd.FromCopy, "no footer at the end"},
		{"bad checksum at the end", nil, func(b []byte) []byte { b[len(b)-100] ^= 1; return b }, vhd.FromCopy, "no footer at the end"},
		{"zeros at the end", nil, func(b []byte) []byte { clear(b[len(b)-512:]); return b }, vhd.FromCopy, "no footer at the end"},
		{"bytes missing at the end", nil, func(b []byte) []byte { return b[:len(b)-100] }, vhd.FromCopy, "no footer at the end"},
		{"something appended", nil, func(b []byte) []byte { return append(b, make([]byte, 5000)...) }, vhd.FromCopy, "no footer at the end"},
		{"bad checksum in the copy", nil, func(b []byte) []byte { b[100] ^= 1; return b }, vhd.FromEnd, "copy at the start of the file is not good"},
		{"no copy", nil, func(b []byte) []byte { clear(b[:512]); return b }, vhd.FromEnd, "copy at the start of the file is not good"},
		{"copy of another time", func(l *layout) { other(l, func(f *format.Footer) { f.Timestamp -= 99 }) }, nil, vhd.FromEnd, "differ"},
		{"copy of another size", func(l *layout) { other(l, func(f *format.Footer) { f.CurrentSize = 512 }) }, nil, vhd.FromEnd, "differ"},
		{"hidden", func(l *layout) { l.footer.Hidden = 1 }, nil, vhd.FromEnd, ""},
		{"saved state", func(l *layout) { l.footer.SavedState = 1 }, nil, vhd.FromEnd, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l := sample()
			if test.layout != nil {
				test.layout(l)
			}
			b := l.encode()
			if test.bytes != nil {
				b = test.bytes(b)
			}
			writeFile(t, fsys, "/disk.vhd", b)
			img := open(t, fsys, "/disk.vhd")
			layer := img.Layers()[0]
			if layer.FooterAt != test.at {
				t.Errorf("footer taken from the %v, want the %v", layer.FooterAt, test.at)
			}
			if layer.Footer.Timestamp != l.footer.Timestamp {
				t.Error("the footer is not the one at the end")
			}
			warnings := strings.Join(img.Warnings(), "\n")
			if (test.warns == "") != (warnings == "") || !strings.Contains(warnings, test.warns) {
				t.Errorf("warnings %q, want %q", warnings, test.warns)
			}
			must(t, img.Close())
			if !bytes.Equal(contentOf(t, fsys, "/disk.vhd"), b) {
				t.Error("opening and closing changed the file")
			}
			staysGood(t, fsys, "/disk.vhd", sampleContent())
			img = open(t, fsys, "/disk.vhd")
			if at := img.Layers()[0].FooterAt; at != vhd.FromEnd {
				t.Errorf("after new blocks and a close the footer is at the %v", at)
			}
			must(t, img.Close())
		})
	}
}

// A disk's last bytes that are no sector can't be shown: it says so.
func TestASizeThatIsNoMultipleOfASectorIsRoundedDownAndSaid(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := sample()
	l.footer.CurrentSize += 100
	l.write(t, fsys, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	if img.Size() != 5*4096+512 {
		t.Errorf("size %d", img.Size())
	}
	if w := strings.Join(img.Warnings(), "\n"); !strings.Contains(w, "multiple of 512") || !strings.Contains(w, "21092") {
		t.Errorf("warnings %q don't say that the size was rounded down", w)
	}
}

func TestFixedDiskOf511ByteFooter(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/whole.vhd", format.Fixed, 64<<10, 0)
	fill(t, fsys, "/whole.vhd", noise(64<<10))
	b := contentOf(t, fsys, "/whole.vhd")
	writeFile(t, fsys, "/disk.vhd", b[:len(b)-1])
	img := open(t, fsys, "/disk.vhd")
	if l := img.Layers()[0]; l.FooterAt != vhd.FromShortEnd || l.Kind != vhd.KindFixed {
		t.Errorf("footer from the %v of a %v disk", l.FooterAt, l.Kind)
	}
	_, err := img.WriteAt([]byte("end"), 64<<10-3)
	must(t, err)
	if _, err := img.WriteAt([]byte("x"), 64<<10); err == nil {
		t.Error("wrote into the footer")
	}
	must(t, img.Close())
	got := contentOf(t, fsys, "/disk.vhd")
	copy(b[64<<10-3:], "end")
	if !bytes.Equal(got, b[:len(b)-1]) {
		t.Error("more than the bytes written was changed")
	}
}

// The first sector of a fixed disk is its guest's. Where it looks like the copy
// of a footer the file may as well be a dynamic image that a crashed host left,
// whose guest's last sector looks like a footer: it is read by its end, and not
// written to.
func TestFixedDiskThatHoldsAnImage(t *testing.T) {
	fsys := storagetest.NewMemory()
	inner := sample().encode()
	create(t, fsys, "/disk.vhd", format.Fixed, 64<<10, 0)
	fill(t, fsys, "/disk.vhd", inner)
	_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
	wantError{vhd.ErrCorrupt, []string{"footer", "different images", "read-only"}}.check(t, err, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	if l := img.Layers()[0]; l.Kind != vhd.KindFixed {
		t.Fatalf("taken for a %v disk", l.Kind)
	}
	if got := readAll(t, img); !bytes.Equal(got[:len(inner)], inner) {
		t.Error("wrong bytes")
	}
}

// A copy at the start that is good but of before a resize would count if the
// footer at the end were lost: it is renewed before that one moves.
func TestStaleCopyIsRenewedBeforeTheFooterMoves(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/disk.vhd", format.Dynamic, 64<<10, 4096)
	b := contentOf(t, r, "/disk.vhd")
	f, err := format.DecodeFooter(b[:format.FooterSize])
	must(t, err)
	f.CurrentSize, f.OriginalSize = 32<<10, 32<<10
	f.Encode(b[:format.FooterSize])
	r = &recorder{FS: storagetest.NewMemory()}
	writeFile(t, r.FS, "/disk.vhd", b)
	img := open(t, r, "/disk.vhd")
	r.take()
	must(t, write(img, "far", 60<<10))
	if s := story(r.changes()); !strings.HasPrefix(s, "write sync") {
		t.Errorf("the first write to a new block did %q, want the copy written and synced first", s)
	}
	must(t, img.Close())
	b = contentOf(t, r, "/disk.vhd")
	if !bytes.Equal(b[:format.FooterSize], b[len(b)-format.FooterSize:]) {
		t.Error("the copy is still another")
	}
}

// withoutEnd is a dynamic image of 16 blocks, all of them written, without a
// footer at its end, as a killed tapdisk leaves it; and what looks like a smaller
// fixed disk's footer.
func withoutEnd(t *testing.T) (m *storagetest.Memory, trap []byte) {
	t.Helper()
	m = storagetest.NewMemory()
	create(t, m, "/disk.vhd", format.Dynamic, 64<<10, 4096)
	img := open(t, m, "/disk.vhd")
	_, err := img.WriteAt(bytes.Repeat([]byte{1}, 64<<10), 0)
	must(t, err)
	must(t, img.Close())
	f, err := m.Open("/disk.vhd", storage.ReadWrite)
	must(t, err)
	must(t, f.Truncate(sizeOf(t, m, "/disk.vhd")-format.FooterSize))
	must(t, f.Close())

	create(t, m, "/trap.vhd", format.Fixed, 16<<10, 0)
	trap = contentOf(t, m, "/trap.vhd")
	return m, trap[len(trap)-format.FooterSize:]
}

// TestAGuestCanWriteNoFooter: where a file has none at its end the last sector of
// a block would be taken for one. Whenever the power goes, the image opens, and
// is the one that it was.
func TestAGuestCanWriteNoFooter(t *testing.T) {
	ways := map[string]func(img *vhd.Image, p []byte, off int64) error{
		"write": func(img *vhd.Image, p []byte, off int64) error { _, err := img.WriteAt(p, off); return err },
		"now": func(img *vhd.Image, p []byte, off int64) error {
			_, err := img.WriteAtNowait(p, off)
			if errors.Is(err, blockdev.ErrWouldBlock) {
				_, err = img.WriteAt(p, off)
			}
			return err
		},
	}
	for name, write := range ways {
		t.Run(name, func(t *testing.T) {
			m, trap := withoutEnd(t)
			c := storagetest.NewCrashFrom(m)
			img := open(t, c, "/disk.vhd")
			for off := int64(0); off < img.Size(); off += format.SectorSize {
				must(t, write(img, trap, off))
			}
			must(t, img.Flush())
			must(t, img.Close())
			checkClean(t, c, "/disk.vhd")
			for point := range c.Points() + 1 {
				cut := c.Cut(point)
				for _, kept := range []storagetest.Chooser{storagetest.None, storagetest.All} {
					img, err := vhd.Open("/disk.vhd", vhd.Options{FS: cut.State(kept)})
					if err != nil {
						t.Fatalf("after call %d: %v", point, err)
					}
					if img.Size() != 64<<10 || img.Layers()[0].Kind != vhd.KindDynamic {
						t.Fatalf("after call %d: %d bytes, %v", point, img.Size(), img.Layers()[0].Kind)
					}
					must(t, img.Close())
				}
			}
		})
	}
}

// TestFootersOfDifferentImagesAreTold to who opens the image read-only.
func TestFootersOfDifferentImagesAreTold(t *testing.T) {
	m, trap := withoutEnd(t)
	f, err := m.Open("/disk.vhd", storage.ReadWrite)
	must(t, err)
	_, err = f.WriteAt(trap, sizeOf(t, m, "/disk.vhd"))
	must(t, errors.Join(err, f.Close()))
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: m, ReadOnly: true})
	must(t, err)
	defer img.Close()
	if text := strings.Join(img.Warnings(), "\n"); !strings.Contains(text, "of different images") {
		t.Errorf("warnings: %q", text)
	}
}
