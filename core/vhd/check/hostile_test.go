package check

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestNoVHD(t *testing.T) {
	contents := map[string]string{
		"empty":           "",
		"a byte":          "x",
		"510 bytes":       strings.Repeat("x", 510),
		"511 bytes":       strings.Repeat("x", 511),
		"a text":          strings.Repeat("text\n", 1000),
		"a VHDX":          "vhdxfile" + strings.Repeat("\x00", 1<<16),
		"a cookie inside": strings.Repeat(" ", 1024) + "conectix" + strings.Repeat(" ", 1024),
	}
	for name, content := range contents {
		t.Run(name, func(t *testing.T) {
			mem := storagetest.NewMemory()
			writeFile(t, mem, "/x.vhd", content)
			report, err := Run("/x.vhd", everything(mem))
			if !errors.Is(err, ErrNotVHD) || report != nil || !strings.HasPrefix(err.Error(), "/x.vhd: ") {
				t.Errorf("%v, %v; want no report and an ErrNotVHD that names the file", report, err)
			}
		})
	}
}

func TestTruncatedImageIsDamaged(t *testing.T) {
	mem := storagetest.NewMemory()
	dynamicDisk().write(t, mem, "/disk.vhd")
	whole := readFile(t, mem, "/disk.vhd")
	for _, size := range []int{512, 1024, 1536, 1600, 2048, 4096, len(whole) / 2, len(whole) - 513} {
		name := fmt.Sprintf("/%d.vhd", size)
		writeFile(t, mem, name, string(whole[:size]))
		if report := run(t, name, everything(mem)); !report.Damaged() {
			t.Errorf("the first %d bytes of %d are fine:\n%s", size, len(whole), lines(report.Findings))
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	mem := storagetest.NewMemory()
	dynamicDisk().write(t, mem, "/dir/disk.vhd")
	cases := map[string]error{"/nope.vhd": fs.ErrNotExist, "/dir": storage.ErrNotRegular}
	for name, wanted := range cases {
		if report, err := Run(name, Options{FS: mem}); !errors.Is(err, wanted) || report != nil {
			t.Errorf("Run(%q) = %v, %v; want %v", name, report, err, wanted)
		}
	}
}

func TestImageInUse(t *testing.T) {
	mem, o := family(t)
	for _, name := range []string{"/vm/child.vhd", "/vm/base.vhd"} {
		writer, err := mem.Open(name, storage.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Lock(storage.Exclusive); err != nil {
			t.Fatal(err)
		}
		o.Lock = true
		if _, err := Run("/vm/child.vhd", o); !errors.Is(err, storage.ErrInUse) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is locked, but Run says %v", name, err)
		}
		o.Lock = false
		expect(t, run(t, "/vm/child.vhd", o).Findings)
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadersShare: a check must not keep another reader out, nor keep the
// lock.
func TestReadersShare(t *testing.T) {
	mem, o := family(t)
	reader, err := mem.Open("/vm/child.vhd", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Lock(storage.Shared); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, "/vm/child.vhd", o).Findings)
	if err := reader.Lock(storage.Exclusive); err != nil {
		t.Errorf("after the check: %v", err)
	}
}

// TestSmallFileTakesLittleMemory: what an image claims must not be believed
// before it was held against the file.
func TestSmallFileTakesLittleMemory(t *testing.T) {
	r := childDisk(t, format.NewFooter(testSize, format.Dynamic, testNow), "base.vhd", testNow)
	r.footer = format.NewFooter(2040<<30, format.Differencing, testNow)
	r.header.BlockSize = 512
	r.header.MaxTableEntries = 0xFFFFFFFF
	for i := range r.header.Locators {
		r.header.Locators[i] = format.Locator{Code: format.CodeW2ru, DataSpace: 0xFFFFFE00, DataLength: 0xFFFFFFFF, DataOffset: 512}
	}
	r.bat = nil
	r.length = 1536
	mem := storagetest.NewMemory()
	r.write(t, mem, "/disk.vhd")
	took := allocated(func() {
		if report := run(t, "/disk.vhd", everything(mem)); !report.Damaged() {
			t.Errorf("no damage:\n%s", lines(report.Findings))
		}
	})
	if took > 1<<20 {
		t.Errorf("%d bytes of memory for a file of 2 KiB", took)
	}
}

// allocated is how much memory f takes, all told, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestLargestDisk checks a dynamic disk of 2040 GiB with all of its million
// blocks in the file, in no order, and then the same with two of them in one
// place. A comparison of each with each would take hours.
func TestLargestDisk(t *testing.T) {
	const size, run2M = 2040 << 30, 4097
	const blocks = size / (2 << 20)
	mem := storagetest.NewMemory()
	r := &recipe{footer: format.NewFooter(size, format.Dynamic, testNow), header: format.NewHeader(size, 0)}
	r.footer.Geometry = format.GeometryFor(size)
	r.header.MaxTableEntries = blocks
	r.bat = make([]uint32, blocks)
	first := uint32(1536+format.BATSize(blocks)) / 512
	for i := range r.bat {
		r.bat[i] = first + uint32((i*7919)%blocks)*run2M
	}
	r.length = (int64(first) + blocks*run2M) * 512
	r.bitmap = func(int) format.Bitmap { return nil } // a hole: nothing is read of it
	r.write(t, mem, "/good.vhd")
	r.bat[12345] = r.bat[54321]
	r.write(t, mem, "/bad.vhd")

	o := everything(mem)
	o.Bitmaps = false
	begun := time.Now()
	took := allocated(func() {
		report := run(t, "/good.vhd", o)
		expect(t, report.Findings)
		if report.Allocated != blocks || report.LeakedBytes != 0 {
			t.Errorf("%d of %d blocks allocated, %d bytes leaked", report.Allocated, blocks, report.LeakedBytes)
		}
		expect(t, run(t, "/bad.vhd", o).Findings,
			want{Damage, "block 54321", "overlap block 12345"}, want{Note, "file", "2097664 bytes belong to no block"})
	})
	if took > 64<<20 {
		t.Errorf("two checks took %d MiB of memory", took>>20)
	}
	if elapsed := time.Since(begun); elapsed > time.Minute {
		t.Errorf("two checks took %v", elapsed)
	}
}

// TestManyFindingsTakeLittleMemory: those past the cap are counted, and no
// more than counted.
func TestManyFindingsTakeLittleMemory(t *testing.T) {
	const entries = 1 << 20
	places := map[string]func(first uint32) uint32{
		"all in one place":  func(first uint32) uint32 { return first },
		"all past the end":  func(uint32) uint32 { return 0xFFFFFFFE },
		"all in the footer": func(first uint32) uint32 { return first + 1 },
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			r := dynamicDisk()
			r.footer = format.NewFooter(entries*512, format.Dynamic, testNow)
			r.header = format.NewHeader(entries*512, 512)
			first := uint32(1536+format.BATSize(entries)) / 512
			r.bat = make([]uint32, entries)
			for i := range r.bat {
				r.bat[i] = place(first)
			}
			r.bitmap = func(int) format.Bitmap { return nil }
			r.length = int64(first+2) * 512
			mem := storagetest.NewMemory()
			r.write(t, mem, "/disk.vhd")
			took := allocated(func() {
				if n := len(run(t, "/disk.vhd", everything(mem)).Findings); n != MaxFindings+1 {
					t.Errorf("%d findings, want %d", n, MaxFindings+1)
				}
			})
			if took > 20<<20 {
				t.Errorf("%d MiB of memory", took>>20)
			}
		})
	}
}

// TestLongestBAT: what a sparse file can claim of a BAT at no cost must cost
// its check little: each pass over 4 Gi entries would take many seconds. Those
// that are looked at lie all over 2 TiB, so that they take several windows.
func TestLongestBAT(t *testing.T) {
	const entries = 0xFFFFFFF0
	r := dynamicDisk()
	r.header.BlockSize, r.header.MaxTableEntries = 512, entries
	r.bat = make([]uint32, maxEntries)
	for i := range r.bat {
		r.bat[i] = uint32(i) * 509
	}
	r.bitmap = func(int) format.Bitmap { return nil }
	r.length = 2040 << 30
	mem := storagetest.NewMemory()
	r.write(t, mem, "/disk.vhd")

	begun := time.Now()
	var report *Report
	took := allocated(func() { report = run(t, "/disk.vhd", everything(mem)) })
	if elapsed := time.Since(begun); elapsed > 20*time.Second {
		t.Errorf("it took %v", elapsed)
	}
	if took > 128<<20 {
		t.Errorf("it took %d MiB of memory", took>>20)
	}
	first := want{Damage, "BAT", "4294967280 entries are more than the 8388608 that are supported"}
	if !first.matches(report.Findings[0]) {
		t.Errorf("findings begin with %v, want %v", report.Findings[0], first)
	}
}

// TestEntriesThatAreSupported: this package and vhd agree on how many.
func TestEntriesThatAreSupported(t *testing.T) {
	for entries, test := range map[uint32]struct {
		opens    error
		findings []want
	}{
		maxEntries:     {nil, nil},
		maxEntries + 1: {vhd.ErrTooLarge, []want{{Damage, "BAT", "8388609 entries are more than the 8388608 that are supported"}}},
	} {
		r := dynamicDisk()
		r.header.MaxTableEntries = entries
		r.bat = emptyBAT(int(entries))
		r.bat[0] = uint32(1536+format.BATSize(int64(entries))) / 512
		if entries > maxEntries {
			r.bat[entries-1] = 0xFFFFFF // past the end: a finding if it were looked at
		}
		r.length = (int64(r.bat[0]) + testRun) * 512
		mem := storagetest.NewMemory()
		r.write(t, mem, "/disk.vhd")
		expect(t, run(t, "/disk.vhd", everything(mem)).Findings, test.findings...)
		opens(t, mem, "/disk.vhd", test.opens)
	}
}

func writeFile(t testing.TB, fs storage.FS, name, content string) {
	t.Helper()
	f, err := fs.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, fs storage.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, size)
	if _, err := f.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	return buf
}
