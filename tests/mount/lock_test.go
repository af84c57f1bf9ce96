package mount

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestASecondWriterIsRefusedWithTheHoldersName(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	holder := "vhdmount (pid " + strconv.Itoa(m.PID()) + ")"
	b.Mkdir("other")
	b.Fails([]string{"mount", "disk.vhd", "other"}, "disk.vhd", "in use", holder)
	b.Fails([]string{"mount", "disk.vhd"}, "disk.vhd", "in use", holder)
	b.Fails([]string{"mount", "-r", "disk.vhd", "other"}, "disk.vhd", "in use", holder)
	b.Fails([]string{"check", "disk.vhd"}, "disk.vhd", "in use", holder)
	check(t, os.Link(b.Path("disk.vhd"), b.Path("again.vhd")))
	b.Fails([]string{"mount", "again.vhd", "other"}, "again.vhd", "in use", holder)
	if len(b.List()) != 1 || len(b.Mounts()) != 1 {
		t.Errorf("list %+v, mounts %v; want the first alone", b.List(), b.Mounts())
	}
	m.Unmount()
	b.MountAt("other", "disk.vhd")
}

func TestReadersShareAnImageAndKeepAWriterOut(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	before := b.Sum("disk.vhd")
	b.Mkdir("1")
	b.Mkdir("2")
	b.Mkdir("3")
	first := b.MountAt("1", "disk.vhd", "--read-only")
	second := b.MountAt("2", "disk.vhd", "-r")
	b.Fails([]string{"mount", "disk.vhd", "3"}, "disk.vhd", "in use", "vhdmount (pid ")
	for _, l := range b.List() {
		if !l.ReadOnly || l.State != "running" {
			t.Errorf("the list: %+v; want read-only", l)
		}
	}
	b.Fails([]string{"unmount", "disk.vhd"}, "mounted 2 times", first.Point, second.Point)
	b.OK("unmount", first.Point)
	b.OK("unmount", "disk.vhd")
	if b.Sum("disk.vhd") != before {
		t.Error("reading changed the image")
	}
	b.MountAt("3", "disk.vhd")
}

// TestParentsAreSharedAndNotWritable while a child is mounted.
func TestParentsAreSharedAndNotWritable(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "base.vhd")
	b.OK("snapshot", "base.vhd", "a.vhd")
	b.OK("snapshot", "base.vhd", "b.vhd")
	before := b.Sum("base.vhd")
	a, c := b.Mount("a.vhd"), b.Mount("b.vhd")
	b.Fails([]string{"mount", "base.vhd"}, "base.vhd", "in use")
	b.Mount("base.vhd", "-r").Unmount()
	writeAt(t, a.Open(os.O_WRONLY), []byte("of a"), 0)
	writeAt(t, c.Open(os.O_WRONLY), []byte("of b"), 0)
	if got := readAt(t, a.Open(os.O_RDONLY), 4, 0); string(got) != "of a" {
		t.Errorf("a has %q", got)
	}
	if got := readAt(t, c.Open(os.O_RDONLY), 4, 0); string(got) != "of b" {
		t.Errorf("b has %q", got)
	}
	if b.Sum("base.vhd") != before {
		t.Error("the parent was written to")
	}
}

func TestAReadOnlyDiskIsEROFS(t *testing.T) {
	for name, flags := range map[string][]string{"flag": {"--read-only"}, "option": {"-o", "ro"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Fuse(t)
			b := harness.New(t)
			b.OK("create", "64M", "disk.vhd")
			before := b.Sum("disk.vhd")
			m := b.Mount("disk.vhd", flags...)
			for _, flag := range []int{os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC} {
				_, err := os.OpenFile(m.Disk, flag, 0)
				wantErrno(t, "open with "+strconv.FormatInt(int64(flag), 8), err, unix.EROFS)
			}
			wantErrno(t, "truncate", os.Truncate(m.Disk, 0), unix.EROFS)
			f := m.Open(os.O_RDONLY)
			readAt(t, f, 4096, 0)
			check(t, f.Close())
			m.Unmount()
			if b.Sum("disk.vhd") != before {
				t.Error("the image changed")
			}
		})
	}
}

// TestAnImageThatMayOnlyBeReadIsMountedReadOnlyOnly by a user who isn't root.
func TestAnImageThatMayOnlyBeReadIsMountedReadOnlyOnly(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := unprivileged(t)
	b.OK("create", "64M", "disk.vhd")
	check(t, os.Chmod(b.Path("disk.vhd"), 0o444))
	b.Mkdir("mnt")
	b.Fails([]string{"mount", "disk.vhd", "mnt"}, "disk.vhd", "permission denied", "--read-only")
	m := b.MountAt("mnt", "disk.vhd", "--read-only")
	b.Tool("dd", "if="+m.Disk, "of=/dev/null", "bs=1M", "count=1")
	b.OK("unmount", "mnt")
}
