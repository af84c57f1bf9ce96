package blktap_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

const benchSize = 64 << 20

// filled is a memory disk that is all allocated.
func filled(b testing.TB, size int64) blockdev.Device {
	b.Helper()
	dev := blockdev.NewMemory(size)
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i)
	}
	for off := int64(0); off < size; off += int64(len(p)) {
		if _, err := dev.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	return dev
}

// hammer has depth users read or write at scattered places.
func hammer(b *testing.B, dev blockdev.Device, write bool, bs int64, depth int) {
	b.Helper()
	var users atomic.Int64
	b.SetBytes(bs)
	b.SetParallelism(max(1, depth/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, bs)
		blocks := dev.Size() / bs
		at := users.Add(1) * 7919
		for pb.Next() {
			at += 104729
			var err error
			if write {
				_, err = dev.WriteAt(p, at%blocks*bs)
			} else {
				_, err = dev.ReadAt(p, at%blocks*bs)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkRing is what the ring costs on top of the device, which
// BenchmarkDevice is without it.
func BenchmarkRing(b *testing.B) {
	benchmark(b, func(b *testing.B) blockdev.Device {
		k := blktaptest.New(b, blktaptest.DKMS, blktaptest.Unchecked())
		return show(b, k, filled(b, benchSize), blktap.Options{}).open(b)
	})
}

func BenchmarkDevice(b *testing.B) {
	benchmark(b, func(b *testing.B) blockdev.Device { return filled(b, benchSize) })
}

func benchmark(b *testing.B, open func(*testing.B) blockdev.Device) {
	for _, op := range []string{"read", "write"} {
		for _, bs := range []int64{4 << 10, 44 << 10} {
			for _, depth := range []int{2, 32} {
				b.Run(fmt.Sprintf("op=%s/bs=%dKiB/depth=%d", op, bs>>10, depth), func(b *testing.B) {
					dev := open(b)
					hammer(b, dev, op == "write", bs, depth)
					b.StopTimer()
					if err := dev.Close(); err != nil {
						b.Error(err)
					}
				})
			}
		}
	}
}
