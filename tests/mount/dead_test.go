package mount

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestAKilledServer leaves an entry that is shown as dead, that unmount clears,
// and an image that is as it was at the last fsync or later, without repair.
func TestAKilledServer(t *testing.T) {
	for _, kind := range []string{"dynamic", "differencing"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			b := harness.New(t)
			makeImage(b, kind, "64M", "disk.vhd")
			m := b.Mount("disk.vhd")
			f := m.Open(os.O_RDWR)
			data := harness.Random(6, 3<<20)
			writeAt(t, f, data, 5<<20)
			check(t, f.Sync())
			writeAt(t, f, data, 30<<20) // not synced
			kill(t, b, m.PID())

			if list := b.List(); len(list) != 1 || list[0].State != "dead" {
				t.Errorf("the list: %+v; want it dead", list)
			}
			if text := b.OK("list"); !strings.Contains(text, "dead") {
				t.Errorf("list prints %q", text)
			}
			b.Fails([]string{"mount", "disk.vhd", m.Point}, m.Point, "server died", "unmount")
			f.Close()
			r := b.Unmount(m.Point)
			if r.Code != 0 || !strings.Contains(r.Stderr, "died") {
				t.Errorf("unmount: %+v", r)
			}
			b.CheckGone(m.Point)
			b.OK("check", "disk.vhd")
			f = b.Mount("disk.vhd").Open(os.O_RDWR)
			if !bytes.Equal(readAt(t, f, len(data), 5<<20), data) {
				t.Error("what was synced is not there")
			}
			writeAt(t, f, data, 50<<20)
			check(t, f.Sync())
			check(t, f.Close())
			m.Unmount()
			b.OK("check", "disk.vhd")
		})
	}
}

// kill ends a server at once.
func kill(t *testing.T, b *harness.Box, pid int) {
	t.Helper()
	check(t, unix.Kill(pid, unix.SIGKILL))
	b.AwaitEnd(pid)
}

func TestADeadMountWithoutAMountPointIsClearedByTheImagesName(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	b.OK("mount", "disk.vhd")
	kill(t, b, b.List()[0].PID)
	b.OK("unmount", "disk.vhd")
	if left := b.Mounts(); len(left) != 0 {
		t.Errorf("still mounted: %v", left)
	}
	if list := b.List(); len(list) != 0 {
		t.Errorf("the list: %+v", list)
	}
	b.OK("mount", "disk.vhd")
	b.OK("unmount", "disk.vhd")
}

// TestADeadMountThatIsHeldIsClearedLazily.
func TestADeadMountThatIsHeldIsClearedLazily(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	f := m.Open(os.O_RDONLY)
	kill(t, b, m.PID())
	b.Fails([]string{"unmount", m.Point}, m.Point, "in use", "--lazy")
	b.OK("unmount", "--lazy", m.Point)
	b.CheckGone(m.Point)
	f.Close()
}

// TestAServerThatDiesWhileItsMountIsLookedAtIsDead: a question that it was not yet
// handed ends with another error then than one that comes later.
func TestAServerThatDiesWhileItsMountIsLookedAtIsDead(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	m, pid := unentered(t, b)
	check(t, unix.Kill(pid, unix.SIGSTOP))
	t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL) })
	cmd := b.Command(t.Context(), harness.Binary(t), "unmount", m.Point)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	check(t, cmd.Start())
	b.Eventually("unmount waits for an answer", func() bool {
		places, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", cmd.Process.Pid))
		check(t, err)
		return slices.ContainsFunc(places, func(place string) bool {
			where, err := os.ReadFile(place)
			return err == nil && string(where) == "request_wait_answer" // of the kernel's fs/fuse/dev.c
		})
	})
	check(t, unix.Kill(pid, unix.SIGKILL))
	if err := cmd.Wait(); err != nil {
		t.Errorf("unmount: %v, %s", err, stderr.String())
	}
	b.AwaitEnd(pid)
	b.CheckGone(m.Point)
}
