package partition

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// meter counts what is read of a device.
type meter struct {
	*blockdev.Memory
	reads, bytes atomic.Int64
}

func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	m.reads.Add(1)
	m.bytes.Add(int64(len(p)))
	return m.Memory.ReadAt(p, off)
}

// What reading any table may cost.
const (
	maxReads = maxLinks + 16
	maxBytes = 2*maxEntryBytes + (maxLinks+16)*sectorSize
)

// FuzzRead reads disks that begin with head and end with tail. With repair,
// the checksums of their GPT are made right, so that the fuzzer gets past
// them.
func FuzzRead(f *testing.F) {
	for _, d := range disks {
		dev := golden(f, d.name)
		head := get(f, dev, 0, int(min(dev.Size(), 34*512)))
		tail := get(f, dev, dev.Size()-33*512, 33*512)
		f.Add(head, tail, uint32(dev.Size()/512), false)
		f.Add(head, tail, uint32(dev.Size()/512), true)
		f.Add(head, tail, uint32(100), true)
	}
	logical := newMBR(f) // as above, but all within the head
	setEntry(f, logical, 0, 0, 0x05, 4, 30)
	setEntry(f, logical, 4, 0, 0x83, 1, 2)
	setEntry(f, logical, 4, 1, 0x05, 8, 8)
	setEntry(f, logical, 12, 0, 0x83, 1, 2)
	setEntry(f, logical, 12, 1, 0x05, 16, 8)
	setEntry(f, logical, 20, 0, 0x83, 1, 2)
	f.Add(get(f, logical, 0, 34*512), []byte{}, uint32(100), false)

	f.Fuzz(func(t *testing.T, head, tail []byte, sectors uint32, repair bool) {
		size := int64(sectors%(1<<22)+1) * sectorSize
		m := &meter{Memory: blockdev.NewMemory(size)}
		put(t, m, 0, head[:min(int64(len(head)), size)])
		tail = tail[:min(int64(len(tail)), size)]
		put(t, m, size-int64(len(tail)), tail)
		if last := size/sectorSize - 1; repair && last >= 2 {
			for _, sector := range []int64{last, 1} {
				edit(t, m.Memory, sector, func(b []byte) {
					binary.LittleEndian.PutUint64(b[headerSelf:], uint64(sector))
				})
			}
		}
		parts, err := Read(m)
		if err != nil && len(parts) > 0 {
			t.Errorf("partitions beside the error %v", err)
		}
		number := 0
		for _, p := range parts {
			if p.Number <= number || p.Length <= 0 || blockdev.CheckRange(size, p.Offset, p.Length) != nil {
				t.Errorf("%+v follows number %d on a disk of %d bytes", p, number, size)
			}
			number = p.Number
		}
		if m.reads.Load() > maxReads || m.bytes.Load() > maxBytes {
			t.Errorf("%d reads of %d bytes", m.reads.Load(), m.bytes.Load())
		}
	})
}
