package vhd_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// extentsOf are the extents of [off, off+n), which must follow one another
// without a gap.
func extentsOf(t *testing.T, img *vhd.Image, off, n int64) []blockdev.Extent {
	t.Helper()
	var list []blockdev.Extent
	at := off
	for e, err := range img.Extents(off, n) {
		must(t, err)
		if e.Offset != at || e.Length <= 0 || e.End() > off+n {
			t.Fatalf("extent %+v doesn't follow at %d of [%d, %d)", e, at, off, off+n)
		}
		at = e.End()
		list = append(list, e)
	}
	if at != off+n {
		t.Fatalf("the extents end at %d of %d", at, off+n)
	}
	return list
}

// short is an extent in a few words: "data 1 4096+512".
func short(e blockdev.Extent) string {
	return fmt.Sprintf("%v %d %d+%d", e.Kind, e.Depth, e.Offset, e.Length)
}

func shorts(list []blockdev.Extent) string {
	s := ""
	for _, e := range list {
		s += short(e) + "; "
	}
	return s
}

func TestExtentsTellTheLayerOfEachByte(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/base.vhd", format.Dynamic, 8*4096, 4096)
	put := func(name string, off, n int64, fill byte) {
		img := open(t, fsys, name)
		defer img.Close()
		must(t, write(img, string(bytes.Repeat([]byte{fill}, int(n))), off))
		must(t, img.Close())
	}
	put("/base.vhd", 4096, 2*4096, 'b')
	must(t, vhd.Snapshot("/base.vhd", "/mid.vhd", vhd.SnapshotOptions{FS: fsys}))
	put("/mid.vhd", 2*4096+512, 1024, 'm')
	must(t, vhd.Snapshot("/mid.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: fsys}))
	put("/disk.vhd", 6*4096, 4096, 'd')
	img := open(t, fsys, "/disk.vhd")
	defer img.Close()
	got := shorts(extentsOf(t, img, 0, img.Size()))
	// Blocks that are neighbours on the disk lie apart in the file.
	want := "hole -1 0+4096; data 2 4096+4096; data 2 8192+512; data 1 8704+1024; data 2 9728+2560; hole -1 12288+12288; data 0 24576+4096; hole -1 28672+4096; "
	if got != want {
		t.Errorf("extents\n%s\nwant\n%s", got, want)
	}
	// Clipped to any range, also within a sector.
	if got := shorts(extentsOf(t, img, 8700, 1100)); got != "data 2 8700+4; data 1 8704+1024; data 2 9728+72; " {
		t.Errorf("of a part: %s", got)
	}
	if got := extentsOf(t, img, 100, 0); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// The bytes are where the extents say.
func TestExtentsPointAtTheBytes(t *testing.T) {
	for _, k := range images() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			fsys := storagetest.NewMemory()
			k.make(t, fsys, 1<<20)
			img := open(t, fsys, "/disk.vhd")
			defer img.Close()
			model := k.shows(1 << 20)
			churn(t, img, model, 3)
			files := map[string][]byte{}
			for _, l := range img.Layers() {
				files[l.Name] = contentOf(t, fsys, l.Name)
			}
			for _, e := range extentsOf(t, img, 0, img.Size()) {
				want := model[e.Offset:e.End()]
				switch {
				case e.Kind != blockdev.Data && !bytes.Equal(want, zeros(e.Length)):
					t.Errorf("%s is not zeros", short(e))
				case e.Kind == blockdev.Hole && (e.Depth != -1 || e.File != ""):
					t.Errorf("%+v", e)
				case e.Kind != blockdev.Hole:
					if e.File != img.Layers()[e.Depth].Name {
						t.Errorf("%s is in %s", short(e), e.File)
					}
					if got := files[e.File][e.FileOffset:][:e.Length]; !bytes.Equal(got, want) {
						t.Errorf("%s: other bytes in %s at %d", short(e), e.File, e.FileOffset)
					}
				}
			}
		})
	}
}

// A block of which little was written is mostly a hole in its file, and so
// known to be zero.
func TestExtentsFindTheHolesOfTheFile(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/disk.vhd", format.Dynamic, 4<<20, 2<<20)
	img := open(t, fsys, "/disk.vhd")
	defer img.Close()
	must(t, write(img, string(noise(4096)), 1<<20))
	got := shorts(extentsOf(t, img, 0, 4<<20))
	want := "zero 0 0+1048576; data 0 1048576+4096; zero 0 1052672+1044480; hole -1 2097152+2097152; "
	if got != want {
		t.Errorf("extents\n%s\nwant\n%s", got, want)
	}
}

// A file that doesn't know its holes is all data.
func TestExtentsOfAFileThatDoesNotKnowItsHoles(t *testing.T) {
	fsys := storagetest.NewMemory()
	create(t, fsys, "/disk.vhd", format.Fixed, 1<<20, 0)
	img, err := vhd.Open("/disk.vhd", vhd.Options{FS: plain{fsys}})
	must(t, err)
	defer img.Close()
	if got := shorts(extentsOf(t, img, 0, 1<<20)); got != "data 0 0+1048576; " {
		t.Errorf("extents %s", got)
	}
	if _, err := img.ReadAtNowait(make([]byte, 512), 0); !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("nowait: %v", err)
	}
}

// plain is a file system whose files are no more than storage.File.
type plain struct{ storage.FS }

func (p plain) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := p.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return struct{ storage.File }{f}, nil
}

func (p plain) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := p.FS.OpenBeneath(dir, name, flag)
	if err != nil {
		return nil, err
	}
	return struct{ storage.File }{f}, nil
}

func TestExtentsEndWhereTheConsumerHasEnough(t *testing.T) {
	_, img := filled(t, 4)
	defer img.Close()
	n := 0
	for range img.Extents(0, img.Size()) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d extents", n)
	}
	// The image is not held meanwhile: it can be written to and closed.
	for range img.Extents(0, img.Size()) {
		must(t, write(img, "in between", 9*4096))
		must(t, img.Flush())
		must(t, img.Close())
		break
	}
}

func TestExtentsOfABadRangeOrDevice(t *testing.T) {
	r := small(t, true)
	img := open(t, r, "/disk.vhd")
	lastError := func(off, n int64) error {
		var last error
		for _, err := range img.Extents(off, n) {
			last = err
		}
		return last
	}
	for _, d := range [][2]int64{{-1, 1}, {0, img.Size() + 1}, {img.Size(), 1}} {
		if err := lastError(d[0], d[1]); !errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("%v: %v", d, err)
		}
	}
	must(t, write(img, "x", 0))
	must(t, img.Close())
	img = open(t, r, "/disk.vhd")
	failNth(r, 1, unix.EIO, opIs("read"))
	if err := lastError(0, img.Size()); !errors.Is(err, unix.EIO) {
		t.Errorf("a bitmap that can't be read: %v", err)
	}
	r.before = nil
	if err := lastError(0, img.Size()); err != nil {
		t.Errorf("the next time: %v", err)
	}
	must(t, img.Close())
	if err := lastError(0, 1); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAllocatedCountsWhatAnyLayerHolds(t *testing.T) {
	r := small(t, true) // over a base that is full
	img := open(t, r, "/disk.vhd")
	if got := img.Allocated(); got != 64<<10 {
		t.Errorf("over a full parent: %d", got)
	}
	must(t, write(img, "x", 0))
	if got := img.Allocated(); got != 64<<10 {
		t.Errorf("a block that the parent has too counts twice: %d", got)
	}
	must(t, img.Close())

	fsys := storagetest.NewMemory()
	l := sample()
	l.write(t, fsys, "/disk.vhd")
	img = open(t, fsys, "/disk.vhd")
	defer img.Close()
	if got := img.Allocated(); got != 3*4096 {
		t.Errorf("three blocks: %d", got)
	}
	must(t, write(img, "x", 5*4096)) // the last block, of which the disk has a sector
	if got := img.Allocated(); got != 4*4096 && got != 3*4096+512 {
		t.Errorf("with the last block: %d", got)
	}
	for b := range int64(6) {
		must(t, write(img, "x", b*4096))
	}
	if got := img.Allocated(); got != img.Size() {
		t.Errorf("all blocks: %d of %d", got, img.Size())
	}
}

// AllocatedIn counts what Extents shows, in whole blocks, clipped to the range.
func TestAllocatedInAgreesWithExtents(t *testing.T) {
	fsys := storagetest.NewMemory()
	chainOf(2, 4096)(t, fsys, 64<<10)
	create(t, fsys, "/lone.vhd", format.Dynamic, 64<<10, 4096)
	for _, name := range []string{"/disk.vhd", "/lone.vhd"} {
		img := open(t, fsys, name)
		must(t, write(img, "here", 5*4096))
		must(t, write(img, "there", 9*4096))
		for _, r := range [][2]int64{{0, 64 << 10}, {0, 0}, {5 * 4096, 4096}, {5*4096 + 512, 1024}, {6 * 4096, 3 * 4096}, {4 * 4096, 6 * 4096}} {
			var want int64
			for b := r[0] / 4096; b*4096 < r[0]+r[1]; b++ {
				held := false
				for e, err := range img.Extents(b*4096, 4096) {
					must(t, err)
					held = held || e.Kind != blockdev.Hole
				}
				if held {
					want += min(r[0]+r[1], (b+1)*4096) - max(r[0], b*4096)
				}
			}
			if got := img.AllocatedIn(r[0], r[1]); got != want {
				t.Errorf("%s: %d bytes of %d at %d, want %d", name, got, r[1], r[0], want)
			}
		}
		must(t, img.Close())
	}
}
