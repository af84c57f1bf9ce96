package interop

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// threeDeep makes base.vhd ← middle.vhd ← disk.vhd.
func threeDeep(b *harness.Box) {
	b.OK("create", "64M", "base.vhd")
	b.OK("snapshot", "base.vhd", "middle.vhd")
	b.OK("snapshot", "middle.vhd", "disk.vhd")
}

// qemuIsRefused checks that qemu doesn't get to write to an image.
func qemuIsRefused(t *testing.T, b *harness.Box, image string) {
	t.Helper()
	for _, format := range []string{"vpc", "raw"} {
		r := b.Try("qemu-io", "-f", format, "-c", "write 0 512", image)
		if !strings.Contains(r.Stdout+r.Stderr, "Failed to get") {
			t.Errorf("qemu-io -f %s writing to %s: %+v; want it refused", format, image, r)
		}
	}
}

// TestNobodyWritesBelowAMountedChain, however deep, whether it is mounted for
// writing or not; reading is allowed.
func TestNobodyWritesBelowAMountedChain(t *testing.T) {
	for name, flags := range map[string][]string{"writing": nil, "reading": {"--read-only"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-img", "qemu-io")
			b := harness.New(t)
			threeDeep(b)
			m := b.Mount("disk.vhd", flags...)
			for _, parent := range []string{"base.vhd", "middle.vhd"} {
				before := b.Sum(parent)
				qemuIsRefused(t, b, parent)
				b.Fails([]string{"mount", parent}, parent, "in use", "vhdmount (pid "+strconv.Itoa(m.PID())+")")
				if b.Sum(parent) != before {
					t.Errorf("%s was written to", parent)
				}
			}
			b.Tool("qemu-img", "convert", "-f", "vpc", "-O", "raw", "base.vhd", "copy.raw")
			m.Unmount()
			qemuIO(b, "raw", "base.vhd", "read 0 512")
		})
	}
}

// TestAChainAboveAWriterIsRefused, the writer being another mount.
func TestAChainAboveAWriterIsRefused(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	threeDeep(b)
	for _, parent := range []string{"base.vhd", "middle.vhd"} {
		m := b.Mount(parent)
		holder := "vhdmount (pid " + strconv.Itoa(m.PID()) + ")"
		b.Fails([]string{"mount", "disk.vhd"}, parent, "in use", holder)
		b.Fails([]string{"mount", "-r", "disk.vhd"}, parent, "in use", holder)
		m.Unmount()
	}
	b.Mount("disk.vhd").Unmount()
}

// TestACopyByQEMUKeepsWritersOut for as long as it lasts, and readers not.
func TestACopyByQEMUKeepsWritersOut(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.QEMU(t, "qemu-img")
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	fill(t, m, 1)
	m.Unmount()
	copying := startCopy(t, b, "disk.vhd", readsByte, "-f", "vpc", "-O", "raw", "disk.vhd", "copy.raw")
	b.Mkdir("mnt")
	b.Fails([]string{"mount", "disk.vhd", "mnt"}, "disk.vhd", "in use", copying.name())
	b.Mount("disk.vhd", "--read-only").Unmount()
	if !copying.runs() {
		t.Fatal("qemu-img has ended")
	}
	copying.end()
	b.MountAt("mnt", "disk.vhd").Unmount()
}

// TestOfManyAtOnceOneWritesAtMost: mounts and qemu, started together.
func TestOfManyAtOnceOneWritesAtMost(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.QEMU(t, "qemu-io")
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	qemu, _ := harness.Find("qemu-io")
	for range 4 {
		var commands []*exec.Cmd
		for range 3 {
			commands = append(commands,
				b.Command(t.Context(), harness.Binary(t), "mount", "disk.vhd"),
				b.Command(t.Context(), qemu, "-f", "vpc", "-c", "write -P 1 1M 512", "disk.vhd"))
		}
		for _, c := range commands {
			check(t, c.Start())
		}
		mounted := 0
		for i, c := range commands {
			if err := c.Wait(); err == nil && i%2 == 0 {
				mounted++
			}
		}
		list := b.List()
		if mounted > 1 || len(list) != mounted {
			t.Fatalf("%d mounts succeeded, and the list has %+v; want one at most", mounted, list)
		}
		for _, l := range list {
			qemuIsRefused(t, b, "disk.vhd")
			b.OK("unmount", l.Mountpoint)
		}
		b.OK("check", "disk.vhd")
	}
}
