package mountinfo

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

const table = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:35 / /mnt/my\040disk rw,nosuid,nodev shared:7 master:2 - fuse.vhdmount /images/my\040disk.vhd rw,user_id=1000,group_id=1000
37 22 0:36 / /mnt/x rw - tmpfs tmpfs rw
38 37 0:37 / /mnt/x rw - fuse /dev/fuse rw,user_id=many
not a line
39 22 0:38 / /mnt/back\134slash ro - fuse.vhdmount a rw,user_id=0
40 22 0:39 / /mnt/short rw - fuse.vhdmount b
`

func TestMounts(t *testing.T) {
	all, err := read(strings.NewReader(table))
	if err != nil || len(all) != 6 {
		t.Fatalf("%+v, %v", all, err)
	}
	for point, want := range map[string]Mount{
		"/":               {"/", "ext4", "/dev/sda1", false, -1},
		"/mnt/my disk":    {"/mnt/my disk", "fuse.vhdmount", "/images/my disk.vhd", false, 1000},
		"/mnt/x":          {"/mnt/x", "fuse", "/dev/fuse", false, -1}, // the topmost
		`/mnt/back\slash`: {`/mnt/back\slash`, "fuse.vhdmount", "a", true, 0},
		"/mnt/short":      {"/mnt/short", "fuse.vhdmount", "b", false, -1},
	} {
		if got, ok := topmost(all, point); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", point, got, ok, want)
		}
	}
	for _, point := range []string{"/mnt", "/mnt/x/", "/mnt/y", ""} {
		if got, ok := topmost(all, point); ok {
			t.Errorf("%q: %+v; want nothing", point, got)
		}
	}
}

func TestAReadThatFailsIsReported(t *testing.T) {
	broken := errors.New("broken")
	if _, err := read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
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
