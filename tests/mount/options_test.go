package mount

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// TestMountOptions: mount(8)'s words, and what comes of them in the mount table
// and on the files.
func TestMountOptions(t *testing.T) {
	for _, c := range []struct {
		options string
		mode    os.FileMode // of the disk
		uid     uint32      // in addition to the user's own
		table   []string    // words in the mount table
	}{
		{"rw", 0o600, 0, []string{"rw"}},
		{"ro", 0o400, 0, []string{"ro"}},
		{"ro,rw", 0o600, 0, []string{"rw"}},
		{"umask=027", 0o640, 0, nil},
		{"umask=077", 0o600, 0, nil},
		{"uid=4242,gid=4343", 0o600, 4242, nil},
		{"fsname=my disk", 0o600, 0, []string{`my\040disk`}},
		{`fsname=a\,b`, 0o600, 0, []string{"a,b"}},
		{"default_permissions", 0o600, 0, nil},
		{"noauto,nofail,_netdev,x-systemd.automount,noatime", 0o600, 0, nil},
	} {
		t.Run(c.options, func(t *testing.T) {
			t.Parallel()
			_, m := mounted(t, "64M", "-o", c.options)
			var st unix.Stat_t
			if err := unix.Stat(m.Disk, &st); err != nil && c.uid == 0 {
				t.Fatal(err)
			}
			want := c.mode | unix.S_IFREG
			if os.FileMode(st.Mode) != want && c.uid == 0 || c.uid != 0 && os.Geteuid() == 0 && st.Uid != c.uid {
				t.Errorf("mode %o, owner %d; want %o, %d", st.Mode, st.Uid, want, c.uid)
			}
			entry := tableEntry(t, m.Point)
			for _, word := range append(c.table, "fuse.vhdmount") {
				if !strings.Contains(entry, word) {
					t.Errorf("the mount table has %q; want %q in it", entry, word)
				}
			}
		})
	}
}

// tableEntry is the line of the mount table for a point.
func tableEntry(t *testing.T, point string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(table)) {
		if strings.Fields(line)[4] == point {
			return line
		}
	}
	t.Fatalf("%s is not mounted", point)
	return ""
}

// TestAllowOther lets another user in as far as the permission bits do.
func TestAllowOther(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.Root(t)
	b := harness.New(t)
	check(t, os.Chmod(b.Dir, 0o755))
	b.OK("create", "64M", "disk.vhd")
	for _, c := range []struct {
		options     string
		read, write bool // by nobody
	}{{"rw", false, false}, {"allow_root", false, false}, {"allow_other", true, false}, {"allow_other,umask=0", true, true}, {"allow_other,umask=022", true, false}, {"allow_other,umask=077", false, false}} {
		m := b.Mount("disk.vhd", "-o", c.options)
		for mode, want := range map[string]bool{"if=" + m.Disk + " of=/dev/null": c.read, "if=/dev/zero conv=notrunc of=" + m.Disk: c.write} {
			r := b.Try("setpriv", "--reuid", nobody(t), "--clear-groups", "sh", "-c", "dd bs=512 count=1 "+mode)
			if (r.Code == 0) != want {
				t.Errorf("-o %s: nobody's dd %s: %+v; want success %t", c.options, mode, r, want)
			}
		}
		m.Unmount()
	}
}

func nobody(t *testing.T) string {
	t.Helper()
	u, err := user.Lookup("nobody")
	check(t, err)
	return u.Uid
}

// TestDurabilityModes: with writethrough each write is in the image's file when
// it returns; with every mode it is when unmount returns.
func TestDurabilityModes(t *testing.T) {
	for _, mode := range []string{"writeback", "writethrough", "unsafe"} {
		for _, kind := range []string{"dynamic", "differencing"} {
			t.Run(mode+"/"+kind, func(t *testing.T) {
				t.Parallel()
				harness.Fuse(t)
				b := harness.New(t)
				makeImage(b, kind, "64M", "disk.vhd")
				m := b.Mount("disk.vhd", "--durability", mode)
				f := m.Open(os.O_RDWR)
				data := harness.Random(1, 100<<10)
				writeAt(t, f, data, 3<<20+512)
				if mode == "writethrough" {
					pid := m.PID()
					kill(t, b, pid)
					f.Close()
					b.OK("unmount", "--lazy", m.Point)
				} else {
					check(t, f.Sync())
					check(t, f.Close())
					m.Unmount()
				}
				b.OK("check", "disk.vhd")
				if !bytes.Equal(readAt(t, b.Mount("disk.vhd").Open(os.O_RDONLY), len(data), 3<<20+512), data) {
					t.Error("what was written is not there")
				}
			})
		}
	}
}

// TestWritebackCommitsByItself: metadata in memory is committed at most 5 s after
// it changed, without anyone's fsync.
func TestWritebackCommitsByItself(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	f := m.Open(os.O_RDWR)
	data := harness.Random(1, 100<<10)
	writeAt(t, f, data, 3<<20)
	b.Eventually("a copy of the image has what was written", func() bool {
		b.Write("copy.vhd", b.Read("disk.vhd"))
		return info(t, b, "copy.vhd").Layers[0].AllocatedBlocks == 1
	})
	if !bytes.Equal(readAt(t, b.Mount("copy.vhd").Open(os.O_RDONLY), len(data), 3<<20), data) {
		t.Error("the copy hasn't what was written")
	}
}

func TestLogLevelsAndFormats(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M", "--log-format", "json", "--log-level", "debug")
	if log := m.Log(); !strings.Contains(log, `"level":"INFO","msg":"mounted"`) {
		t.Errorf("the log: %s", log)
	}
	m.Unmount()
	m = b.Mount("disk.vhd", "--log-level", "error")
	if log := m.Log(); log != "" {
		t.Errorf("the log: %s", log)
	}
}

// TestTheList has what is mounted, for people and for programs.
func TestTheList(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	b.OK("create", "64M", "second.vhd")
	b.Mount("second.vhd", "-r")
	list := b.List()
	if len(list) != 2 || list[0].Image != b.Path("disk.vhd") || list[0].Disk != m.Disk || list[0].Frontend != "fuse" || list[0].ReadOnly ||
		list[1].Image != b.Path("second.vhd") || !list[1].ReadOnly {
		t.Errorf("list --json: %+v", list)
	}
	text := b.OK("list")
	for _, word := range []string{"IMAGE", b.Path("disk.vhd"), m.Disk, fmt.Sprint(m.PID()), "running", "read-only"} {
		if !strings.Contains(text, word) {
			t.Errorf("list: %s; want %q in it", text, word)
		}
	}
}
