package blockdevtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// content is n bytes that aren't zero, for the initial content of devices.
func content(n int) []byte {
	p := make([]byte, n)
	fill(p, 0, 99)
	return p
}

// withContent opens disks that begin with b.
func withContent(b []byte) OpenFunc {
	return func(_ *testing.T, size int64) blockdev.Device {
		initial := make([]byte, size)
		copy(initial, b)
		return newDisk(initial)
	}
}

func TestAcceptsRightDevices(t *testing.T) {
	sizes := WithSizes(512, 9*512, 160<<10)
	t.Run("memory", func(t *testing.T) { Run(t, memory, sizes) })
	t.Run("without abilities", func(t *testing.T) {
		Run(t, func(t *testing.T, size int64) blockdev.Device { return plain{memory(t, size)} }, sizes)
	})
	t.Run("opened again", func(t *testing.T) { Run(t, withContent(nil), sizes, WithReopen(reopenDisk)) })
	t.Run("with content", func(t *testing.T) {
		b := content(100 << 10)
		Run(t, withContent(b), sizes, WithInitial(bytes.NewReader(b)), WithReopen(reopenDisk),
			WithDiscard(DiscardKeeps), WithOps(100), WithSeed(7))
	})
}

func TestCatchesLostData(t *testing.T) {
	tests := map[string]faults{
		"Flush forgets":           {flushForgets: true},
		"Close forgets":           {closeForgets: true},
		"discarded content comes": {discardReturns: true},
	}
	for name, wrong := range tests {
		t.Run(name, func(t *testing.T) {
			caught(t, func(_ *testing.T, size int64) blockdev.Device {
				d := newDisk(make([]byte, size))
				d.faults = wrong
				return d
			}, "program", "wrong content", WithReopen(reopenDisk))
		})
	}
}

func TestCatchesWrongInitialContent(t *testing.T) {
	caught(t, withContent(content(512)), "initial", "wrong content")
	caught(t, memory, "initial", "wrong content", WithInitial(strings.NewReader("a parent's")))
}

func TestCatchesDiscardOutsideItsModel(t *testing.T) {
	b := content(160 << 10)
	caught(t, withContent(b), "program", "none of what it may be",
		WithInitial(bytes.NewReader(b)), WithDiscard(DiscardZeros))
	caught(t, memory, "program", "none of what it may be", WithDiscard(DiscardKeeps))
	if msg := failing(t, "program", withContent(b), WithInitial(bytes.NewReader(b)), WithDiscard(DiscardKeeps)); msg != "" {
		t.Errorf("a device that keeps what it may keep: %s", msg)
	}
}

func TestCatchesWritableReadOnly(t *testing.T) {
	caught(t, memory, "program", "read-only", WithReadOnly())
	runMutants(t, []mutantTest{
		{"says it wrote", "program", "read-only", func() *mutant {
			return &mutant{writeAt: func(_ *blockdev.Memory, p []byte, _ int64) (int, error) { return len(p), nil }}
		}},
		{"refuses for another reason", "program", "read-only", func() *mutant {
			return &mutant{writeAt: func(*blockdev.Memory, []byte, int64) (int, error) { return 0, blockdev.ErrNoSpace }}
		}},
	}, WithReadOnly())
}

func TestProgramsStayWithinTheDevice(t *testing.T) {
	for _, size := range []int64{512, 9 * 512, 3<<20 + 512} {
		g := newGenerator(newConfig(memory, []Option{WithReopen(reopenDisk)}), size, 1)
		seen := make(map[Op]int)
		var atEnd, odd, whole int
		for _, s := range g.program(5000) {
			if s.Off < 0 || s.Len < 0 || s.Off+s.Len > size {
				t.Fatalf("size %d: %v is outside", size, s)
			}
			seen[s.Op]++
			if s.Len > 0 && s.Off+s.Len == size {
				atEnd++
			}
			if s.Off%512 != 0 {
				odd++
			}
			if s.Len == min(size, g.blockSize) {
				whole++
			}
		}
		if len(seen) != len(opNames) || atEnd == 0 || odd == 0 || whole == 0 {
			t.Errorf("size %d: operations %v, %d at the end, %d at odd offsets, %d whole blocks", size, seen, atEnd, odd, whole)
		}
	}
}

func TestProgramsDependOnTheSeedAlone(t *testing.T) {
	c := newConfig(memory, nil)
	a, b := newGenerator(c, 4096, 5).program(50), newGenerator(c, 4096, 5).program(50)
	if !slices.Equal(a, b) {
		t.Error("one seed makes two programs")
	}
	if slices.Equal(a, newGenerator(c, 4096, 6).program(50)) {
		t.Error("two seeds make one program")
	}
}

func TestFillDependsOnItsPlace(t *testing.T) {
	p := make([]byte, 4096)
	fill(p, 0, 1)
	for _, off := range []int64{0, 1, 7, 8, 511, 512} {
		q := make([]byte, 1024)
		fill(q, off, 1)
		if !bytes.Equal(q, p[off:][:1024]) {
			t.Errorf("the bytes at offset %d depend on where the write begins", off)
		}
	}
	for at := 512; at < len(p); at += 512 {
		if bytes.Equal(p[:512], p[at:][:512]) {
			t.Errorf("sector 0 and that at offset %d are alike", at)
		}
	}
}

// tripwire fails a write that touches a byte.
func tripwire(at int64) OpenFunc {
	return func(_ *testing.T, size int64) blockdev.Device {
		return &mutant{Memory: blockdev.NewMemory(size), writeAt: func(m *blockdev.Memory, p []byte, off int64) (int, error) {
			if off <= at && at < off+int64(len(p)) {
				return 0, io.ErrNoProgress
			}
			return m.WriteAt(p, off)
		}}
	}
}

func TestFailingProgramIsCutDownAndReplays(t *testing.T) {
	c := newConfig(tripwire(1000), []Option{WithSeed(3)})
	err := checkPrograms(t, c, 64<<10)
	if err == nil {
		t.Fatal("the device is wrong, and passes")
	}
	for _, part := range []string{"-blockdevtest.seed=3", "size 65536", "cut down to 1 steps", "{Op: blockdevtest.Write"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q isn't in: %v", part, err)
		}
	}
	p := newGenerator(c, 64<<10, 3).program(c.ops)
	p, _ = c.shrink(t, 64<<10, p, err)
	if err := Check(t, tripwire(1000), 64<<10, p); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("the short program on the wrong device: %v", err)
	}
	if err := Check(t, memory, 64<<10, p); err != nil {
		t.Errorf("the short program on a right device: %v", err)
	}
}

func TestStepsPrintAsSource(t *testing.T) {
	got := fmt.Sprint(Program{{Op: Write, Off: 1, Len: 2, Fill: 3}, {Op: WriteZeroes, Off: 4, Len: 5, Fill: 6}, {Op: Reopen, Off: 7}})
	want := "\t{Op: blockdevtest.Write, Off: 1, Len: 2, Fill: 3},\n" +
		"\t{Op: blockdevtest.WriteZeroes, Off: 4, Len: 5},\n" +
		"\t{Op: blockdevtest.Reopen},\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
