package vhd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// wantError is what the error of a refused image must be.
type wantError struct {
	is   error
	says []string // beside the image's name
}

func (w wantError) check(t *testing.T, err error, name string) {
	t.Helper()
	if err == nil {
		t.Fatal("opened: want an error")
	}
	if !errors.Is(err, w.is) {
		t.Errorf("error %q is not %q", err, w.is)
	}
	var image *vhd.ImageError
	if !errors.As(err, &image) {
		t.Errorf("error %q is no ImageError", err)
	}
	for _, s := range append(w.says, name) {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q doesn't say %q", err, s)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is more than a line", err)
	}
}

// damages are ways to spoil the sample, and what Open for writing says.
var damages = []struct {
	name  string
	spoil func(l *layout)
	want  wantError
	// readable: a read-only Open succeeds all the same.
	readable bool
}{
	{"BAT entry past the end", func(l *layout) { l.bat[2] = 9999 },
		wantError{vhd.ErrCorrupt, []string{"block 2", "past the end of the file", "9999 of 34"}}, true},
	{"BAT entry whose block passes the end", func(l *layout) { l.bat[2] = 26 },
		wantError{vhd.ErrCorrupt, []string{"block 2", "past the end of the file"}}, true},
	{"BAT entry of the largest number", func(l *layout) { l.bat[2] = math.MaxUint32 - 1 },
		wantError{vhd.ErrCorrupt, []string{"block 2", "4294967294"}}, true},
	{"BAT entry into the footer's copy", func(l *layout) { l.bat[0] = 0 },
		wantError{vhd.ErrCorrupt, []string{"block 0", "the footer's copy"}}, true},
	{"BAT entry into the header", func(l *layout) { l.bat[2] = 2 },
		wantError{vhd.ErrCorrupt, []string{"block 2", "overlap"}}, true},
	{"only BAT entry into the header", func(l *layout) { l.bat[0], l.bat[3], l.bat[2] = format.UnallocatedBlock, format.UnallocatedBlock, 2 },
		wantError{vhd.ErrCorrupt, []string{"block 2", "the dynamic header", "sector 2"}}, true},
	{"BAT entry into the BAT", func(l *layout) { l.bat[0], l.bat[2] = 3, format.UnallocatedBlock },
		wantError{vhd.ErrCorrupt, []string{"block 0", "the BAT", "sector 3"}}, true},
	{"two blocks in one place", func(l *layout) { l.bat[3] = l.bat[2] },
		wantError{vhd.ErrCorrupt, []string{"block 3", "overlaps block 2"}}, true},
	{"two blocks that overlap", func(l *layout) { l.bat[0] = l.bat[2] - 1 },
		wantError{vhd.ErrCorrupt, []string{"block 2", "overlaps block 0"}}, true},
	{"a block beyond the disk that overlaps", func(l *layout) {
		l.bat = append(l.bat, l.bat[2]+1)
		l.header.MaxTableEntries++
	}, wantError{vhd.ErrCorrupt, []string{"block 6", "overlaps block 2"}}, true},
	{"BAT past the end", func(l *layout) { l.header.MaxTableEntries = math.MaxUint32 },
		wantError{vhd.ErrCorrupt, []string{"BAT", "4294967295 entries"}}, false},
	{"BAT far away", func(l *layout) { l.header.TableOffset = 1 << 40 },
		wantError{vhd.ErrCorrupt, []string{"BAT", "1099511627776"}}, false},
	{"BAT beyond all offsets", func(l *layout) { l.header.TableOffset = 1<<64 - 512 },
		wantError{vhd.ErrCorrupt, []string{"table offset"}}, false},
	{"BAT not on a sector", func(l *layout) { l.header.TableOffset = 1537 },
		wantError{vhd.ErrCorrupt, []string{"table offset", "1537"}}, false},
	{"BAT too short for the disk", func(l *layout) { l.header.MaxTableEntries = 5 },
		wantError{vhd.ErrCorrupt, []string{"BAT", "5 entries", "6 blocks"}}, false},
	{"BAT without entries", func(l *layout) { l.header.MaxTableEntries = 0 },
		wantError{vhd.ErrCorrupt, []string{"dynamic header", "max table entries"}}, false},
	{"BAT over the header", func(l *layout) { l.header.TableOffset = 1024 },
		wantError{vhd.ErrCorrupt, []string{"the BAT", "overlaps the dynamic header"}}, true},
	{"block size no power of two", func(l *layout) { l.header.BlockSize = 3 << 20 },
		wantError{format.ErrField, []string{"dynamic header", "block size", "3145728"}}, false},
	{"block size zero", func(l *layout) { l.header.BlockSize = 0 },
		wantError{format.ErrField, []string{"block size"}}, false},
	{"block size below a sector", func(l *layout) { l.header.BlockSize = 256 },
		wantError{format.ErrField, []string{"block size", "256"}}, false},
	{"block size above 256 MiB", func(l *layout) { l.header.BlockSize = 512 << 20 },
		wantError{format.ErrField, []string{"block size", "536870912"}}, false},
	{"header version", func(l *layout) { l.header.Version = 0x20000 },
		wantError{format.ErrVersion, []string{"dynamic header"}}, false},
	{"footer version", func(l *layout) { l.footer.Version = 0x20000 },
		wantError{format.ErrVersion, []string{"footer"}}, false},
	{"footer type", func(l *layout) { l.footer.Type = 5 },
		wantError{format.ErrField, []string{"footer", "disk type"}}, false},
	{"disk of no sector", func(l *layout) { l.footer.CurrentSize = 511 },
		wantError{format.ErrBounds, []string{"footer", "511"}}, false},
	{"disk above 2 TiB", func(l *layout) { l.footer.CurrentSize = 2<<40 + 512 },
		wantError{format.ErrBounds, []string{"footer", "2199023256064"}}, false},
	{"disk of 16 EiB", func(l *layout) { l.footer.CurrentSize = math.MaxUint64 },
		wantError{format.ErrBounds, []string{"footer"}}, false},
	{"locator past the end", func(l *layout) {
		l.header.Locators[3] = format.Locator{Code: format.CodeW2ru, DataSpace: 512, DataLength: 10, DataOffset: 1 << 30}
	}, wantError{vhd.ErrCorrupt, []string{"locator 3", "1073741824"}}, true},
	{"locator whose end overflows", func(l *layout) {
		l.header.Locators[3] = format.Locator{Code: format.CodeW2ru, DataSpace: 512, DataLength: 10, DataOffset: 1<<64 - 1}
	}, wantError{vhd.ErrCorrupt, []string{"locator 3", "18446744073709551615"}}, true},
	{"locator of no unit", func(l *layout) {
		l.header.Locators[0] = format.Locator{Code: format.CodeW2ru, DataSpace: 1000, DataLength: 10, DataOffset: 2048}
	}, wantError{vhd.ErrCorrupt, []string{"locator 0", "1000"}}, true},
	{"locator over the BAT", func(l *layout) {
		l.header.Locators[7] = format.Locator{Code: format.CodeW2ru, DataSpace: 512, DataLength: 10, DataOffset: 1536}
	}, wantError{vhd.ErrCorrupt, []string{"locator 7", "the BAT", "overlaps"}}, true},
	{"block in a locator", func(l *layout) {
		l.header.Locators[1] = format.Locator{Code: format.CodeW2ru, DataSpace: 512, DataLength: 10, DataOffset: 8 * 512}
	}, wantError{vhd.ErrCorrupt, []string{"block 0", "locator 1"}}, true},
	{"poisoned", func(l *layout) { l.footer.Poisoned = true },
		wantError{vhd.ErrPoisoned, []string{"footer", "v_poison", "read-only"}}, true},
	{"copy of another image", func(l *layout) {
		other := *l.footer
		other.ID = format.UUID{1}
		l.copy = &other
	}, wantError{vhd.ErrCorrupt, []string{"footer", "different images", "read-only"}}, true},
	{"copy of another type", func(l *layout) {
		other := *l.footer
		other.Type = format.Differencing
		l.copy = &other
	}, wantError{vhd.ErrCorrupt, []string{"footer", "different images", "read-only"}}, true},
	{"bitmaps of tapdisk 0.1", func(l *layout) { l.footer.Creator, l.footer.CreatorVersion = format.CreatorTap, 1 },
		wantError{vhd.ErrCorrupt, []string{"little-endian", "read-only"}}, true},
}

func TestOpenRefusesDamageAndChangesNothing(t *testing.T) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			l := sample()
			d.spoil(l)
			l.write(t, fsys, "/disk.vhd")
			before := contentOf(t, fsys, "/disk.vhd")

			_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
			d.want.check(t, err, "/disk.vhd")

			img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			if d.readable != (err == nil) {
				t.Errorf("read-only: %v, want it readable: %v", err, d.readable)
			}
			if err == nil {
				must(t, img.Close())
			}
			if !bytes.Equal(contentOf(t, fsys, "/disk.vhd"), before) {
				t.Error("the file was changed")
			}
		})
	}
}

// Damage that is done to the bytes of a good image.
func TestOpenRefusesBrokenRecords(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(b []byte) []byte
		want  wantError
	}{
		{"header's cookie", func(b []byte) []byte { b[512] = 'x'; return b },
			wantError{format.ErrCookie, []string{"dynamic header"}}},
		{"header's checksum", func(b []byte) []byte { b[512+40] ^= 1; return b },
			wantError{format.ErrChecksum, []string{"dynamic header", "stored 0x", "computed 0x"}}},
		{"checksums of both footers", func(b []byte) []byte { b[30] ^= 1; b[len(b)-30] ^= 1; return b },
			wantError{format.ErrChecksum, []string{"footer", "stored 0x", "computed 0x"}}},
		{"cut within the blocks", func(b []byte) []byte { return b[:20*512] },
			wantError{vhd.ErrCorrupt, []string{"block 2", "past the end of the file", "16 of 20"}}},
		{"cut within the BAT", func(b []byte) []byte { return b[:1536] },
			wantError{vhd.ErrCorrupt, []string{"BAT", "1536"}}},
		{"cut within the header", func(b []byte) []byte { return b[:1024] },
			wantError{vhd.ErrCorrupt, []string{"dynamic header", "truncated", "1024"}}},
		{"cut to the footer", func(b []byte) []byte { return b[:512] },
			wantError{vhd.ErrCorrupt, []string{"dynamic header", "truncated", "512"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			writeFile(t, fsys, "/disk.vhd", test.spoil(sample().encode()))
			before := contentOf(t, fsys, "/disk.vhd")
			_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
			test.want.check(t, err, "/disk.vhd")
			if !bytes.Equal(contentOf(t, fsys, "/disk.vhd"), before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenSaysThatAFileIsNoVHD(t *testing.T) {
	pad := func(s string) []byte { return append([]byte(s), make([]byte, 4096)...) }
	tests := []struct {
		name  string
		bytes []byte
		says  []string
	}{
		{"nothing", nil, []string{"conectix", "0 bytes"}},
		{"a few bytes", []byte("hello"), []string{"5 bytes"}},
		{"text", bytes.Repeat([]byte("all work and no play\n"), 100), []string{"2100 bytes"}},
		{"text of 511 bytes", bytes.Repeat([]byte("x"), 511), []string{"511 bytes"}},
		{"text of 512 bytes", bytes.Repeat([]byte("x"), 512), []string{"512 bytes"}},
		{"zeros", make([]byte, 1<<20), []string{"1048576 bytes"}},
		{"VHDX", pad("vhdxfile"), []string{"4104 bytes"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			writeFile(t, fsys, "/disk.vhd", test.bytes)
			for _, readOnly := range []bool{false, true} {
				_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: readOnly})
				wantError{vhd.ErrNotVHD, append(test.says, "not a VHD image")}.check(t, err, "/disk.vhd")
			}
		})
	}
}

func TestOpenRefusesBadFixedDisks(t *testing.T) {
	footer := func(size int64) []byte {
		b := make([]byte, format.FooterSize)
		f := format.NewFooter(size, format.Fixed, sample().footer.Timestamp.Time())
		f.Encode(b)
		return b
	}
	broken := footer(512)
	broken[100] ^= 1
	tests := []struct {
		name string
		file []byte
		want wantError
	}{
		{"one sector short", append(make([]byte, 7*512), footer(8*512)...), wantError{vhd.ErrCorrupt, []string{"footer", "truncated", "4096", "3584"}}},
		{"nothing but the footer", footer(8 * 512), wantError{vhd.ErrCorrupt, []string{"truncated", "4096"}}},
		{"bad checksum", append(make([]byte, 512), broken...), wantError{format.ErrChecksum, []string{"footer", "stored 0x"}}},
		{"footer at the start alone", append(footer(512), make([]byte, 512)...), wantError{vhd.ErrNotVHD, nil}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys := storagetest.NewMemory()
			writeFile(t, fsys, "/disk.vhd", test.file)
			for _, readOnly := range []bool{false, true} {
				_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: readOnly})
				test.want.check(t, err, "/disk.vhd")
			}
		})
	}
}

func TestReadOnlyReadsAroundABadBATEntry(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := sample()
	l.bat[2] = 9999
	l.write(t, fsys, "/disk.vhd")
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	must(t, err)
	defer img.Close()
	want := sampleContent()
	for b := range 5 {
		got := make([]byte, 4096)
		_, err := img.ReadAt(got, int64(b)*4096)
		if b == 2 {
			wantError{vhd.ErrCorrupt, []string{"block 2", "9999"}}.check(t, err, "/disk.vhd")
		} else if err != nil || !bytes.Equal(got, want[b*4096:][:4096]) {
			t.Errorf("block %d: %v, or the wrong bytes", b, err)
		}
	}
	for _, err := range img.Extents(0, img.Size()) {
		if err != nil {
			wantError{vhd.ErrCorrupt, []string{"block 2", "9999"}}.check(t, err, "/disk.vhd")
			return
		}
	}
	t.Error("the extents pass over the bad block")
}

// A header may claim more than there is: no memory is taken on its word.
func TestOpenTakesNoMemoryOnTheWordOfAHeader(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := newLayout(format.Dynamic, 1<<20, 512)
	l.footer.CurrentSize = 2 << 40
	l.bat = nil
	l.header.MaxTableEntries = math.MaxUint32
	b := l.encode()
	if len(b) > 3<<10 {
		t.Fatalf("the file has %d bytes", len(b))
	}
	writeFile(t, fsys, "/disk.vhd", b)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	runtime.ReadMemStats(&after)
	wantError{vhd.ErrCorrupt, []string{"BAT", "4294967295"}}.check(t, err, "/disk.vhd")
	if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
		t.Errorf("%d bytes were allocated for a file of %d", n, len(b))
	}
}

// The same in a sparse file that is as large as it claims.
func TestOpenBoundsTheBATOfASparseFile(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := newLayout(format.Dynamic, 1<<20, 512)
	l.header.MaxTableEntries = math.MaxUint32
	l.noEnd = true
	writeFile(t, fsys, "/disk.vhd", l.encode())
	f, err := fsys.Open("/disk.vhd", storage.ReadWrite)
	must(t, err)
	must(t, f.Truncate(20<<30))
	must(t, f.Close())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
	runtime.ReadMemStats(&after)
	wantError{vhd.ErrTooLarge, []string{"BAT", "4294967295"}}.check(t, err, "/disk.vhd")
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestOpenOfWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	tests := []struct {
		name string
		want error
	}{
		{dir, storage.ErrNotRegular},
		{fifo, storage.ErrNotRegular},
		{"/dev/null", storage.ErrNotRegular},
		{filepath.Join(dir, "absent.vhd"), fs.ErrNotExist},
		{filepath.Join(fifo, "x.vhd"), unix.ENOTDIR},
	}
	for _, test := range tests {
		for _, readOnly := range []bool{false, true} {
			_, err := vhd.Open(test.name, vhd.Options{ReadOnly: readOnly})
			wantError{test.want, nil}.check(t, err, test.name)
		}
	}
}

func TestOpenHonoursLocks(t *testing.T) {
	systems := map[string]func(t *testing.T) (storage.FS, string){
		"memory": func(*testing.T) (storage.FS, string) { return storagetest.NewMemory(), "/disk.vhd" },
		"os":     func(t *testing.T) (storage.FS, string) { return storage.OS, filepath.Join(t.TempDir(), "disk.vhd") },
	}
	for name, system := range systems {
		t.Run(name, func(t *testing.T) {
			fsys, path := system(t)
			sample().write(t, fsys, path)
			writer := open(t, fsys, path)
			for _, readOnly := range []bool{false, true} {
				_, err := vhd.Open(path, vhd.Options{FS: fsys, ReadOnly: readOnly})
				wantError{storage.ErrInUse, []string{"in use"}}.check(t, err, path)
			}
			beside, err := vhd.Open(path, vhd.Options{FS: fsys, ReadOnly: true, NoLock: true})
			must(t, err)
			must(t, beside.Close())
			must(t, writer.Close())

			a, err := vhd.Open(path, vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			b, err := vhd.Open(path, vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			_, err = vhd.Open(path, vhd.Options{FS: fsys})
			wantError{storage.ErrInUse, []string{"in use"}}.check(t, err, path)
			must(t, a.Close())
			must(t, b.Close())
			must(t, open(t, fsys, path).Close())
		})
	}
}

func TestOpenNamesTheProcessThatHoldsAnImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.vhd")
	sample().write(t, storage.OS, path)
	img := open(t, storage.OS, path)
	defer img.Close()
	_, err := vhd.Open(path, vhd.Options{})
	wantError{storage.ErrInUse, []string{fmt.Sprintf("pid %d", os.Getpid())}}.check(t, err, path)
}

func TestNoLockIsForReadersAlone(t *testing.T) {
	fsys := storagetest.NewMemory()
	sample().write(t, fsys, "/disk.vhd")
	if _, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, NoLock: true}); err == nil {
		t.Error("opened for writing without a lock")
	}
}

func TestReadOnlyRefusesEveryChange(t *testing.T) {
	for _, kind := range []format.DiskType{format.Fixed, format.Dynamic} {
		t.Run(kind.String(), func(t *testing.T) {
			fsys := storagetest.NewMemory()
			create(t, fsys, "/disk.vhd", kind, 1<<20, 0)
			before := contentOf(t, fsys, "/disk.vhd")
			img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys, ReadOnly: true})
			must(t, err)
			if !img.ReadOnly() || img.Err() != nil {
				t.Errorf("ReadOnly %v, Err %v", img.ReadOnly(), img.Err())
			}
			_, werr := img.WriteAt(make([]byte, 512), 0)
			for op, err := range map[string]error{"write": werr, "discard": img.Discard(0, 512), "zeroes": img.WriteZeroes(0, 512)} {
				if !errors.Is(err, blockdev.ErrReadOnly) {
					t.Errorf("%s: %v, want ErrReadOnly", op, err)
				}
			}
			must(t, img.Flush())
			must(t, img.Close())
			if !bytes.Equal(contentOf(t, fsys, "/disk.vhd"), before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenLeavesNoFileOpenWhenItFails(t *testing.T) {
	for n := 1; n < 60; n++ {
		r := &recorder{FS: storagetest.NewMemory()}
		chainOf(2, 4096)(t, r, 64<<10)
		r.take()
		failed := failNth(r, n, unix.EIO, everyCall)
		img, err := vhd.Open("/disk.vhd", vhd.Options{FS: r})
		reached := failed()
		r.before = nil
		if !reached {
			must(t, err)
			must(t, img.Close())
			if n < 8 {
				t.Fatalf("Open made %d calls only", n)
			}
			return
		}
		if err == nil { // a call that Open can do without
			must(t, img.Close())
		} else if !errors.Is(err, unix.EIO) && !errors.Is(err, vhd.ErrParentMissing) {
			t.Errorf("call %d: error %q hides its cause", n, err)
		}
		calls := r.take()
		if opened, closed := count(calls, "open"), count(calls, "close"); opened != closed {
			t.Errorf("call %d fails (%v): %d files opened, %d closed", n, err, opened, closed)
		}
		// No lock is left behind either.
		must(t, open(t, r.FS, "/disk.vhd").Close())
	}
	t.Error("there was no end to the calls")
}
