package mount

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// unprivileged is a box of a user who isn't root: the one who runs the tests,
// or, where that is root, nobody, to whom /dev/fuse is opened meanwhile.
func unprivileged(t *testing.T) *harness.Box {
	t.Helper()
	harness.Fuse(t)
	harness.Tools(t, "fusermount3")
	if os.Geteuid() != 0 {
		return harness.New(t)
	}
	harness.Root(t)
	openFuse(t)
	nobody, err := user.Lookup("nobody")
	check(t, err)
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	check(t, err)
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	check(t, err)
	return harness.New(t).As(uint32(uid), uint32(gid))
}

// fuseDevice is /dev/fuse while tests have it opened to all.
var fuseDevice struct {
	sync.Mutex
	users int
	mode  os.FileMode // before
}

// openFuse opens /dev/fuse to all users until the last test that asked for it
// has ended.
func openFuse(t *testing.T) {
	t.Helper()
	d := &fuseDevice
	d.Lock()
	defer d.Unlock()
	if d.users++; d.users == 1 {
		info, err := os.Stat("/dev/fuse")
		check(t, err)
		d.mode = info.Mode().Perm()
		check(t, os.Chmod("/dev/fuse", 0o666))
	}
	t.Cleanup(func() {
		d.Lock()
		defer d.Unlock()
		if d.users--; d.users == 0 {
			check(t, os.Chmod("/dev/fuse", d.mode))
		}
	})
}

// TestAUserWithoutPrivilege does it all: no root, no special flag.
func TestAUserWithoutPrivilege(t *testing.T) {
	t.Parallel()
	b := unprivileged(t)
	harness.Tools(t, "sfdisk", "mkfs.ext4", "e2fsck")
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	b.Tool("sh", "-c", "echo 'start=2048,type=83' | sfdisk -q "+m.Disk)
	b.Tool("mkfs.ext4", "-q", "-F", m.Part("1"))
	b.Tool("e2fsck", "-f", "-n", m.Part("1"))
	r := b.Try("stat", "-c", "%u %a", m.Disk)
	if want := b.Tool("id", "-u"); r.Stdout != want[:len(want)-1]+" 600\n" {
		t.Errorf("the disk's owner and mode: %q; want %q", r.Stdout, want)
	}
	b.OK("unmount", m.Point)
	b.OK("check", "disk.vhd")
	m = b.Mount("disk.vhd")
	b.Tool("e2fsck", "-f", "-n", m.Part("1"))
	b.OK("unmount", "disk.vhd")
	if left := b.Mounts(); len(left) != 0 {
		t.Errorf("still mounted: %v", left)
	}
}

// TestAnotherUserIsKeptOut, root too.
func TestAnotherUserIsKeptOut(t *testing.T) {
	t.Parallel()
	harness.Root(t)
	b := unprivileged(t)
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	if _, err := os.Stat(m.Disk); !os.IsPermission(err) {
		t.Errorf("root's stat of another user's disk: %v; want permission denied", err)
	}
	b.OK("unmount", m.Point)
}

// TestRootsDiskIsRootsAlone: another user is refused whatever they ask, by root's
// mount itself and not by the directory that it is in, even of a disk whose
// modes would let all in.
func TestRootsDiskIsRootsAlone(t *testing.T) {
	harness.Root(t)
	harness.Fuse(t)
	for _, options := range []string{"rw", "ro", "umask=0", "allow_root,umask=0", "default_permissions,umask=0", "uid=" + nobody(t) + ",umask=0"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			b := harness.New(t)
			check(t, os.Chmod(b.Dir, 0o755))
			b.OK("create", "64M", "disk.vhd")
			point := b.Mkdir("disk.vhd.mnt")
			if r := asNobody(t, b, "ls", point); r.Code != 0 {
				t.Fatalf("nobody can't list where it is to be mounted: %+v", r)
			}
			m := b.Mount("disk.vhd", "-o", options)
			b.Tool("ls", "-l", m.Point) // the kernel knows the names now, and the attributes
			asked := [][]string{
				{"ls", m.Point}, {"stat", m.Disk}, {"stat", m.Point + "/info.json"}, {"dd", "if=" + m.Disk, "of=/dev/null", "count=1"}, {"cat", m.Point + "/info.json"},
				{"dd", "if=/dev/zero", "of=" + m.Disk, "conv=notrunc", "count=1"}, {"truncate", "-s", "0", m.Disk},
				{"touch", m.Point + "/new"}, {"chmod", "666", m.Disk}, {"rm", "-f", m.Disk}, {"stat", m.Point}, {"ls", "-d", m.Point + "/."},
			}
			for _, args := range asked {
				r := asNobody(t, b, args[0], args[1:]...)
				if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, "ermission denied") {
					t.Errorf("nobody's %v: %+v; want permission denied", args, r)
				}
			}
			m.Unmount()
			b.OK("check", "disk.vhd")
		})
	}
}

// asNobody runs a program as a user who is neither root nor in a group.
func asNobody(t *testing.T, b *harness.Box, name string, args ...string) harness.Result {
	t.Helper()
	return b.Try("setpriv", append([]string{"--reuid", nobody(t), "--regid", nobody(t), "--clear-groups", name}, args...)...)
}

// TestWhatAllowOtherShows to another user: the directory and what the modes
// let all read, and nothing that is the owner's alone. The kernel checks that.
func TestWhatAllowOtherShows(t *testing.T) {
	harness.Root(t)
	harness.Fuse(t)
	for _, c := range []struct {
		options string
		mode    string // of the disk
		// What another user may do.
		list, stat, read, write bool
	}{
		{"allow_other", "644", true, true, true, false},
		{"allow_other,ro", "444", true, true, true, false},
		{"allow_other,umask=0", "666", true, true, true, true},
		{"allow_other,umask=066", "600", false, true, false, false},
		{"allow_other,umask=077", "600", false, false, false, false},
		{"allow_other,uid=" + nobody(t) + ",umask=077", "600", true, true, true, true},
	} {
		t.Run(c.options, func(t *testing.T) {
			t.Parallel()
			b := harness.New(t)
			check(t, os.Chmod(b.Dir, 0o755))
			b.OK("create", "64M", "disk.vhd")
			m := b.Mount("disk.vhd", "-o", c.options+",default_permissions")
			if mode := b.Tool("stat", "-c", "%a", m.Disk); mode != c.mode+"\n" {
				t.Errorf("the disk's mode is %q, want %s", mode, c.mode)
			}
			for _, want := range []struct {
				args []string
				ok   bool
			}{
				{[]string{"ls", m.Point}, c.list},
				{[]string{"stat", m.Disk}, c.stat},
				{[]string{"dd", "if=" + m.Disk, "of=/dev/null", "count=1"}, c.read},
				{[]string{"dd", "if=/dev/zero", "of=" + m.Disk, "conv=notrunc", "count=1"}, c.write},
				{[]string{"touch", m.Point + "/new"}, false},
				{[]string{"rm", "-f", m.Disk}, false},
			} {
				if r := asNobody(t, b, want.args[0], want.args[1:]...); (r.Code == 0) != want.ok {
					t.Errorf("nobody's %v: %+v; want success: %t", want.args, r, want.ok)
				}
			}
			m.Unmount()
		})
	}
}

// TestAClosedDeviceIsSaid, with what an administrator must allow. It runs
// beside no other test, since it closes /dev/fuse.
func TestAClosedDeviceIsSaid(t *testing.T) {
	harness.Root(t)
	b := unprivileged(t)
	check(t, os.Chmod("/dev/fuse", 0o600)) // until the end of the test, as by openFuse
	b.OK("create", "64M", "disk.vhd")
	b.Mkdir("mnt")
	for _, args := range [][]string{{"mount", "disk.vhd", "mnt"}, {"mount", "disk.vhd"}, {"mount", "-f", "disk.vhd", "mnt"}} {
		b.Fails(args, "/dev/fuse", "administrator")
	}
	if list := b.List(); len(list) != 0 || len(b.Mounts()) != 0 {
		t.Errorf("left behind: %+v, %v", list, b.Mounts())
	}
}

// TestTheRuntimeDirectoryIsItsOwners: another user neither gets in nor talks to
// a server, whatever the modes of what is in it; and one that another prepared,
// or may enter, is refused by every verb that uses it.
func TestTheRuntimeDirectoryIsItsOwners(t *testing.T) {
	t.Parallel()
	harness.Root(t)
	harness.Tools(t, "stat", "ls")
	user := unprivileged(t)
	b := harness.New(t)
	check(t, os.Chmod(b.Dir, 0o755))
	b.OK("create", "8M", "disk.vhd")
	m := b.Mount("disk.vhd")
	if info, err := os.Stat(b.Runtime); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the runtime directory: %v, %v", info.Mode(), err)
	}
	if r := user.Try("ls", b.Runtime); r.Code == 0 {
		t.Errorf("another user lists it: %s", r.Stdout)
	}
	theirs := user.With("VHDMOUNT_RUNTIME_DIR=" + b.Runtime)
	theirs.Fails([]string{"unmount", m.Point}, b.Runtime, "belongs to user 0")
	theirs.Fails([]string{"list"}, b.Runtime, "belongs to user 0")
	m.Unmount()

	user.OK("create", "8M", "own.vhd")
	for mode, says := range map[os.FileMode]string{0o770: "others may enter it", 0o701: "others may enter it", os.ModeSticky | 0o777: "others may enter it"} {
		check(t, os.Chmod(b.Runtime, mode))
		for _, args := range [][]string{{"mount", "disk.vhd"}, {"list"}} {
			b.Fails(args, b.Runtime, says)
		}
	}
	check(t, os.Chmod(b.Runtime, 0o700))
}

// TestNamesThroughFusermount: the set-user-ID program gets them as they are.
func TestNamesThroughFusermount(t *testing.T) {
	t.Parallel()
	b := unprivileged(t)
	for _, name := range []string{"$(touch pwned)", "a;touch pwned;", "a,allow_other,uid=0", `a\,b\`, "-o", "--", "a b\tc\nd", "%s"} {
		b.OK("create", "--", "8M", name+".vhd")
		b.Mkdir(name)
		b.OK("mount", "--", name+".vhd", name)
		mounts := b.Mounts()
		if len(mounts) != 1 {
			t.Errorf("%q: mounts %q", name, mounts)
		}
		if _, err := os.Stat(b.Path(name) + "/disk.raw"); os.Geteuid() == 0 && !os.IsPermission(err) {
			t.Errorf("%q: root's stat: %v; want permission denied: a name became an option", name, err)
		}
		b.OK("unmount", "--", name)
	}
	if _, err := os.Stat(b.Path("pwned")); err == nil {
		t.Error("a name reached a shell")
	}
}
