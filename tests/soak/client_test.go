package soak

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// wide is the most that one read takes, in bytes.
const wide = 1 << 20

// client is a program that uses its own sectors of the disk, and knows every
// byte of them.
type client struct {
	id     int
	random *rand.Rand
	direct *os.File // of O_DIRECT
	cached *os.File
	model  []byte // of the whole disk; only the client's own sectors are touched
	buffer []byte // wide
	counts map[string]int
}

func newClient(id int, seed uint64, direct, cached *os.File, model []byte) *client {
	return &client{
		id: id, random: rand.New(rand.NewPCG(seed, uint64(id))), direct: direct, cached: cached,
		model: model, buffer: make([]byte, wide), counts: map[string]int{},
	}
}

// operations are what a client does, each as often as its weight says.
var operations = []struct {
	name   string
	weight int
	do     func(c *client, f *os.File, off, n int64) error
}{
	{"read", 40, (*client).read},
	{"wide read", 5, (*client).readWide},
	{"write", 35, (*client).write},
	{"discard", 8, (*client).discard},
	{"zero", 8, (*client).zero},
	{"fsync", 4, func(_ *client, f *os.File, _, _ int64) error { return f.Sync() }},
}

// run works until ctx ends or something is wrong.
func (c *client) run(ctx context.Context) error {
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	for ctx.Err() == nil {
		pick := c.random.IntN(total)
		for _, o := range operations {
			if pick -= o.weight; pick >= 0 {
				continue
			}
			f, off, n := c.place()
			if err := o.do(c, f, off, n); err != nil {
				return fmt.Errorf("client %d: %s of %d bytes at %d: %w", c.id, o.name, n, off, err)
			}
			c.counts[o.name]++
			break
		}
	}
	return nil
}

// place chooses a range within one of the client's units: the whole, some
// sectors, or any bytes.
func (c *client) place() (f *os.File, off, n int64) {
	r := regions[c.random.IntN(len(regions))]
	turns := (r.sectors + r.unit*clients - 1) / (r.unit * clients)
	start := c.random.Int64N(turns)*r.unit*clients + int64(c.id)*r.unit
	if start >= r.sectors { // the last turn is not everyone's
		start = int64(c.id) * r.unit
	}
	length := min(r.unit, r.sectors-start)
	start += r.first
	f = c.direct
	if r.cached {
		f = c.cached
	}
	switch c.random.IntN(4) {
	case 0:
		return f, start * sectorSize, length * sectorSize
	case 1:
		n = 1 + c.random.Int64N(length*sectorSize)
		return f, start*sectorSize + c.random.Int64N(length*sectorSize-n+1), n
	default:
		n = 1 + c.random.Int64N(length)
		return f, (start + c.random.Int64N(length-n+1)) * sectorSize, n * sectorSize
	}
}

func (c *client) read(f *os.File, off, n int64) error {
	got := c.buffer[:n]
	if _, err := f.ReadAt(got, off); err != nil {
		return err
	}
	return c.compare(got, off)
}

// readWide reads around the range, others' sectors among it.
func (c *client) readWide(f *os.File, off, _ int64) error {
	n := sectorSize * (1 + c.random.Int64N(wide/sectorSize))
	return c.read(f, min(off&^(sectorSize-1), diskSize-n), n)
}

// compare holds what is the client's of b, which is at off, against the model.
func (c *client) compare(b []byte, off int64) error {
	for len(b) > 0 {
		n := min(int64(len(b)), sectorSize-off%sectorSize)
		if want := c.model[off:][:n]; ownerOf(off/sectorSize) == c.id && !bytes.Equal(b[:n], want) {
			return fmt.Errorf("at %d, in sector %d, there is %.16x…, and it was %.16x…", off, off/sectorSize, b[:n], want)
		}
		b, off = b[n:], off+n
	}
	return nil
}

func (c *client) write(f *os.File, off, n int64) error {
	fill(c.buffer[:n], c.random)
	if _, err := f.WriteAt(c.buffer[:n], off); err != nil {
		return err
	}
	copy(c.model[off:], c.buffer[:n])
	return nil
}

func (c *client) discard(f *os.File, off, n int64) error {
	return c.clear(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (c *client) zero(f *os.File, off, n int64) error {
	return c.clear(f, unix.FALLOC_FL_ZERO_RANGE, off, n)
}

func (c *client) clear(f *os.File, mode uint32, off, n int64) error {
	if err := unix.Fallocate(int(f.Fd()), mode, off, n); err != nil {
		return err
	}
	clear(c.model[off:][:n])
	return nil
}
