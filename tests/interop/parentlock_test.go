package interop

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// filledChain is threeDeep with data in base.vhd, so that a copy of it lasts.
func filledChain(t *testing.T, b *harness.Box) {
	t.Helper()
	b.OK("create", "64M", "base.vhd")
	m := b.Mount("base.vhd")
	fill(t, m, 1)
	m.Unmount()
	b.OK("snapshot", "base.vhd", "middle.vhd")
	b.OK("snapshot", "middle.vhd", "disk.vhd")
	b.Mkdir("mnt")
}

// TestACopyOfAParentByQEMUKeepsItsWritersOut for as long as it lasts, and the
// readers not: mounts of what is above, for writing too.
func TestACopyOfAParentByQEMUKeepsItsWritersOut(t *testing.T) {
	for _, format := range []string{"vpc", "raw"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-img")
			b := harness.New(t)
			filledChain(t, b)
			before := b.Sum("base.vhd")
			copying := startCopy(t, b, "base.vhd", readsByte, "-f", format, "-O", "raw", "base.vhd", "copy.raw")
			b.Fails([]string{"mount", "base.vhd", "mnt"}, "base.vhd", "in use", copying.name())
			m := b.Mount("disk.vhd")
			fill(t, m, 2)
			b.Fails([]string{"mount", "base.vhd", "mnt"}, "base.vhd", "in use")
			m.Unmount()
			b.Mount("middle.vhd", "--read-only").Unmount()
			b.Fails([]string{"mount", "base.vhd", "mnt"}, "base.vhd", "in use", copying.name())
			if !copying.runs() {
				t.Fatal("qemu-img has ended")
			}
			if b.Sum("base.vhd") != before {
				t.Error("base.vhd was written to")
			}
			copying.end()
			b.MountAt("mnt", "base.vhd").Unmount()
		})
	}
}

// TestACopyIntoAParentByQEMUKeepsItsChainOut: mounts of what is above it, and
// what would make it a parent.
func TestACopyIntoAParentByQEMUKeepsItsChainOut(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.QEMU(t, "qemu-img")
	b := harness.New(t)
	filledChain(t, b)
	rawPattern(t, b, 64<<20)
	into := []string{"-n", "-f", "raw", "-O", "vpc", "raw.img", "base.vhd"}
	copying := startCopy(t, b, "base.vhd", writesByte, into...)
	for _, args := range [][]string{{"mount", "disk.vhd", "mnt"}, {"mount", "-r", "disk.vhd", "mnt"}, {"mount", "-r", "base.vhd", "mnt"},
		{"snapshot", "base.vhd", "another.vhd"}} {
		b.Fails(args, "base.vhd", "in use", copying.name())
	}
	if !copying.runs() {
		t.Fatal("qemu-img has ended")
	}
	copying.end()
	for _, flags := range [][]string{nil, {"--read-only"}} {
		m, before := b.Mount("disk.vhd", flags...), b.Sum("base.vhd")
		if r := b.Try("qemu-img", append([]string{"convert"}, into...)...); r.Code == 0 || !strings.Contains(r.Stderr, "Failed to get") {
			t.Errorf("a copy into a mounted chain's parent: %+v; want it refused", r)
		}
		if b.Sum("base.vhd") != before {
			t.Error("base.vhd was written to")
		}
		m.Unmount()
	}
}

// writerBelow is a program that wants to write to a parent.
type writerBelow struct {
	// command is the program, to be started.
	command func(t *testing.T, b *harness.Box, parent string) *exec.Cmd
	// won lets it end, if it must for others to go on, and tells whether it
	// could write.
	won func() bool
}

// mountBelow mounts the parent.
func mountBelow() *writerBelow {
	w := &writerBelow{}
	w.command = func(t *testing.T, b *harness.Box, parent string) *exec.Cmd {
		cmd := b.Command(t.Context(), harness.Binary(t), "mount", parent)
		w.won = func() bool { return cmd.Wait() == nil }
		return cmd
	}
	return w
}

// qemuBelow writes to the parent and has it open until won is asked.
func qemuBelow() *writerBelow {
	w := &writerBelow{}
	w.command = func(t *testing.T, b *harness.Box, parent string) *exec.Cmd {
		qemu, _ := harness.Find("qemu-io")
		cmd := b.Command(t.Context(), qemu, "-f", "vpc", parent)
		stdin, err := cmd.StdinPipe()
		check(t, err)
		var out bytes.Buffer
		cmd.Stdout = &out
		w.won = func() bool {
			// It is gone and doesn't read where it was refused.
			_, _ = io.WriteString(stdin, "write -P 7 1M 512\n")
			stdin.Close()
			_ = cmd.Wait() // what it has written is what counts
			return strings.Contains(out.String(), "wrote 512/512")
		}
		return cmd
	}
	return w
}

// TestAMountAndAWriterBelowItStartedTogether are never both let in, whichever
// was first, and by however much.
func TestAMountAndAWriterBelowItStartedTogether(t *testing.T) {
	const rounds = 16
	for name, w := range map[string]*writerBelow{"a mount": mountBelow(), "qemu-io": qemuBelow()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			harness.QEMU(t, "qemu-io")
			b := harness.New(t)
			threeDeep(b)
			began := time.Now()
			m := b.Mount("disk.vhd")
			took := time.Since(began)
			m.Unmount()
			chains, writers := 0, 0
			for i := range rounds {
				args := [][]string{{"mount", "disk.vhd"}, {"mount", "-r", "disk.vhd"}}[i%2]
				parent := []string{"base.vhd", "middle.vhd"}[i/2%2]
				above, below := b.Command(t.Context(), harness.Binary(t), args...), w.command(t, b, parent)
				startBoth(t, above, below, time.Duration(i-rounds/2)*took*3/rounds)
				mounted := above.Wait() == nil
				written := w.won()
				if mounted && written {
					t.Fatalf("round %d: %v was let in above a writer of %s", i, args, parent)
				}
				if mounted {
					chains++
				}
				if written {
					writers++
				}
				for _, l := range b.List() {
					b.OK("unmount", l.Mountpoint)
				}
			}
			t.Logf("of %d rounds the chain had %d, the writer below it %d", rounds, chains, writers)
			if chains+writers == 0 {
				t.Error("nobody was ever let in")
			}
			b.OK("map", "disk.vhd")
		})
	}
}

// startBoth starts two programs, the first ahead by lead, or behind where that
// is negative.
func startBoth(t *testing.T, first, second *exec.Cmd, lead time.Duration) {
	t.Helper()
	if lead < 0 {
		first, second, lead = second, first, -lead
	}
	check(t, first.Start())
	<-time.After(lead)
	check(t, second.Start())
}
