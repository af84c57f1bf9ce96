package vhd_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// The sector that two write to here is the second of block 1: one writes
// piece, the other whole.
const (
	sectorAt = 4096 + format.SectorSize // bytes of the disk
	pieceAt  = sectorAt + 100
	piece    = "part of the sector"
)

func whole() []byte { return bytes.Repeat([]byte{'w'}, format.SectorSize) }

// eitherAfter sees that a sector has both writes, the one or the other last.
func eitherAfter(t *testing.T, got []byte) {
	t.Helper()
	pieceLast := whole()
	copy(pieceLast[pieceAt-sectorAt:], piece)
	if !bytes.Equal(got, whole()) && !bytes.Equal(got, pieceLast) {
		t.Errorf("a write was lost: the sector has %q", got[pieceAt-sectorAt-4:][:len(piece)+8])
	}
}

// A write of part of a sector reads the rest of it and writes it back. A write
// of the whole sector that must not wait comes in between: it is refused, for
// what it wrote would be written over by what was read before it.
func TestNowaitWriteIsNotLostToOneOfPartOfItsSector(t *testing.T) {
	for name, held := range map[string]int64{"the image holds the sector": sectorAt, "a parent does": 4096} {
		t.Run(name, func(t *testing.T) {
			r := small(t, true)
			img := open(t, r, "/disk.vhd")
			must(t, write(img, string(noise(format.SectorSize)), held)) // the block has a bitmap now
			var once sync.Once
			var refused error
			r.before = func(c call) error {
				if c.op == "write" && c.n == format.SectorSize {
					once.Do(func() { _, refused = img.WriteAtNowait(whole(), sectorAt) })
				}
				return nil
			}
			must(t, write(img, piece, pieceAt))
			once.Do(func() { t.Error("the sector was not completed and written") })
			if errors.Is(refused, blockdev.ErrWouldBlock) { // then it is made again, as one that may wait
				_, refused = img.WriteAt(whole(), sectorAt)
			}
			must(t, refused)
			eitherAfter(t, readAt(t, img, sectorAt, format.SectorSize))
			must(t, img.Close())
			img = open(t, r, "/disk.vhd")
			defer img.Close()
			eitherAfter(t, readAt(t, img, sectorAt, format.SectorSize))
		})
	}
}

// heldWrite is a file system whose files call after when a write that must not
// wait was made, before it returns.
type heldWrite struct {
	storage.FS
	after func()
}

func (h *heldWrite) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := h.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &heldFile{f, h}, nil
}

type heldFile struct {
	storage.File
	h *heldWrite
}

func (f *heldFile) WriteAtNowait(p []byte, off int64) (int, error) {
	n, err := f.File.(storage.NowaitWriterAt).WriteAtNowait(p, off)
	f.h.after()
	return n, err
}

// The other way about: the sector is a parent's until the write that must not
// wait has set its bit, and one of part of it that comes before would complete
// it with the parent's bytes.
func TestNowaitWriteIsWaitedForByOneOfPartOfItsSector(t *testing.T) {
	r := small(t, true)
	h := &heldWrite{FS: r, after: func() {}}
	img := open(t, h, "/disk.vhd")
	defer img.Close()
	must(t, write(img, string(noise(format.SectorSize)), 4096))
	second := make(chan error, 1)
	h.after = func() { giveWay(second, func() error { return write(img, piece, pieceAt) }) }
	if _, err := img.WriteAtNowait(whole(), sectorAt); err != nil {
		t.Fatal(err)
	}
	must(t, <-second)
	want := whole()
	copy(want[pieceAt-sectorAt:], piece)
	if got := readAt(t, img, sectorAt, format.SectorSize); !bytes.Equal(got, want) {
		t.Errorf("a write was lost: the sector has %q", got[pieceAt-sectorAt-4:][:len(piece)+8])
	}
}
