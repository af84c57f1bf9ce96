package harness

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var (
	withFuse  = flag.Bool("fuse", false, "run the tests that need /dev/fuse")
	withRoot  = flag.Bool("root", false, "run the tests that need root")
	withTools = flag.Bool("tools", false, "run the tests that need other programs: e2fsprogs, fdisk, xfsprogs, btrfs-progs, fuse2fs, libvhdi-utils")
	withQEMU  = flag.Bool("qemu", false, "run the tests that need qemu's tools")
)

// Fuse is the need of a test that mounts.
func Fuse(t testing.TB) {
	t.Helper()
	need(t, *withFuse, "fuse", "mounts", func() string {
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return err.Error()
		}
		f.Close()
		return ""
	})
}

// Root is the need of a test that mounts file systems, makes loop devices or
// changes its user.
func Root(t testing.TB) {
	t.Helper()
	need(t, *withRoot, "root", "needs root", func() string {
		if os.Geteuid() != 0 {
			return "this is not root"
		}
		return ""
	})
}

// Tools is the need of a test that has the named programs as peers or judges.
func Tools(t testing.TB, names ...string) {
	t.Helper()
	need(t, *withTools, "tools", "needs "+strings.Join(names, ", "), func() string { return lacking(names) })
}

// QEMU is the need of a test that has the named programs of qemu's.
func QEMU(t testing.TB, names ...string) {
	t.Helper()
	need(t, *withQEMU, "qemu", "needs "+strings.Join(names, ", "), func() string { return lacking(names) })
}

// need skips t unless it was asked for, and fails it where something lacks.
func need(t testing.TB, asked bool, flag, what string, lack func() string) {
	t.Helper()
	if !asked {
		t.Skipf("%s: ask for it with -%s", what, flag)
	}
	if text := lack(); text != "" {
		t.Fatalf("-%s was given, but %s", flag, text)
	}
}

// lacking says which of the programs is missing.
func lacking(names []string) string {
	for _, name := range names {
		if _, ok := Find(name); !ok {
			return name + " is not installed (make deps)"
		}
	}
	return ""
}

// sbin is where Debian keeps mkfs and losetup, out of a user's path.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Find is a program's file, from the path or a directory for administrators.
func Find(name string) (string, bool) {
	file, err := exec.LookPath(name)
	if err == nil {
		return file, true
	}
	for _, dir := range sbin {
		if info, err := os.Stat(dir + "/" + name); !errors.Is(err, fs.ErrNotExist) && err == nil && info.Mode()&0o111 != 0 {
			return dir + "/" + name, true
		}
	}
	return "", false
}
