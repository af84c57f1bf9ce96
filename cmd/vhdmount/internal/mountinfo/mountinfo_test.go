package mountinfo

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

const table = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:35 / /mnt/my\040disk rw,nosuid,nodev shared:7 master:2 - fuse.vhdmount /images/my\040disk.vhd rw,user_id=1000
37 22 0:36 / /mnt/x rw - tmpfs tmpfs rw
38 37 0:37 / /mnt/x rw - fuse /dev/fuse rw
not a line
39 22 0:38 / /mnt/back\134slash rw - fuse.vhdmount a rw
`

func TestFind(t *testing.T) {
	for point, want := range map[string]Mount{
		"/":               {"/", "ext4", "/dev/sda1"},
		"/mnt/my disk":    {"/mnt/my disk", "fuse.vhdmount", "/images/my disk.vhd"},
		"/mnt/x":          {"/mnt/x", "fuse", "/dev/fuse"}, // the topmost
		`/mnt/back\slash`: {`/mnt/back\slash`, "fuse.vhdmount", "a"},
	} {
		got, ok, err := find(strings.NewReader(table), point)
		if err != nil || !ok || got != want {
			t.Errorf("%s: %+v, %v, %v; want %+v", point, got, ok, err, want)
		}
	}
	for _, point := range []string{"/mnt", "/mnt/x/", "/mnt/y", ""} {
		if got, ok, err := find(strings.NewReader(table), point); ok || err != nil {
			t.Errorf("%q: %+v, %v, %v; want nothing", point, got, ok, err)
		}
	}
}

func TestFindReportsAReadThatFails(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := find(iotest.ErrReader(broken), "/"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestAtKnowsTheRoot(t *testing.T) {
	m, ok, err := At("/")
	if err != nil || !ok || m.Point != "/" || m.Type == "" {
		t.Errorf("At(/) = %+v, %v, %v", m, ok, err)
	}
	if _, ok, err := At(t.TempDir()); ok || err != nil {
		t.Errorf("a plain directory: %v, %v", ok, err)
	}
}
