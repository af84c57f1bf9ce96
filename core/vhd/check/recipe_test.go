package check

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// The good dynamic image of these tests: 1 MiB in blocks of 64 KiB, of which
// three have a place, in another order than their numbers, each with its data
// on a boundary of 4096 bytes and so with a gap before the next.
const (
	testSize   = 1 << 20
	testBlock  = 64 << 10
	testRun    = 1 + testBlock/512 // sectors of a block in the file
	firstBlock = 7                 // sector of the first block's bitmap
	stride     = 136               // sectors from one block to the next
	mapAt      = 2048              // offset of what follows the BAT
)

var testNow = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// recipe is an image to be written, part by part, so that a test can spoil
// any of them.
type recipe struct {
	footer  *format.Footer
	copy    *format.Footer // at the start; nil: as the footer
	noEnd   bool
	header  *format.Header
	bat     []uint32
	batmap  *format.BatmapHeader
	full    format.Bitmap // the batmap's map
	paths   map[int][]byte
	bitmap  func(block int) format.Bitmap
	length  int64 // of the file without the end footer, bytes; 0: as the blocks need
	patches []patch
	cut     int64 // bytes taken off the end of the file
}

// patch is bytes written last of all. A negative offset counts from the end.
type patch struct {
	at   int64
	data []byte
}

func (r *recipe) patch(at int64, data ...byte) { r.patches = append(r.patches, patch{at, data}) }

func fixedDisk() *recipe {
	return &recipe{footer: format.NewFooter(testSize, format.Fixed, testNow), length: testSize}
}

func dynamicDisk() *recipe {
	r := &recipe{
		footer: format.NewFooter(testSize, format.Dynamic, testNow),
		header: format.NewHeader(testSize, testBlock),
		bat:    emptyBAT(testSize / testBlock),
		bitmap: func(int) format.Bitmap { return ones(testBlock / 512) },
	}
	r.bat[2], r.bat[0], r.bat[5] = firstBlock, firstBlock+stride, firstBlock+2*stride
	return r
}

// tapdiskDisk has a batmap, in which the blocks that are there are full.
func tapdiskDisk() *recipe {
	r := dynamicDisk()
	r.footer.Creator, r.footer.CreatorVersion, r.footer.CreatorOS = format.CreatorTap, 1<<16|3, format.HostOS{}
	r.batmap = &format.BatmapHeader{Offset: mapAt + 512, Sectors: 1, Version: format.BatmapVersion}
	r.full = make(format.Bitmap, 512)
	for _, block := range []int{0, 2, 5} {
		r.full.Set(block, 1)
	}
	return r
}

// childDisk is a differencing disk whose parent is parent, with the three
// locators that tapdisk writes.
func childDisk(t testing.TB, parent *format.Footer, name string, modified time.Time) *recipe {
	t.Helper()
	r := dynamicDisk()
	r.footer.Type = format.Differencing
	r.header.ParentID = parent.ID
	r.header.ParentName = path.Base(name)
	r.header.ParentTimestamp = format.TimeOf(modified)
	r.paths = map[int][]byte{}
	for slot, code := range []format.LocatorCode{format.CodeMacX, format.CodeW2ku, format.CodeW2ru} {
		r.locate(t, slot, code, name)
	}
	return r
}

// locate puts a path into a slot.
func (r *recipe) locate(t testing.TB, slot int, code format.LocatorCode, name string) {
	t.Helper()
	data, err := format.EncodeLocatorPath(code, name)
	if err != nil {
		t.Fatal(err)
	}
	r.paths[slot] = data
	r.header.Locators[slot] = format.Locator{Code: code, DataSpace: 512, DataLength: uint32(len(data)), DataOffset: uint64(mapAt + slot*512)}
}

func emptyBAT(n int) []uint32 {
	bat := make([]uint32, n)
	for i := range bat {
		bat[i] = format.UnallocatedBlock
	}
	return bat
}

// ones is a bitmap of one sector whose first n bits are set.
func ones(n int) format.Bitmap {
	b := make(format.Bitmap, 512)
	b.Set(0, n)
	return b
}

// write makes the image as a new file.
func (r *recipe) write(t testing.TB, fs storage.FS, name string) {
	t.Helper()
	f, err := fs.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, f: f}
	end := r.length
	if r.header != nil {
		if needed := r.writeDynamic(w); end == 0 {
			end = needed
		}
	}
	if err := f.Truncate(end); err != nil {
		t.Fatal(err)
	}
	if !r.noEnd {
		w.encode(end, format.FooterSize, r.footer)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.patches {
		if p.at < 0 {
			p.at += size
		}
		w.bytes(p.at, p.data)
	}
	if err := errors.Join(f.Truncate(size-r.cut), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// writeDynamic writes all but the end footer, and returns where that goes.
func (r *recipe) writeDynamic(w *writer) int64 {
	front := r.copy
	if front == nil {
		front = r.footer
	}
	w.encode(0, format.FooterSize, front)
	w.encode(512, format.HeaderSize, r.header)
	table := make([]byte, format.BATSize(int64(len(r.bat))))
	format.EncodeBAT(table, r.bat)
	w.bytes(1536, table)
	if r.batmap != nil {
		if r.batmap.Checksum == 0 {
			r.batmap.Checksum = format.BatmapChecksum(r.full, r.batmap.Version)
		}
		w.encode(mapAt, format.BatmapHeaderSize, r.batmap)
		w.bytes(mapAt+512, r.full)
	}
	for slot, data := range r.paths {
		w.bytes(int64(mapAt+slot*512), data)
	}
	end := int64(4096)
	for block, sector := range r.bat {
		if sector < 1<<20 {
			w.bytes(int64(sector)*512, r.bitmap(block))
			end = max(end, (int64(sector)+testRun)*512)
		}
	}
	return end
}

// writer writes or fails the test.
type writer struct {
	t testing.TB
	f storage.File
}

func (w *writer) bytes(at int64, data []byte) {
	w.t.Helper()
	if _, err := w.f.WriteAt(data, at); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) encode(at int64, length int, record interface{ Encode([]byte) }) {
	w.t.Helper()
	buf := make([]byte, length)
	record.Encode(buf)
	w.bytes(at, buf)
}

// everything looks at all there is.
func everything(fs storage.FS) Options {
	return Options{FS: fs, Lock: true, Bitmaps: true, Parents: true, Now: testNow.Add(time.Hour)}
}

// run checks an image that can be read.
func run(t testing.TB, name string, o Options) *Report {
	t.Helper()
	report, err := Run(name, o)
	if err != nil {
		t.Fatalf("Run(%q): %v", name, err)
	}
	return report
}

// runRecipe checks an image that is alone in its file system.
func runRecipe(t testing.TB, r *recipe) *Report {
	t.Helper()
	fs := storagetest.NewMemory()
	r.write(t, fs, "/disk.vhd")
	return run(t, "/disk.vhd", everything(fs))
}

// want is a finding expected: its severity, its place, and words of it.
type want struct {
	severity Severity
	place    string
	words    string
}

func (w want) String() string { return fmt.Sprintf("%v: %s: …%s…", w.severity, w.place, w.words) }

func (w want) matches(f Finding) bool {
	return f.Severity == w.severity && f.Place == w.place && strings.Contains(f.Message, w.words)
}

// expect fails the test unless the findings are the ones wanted, in order.
func expect(t testing.TB, got []Finding, wanted ...want) {
	t.Helper()
	ok := len(got) == len(wanted)
	for i := range min(len(got), len(wanted)) {
		ok = ok && wanted[i].matches(got[i])
	}
	if !ok {
		t.Errorf("findings:\n%s\nwant:\n%s", lines(got), lines(wanted))
	}
}

func lines[T fmt.Stringer](list []T) string {
	var b strings.Builder
	for _, one := range list {
		fmt.Fprintf(&b, "\t%v\n", one)
	}
	return b.String()
}
