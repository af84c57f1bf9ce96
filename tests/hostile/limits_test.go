package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// What the program may take of the machine to say no, and to look at all of
// what a file claims and does not have. A race detector takes more: the program
// is built without it here.
const (
	maxResident = 64 << 20 // bytes
	maxTime     = time.Second
	maxMapping  = 3 * time.Second
)

// meter is set where this test's own program is to run another one and to say
// what that took: a process counts as its own what its parent had of memory
// when it was made, and a test has much.
const meter = "VHDMOUNT_TEST_METER"

// taken is what a run took.
type taken struct {
	Code     int
	Output   string
	Resident int64 // bytes, at most
	CPU      time.Duration
}

// beginning is the first bytes of what a program writes: a map of all blocks is a
// gigabyte.
type beginning []byte

func (b *beginning) Write(p []byte) (int, error) {
	*b = append(*b, p[:min(len(p), 2000-len(*b))]...)
	return len(p), nil
}

// measure runs a program and prints what it took; the exit code is its own.
func measure(args []string) int {
	var took taken
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out beginning
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // that it failed is in its code
	took.Code = cmd.ProcessState.ExitCode()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	took.Resident = usage.Maxrss << 10
	took.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	took.Output = string(out)
	if err := json.NewEncoder(os.Stdout).Encode(took); err != nil {
		return 1
	}
	return 0
}

// run has a program measured.
func run(t *testing.T, dir string, args ...string) taken {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), meter+"=1", "VHDMOUNT_RUNTIME_DIR="+filepath.Join(dir, "run"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	check(t, err)
	var took taken
	check(t, json.Unmarshal(out, &took))
	return took
}

// claim is a sparse file whose records claim much.
type claim struct {
	kind    format.DiskType
	size    int64 // of the disk
	block   int64
	entries int64
	bat     func(i int64) uint32 // nil: it is a hole, which reads as zeros
	length  int64                // of the file
	change  func(f *format.Footer, h *format.Header)
	extra   func(f *os.File) error
}

// write makes the file.
func (c claim) write(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	check(t, err)
	defer f.Close()
	check(t, f.Truncate(c.length))
	footer, header := format.NewFooter(c.size, c.kind, time.Unix(1700000000, 0)), format.NewHeader(c.size, c.block)
	header.MaxTableEntries = uint32(c.entries)
	if c.change != nil {
		c.change(footer, header)
	}
	var b [format.HeaderSize]byte
	header.Encode(b[:])
	_, err = f.WriteAt(b[:], format.FooterSize)
	check(t, err)
	if c.bat != nil {
		entries, raw := make([]uint32, c.entries), make([]byte, 4*c.entries)
		for i := range entries {
			entries[i] = c.bat(int64(i))
		}
		format.EncodeBAT(raw, entries)
		_, err = f.WriteAt(raw, batAt)
		check(t, err)
	}
	if c.extra != nil {
		check(t, c.extra(f))
	}
	footer.Encode(b[:])
	for _, at := range []int64{0, c.length - format.FooterSize} {
		_, err = f.WriteAt(b[:format.FooterSize], at)
		check(t, err)
	}
}

const (
	mostBlocks = 8 << 20    // entries of a BAT that are supported
	largest    = 2040 << 30 // bytes of a disk
	usual      = 2 << 20    // bytes of a block
	usualRun   = usual/512 + 1
)

// after is the first sector behind a BAT.
func after(entries int64) uint32 { return uint32((batAt + format.BATSize(entries)) / 512) }

// claims are files of a few KiB, or of a BAT alone, with what each verb says.
func claims() map[string]claimed {
	shuffled := rand.New(rand.NewPCG(1, 2)).Perm(mostBlocks)
	first := after(mostBlocks)
	const refused, found = 1, 3
	return map[string]claimed{
		"1.5 KiB that claim 4 Gi entries": {claim{kind: format.Dynamic, size: largest, block: 512, entries: 1<<32 - 1, length: 2048}, refused, found, false},
		"a BAT of holes":                  {claim{kind: format.Dynamic, size: largest, block: 256 << 10, entries: mostBlocks, length: 1 << 40}, refused, found, false},
		"all blocks in one place": {claim{kind: format.Dynamic, size: mostBlocks * 512, block: 512, entries: mostBlocks, length: 16 << 30,
			bat: func(int64) uint32 { return first }}, refused, found, false},
		"blocks in disorder, all holes": {claim{kind: format.Dynamic, size: mostBlocks * 512, block: 512, entries: mostBlocks, length: 16<<30 + 64<<20,
			bat: func(i int64) uint32 { return first + uint32(2*shuffled[i]) }}, 0, 0, true},
		"all blocks in one place, with data": {claim{kind: format.Dynamic, size: mostBlocks * 512, block: 512, entries: mostBlocks, length: 16 << 30,
			bat: func(int64) uint32 { return first },
			extra: func(f *os.File) error {
				_, err := f.WriteAt([]byte{0x80}, int64(first)*512)
				return err
			}}, refused, found, true},
		"blocks in disorder, two in one place": {claim{kind: format.Dynamic, size: mostBlocks * 512, block: 512, entries: mostBlocks, length: 16 << 30,
			bat: func(i int64) uint32 { return first + uint32(2*shuffled[max(1, i)]) }}, refused, found, false},
		"locators of 4 GiB": {claim{kind: format.Differencing, size: largest, block: usual, entries: largest / usual, length: 1 << 40,
			change: func(_ *format.Footer, h *format.Header) {
				h.ParentID, h.ParentName = format.NewUUID(), "base.vhd"
				for i := range h.Locators {
					h.Locators[i] = format.Locator{Code: format.CodeW2ru, DataSpace: 0xFFFFFE00, DataLength: 0xFFFFFFFF, DataOffset: 1 << 30}
				}
			}}, refused, found, false},
		"a batmap of 2 TiB": {claim{kind: format.Dynamic, size: largest, block: usual, entries: largest / usual, length: 1 << 40,
			bat:    func(int64) uint32 { return format.UnallocatedBlock },
			change: func(f *format.Footer, _ *format.Header) { f.Creator, f.CreatorVersion = format.CreatorTap, 1<<16|3 },
			extra: func(f *os.File) error {
				at := int64(after(largest/usual)) * 512
				var b [512]byte
				(&format.BatmapHeader{Offset: uint64(at) + 512, Sectors: 1<<32 - 1, Version: format.BatmapVersion}).Encode(b[:])
				_, err := f.WriteAt(b[:], at)
				return err
			}}, refused, found, false},
		"2 TiB of blocks, all holes": {claim{kind: format.Dynamic, size: largest, block: usual, entries: largest / usual, length: 2 << 40,
			bat: func(i int64) uint32 { return after(largest/usual) + uint32(i)*usualRun }}, 0, 0, true},
		"8 Mi blocks, all holes": {claim{kind: format.Dynamic, size: mostBlocks * 512, block: 512, entries: mostBlocks, length: 16 << 30,
			bat: func(i int64) uint32 { return first + uint32(2*i) }}, 0, 0, true},
	}
}

// claimed is a claim with the exit codes of those that want to write to it,
// and of check; 0 is not asked for where it is not refused.
type claimed struct {
	claim
	writing, checking int
	mapping           bool // map it, too
}

// plainProgram is the program as users have it, without the race detector.
func plainProgram(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "vhdmount")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", file, "github.com/vhdmount/vhdmount/cmd/vhdmount")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// TestWhatIsRefusedTakesLittle of memory and of time, whatever a file claims.
func TestWhatIsRefusedTakesLittle(t *testing.T) {
	dir := t.TempDir()
	program := plainProgram(t, dir)
	check(t, os.Mkdir(filepath.Join(dir, "mnt"), 0o700))
	for name, c := range claims() {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(dir, "disk.vhd")
			c.write(t, image)
			defer os.Remove(image)
			runs := map[int][][]string{c.checking: {{"check", image}, {"check", "--bitmaps", image}}}
			if c.mapping {
				runs[0] = append(runs[0], []string{"map", image}, []string{"map", "--json", image})
			}
			if c.writing != 0 {
				runs[c.writing] = [][]string{{"mount", image, "mnt"}}
			}
			for code, list := range runs {
				for _, args := range list {
					limit := maxTime
					if args[0] == "map" {
						limit = maxMapping
					}
					holdsTo(t, run(t, dir, append([]string{program}, args...)...), code, limit, args)
				}
			}
		})
	}
}

// holdsTo checks a run's outcome and what it took.
func holdsTo(t *testing.T, took taken, code int, limit time.Duration, args []string) {
	t.Helper()
	t.Logf("%v: code %d, %d MiB, %v of CPU time", args, took.Code, took.Resident>>20, took.CPU.Round(time.Millisecond))
	if took.Code != code {
		t.Errorf("%v: exit code %d, want %d: %s", args, took.Code, code, took.Output)
	}
	if took.Resident > maxResident {
		t.Errorf("%v: %d MiB of memory", args, took.Resident>>20)
	}
	if took.CPU > limit {
		t.Errorf("%v: %v of CPU time", args, took.CPU)
	}
}

// TestAChainOfLargeBATs is refused before they are read: together they are more
// memory than any one.
func TestAChainOfLargeBATs(t *testing.T) {
	dir := t.TempDir()
	program := plainProgram(t, dir)
	const layers = 6
	ids := make([]format.UUID, layers+1)
	for i := range layers {
		ids[i] = format.NewUUID()
	}
	for i := range layers {
		claim{kind: format.Differencing, size: largest, block: 256 << 10, entries: mostBlocks, length: 1 << 30, change: func(f *format.Footer, h *format.Header) {
			f.ID = ids[i]
			if i > 0 {
				h.ParentID, h.ParentName = ids[i-1], fmt.Sprintf("%d.vhd", i-1)
			}
		}}.write(t, filepath.Join(dir, fmt.Sprintf("%d.vhd", i)))
	}
	args := []string{"map", fmt.Sprintf("%d.vhd", layers-1)}
	took := run(t, dir, append([]string{program}, args...)...)
	holdsTo(t, took, 1, maxTime, args)
	if !strings.Contains(took.Output, "entries that are supported") {
		t.Errorf("%v: %s", args, took.Output)
	}
}
