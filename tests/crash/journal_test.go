package crash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const sectorSize = 512

// generation tells apart what is written to a sector. Half of the numbers are
// of zeros, punched; 0 is the disk as it was made.
type generation uint64

// zeros is the bit of a generation that was punched.
const zeros generation = 1 << 63

// content is what a generation of a sector has in it: all of it depends on
// both.
func content(dst []byte, sector int64, g generation) {
	if g == 0 || g&zeros != 0 {
		clear(dst)
		return
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(sector))
	binary.LittleEndian.PutUint64(key[8:], uint64(g))
	rand.NewChaCha8(key).Read(dst) // never fails
}

// attempt is a write to a sector, whether or not it returned.
type attempt struct {
	generation generation
	done       bool // it returned without an error
}

// writer is a program that writes to its own part of the disk and knows, for
// each sector, what may be there after a crash: what it had at the last fsync
// that returned, or whatever was written to it since.
type writer struct {
	first, sectors int64 // its part of the disk
	random         *rand.Rand
	last           generation
	synced         map[int64][]generation // one of them; missing: 0
	since          map[int64][]*attempt   // after that fsync, oldest first
	bears          []syscall.Errno        // errors after which it goes on
	calls          atomic.Int64           // that returned
	syncs, refused atomic.Int64           // fsyncs that succeeded; calls that failed with one of bears
	syncing        sync.Mutex             // held during an fsync
}

func newWriter(first, sectors int64, seed uint64) *writer {
	return &writer{
		first: first, sectors: sectors, random: rand.New(rand.NewPCG(seed, 1)),
		synced: map[int64][]generation{}, since: map[int64][]*attempt{},
	}
}

// run writes, reads and syncs until stop is closed, or until an error that the
// writer doesn't bear: it is returned.
func (w *writer) run(f *os.File, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		err := w.step(f)
		w.calls.Add(1)
		switch {
		case err == nil:
		case w.isBorne(err):
			w.refused.Add(1)
			<-time.After(time.Millisecond) // the next will hardly fare better at once
		default:
			return err
		}
	}
}

func (w *writer) isBorne(err error) bool {
	for _, errno := range w.bears {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (w *writer) step(f *os.File) error {
	switch n := w.random.IntN(24); {
	case n < 2:
		return w.sync(f)
	case n < 4:
		return w.read(f)
	case n < 5:
		return w.punch(f)
	default:
		return w.write(f)
	}
}

func (w *writer) sync(f *os.File) error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	if err := f.Sync(); err != nil {
		return err
	}
	w.syncs.Add(1)
	w.settle()
	return nil
}

// settle notes that what was acknowledged is stable.
func (w *writer) settle() {
	for sector := range w.since {
		w.synced[sector] = w.visible(sector)
	}
	clear(w.since)
}

// visible is what a sector may have in it: what was last written to it with
// success, or any that failed after that.
func (w *writer) visible(sector int64) []generation {
	out := w.stable(sector)
	for _, a := range w.since[sector] {
		if a.done {
			out = nil
		}
		out = append(out, a.generation)
	}
	return out
}

// stable is what a sector may have had in it at the last fsync.
func (w *writer) stable(sector int64) []generation {
	if out, ok := w.synced[sector]; ok {
		return out[:len(out):len(out)]
	}
	return []generation{0}
}

// survivors is what a sector may have in it after a crash.
func (w *writer) survivors(sector int64) []generation {
	out := w.stable(sector)
	for _, a := range w.since[sector] {
		out = append(out, a.generation)
	}
	return out
}

// extent is a few sectors somewhere, often near the start of the part, where
// it wrote before.
func (w *writer) extent() (at, n int64) {
	n = 1 + w.random.Int64N(16)
	if w.random.IntN(8) == 0 {
		n = 1 + w.random.Int64N(600)
	}
	at = w.random.Int64N(w.sectors - n)
	if w.random.IntN(2) == 0 {
		at = min(at%4096, w.sectors-n)
	}
	return w.first + at, n
}

// try notes a write of one generation to an extent, makes it, and notes how it
// went.
func (w *writer) try(at, n int64, g generation, do func() error) error {
	attempts := make([]attempt, n)
	for i := range n {
		attempts[i].generation = g
		w.since[at+i] = append(w.since[at+i], &attempts[i])
	}
	err := do()
	for i := range attempts {
		attempts[i].done = err == nil
	}
	return err
}

func (w *writer) write(f *os.File) error {
	at, n := w.extent()
	w.last++
	data := make([]byte, n*sectorSize)
	for i := range n {
		content(data[i*sectorSize:][:sectorSize], at+i, w.last)
	}
	return w.try(at, n, w.last, func() error {
		_, err := f.WriteAt(data, at*sectorSize)
		return err
	})
}

func (w *writer) punch(f *os.File) error {
	at, n := w.extent()
	w.last++
	return w.try(at, n, w.last|zeros, func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at*sectorSize, n*sectorSize)
	})
}

// read checks an extent of the disk while it is in use.
func (w *writer) read(f *os.File) error {
	at, n := w.extent()
	data := make([]byte, n*sectorSize)
	if _, err := f.ReadAt(data, at*sectorSize); err != nil {
		return err
	}
	for i := range n {
		if _, err := find(at+i, data[i*sectorSize:][:sectorSize], w.visible(at+i)); err != nil {
			return fmt.Errorf("in use: %w", err)
		}
	}
	return nil
}

// verify reads all of the writer's part after a crash. What it finds is what
// the next crash starts from.
func (w *writer) verify(disk io.ReaderAt) error {
	data := make([]byte, w.sectors*sectorSize)
	if _, err := disk.ReadAt(data, w.first*sectorSize); err != nil {
		return err
	}
	for i := range w.sectors {
		sector := w.first + i
		found, err := find(sector, data[i*sectorSize:][:sectorSize], w.survivors(sector))
		if err != nil {
			return err
		}
		if w.synced[sector] = []generation{found}; found == 0 {
			delete(w.synced, sector)
		}
	}
	clear(w.since)
	return nil
}

// find tells which of the generations allowed a sector has in it.
func find(sector int64, got []byte, allowed []generation) (generation, error) {
	var want [sectorSize]byte
	for _, g := range allowed {
		if content(want[:], sector, g); bytes.Equal(got, want[:]) {
			return g, nil
		}
	}
	return 0, fmt.Errorf("sector %d has none of its generations %x in it, but %x…", sector, allowed, got[:16])
}
