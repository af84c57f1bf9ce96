package crash

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var mounts = flag.Int("mounts", 20, "how often images are mounted and unmounted in a row")

// traces is what mounts may leave on a machine.
type traces struct {
	mounts, entries, bytes, processes, locks, descriptors int
}

func (s traces) String() string {
	return fmt.Sprintf("%d mounts, %d files of %d bytes in the runtime directory, %d processes, %d locks, %d descriptors of this process",
		s.mounts, s.entries, s.bytes, s.processes, s.locks, s.descriptors)
}

// TestMountsInARowLeaveNothing: no mount, file, process, lock or descriptor,
// however the disks were shown, used and taken away, and of those that could
// not be mounted neither.
func TestMountsInARowLeaveNothing(t *testing.T) {
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "8M", "base.vhd")
	b.OK("snapshot", "base.vhd", "disk.vhd")
	b.Mkdir("dir")
	b.Write("file", nil)
	images := []string{b.Path("base.vhd"), b.Path("disk.vhd")}
	var before traces
	for n := range *mounts {
		mountOnce(t, b, n)
		now := look(t, b, images)
		if n == 0 {
			before.descriptors = now.descriptors // some are the Go runtime's, made when they are needed
			t.Logf("after the first: %v", now)
		}
		if now != before {
			t.Fatalf("after %d: %v; want %v", n+1, now, before)
		}
		if (n+1)%500 == 0 {
			t.Logf("after %d: %v", n+1, now)
		}
	}
	t.Logf("after %d: %v", *mounts, look(t, b, images))
	b.OK("check", "--parents", "--bitmaps", "disk.vhd")
}

// mountOnce mounts an image in one of several ways, has another mount of it
// refused, writes a little, and takes it away in one of several ways.
func mountOnce(t *testing.T, b *harness.Box, n int) {
	t.Helper()
	args := []string{"mount", "disk.vhd"}
	args = append(args, [][]string{{"dir"}, {"file"}, nil, {"--read-only", "dir"}}[n%4]...)
	path := strings.TrimSuffix(b.OK(args...), "\n")
	pid := b.List()[0].PID
	b.Fails([]string{"mount", "base.vhd"}, "in use")
	if n%4 != 3 {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		_, err = f.WriteAt(harness.Random(uint64(n), 4096), int64(n%2000)*4096)
		check(t, err)
		check(t, f.Sync())
		check(t, f.Close())
	}
	switch n / 4 % 3 {
	case 0:
		b.OK("unmount", "disk.vhd")
	case 1:
		check(t, unix.Kill(pid, unix.SIGTERM))
	case 2:
		b.OK("unmount", "--lazy", "disk.vhd")
	}
	b.AwaitEnd(pid)
}

// look counts what is there now.
func look(t *testing.T, b *harness.Box, images []string) traces {
	t.Helper()
	s := traces{mounts: len(b.Mounts()) + len(b.List())}
	err := filepath.WalkDir(b.Runtime, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == b.Runtime || path == filepath.Join(b.Runtime, "mnt") {
			return nil // made by the first that needs it, and kept
		}
		s.entries++
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			s.bytes += int(info.Size())
		}
		return nil
	})
	check(t, err)
	processes, err := filepath.Glob("/proc/[0-9]*/exe")
	check(t, err)
	for _, link := range processes {
		if exe, err := os.Readlink(link); err == nil && exe == harness.Binary(t) {
			s.processes++
		}
	}
	s.locks = locksOn(t, images)
	descriptors, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	s.descriptors = len(descriptors)
	return s
}

// locksOn is how many locks there are on files, whoever has them.
func locksOn(t *testing.T, files []string) (n int) {
	t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	check(t, err)
	for _, file := range files {
		var st unix.Stat_t
		check(t, unix.Stat(file, &st))
		place := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
		n += strings.Count(string(locks), place)
	}
	return n
}
