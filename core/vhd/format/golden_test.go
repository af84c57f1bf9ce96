package format

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// update makes the records under testdata anew, with qemu-img, and then the
// texts that say what is in them.
var update = flag.Bool("update", false, "rewrite the golden files with qemu-img")

// qemuImages are the images whose records are kept, by name.
var qemuImages = []struct {
	subformat, size, forceSize string
}{
	{"dynamic", "512", "off"}, {"dynamic", "512", "on"},
	{"dynamic", "100M", "off"}, {"dynamic", "100M", "on"},
	{"dynamic", "127G", "off"}, {"dynamic", "200G", "off"},
	{"fixed", "512", "off"}, {"fixed", "512", "on"}, {"fixed", "34816", "off"},
	{"fixed", "200G", "on"},
}

// ours are the records that this package writes, with all that is random or of
// the moment fixed.
func ours(t DiskType, size int64) []byte {
	f := NewFooter(size, t, time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC))
	f.ID = UUID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	if t == Fixed {
		b := make([]byte, FooterSize)
		f.Encode(b)
		return b
	}
	h := NewHeader(size, 0)
	if t == Differencing {
		h.ParentID = UUID{0xfe, 0xdc, 0xba, 0x98}
		h.ParentTimestamp = 762523200
		h.ParentName = "Grundstück.vhd"
		h.Locators[0] = Locator{Code: CodeMacX, DataSpace: 512, DataLength: 26, DataOffset: 0x4000}
		h.Locators[1] = Locator{Code: CodeW2ku, DataSpace: 512, DataLength: 32, DataOffset: 0x4200}
		h.Locators[2] = Locator{Code: CodeW2ru, DataSpace: 512, DataLength: 32, DataOffset: 0x4400}
	}
	b := make([]byte, FooterSize+HeaderSize)
	f.Encode(b)
	h.Encode(b[FooterSize:])
	return b
}

var ourImages = map[string]func() []byte{
	"vhdmount-fixed-64K.footer":         func() []byte { return ours(Fixed, 64<<10) },
	"vhdmount-dynamic-2040G.dynamic":    func() []byte { return ours(Dynamic, MaxNewSize) },
	"vhdmount-differencing-10G.dynamic": func() []byte { return ours(Differencing, 10<<30) },
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *update {
		if err := updateRecords(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// updateRecords makes every record under testdata.
func updateRecords() error {
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "vhd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image.vhd")
	for _, q := range qemuImages {
		options := "subformat=" + q.subformat + ",force_size=" + q.forceSize
		if out, err := exec.Command("qemu-img", "create", "-q", "-f", "vpc", "-o", options, image, q.size).CombinedOutput(); err != nil {
			return fmt.Errorf("qemu-img create: %w: %s", err, out)
		}
		base := fmt.Sprintf("testdata/qemu-%s-%s-%s", q.subformat, q.size, q.forceSize)
		if err := cutRecords(image, base, q.subformat == "fixed"); err != nil {
			return err
		}
	}
	for name, record := range ourImages {
		if err := os.WriteFile(filepath.Join("testdata", name), record(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// cutRecords copies the footer of a fixed image, or the first two records of
// another.
func cutRecords(image, base string, fixed bool) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	name, b, off := base+".dynamic", make([]byte, FooterSize+HeaderSize), int64(0)
	if fixed {
		name, b, off = base+".footer", b[:FooterSize], info.Size()-FooterSize
	}
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

// records are the golden files' bytes by name.
func records(t testing.TB) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, pattern := range []string{"testdata/*.footer", "testdata/*.dynamic"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d golden files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Base(name)] = b
		}
	}
	return all
}

// TestGoldenRecords decodes what real writers wrote, compares every field with
// the text beside it, and encodes it back to the byte.
func TestGoldenRecords(t *testing.T) {
	for name, record := range records(t) {
		t.Run(name, func(t *testing.T) {
			f, err := DecodeFooter(record[:FooterSize])
			if err != nil {
				t.Fatal(err)
			}
			text := describeFooter(f)
			again := make([]byte, len(record))
			f.Encode(again)
			if len(record) > FooterSize {
				h, err := DecodeHeader(record[FooterSize:])
				if err != nil {
					t.Fatal(err)
				}
				text += describeHeader(h, f)
				h.Encode(again[FooterSize:])
			}
			if !bytes.Equal(again, record) {
				t.Errorf("encoded differently:\n%x\nwas\n%x", again, record)
			}
			compareText(t, filepath.Join("testdata", name+".txt"), text)
		})
	}
}

// TestOurRecordsAreStable fails when what is written to new images changes.
func TestOurRecordsAreStable(t *testing.T) {
	golden := records(t)
	for name, record := range ourImages {
		if !bytes.Equal(record(), golden[name]) {
			t.Errorf("%s: new images are written differently: run with -update if that is meant", name)
		}
	}
}

func compareText(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: decoded to\n%s\nwant\n%s", name, got, want)
	}
}

func describeFooter(f *Footer) string {
	var s strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&s, "%-22s%v\n", name, value) }
	line("features", f.Features)
	line("version", fmt.Sprintf("%#08x", f.Version))
	line("data offset", fmt.Sprintf("%#x", f.DataOffset))
	line("timestamp", f.Timestamp)
	line("creator", fmt.Sprintf("%v %#x %v (%s)", f.Creator, f.CreatorVersion, f.CreatorOS, f.Creator.Name()))
	line("original size", f.OriginalSize)
	line("current size", f.CurrentSize)
	line("geometry", f.Geometry)
	line("type", f.Type)
	line("checksum", fmt.Sprintf("%#08x", f.Checksum))
	line("id", f.ID)
	line("saved state, hidden", fmt.Sprintf("%d %d", f.SavedState, f.Hidden))
	for _, from := range []SizeFrom{SizeAuto, SizeGeometry, SizeFooter} {
		line("size from "+from.String(), f.Size(from))
	}
	line("invalid", f.Validate())
	line("odd", strings.Join(f.Oddities(), "; "))
	return s.String()
}

func describeHeader(h *Header, f *Footer) string {
	var s strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&s, "%-22s%v\n", name, value) }
	s.WriteString("\n")
	line("data offset", fmt.Sprintf("%#x", h.DataOffset))
	line("table offset", h.TableOffset)
	line("version", fmt.Sprintf("%#08x", h.Version))
	line("max table entries", h.MaxTableEntries)
	line("block size", h.BlockSize)
	line("checksum", fmt.Sprintf("%#08x", h.Checksum))
	line("parent id", h.ParentID)
	line("parent timestamp", h.ParentTimestamp)
	line("parent name", fmt.Sprintf("%q", h.ParentName))
	for i, l := range h.Locators {
		if l.Code != CodeNone {
			line(fmt.Sprintf("locator %d", i), fmt.Sprintf("%v space %d length %d offset %#x", l.Code, l.DataSpace, l.DataLength, l.DataOffset))
		}
	}
	line("bitmap size", h.BitmapSize())
	line("invalid", fmt.Sprint(h.Validate(), h.ValidateSize(f.Size(SizeAuto))))
	line("odd", strings.Join(append(h.Oddities(), h.TypeOddities(f.Type)...), "; "))
	return s.String()
}
