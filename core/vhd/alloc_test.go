package vhd_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestGrowthSyncsOnceAChunk(t *testing.T) {
	const blocks = 300
	r := &recorder{FS: storagetest.NewMemory()}
	create(t, r, "/disk.vhd", format.Dynamic, blocks*4096, 4096)
	img := open(t, r, "/disk.vhd")
	r.take()
	for b := range int64(blocks) {
		must(t, write(img, "data", b*4096))
	}
	calls := r.changes()
	if n := count(calls, "sync"); n < 2 || n > blocks/50 {
		t.Errorf("%d new blocks made %d syncs", blocks, n)
	}
	for i, c := range calls {
		// Extended, the footer at the new end, the old one zeroed, all stable.
		if c.op != "truncate" {
			continue
		}
		if got := story(calls[i : i+4]); got != "truncate write write sync" {
			t.Fatalf("growth: %s", got)
		}
		footer, zero := calls[i+1], calls[i+2]
		if footer.off != c.off-512 || footer.n != 512 || zero.n != 512 || zero.off >= footer.off {
			t.Errorf("growth to %d: footer at %d, old one at %d", c.off, footer.off, zero.off)
		}
	}
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
}

// Where there is no room for a whole chunk the file grows by a block.
func TestGrowthFallsBackToOneBlock(t *testing.T) {
	r := small(t, false)
	img := open(t, r, "/disk.vhd")
	var room int64 = 20 << 10
	r.before = func(c call) error {
		if c.op == "truncate" && c.off > room {
			return asStorage(unix.ENOSPC)
		}
		return nil
	}
	var written []int64
	for b := range int64(16) {
		err := write(img, "data", b*4096)
		if err == nil {
			written = append(written, b)
		} else if !errors.Is(err, blockdev.ErrNoSpace) {
			t.Fatalf("block %d: %v", b, err)
		}
	}
	if len(written) != 2 {
		t.Errorf("blocks %v were written in %d bytes", written, room)
	}
	room = 1 << 30
	must(t, write(img, "data", 15*4096))
	must(t, img.Close())
	checkClean(t, r, "/disk.vhd")
}

// The BAT can't name a place above 2 TiB of the file.
func TestGrowthEndsWithTheFormat(t *testing.T) {
	fsys := storagetest.NewMemory()
	l := newLayout(format.Dynamic, 8*block2M, block2M)
	const last = 1<<32 - 2 - 4*4097 // the sector of a block with room for little more
	l.bat[0] = last
	l.noEnd = true
	l.write(t, fsys, "/disk.vhd")
	f, err := fsys.Open("/disk.vhd", storage.ReadWrite)
	must(t, err)
	_, err = f.WriteAt(l.bits(), last*512)
	must(t, err)
	must(t, f.Truncate((last+4097)*512))
	must(t, f.Close())
	img := open(t, fsys, "/disk.vhd")
	for b := int64(1); ; b++ {
		if err = write(img, "data", b*block2M); err != nil || b == 7 {
			break
		}
	}
	if !errors.Is(err, blockdev.ErrNoSpace) || !strings.Contains(err.Error(), "2 TiB") {
		t.Errorf("a block above 2 TiB of file: %v", err)
	}
	must(t, write(img, "data", 0))
	must(t, img.Close())
	checkClean(t, fsys, "/disk.vhd")
	img = open(t, fsys, "/disk.vhd")
	defer img.Close()
	got := make([]byte, 4)
	for _, off := range []int64{0, block2M} {
		if _, err := img.ReadAt(got, off); err != nil || string(got) != "data" {
			t.Errorf("at %d: %q, %v", off, got, err)
		}
	}
}
