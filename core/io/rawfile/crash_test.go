package rawfile_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/rawfile"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

const (
	crashSectors = 8
	crashSize    = crashSectors * blockdev.SectorSize
)

// history is what a sector may hold after a power cut, the oldest first: what
// it held at a flush, and all that it was given since. Each has the number of
// calls that the file had seen before it was given.
type history []struct {
	content byte
	since   int
}

// crashRun is a program on a device, as far as it was done.
type crashRun struct {
	crash   *storagetest.Crash
	dev     *rawfile.Device
	sectors [crashSectors]history
	flushes []int // points at which one had returned
}

func newCrashRun(t *testing.T) *crashRun {
	t.Helper()
	m := storagetest.NewMemory()
	create(t, m, "/disk", crashSize)
	r := &crashRun{crash: storagetest.NewCrashFrom(m)}
	r.dev = open(t, r.crash, "/disk", false)
	for i := range r.sectors {
		r.given(i, 1, 0)
	}
	r.flushes = append(r.flushes, r.crash.Points())
	return r
}

// given notes that n sectors are about to be given a content.
func (r *crashRun) given(first, n int, content byte) {
	for i := first; i < first+n; i++ {
		r.sectors[i] = append(r.sectors[i], struct {
			content byte
			since   int
		}{content, r.crash.Points()})
	}
}

// step does something to the device.
func (r *crashRun) step(t *testing.T, rnd *rand.Rand, content byte) {
	t.Helper()
	first := rnd.IntN(crashSectors)
	n := 1 + rnd.IntN(crashSectors-first)
	off, size := int64(first)*blockdev.SectorSize, int64(n)*blockdev.SectorSize
	var err error
	switch rnd.IntN(6) {
	case 0:
		if err = r.dev.Flush(); err == nil {
			r.flushes = append(r.flushes, r.crash.Points())
		}
	case 1:
		r.given(first, n, 0)
		err = r.dev.Discard(off, size)
	case 2:
		r.given(first, n, 0)
		err = r.dev.WriteZeroes(off, size)
	default:
		r.given(first, n, content)
		_, err = r.dev.WriteAt(bytes.Repeat([]byte{content}, int(size)), off)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// allowed are the contents that a sector may have after a cut at point.
func (r *crashRun) allowed(sector, point int) []byte {
	flushed := 0
	for _, f := range r.flushes {
		if f <= point {
			flushed = f
		}
	}
	var all []byte
	for _, h := range r.sectors[sector] {
		if h.since < flushed {
			all = all[:0] // what came before it was replaced, and that is stable
		}
		if h.since < point || len(all) == 0 {
			all = append(all, h.content)
		}
	}
	return all
}

// TestAPowerCut keeps what was flushed, and in each sector one of the contents
// that it was given since.
func TestAPowerCut(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := newCrashRun(t)
		for i := range 40 {
			r.step(t, rnd, byte(i+1))
		}
		for point := range r.crash.Points() + 1 {
			cut := r.crash.Cut(point)
			for _, choose := range []storagetest.Chooser{storagetest.None, storagetest.All, storagetest.Random(seed), storagetest.Random(seed + 100)} {
				r.check(t, seed, point, cut.State(choose))
			}
		}
	}
}

func (r *crashRun) check(t *testing.T, seed uint64, point int, m *storagetest.Memory) {
	t.Helper()
	dev, err := rawfile.Open("/disk", rawfile.Options{FS: m, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	b := make([]byte, crashSize)
	if _, err := dev.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for i := range crashSectors {
		sector := b[i*blockdev.SectorSize:][:blockdev.SectorSize]
		if allowed := r.allowed(i, point); !slices.Contains(allowed, sector[0]) || len(bytes.Trim(sector, string(sector[:1]))) != 0 {
			t.Fatalf("seed %d, point %d: sector %d holds %d to %d, want one of %d", seed, point, i, sector[0], sector[511], allowed)
		}
	}
}
