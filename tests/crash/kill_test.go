package crash

import (
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var kills = flag.Int("kills", 10, "how often the server of each kind of image is killed")

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	diskSectors = 64 << 20 / sectorSize
	writers     = 2
)

// TestKilledServersLoseNothingThatWasSynced, of images of every kind, one with
// blocks so small that most writes allocate.
func TestKilledServersLoseNothingThatWasSynced(t *testing.T) {
	for name, makeImage := range map[string]func(b *harness.Box){
		"dynamic":               func(b *harness.Box) { b.OK("create", "64M", "disk.vhd") },
		"dynamic, small blocks": func(b *harness.Box) { b.OK("create", "--block-size", "16K", "64M", "disk.vhd") },
		"fixed":                 func(b *harness.Box) { b.OK("create", "--type", "fixed", "64M", "disk.vhd") },
		"differencing": func(b *harness.Box) {
			b.OK("create", "64M", "base.vhd")
			b.OK("snapshot", "base.vhd", "disk.vhd")
		},
		"differencing, small blocks": func(b *harness.Box) {
			b.OK("create", "64M", "base.vhd")
			b.OK("snapshot", "--block-size", "16K", "base.vhd", "disk.vhd")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			b := harness.New(t)
			makeImage(b)
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			var programs []*writer
			for i := range int64(writers) {
				programs = append(programs, newWriter(i*diskSectors/writers, diskSectors/writers, seed+uint64(i)))
			}
			syncs := 0
			for range *kills {
				syncs += crash(t, b, programs, time.Duration(20+random.IntN(180))*time.Millisecond)
				verify(t, b, programs)
				if t.Failed() {
					return
				}
			}
			if syncs == 0 {
				t.Error("no sync succeeded: nothing was tested")
			}
			if strings.HasPrefix(name, "dynamic") {
				qemuAgrees(t, b)
			}
		})
	}
}

// crash has the programs write until the server is killed, after a while, and
// clears the mount. It returns how many syncs had succeeded.
func crash(t *testing.T, b *harness.Box, programs []*writer, after time.Duration) (syncs int) {
	t.Helper()
	m := b.Mount("disk.vhd")
	pid := m.PID()
	var disks []*os.File
	for range programs {
		disks = append(disks, m.Open(os.O_RDWR))
	}
	timer := time.AfterFunc(after, func() { unix.Kill(pid, unix.SIGKILL) })
	defer timer.Stop()
	counts := make([]int, len(programs))
	var running sync.WaitGroup
	for i, w := range programs {
		running.Go(func() {
			counts[i] = w.run(disks[i])
			disks[i].Close()
		})
	}
	running.Wait()
	b.AwaitEnd(pid)
	if list := b.List(); len(list) != 1 || list[0].State != "dead" {
		t.Errorf("after the kill the list has %+v", list)
	}
	b.OK("unmount", m.Point)
	for _, n := range counts {
		syncs += n
	}
	return syncs
}

// verify checks the image as the crash left it, and what it has.
func verify(t *testing.T, b *harness.Box, programs []*writer) {
	t.Helper()
	b.OK("check", "--bitmaps", "disk.vhd")
	m := b.Mount("disk.vhd", "--read-only")
	f := m.Open(os.O_RDONLY)
	for _, w := range programs {
		if err := w.verify(f); err != nil {
			t.Error(err)
		}
	}
	check(t, f.Close())
	m.Unmount()
}

// qemuAgrees checks that qemu reads the image, never repaired and never closed
// in order, as we do.
func qemuAgrees(t *testing.T, b *harness.Box) {
	t.Helper()
	harness.QEMU(t, "qemu-img")
	m := b.Mount("disk.vhd", "--read-only")
	b.Tool("qemu-img", "convert", "-f", "vpc", "-O", "raw", "disk.vhd", "converted.raw")
	b.Tool("cmp", "converted.raw", m.Disk)
	m.Unmount()
}
