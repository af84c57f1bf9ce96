package hostile

import (
	"encoding/binary"
	"maps"
	"os"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(meter) != "" {
		os.Exit(measure(os.Args[1:]))
	}
	os.Exit(harness.Main(m))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refuses checks that args are refused as bad input has to be.
func refuses(t *testing.T, b *harness.Box, args []string, words ...string) {
	t.Helper()
	before, mounts, runs := b.Tree(), len(b.Mounts()), len(b.RunFiles())
	b.Fails(args, words...)
	if after := b.Tree(); !maps.Equal(before, after) {
		t.Errorf("%v changed files: before %v, after %v", args, before, after)
	}
	if now := b.Mounts(); len(now) != mounts {
		t.Errorf("%v left mounts: %v", args, now)
	}
	if now := b.RunFiles(); len(now) != runs {
		t.Errorf("%v left %v in the runtime directory", args, now)
	}
}

// image makes disk.vhd, a dynamic image of 64 MiB with blocks 0 and 9
// allocated.
func image(t *testing.T, b *harness.Box) []byte {
	t.Helper()
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	f := m.Open(os.O_WRONLY)
	for i, off := range []int64{0, 18 << 20} {
		_, err := f.WriteAt(harness.Random(uint64(i), 8192), off)
		check(t, err)
	}
	check(t, f.Close())
	m.Unmount()
	check(t, os.Remove(m.Point))
	return b.Read("disk.vhd")
}

// Where a dynamic image has what is spoilt here.
const (
	headerAt    = 512
	blockSizeAt = headerAt + 32
	entriesAt   = headerAt + 28
	tableAt     = headerAt + 16
	batAt       = 1536
	footerSum   = 64
	headerSum   = 36
)

// put writes a number, and mends the checksum of the record of size at record.
func put(data []byte, at int, value uint32) { binary.BigEndian.PutUint32(data[at:], value) }

// mend makes the checksum of data[record:record+size] true, which lies at sum
// in it.
func mend(data []byte, record, size, sum int) {
	r := data[record : record+size]
	put(r, sum, 0)
	var total uint32
	for _, v := range r {
		total += uint32(v)
	}
	put(r, sum, ^total)
}
