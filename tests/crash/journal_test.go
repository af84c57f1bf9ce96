package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const sectorSize = 512

// writer is a program that writes to its own part of the disk and knows, for
// each sector, what may be there after a crash: what it had at the last fsync
// that returned, or whatever was written to it since.
type writer struct {
	first, sectors int64 // its part of the disk
	random         *rand.Rand
	generation     uint64
	synced         map[int64]uint64   // sector → generation; missing: 0, as it was made
	since          map[int64][]uint64 // written since that fsync, whether or not the write returned
}

func newWriter(first, sectors int64, seed uint64) *writer {
	return &writer{
		first: first, sectors: sectors, random: rand.New(rand.NewPCG(seed, 1)),
		synced: map[int64]uint64{}, since: map[int64][]uint64{},
	}
}

// content is what a generation of a sector has in it: all of it depends on
// both.
func content(dst []byte, sector int64, generation uint64) {
	if generation == 0 {
		clear(dst)
		return
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(sector))
	binary.LittleEndian.PutUint64(key[8:], generation)
	rand.NewChaCha8(key).Read(dst) // never fails
}

// run writes and syncs until the disk fails, which is how it learns that the
// server was killed; it returns the number of syncs that succeeded.
func (w *writer) run(f *os.File) (syncs int) {
	for {
		if w.random.IntN(12) == 0 {
			if f.Sync() != nil {
				return syncs
			}
			syncs++
			for sector, generations := range w.since {
				w.synced[sector] = generations[len(generations)-1]
			}
			clear(w.since)
		}
		if w.write(f) != nil {
			return syncs
		}
	}
}

// write writes a few sectors somewhere, often where it wrote before.
func (w *writer) write(f *os.File) error {
	n := 1 + w.random.Int64N(16)
	if w.random.IntN(8) == 0 {
		n = 1 + w.random.Int64N(600)
	}
	at := w.random.Int64N(w.sectors - n)
	if w.random.IntN(2) == 0 {
		at %= 4096
		at = min(at, w.sectors-n)
	}
	w.generation++
	data := make([]byte, n*sectorSize)
	for i := range n {
		sector := w.first + at + i
		content(data[i*sectorSize:][:sectorSize], sector, w.generation)
		w.since[sector] = append(w.since[sector], w.generation)
	}
	written, err := unix.Pwrite(int(f.Fd()), data, (w.first+at)*sectorSize)
	if err == nil && written != len(data) {
		err = fmt.Errorf("%d of %d bytes were written", written, len(data))
	}
	return err
}

// verify reads all of the writer's part. What it finds is what the next crash
// starts from.
func (w *writer) verify(f *os.File) error {
	const piece = 2048 // sectors
	data := make([]byte, piece*sectorSize)
	for at := int64(0); at < w.sectors; at += piece {
		n := min(piece, w.sectors-at)
		if _, err := f.ReadAt(data[:n*sectorSize], (w.first+at)*sectorSize); err != nil {
			return err
		}
		for i := range n {
			if err := w.verifySector(w.first+at+i, data[i*sectorSize:][:sectorSize]); err != nil {
				return err
			}
		}
	}
	clear(w.since)
	return nil
}

func (w *writer) verifySector(sector int64, got []byte) error {
	allowed := append([]uint64{w.synced[sector]}, w.since[sector]...)
	var want [sectorSize]byte
	for _, generation := range allowed {
		if content(want[:], sector, generation); bytes.Equal(got, want[:]) {
			if generation != 0 {
				w.synced[sector] = generation
			}
			return nil
		}
	}
	return fmt.Errorf("sector %d has none of its generations %d in it, but %x…", sector, allowed, got[:16])
}
