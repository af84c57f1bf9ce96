package blktap_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// choosy is a disk that answers some requests at once, and counts those that it
// is to wait for.
type choosy struct {
	*blockdev.Memory
	prompt         error // what it says of those that must not wait; nil: it does them
	tried, written atomic.Int64
}

func (c *choosy) WriteAtNowait(p []byte, off int64) (int, error) {
	c.tried.Add(1)
	if c.prompt != nil {
		return 0, c.prompt
	}
	return c.Memory.WriteAt(p, off)
}

func (c *choosy) WriteAt(p []byte, off int64) (int, error) {
	c.written.Add(1)
	return c.Memory.WriteAt(p, off)
}

// TestWritesThatNeedNotWaitTakeNoWorker; those that must, or fail, are done by
// one, and soon no longer tried.
func TestWritesThatNeedNotWaitTakeNoWorker(t *testing.T) {
	const writes = 300
	for name, test := range map[string]struct {
		prompt   error
		written  int64 // by WriteAt
		maxTried int64
	}{
		"done":        {nil, 0, writes},
		"would block": {blockdev.ErrWouldBlock, writes, 20},
		"fails":       {unix.EIO, writes, 20},
	} {
		for _, v := range blktaptest.Variants {
			c := &choosy{Memory: blockdev.NewMemory(diskSize), prompt: test.prompt}
			k := blktaptest.New(t, v)
			d := show(t, k, c, blktap.Options{}).open(t)
			want := make([]byte, writes*4096)
			for i := range want {
				want[i] = byte(i*31 + i>>12)
			}
			var err error
			for off := 0; off < len(want); off += 4096 {
				_, e := d.WriteAt(want[off:][:4096], int64(off))
				err = errors.Join(err, e)
			}
			got := make([]byte, len(want))
			_, readErr := c.ReadAt(got, 0)
			if err := errors.Join(err, readErr, d.Close()); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %v: %v, or other bytes", name, v, err)
			}
			if tried, written := c.tried.Load(), c.written.Load(); written < test.written || test.written == 0 && written > writes/10 || tried == 0 || tried > test.maxTried {
				t.Errorf("%s, %v: %d tried, %d written by workers; want at most %d and %d", name, v, tried, written, test.maxTried, test.written)
			}
		}
	}
}
