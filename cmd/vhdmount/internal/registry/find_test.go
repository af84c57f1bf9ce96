package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	check(t, err)
	in := func(name string) string { return filepath.Join(base, name) }
	check(t, os.WriteFile(in("a.vhd"), nil, 0o600))
	check(t, os.Mkdir(in("mnt"), 0o700))
	check(t, os.Symlink("a.vhd", in("link.vhd")))
	check(t, os.Symlink(base, in("here")))
	t.Chdir(base)
	records := []Record{
		{Name: "1", Entry: Entry{Image: in("a.vhd"), Mountpoint: in("mnt"), Disk: in("mnt/disk.raw")}},
		{Name: "2", Entry: Entry{Image: in("a.vhd"), Mountpoint: in("dead"), Disk: in("dead/disk.raw")}},
		{Name: "3", Entry: Entry{Image: in("b.vhd"), Disk: "/dev/xen/blktap-2/tapdev0"}},
		{Name: "4", Entry: Entry{Image: in("c.vhd"), Mountpoint: in("b.vhd"), Disk: in("b.vhd")}},
	}
	for path, want := range map[string]string{
		"mnt":                       "1",
		"mnt/":                      "1",
		"./mnt/../mnt":              "1",
		"mnt/disk.raw":              "1",
		"here/mnt":                  "1", // through a symbolic link
		"dead":                      "2", // its server is gone, and so is what is below
		"a.vhd":                     "1 2",
		"link.vhd":                  "1 2",
		"here/link.vhd":             "1 2",
		"b.vhd":                     "4", // the place comes before the image
		"/dev/xen/blktap-2/tapdev0": "3",
		"c.vhd":                     "4",
		"other":                     "",
		"":                          "",
	} {
		var names []string
		for _, r := range Find(records, path) {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("Find(%q) = %q, want %q", path, got, want)
		}
	}
}
