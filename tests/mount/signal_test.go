package mount

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestASignalLeavesACleanImage(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		for _, kind := range []string{"dynamic", "fixed", "differencing"} {
			t.Run(unix.SignalName(sig)+"/"+kind, func(t *testing.T) {
				t.Parallel()
				harness.Fuse(t)
				harness.QEMU(t, "qemu-img")
				b := harness.New(t)
				makeImage(b, kind, "64M", "disk.vhd")
				m := b.Mount("disk.vhd")
				pid := m.PID()
				f := m.Open(os.O_RDWR)
				data := harness.Random(3, 5<<20)
				writeAt(t, f, data, 7<<20+512)
				check(t, f.Close())
				check(t, unix.Kill(pid, sig))
				b.AwaitEnd(pid)
				b.CheckGone(m.Point)
				if left := b.RunFiles(); len(left) != 0 {
					t.Errorf("the runtime directory has %v", left)
				}
				if got, want := b.OK("check", "disk.vhd"), "disk.vhd: no damage found\n"; got != want {
					t.Errorf("check: %q", got)
				}
				f = b.Mount("disk.vhd", "--read-only").Open(os.O_RDONLY)
				if !bytes.Equal(readAt(t, f, len(data), 7<<20+512), data) {
					t.Error("what was written is not there")
				}
				if kind != "differencing" { // which qemu reads without its parents
					compare(t, b, "disk.vhd", f.Name())
				}
			})
		}
	}
}

// makeImage creates name, of a kind; a differencing image's base is beside it.
func makeImage(b *harness.Box, kind, size, name string) {
	if kind != "differencing" {
		b.OK("create", "--type", kind, size, name)
		return
	}
	base := filepath.Join(filepath.Dir(name), "base-of-"+filepath.Base(name))
	b.OK("create", size, base)
	b.OK("snapshot", base, name)
}

// compare has qemu-img compare an image that it opens itself with a raw disk.
func compare(t *testing.T, b *harness.Box, image, raw string) {
	t.Helper()
	b.Tool("qemu-img", "compare", "-f", "vpc", "-F", "raw", image, raw)
}

// TestASignalWhileTheDiskIsOpenFlushesAndWaits for its last user.
func TestASignalWhileTheDiskIsOpenFlushesAndWaits(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	pid := m.PID()
	f := m.Open(os.O_RDWR)
	data := harness.Random(4, 1<<20)
	writeAt(t, f, data, 2<<20)
	check(t, unix.Kill(pid, unix.SIGTERM))
	b.Eventually("hidden", func() bool { return len(b.Mounts()) == 0 })
	if list := b.List(); len(list) != 1 || list[0].State != "closing" {
		t.Fatalf("the list: %+v; want it closing", list)
	}
	writeAt(t, f, data, 9<<20)
	if !bytes.Equal(readAt(t, f, len(data), 9<<20), data) {
		t.Error("the open disk doesn't work on")
	}
	check(t, f.Close())
	b.AwaitEnd(pid)
	b.OK("check", "disk.vhd")
	f = b.Mount("disk.vhd").Open(os.O_RDONLY)
	for _, off := range []int64{2 << 20, 9 << 20} {
		if !bytes.Equal(readAt(t, f, len(data), off), data) {
			t.Errorf("what was written at %d is not there", off)
		}
	}
}

// TestASecondSignalEndsTheServerWithAllOnStableStorage, whoever has the disk
// open.
func TestASecondSignalEndsTheServerWithAllOnStableStorage(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	pid := m.PID()
	f := m.Open(os.O_RDWR)
	data := harness.Random(5, 1<<20)
	writeAt(t, f, data, 2<<20)
	check(t, unix.Kill(pid, unix.SIGTERM))
	b.Eventually("hidden", func() bool { return len(b.Mounts()) == 0 })
	check(t, unix.Kill(pid, unix.SIGTERM))
	b.AwaitEnd(pid)
	if list := b.List(); len(list) != 0 {
		t.Errorf("the list: %+v", list)
	}
	b.OK("check", "disk.vhd")
	if !bytes.Equal(readAt(t, b.Mount("disk.vhd").Open(os.O_RDONLY), len(data), 2<<20), data) {
		t.Error("what was written is not there")
	}
}
