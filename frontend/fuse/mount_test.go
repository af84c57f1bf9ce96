package fuse

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFindMountpoint(t *testing.T) {
	dir := t.TempDir()
	full, empty, file := filepath.Join(dir, "full"), filepath.Join(dir, "empty"), filepath.Join(dir, "file")
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.MkdirAll(filepath.Join(full, "x"), 0o700), os.Mkdir(empty, 0o700),
		os.WriteFile(file, []byte("x"), 0o600), os.Symlink(empty, link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want mountpoint
		says string
	}{
		{empty, mountpoint{path: empty}, ""},
		{link, mountpoint{path: empty}, ""},
		{file, mountpoint{path: file, file: true}, ""},
		{full, mountpoint{}, "not empty"},
		{filepath.Join(dir, "none"), mountpoint{}, "no such file"},
		{fifo, mountpoint{}, "neither"},
		{"/proc", mountpoint{}, "proc (proc) is mounted there"},
		{"", mountpoint{}, "none given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findMountpoint(tt.name)
			if tt.says == "" {
				if err != nil || got != tt.want {
					t.Errorf("%+v, %v, want %+v", got, err, tt.want)
				}
				return
			}
			if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("%v, want %q in it", err, tt.says)
			}
		})
	}
}

func TestDeadMountIsSaidSo(t *testing.T) {
	err := badMountpoint("/mnt", &os.PathError{Op: "stat", Path: "/mnt", Err: unix.ENOTCONN})
	if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), "unmount it first") {
		t.Error(err)
	}
}

func TestOpenDeviceSaysWhatAnAdministratorMustDo(t *testing.T) {
	dir := t.TempDir()
	_, err := openDevice(filepath.Join(dir, "fuse"))
	if !errors.Is(err, ErrNoFuse) || !strings.Contains(err.Error(), "modprobe fuse") {
		t.Error("missing:", err)
	}
	if os.Geteuid() == 0 {
		return // root is refused nothing
	}
	closed := filepath.Join(dir, "closed")
	if err := os.WriteFile(closed, nil, 0); err != nil {
		t.Fatal(err)
	}
	_, err = openDevice(closed)
	if !errors.Is(err, ErrNoFuse) || !strings.Contains(err.Error(), "chmod 0666 "+closed) {
		t.Error("closed:", err)
	}
}

func TestCheckAllowOther(t *testing.T) {
	for conf, want := range map[string]bool{
		"user_allow_other\n":              true,
		"# x\n  user_allow_other  \n":     true,
		"#user_allow_other\n":             false,
		"mount_max = 5\n":                 false,
		"user_allow_other_people = yes\n": false,
	} {
		name := filepath.Join(t.TempDir(), "fuse.conf")
		if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkAllowOther(name); (err == nil) != want || err != nil && !errors.Is(err, ErrNoFuse) {
			t.Errorf("%q: %v", conf, err)
		}
	}
	if err := checkAllowOther("/nonexistent"); !errors.Is(err, ErrNoFuse) {
		t.Error("without the file:", err)
	}
}

func TestFusermountOptions(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{FSName: "a.vhd"}, "nosuid,nodev,subtype=vhdmount,fsname=a.vhd,default_permissions,max_read=1048576"},
		{Options{FSName: `a,b\c`, ReadOnly: true, AllowRoot: true}, `nosuid,nodev,subtype=vhdmount,fsname=a\,b\\c,default_permissions,max_read=1048576,allow_other,ro`},
	} {
		if got := fusermountOptions(&tt.o); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}

func TestProgramsComplaintIsTheError(t *testing.T) {
	err := run(exec.CommandContext(t.Context(), "sh", "-c", "echo >&2 fusermount3: no way; exit 1"))
	if err == nil || err.Error() != "fusermount3: no way" {
		t.Error(err)
	}
	if err := run(exec.CommandContext(t.Context(), "sh", "-c", `test "$_FUSE_COMMFD" = 3 && test "$LC_ALL" = C`), "_FUSE_COMMFD=3"); err != nil {
		t.Error("environment:", err)
	}
}

func TestReceiveDescriptor(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	sent, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer sent.Close()
	if err := unix.Sendmsg(pair[1], []byte{0}, unix.UnixRights(int(sent.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := receiveDescriptor(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Fstat(int(sent.Fd()), &b)); err != nil || a.Rdev != b.Rdev {
		t.Error("another file arrived:", err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error("programs started later would inherit it:", err)
	}
	unix.Close(pair[1])
	if _, err := receiveDescriptor(pair[0]); err == nil {
		t.Error("a descriptor came from a closed socket")
	}
}

func TestParseMount(t *testing.T) {
	e, ok := parseMount(`41 28 0:39 / /mnt/my\040disk rw,nosuid shared:5 master:1 - fuse.vhdmount a\134b\040c rw,user_id=0`)
	want := mountEntry{id: "41", device: "0:39", point: "/mnt/my disk", fsType: "fuse.vhdmount", source: `a\b c`}
	if !ok || e != want {
		t.Errorf("%+v, %v, want %+v", e, ok, want)
	}
	for _, bad := range []string{"", "41 28 0:39", "41 28 0:39 / /mnt rw fuse x y", "41 28 0:39 / /mnt rw - fuse"} {
		if _, ok := parseMount(bad); ok {
			t.Errorf("%q was understood", bad)
		}
	}
	for in, want := range map[string]string{`a\`: `a\`, `a\04`: `a\04`, `\999x`: `\999x`, `\012`: "\n"} {
		if got := unescape(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestMountAtFindsTheTopmost(t *testing.T) {
	if e, ok, err := mountAt("/proc"); err != nil || !ok || e.fsType != "proc" {
		t.Errorf("%+v, %v, %v", e, ok, err)
	}
	if _, ok, err := mountAt(t.TempDir()); ok || err != nil {
		t.Error("something is mounted at a new directory:", err)
	}
}

func TestWithinAndSameDevice(t *testing.T) {
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{{"/mnt", "/mnt", true}, {"/mnt/a", "/mnt", true}, {"/mnta", "/mnt", false}, {"/", "/mnt", false}, {"/a", "/", true}} {
		if got := within(tt.path, tt.dir); got != tt.want {
			t.Errorf("within(%q, %q) = %v", tt.path, tt.dir, got)
		}
	}
	for hex, want := range map[string]bool{"00:27": true, "00:39": false, "fd:00": false, "x": false, "": false} {
		if got := sameDevice(hex, "0:39"); got != want {
			t.Errorf("%q is 0:39: %v", hex, got)
		}
	}
}

func TestHoldersFindThisProcess(t *testing.T) {
	e, ok, err := mountAt("/proc")
	if err != nil || !ok {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if who := holders(e); !slices.ContainsFunc(who, func(s string) bool { return strings.Contains(s, "fuse.test (pid ") }) {
		t.Errorf("%q lacks this process", who)
	}
}

func TestByNamesThem(t *testing.T) {
	if got := by(nil) + by([]string{"a (pid 1)", "b (pid 2)"}); got != ": open in a (pid 1), b (pid 2)" {
		t.Error(got)
	}
}
