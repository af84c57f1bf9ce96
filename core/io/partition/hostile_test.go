package partition

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// setEntry sets one of the four entries of the record in a sector.
func setEntry(t testing.TB, dev blockdev.Device, sector int64, index int, kind byte, start, count uint32) {
	t.Helper()
	e := make([]byte, entrySize)
	e[entryType] = kind
	binary.LittleEndian.PutUint32(e[entryStart:], start)
	binary.LittleEndian.PutUint32(e[entryCount:], count)
	put(t, dev, sector*512+entriesOffset+int64(index)*entrySize, e)
	put(t, dev, sector*512+signatureOffset, []byte{0x55, 0xaa})
}

// newMBR is a disk of 8 MiB with an identifier and an empty table.
func newMBR(t testing.TB) *blockdev.Memory {
	t.Helper()
	dev := blockdev.NewMemory(8 * mib)
	put(t, dev, 440, []byte{0xcd, 0xab, 0x23, 0x01})
	put(t, dev, signatureOffset, []byte{0x55, 0xaa})
	return dev
}

func TestMBREntriesOutsideTheDiskAreLeftOut(t *testing.T) {
	const sectors = 8 * mib / 512
	tests := []struct {
		name         string
		start, count uint32
		in           bool
	}{
		{"to the end", 1, sectors - 1, true},
		{"all of the disk", 0, sectors, true},
		{"the last sector", sectors - 1, 1, true},
		{"a sector too long", 1, sectors, false},
		{"behind the end", sectors, 1, false},
		{"far behind", math.MaxUint32, math.MaxUint32, false},
		{"no length", 2048, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := newMBR(t)
			setEntry(t, dev, 0, 1, 0x83, tt.start, tt.count)
			setEntry(t, dev, 0, 3, 0x07, 64, 64)
			want := []Partition{mbrPart(4, 64, 64, "0x07")}
			if tt.in {
				want = append([]Partition{mbrPart(2, int64(tt.start), int64(tt.count), "0x83")}, want...)
			}
			samePartitions(t, dev, want)
		})
	}
}

func TestExtendedPartitionsOfOtherSystems(t *testing.T) {
	const start = 1024
	tests := []struct {
		name string
		make func(dev blockdev.Device)
		want []Partition
	}{
		{"empty, without a record", func(blockdev.Device) {}, nil},
		{"the next record in the first entry", func(dev blockdev.Device) {
			setEntry(t, dev, start, 0, 0x05, 100, 100)
			setEntry(t, dev, start+100, 0, 0x83, 10, 20)
		}, []Partition{mbrPart(5, start+110, 20, "0x83")}},
		{"all four entries", func(dev blockdev.Device) {
			for i := range uint32(4) {
				setEntry(t, dev, start, int(i), 0x07, 10+i*10, 10)
			}
		}, []Partition{
			mbrPart(5, start+10, 10, "0x07"), mbrPart(6, start+20, 10, "0x07"),
			mbrPart(7, start+30, 10, "0x07"), mbrPart(8, start+40, 10, "0x07"),
		}},
		{"garbage in the last two", func(dev blockdev.Device) {
			setEntry(t, dev, start, 0, 0x83, 1, 5)
			setEntry(t, dev, start, 2, 0x72, 0x6f6f7465, 7)
			setEntry(t, dev, start, 3, 0x61, 5, 0x20202020)
		}, []Partition{mbrPart(5, start+1, 5, "0x83")}},
		{"one outside the disk keeps its number", func(dev blockdev.Device) {
			setEntry(t, dev, start, 0, 0x83, 10, math.MaxUint32)
			setEntry(t, dev, start, 1, 0x05, 100, 100)
			setEntry(t, dev, start+100, 0, 0x83, 1, 99)
		}, []Partition{mbrPart(6, start+101, 99, "0x83")}},
		{"the next record is outside the disk", func(dev blockdev.Device) {
			setEntry(t, dev, start, 0, 0x83, 1, 9)
			setEntry(t, dev, start, 1, 0x05, math.MaxUint32, math.MaxUint32)
		}, []Partition{mbrPart(5, start+1, 9, "0x83")}},
		{"the next record is this one", func(dev blockdev.Device) {
			setEntry(t, dev, start, 0, 0x83, 1, 9)
			setEntry(t, dev, start, 1, 0x05, 0, 1000)
		}, []Partition{mbrPart(5, start+1, 9, "0x83")}},
		{"a loop of two", func(dev blockdev.Device) {
			setEntry(t, dev, start, 0, 0x83, 1, 9)
			setEntry(t, dev, start, 1, 0x05, 100, 100)
			setEntry(t, dev, start+100, 0, 0x83, 1, 9)
			setEntry(t, dev, start+100, 1, 0x05, 0, 1000)
		}, []Partition{mbrPart(5, start+1, 9, "0x83"), mbrPart(6, start+101, 9, "0x83")}},
	}
	for _, tt := range tests {
		for _, kind := range []byte{0x05, 0x0f, 0x85} {
			t.Run(tt.name, func(t *testing.T) {
				dev := newMBR(t)
				setEntry(t, dev, 0, 1, kind, start, 2048)
				tt.make(dev)
				samePartitions(t, dev, tt.want)
			})
		}
	}
}

func TestTwoExtendedPartitionsCountOn(t *testing.T) {
	dev := newMBR(t)
	setEntry(t, dev, 0, 0, 0x05, 1000, 1000)
	setEntry(t, dev, 0, 1, 0x0f, 3000, 1000)
	setEntry(t, dev, 0, 2, 0x05, 1000, 1000) // the first again
	setEntry(t, dev, 0, 3, 0x83, 5000, 10)
	setEntry(t, dev, 1000, 0, 0x83, 1, 10)
	setEntry(t, dev, 3000, 0, 0x83, 1, 10)
	samePartitions(t, dev, []Partition{
		mbrPart(4, 5000, 10, "0x83"), mbrPart(5, 1001, 10, "0x83"), mbrPart(6, 3001, 10, "0x83"),
	})
}

func TestChainsOfExtendedBootRecordsAreBounded(t *testing.T) {
	dev := newMBR(t)
	setEntry(t, dev, 0, 0, 0x05, 1000, 10000)
	for i := range uint32(500) {
		setEntry(t, dev, int64(1000+2*i), 0, 0x83, 1, 1)
		setEntry(t, dev, int64(1000+2*i), 1, 0x05, 2*i+2, 2)
	}
	parts, err := Read(dev)
	noError(t, err)
	if len(parts) != maxLinks {
		t.Errorf("%d partitions of 500, want %d", len(parts), maxLinks)
	}
}

// edit changes the GPT header in a sector and makes its checksums right again.
func edit(t testing.TB, dev blockdev.Device, sector int64, f func(header []byte)) {
	t.Helper()
	b := get(t, dev, sector*512, 512)
	f(b)
	le := binary.LittleEndian
	entries, n := int64(le.Uint64(b[headerEntries:]))*512, int64(le.Uint32(b[headerEntryCount:]))*int64(le.Uint32(b[headerEntrySize:]))
	if n <= maxEntryBytes && entries >= 0 && blockdev.CheckRange(dev.Size(), entries, n) == nil {
		le.PutUint32(b[88:], crc32.ChecksumIEEE(get(t, dev, entries, int(n))))
	}
	le.PutUint32(b[16:], 0)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
	put(t, dev, sector*512, b)
}

// Ways to damage a GPT header whose checksum is right all the same.
var hostileHeaders = map[string]func(b []byte){
	"too many entries":               func(b []byte) { binary.LittleEndian.PutUint32(b[headerEntryCount:], math.MaxUint32) },
	"one more than the bound":        func(b []byte) { binary.LittleEndian.PutUint32(b[headerEntryCount:], maxEntryBytes/128+1) },
	"entries of no size":             func(b []byte) { binary.LittleEndian.PutUint32(b[headerEntrySize:], 0) },
	"entries of half a size":         func(b []byte) { binary.LittleEndian.PutUint32(b[headerEntrySize:], 64) },
	"entries as large as can be":     func(b []byte) { binary.LittleEndian.PutUint32(b[headerEntrySize:], math.MaxUint32) },
	"entries behind the end":         func(b []byte) { binary.LittleEndian.PutUint64(b[headerEntries:], 8*mib/512) },
	"entries over the end":           func(b []byte) { binary.LittleEndian.PutUint64(b[headerEntries:], 8*mib/512-31) },
	"entries where numbers overflow": func(b []byte) { binary.LittleEndian.PutUint64(b[headerEntries:], math.MaxUint64/512+1) },
	"entries at the largest sector":  func(b []byte) { binary.LittleEndian.PutUint64(b[headerEntries:], math.MaxUint64) },
	"a header of another sector":     func(b []byte) { binary.LittleEndian.PutUint64(b[headerSelf:], 3) },
}

func TestDamagedGPTFallsBackToItsBackup(t *testing.T) {
	const last = 8*mib/512 - 1
	for name, damage := range hostileHeaders {
		t.Run(name, func(t *testing.T) {
			dev := golden(t, "gpt")
			edit(t, dev, 1, damage)
			samePartitions(t, dev, gptParts)
			edit(t, dev, last, damage)
			_, err := Read(dev)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "header in sector 16383: ") {
				t.Errorf("with both damaged: %v", err)
			}
			dev = golden(t, "gpt")
			edit(t, dev, last, damage)
			samePartitions(t, dev, gptParts)
		})
	}
	for name, off := range map[string]int64{
		"signature": 512, "header": 512 + 50, "checksum": 512 + 16, "entry": 1024 + 33, "name": 1024 + 60,
	} {
		t.Run("a bit of the "+name, func(t *testing.T) {
			dev := golden(t, "gpt")
			put(t, dev, off, []byte{get(t, dev, off, 1)[0] ^ 1})
			samePartitions(t, dev, gptParts)
			put(t, dev, 512, make([]byte, 512))
			put(t, dev, last*512, make([]byte, 512))
			if _, err := Read(dev); !errors.Is(err, ErrDamaged) {
				t.Errorf("without any header: %v", err)
			}
		})
	}
}

// The library is given only headers that were checked; this is why.
func TestTheLibraryPanicsOnAnUncheckedHeader(t *testing.T) {
	dev := golden(t, "gpt")
	edit(t, dev, 1, func(b []byte) {
		binary.LittleEndian.PutUint32(b[headerEntryCount:], math.MaxUint32)
		binary.LittleEndian.PutUint32(b[headerEntrySize:], math.MaxUint32)
	})
	defer func() {
		if recover() == nil {
			t.Error("it doesn't: the package's doc has the wrong reason")
		}
	}()
	_, _ = gpt.Read(&view{dev: dev}, sectorSize, sectorSize)
}

func TestGPTEntriesOutsideTheDiskAreLeftOut(t *testing.T) {
	const sectors = 8 * mib / 512
	tests := []struct {
		name       string
		start, end uint64
		in         bool
	}{
		{"the last sector", sectors - 1, sectors - 1, true},
		{"a sector too long", 2048, sectors, false},
		{"behind the end", sectors, sectors + 1, false},
		{"turned round", 4096, 4095, false},
		{"as large as can be", 0, math.MaxUint64, false},
		{"all at the end of numbers", math.MaxUint64, math.MaxUint64, false},
		{"overflows in bytes", 1 << 55, 1<<55 + 8, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := golden(t, "gpt")
			b := make([]byte, 16)
			binary.LittleEndian.PutUint64(b, tt.start)
			binary.LittleEndian.PutUint64(b[8:], tt.end)
			put(t, dev, 1024+gptEntrySize+32, b) // the second entry
			edit(t, dev, 1, func([]byte) {})
			want := append([]Partition{}, gptParts...)
			want[1].Offset, want[1].Length = int64(tt.start)*512, int64(tt.end-tt.start+1)*512
			if !tt.in {
				want = append(want[:1], want[2:]...)
			}
			samePartitions(t, dev, want)
		})
	}
}

func TestProtectiveMBRAlone(t *testing.T) {
	for _, index := range []int{0, 2} {
		dev := newMBR(t)
		setEntry(t, dev, 0, 3, 0x83, 100, 100)
		setEntry(t, dev, 0, index, 0xee, 1, math.MaxUint32)
		if parts, err := Read(dev); !errors.Is(err, ErrDamaged) || len(parts) > 0 {
			t.Errorf("entry %d: %v, %v", index, parts, err)
		}
	}
	for _, size := range []int64{512, 1024} {
		dev := blockdev.NewMemory(size)
		setEntry(t, dev, 0, 0, 0xee, 1, 1)
		if _, err := Read(dev); !errors.Is(err, ErrDamaged) || errors.Is(err, blockdev.ErrOutOfRange) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
