package soak

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/tests/harness"
)

const (
	sectorSize = 512
	diskSize   = 64 << 20
	images     = 30
	clients    = 8
)

// region is a part of the disk in which the clients take turns: the first unit
// is client 0's, the next client 1's, and so on.
type region struct {
	first, sectors int64
	unit           int64 // sectors
	cached         bool  // through the kernel's page cache; else O_DIRECT, so that each read is the server's
}

// regions go from sectors that neighbours write at the same time, over runs
// that begin and end within pages and blocks, to runs of many blocks, whose
// space comes and goes.
var regions = []region{
	{0, 32768, 1, false},
	{32768, 32768, 129, false},
	{65536, 32768, 1024, false},
	{98304, 32768, 129, true},
}

// ownerOf is the client whose sector it is.
func ownerOf(sector int64) int {
	for _, r := range regions {
		if sector < r.first+r.sectors {
			return int((sector - r.first) / r.unit % clients)
		}
	}
	panic(fmt.Sprintf("sector %d is past the end of the disk", sector))
}

// makeChain makes a dynamic image and 29 children, one on the other, each of
// which holds some of the disk, and returns the last one's name and what the
// disk shows.
func makeChain(t *testing.T, b *harness.Box, random *rand.Rand) (name string, model []byte) {
	t.Helper()
	model = make([]byte, diskSize)
	for i := range images {
		next := b.Path(fmt.Sprintf("%d.vhd", i))
		var err error
		if i == 0 {
			err = vhd.Create(next, vhd.CreateOptions{Type: format.Dynamic, Size: diskSize})
		} else {
			err = vhd.Snapshot(name, next, vhd.SnapshotOptions{BlockSize: 64 << 10 << (i % 3)})
		}
		check(t, err)
		name = next
		if i < images-1 {
			writeSome(t, name, model, random)
		}
	}
	return name, model
}

// writeSome writes short and long runs to an image and to the model.
func writeSome(t *testing.T, name string, model []byte, random *rand.Rand) {
	t.Helper()
	img, err := vhd.Open(name, vhd.Options{Durability: vhd.Unsafe})
	check(t, err)
	for range 40 {
		n := sectorSize * (1 + random.Int64N(64))
		off := random.Int64N(diskSize - n)
		fill(model[off:off+n], random)
		_, err := img.WriteAt(model[off:off+n], off)
		check(t, err)
	}
	check(t, img.Close())
}

// fill makes b random.
func fill(b []byte, random *rand.Rand) {
	var seed [32]byte
	for i := range 4 {
		v := random.Uint64()
		for j := range 8 {
			seed[8*i+j] = byte(v >> (8 * j))
		}
	}
	rand.NewChaCha8(seed).Read(b) // never fails
}
