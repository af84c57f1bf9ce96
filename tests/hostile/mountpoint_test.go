package hostile

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestABadMountPoint(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	b.OK("create", "64M", "other.vhd")
	b.Mkdir("full")
	b.Write("full/file", []byte("precious"))
	check(t, unix.Mkfifo(b.Path("fifo"), 0o644))
	check(t, os.Symlink("nothing", b.Path("dangling")))
	b.Mount("other.vhd")
	for point, words := range map[string][]string{
		"none":          {"none", "no such file or directory"},
		"none/deeper":   {"none/deeper", "no such file or directory"},
		"full":          {"full", "not empty"},
		"full/file/x":   {"full/file/x", "not a directory"},
		"fifo":          {"fifo", "neither a directory nor a regular file"},
		"dangling":      {"dangling", "no such file or directory"},
		"/dev/null":     {"/dev/null", "neither a directory nor a regular file"},
		"other.vhd.mnt": {"other.vhd.mnt", "other.vhd", "mounted there"},
		"/proc":         {"/proc", "mounted there"},
	} {
		t.Run(point, func(t *testing.T) {
			before, runs, mounts := b.Sum("disk.vhd"), len(b.RunFiles()), len(b.Mounts())
			for _, flags := range [][]string{nil, {"-f"}, {"-r"}} {
				b.Fails(append(append([]string{"mount"}, flags...), "disk.vhd", point), append(words, "name an empty directory")...)
			}
			if b.Sum("disk.vhd") != before || len(b.RunFiles()) != runs || len(b.Mounts()) != mounts {
				t.Errorf("something changed: %v, %v", b.RunFiles(), b.Mounts())
			}
		})
	}
	if got := string(b.Read("full/file")); got != "precious" {
		t.Errorf("the file in the mount point: %q", got)
	}
}

// TestNamesOfNewImages that are taken, or in no directory.
func TestNamesOfNewImages(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.OK("create", "1M", "disk.vhd")
	b.Write("note", []byte("precious"))
	b.Mkdir("dir")
	for _, name := range []string{"disk.vhd", "note", "dir", "none/x.vhd"} {
		refuses(t, b, []string{"create", "1M", name}, name)
		refuses(t, b, []string{"snapshot", "disk.vhd", name}, name)
	}
	refuses(t, b, []string{"snapshot", "none.vhd", "child.vhd"}, "none.vhd", "no such file")
	refuses(t, b, []string{"snapshot", "note", "child.vhd"}, "note", "not a VHD image")
}

// TestWrongUsage is exit code 2, one line, and nothing changed.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.OK("create", "1M", "disk.vhd")
	b.Mkdir("mnt")
	for _, args := range [][]string{
		{"mount"}, {"mount", "disk.vhd", "mnt", "more"}, {"mount", "-o", "nonsense", "disk.vhd", "mnt"},
		{"mount", "-o", "uid=x", "disk.vhd", "mnt"}, {"mount", "-o", "umask=9", "disk.vhd", "mnt"},
		{"mount", "-o", "allow_other,allow_root", "disk.vhd", "mnt"},
		{"mount", "--durability", "maybe", "disk.vhd", "mnt"}, {"mount", "--frontend", "nbd", "disk.vhd", "mnt"},
		{"mount", "--size-from", "hope", "disk.vhd", "mnt"}, {"mount", "--log-level", "loud", "disk.vhd", "mnt"},
		{"mount", "--log-format", "xml", "disk.vhd", "mnt"}, {"mount", "--nonsense", "disk.vhd", "mnt"},
		{"create", "disk2.vhd"}, {"create", "0", "disk2.vhd"}, {"create", "1000", "disk2.vhd"}, {"create", "much", "disk2.vhd"},
		{"create", "--type", "round", "1M", "disk2.vhd"}, {"create", "--block-size", "3M", "1M", "disk2.vhd"},
		{"unmount"}, {"nonsense"}, {"--nonsense"}, {"list", "more"}, {"info"},
	} {
		before := len(b.Tree())
		r := b.Run(args...)
		if r.Code != 2 || r.Stdout != "" || r.Stderr == "" || len(b.Tree()) != before {
			t.Errorf("%v: %+v; want exit code 2 and one line", args, r)
		}
	}
	for _, size := range []string{"2041G", "3T"} {
		refuses(t, b, []string{"create", size, "disk2.vhd"}, "disk2.vhd")
	}
}
