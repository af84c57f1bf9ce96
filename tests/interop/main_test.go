package interop

import (
	"os"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kinds of image that both sides write.
var kinds = []string{"dynamic", "fixed"}

// fill writes a pattern through a mount: pieces of odd sizes, some at the
// edges of blocks and of the disk.
func fill(t *testing.T, m *harness.Mount, seed uint64) {
	t.Helper()
	f := m.Open(os.O_WRONLY)
	info, err := f.Stat()
	check(t, err)
	for i, off := range []int64{0, 2<<20 - 1000, 9<<20 + 1, 20 << 20, info.Size() - 70000} {
		_, err := f.WriteAt(harness.Random(seed+uint64(i), 70000), off)
		check(t, err)
	}
	check(t, f.Close())
}

// rawPattern makes raw.img of size bytes with data in a few places.
func rawPattern(t *testing.T, b *harness.Box, size int64) {
	t.Helper()
	f := b.Open("raw.img", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	check(t, f.Truncate(size))
	for i, off := range []int64{0, size/3 + 511, size - 3000} {
		data := harness.Random(uint64(i)+50, 3000)
		off = min(off, max(0, size-3000))
		data = data[:min(int64(len(data)), size-off)]
		_, err := f.WriteAt(data, off)
		check(t, err)
	}
	check(t, f.Close())
}
