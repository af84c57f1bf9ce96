package confine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// newWorld is a directory with what the attempts are about.
func newWorld(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"runtime", "runtime/mnt"} {
		check(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	for _, name := range []string{"opened", "other", "image", "parent", "late"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte("content"), 0o600))
	}
	for i := range threads {
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("runtime/file%d", i)), nil, 0o600))
		check(t, os.Mkdir(filepath.Join(dir, fmt.Sprintf("runtime/mnt/dir%d", i)), 0o700))
	}
	outside, err := net.Listen("unix", filepath.Join(dir, "outside.sock"))
	check(t, err)
	t.Cleanup(func() { outside.Close() })
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// confined has a process confine itself and says what it could do then. With
// user it is one without privilege.
func confined(t *testing.T, dir string, o Options, user bool) outcome {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer tcp.Close()
	text, err := json.Marshal(task{Options: o, Dir: dir, TCP: tcp.Addr().String(), Parent: os.Getpid()})
	check(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	late, err := os.OpenFile(filepath.Join(dir, "late"), os.O_RDWR, 0)
	check(t, err)
	defer late.Close()
	check(t, unix.Sendmsg(int(ours.Fd()), []byte{0}, unix.UnixRights(int(late.Fd())), nil, 0))

	cmd := exec.CommandContext(t.Context(), self(t, user))
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.ExtraFiles = []*os.File{theirs}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if user {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, stdout, complaint.String())
	}
	var out outcome
	check(t, json.Unmarshal(stdout, &out))
	return out
}

const nobody = 65534

// self is this test binary, where the user can run it.
func self(t *testing.T, user bool) string {
	t.Helper()
	path, err := os.Executable()
	check(t, err)
	if !user {
		return path
	}
	b, err := os.ReadFile(path)
	check(t, err)
	dir, err := os.MkdirTemp("", "confine")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755))
	copied := filepath.Join(dir, "test")
	check(t, os.WriteFile(copied, b, 0o755))
	return copied
}

// giveTo makes the world a user's, and a directory that a user can get to.
func giveTo(t *testing.T, dir string, uid int) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	}))
	top := filepath.Clean(os.TempDir()) // the machine's: it stays as it is
	for dir = filepath.Dir(dir); dir != top && dir != "/"; dir = filepath.Dir(dir) {
		check(t, os.Chmod(dir, 0o711))
	}
}

// refusals are the errors that tell a refusal from another failure.
var refusals = map[string]bool{"EPERM": true, "EACCES": true}

// judge sees that all that isn't "ok:" was refused, on every thread, but for
// what is allowed by exception.
func (o outcome) judge(t *testing.T, exceptions ...string) {
	t.Helper()
	excepted := map[string]bool{}
	for _, name := range exceptions {
		excepted[name] = true
	}
	for name, said := range o.Attempts {
		switch ok := strings.HasPrefix(name, "ok:") || excepted[name]; {
		case ok && said != "":
			t.Errorf("%s: %s", name, said)
		case !ok && !refusals[said]:
			t.Errorf("%s: %q; want a refusal", name, said)
		}
	}
}

// landlocked skips where the kernel has no Landlock for files, in which case
// the state must say so.
func (o outcome) landlocked(t *testing.T) {
	t.Helper()
	if o.State.Files {
		return
	}
	if !strings.Contains(o.Missing, "landlock") {
		t.Fatalf("files are not confined, and nothing says why: %+v", o)
	}
	t.Skip("the kernel has no Landlock: " + o.Missing)
}

func TestNothingIsLeft(t *testing.T) {
	dir := newWorld(t)
	out := confined(t, dir, Options{RemoveIn: []string{filepath.Join(dir, "runtime")}}, false)
	out.landlocked(t)
	out.judge(t)
	if !out.State.Network || !out.State.Syscalls || out.State.Capabilities != "=" || out.Missing != "" {
		t.Errorf("state %+v, missing %s", out.State, out.Missing)
	}
}

func TestAUserIsConfinedToo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests do it")
	}
	dir := newWorld(t)
	giveTo(t, dir, nobody)
	out := confined(t, dir, Options{RemoveIn: []string{filepath.Join(dir, "runtime")}}, true)
	out.landlocked(t)
	out.judge(t)
}

func TestFilesToOpenAgain(t *testing.T) {
	dir := newWorld(t)
	out := confined(t, dir, Options{
		RemoveIn: []string{filepath.Join(dir, "runtime")},
		Read:     []string{filepath.Join(dir, "parent")},
		Write:    []string{filepath.Join(dir, "image")},
	}, false)
	out.landlocked(t)
	out.judge(t, "open its image", "read its parent")
}

// TestAnyFile: what needs no file is refused all the same.
func TestAnyFile(t *testing.T) {
	dir := newWorld(t)
	out := confined(t, dir, Options{AnyFile: true}, false)
	if out.State.Files || !out.State.Syscalls {
		t.Errorf("state %+v", out.State)
	}
	for _, name := range []string{"read a file", "write a file", "create a file", "remove a file"} {
		delete(out.Attempts, name) // each has had its turn on one thread
	}
	for name, said := range out.Attempts {
		switch name {
		case "run a program", "become a shell", "trace", "signal", "connect by TCP", "send by UDP", "listen", "connect by a socket", "mount", "unmount", "unshare",
			"change a mode", "change the mode of a descriptor", "change an owner", "change an attribute", "change a time",
			"limit another", "clone into a user namespace":
			if !refusals[said] {
				t.Errorf("%s: %q; want a refusal", name, said)
			}
		case "read a system file", "open its image", "ok: read what is open", "ok: use a file that came":
			if said != "" {
				t.Errorf("%s: %s", name, said)
			}
		}
	}
}

func TestCapabilitiesThatAreKept(t *testing.T) {
	if permitted, err := cap.GetProc().GetFlag(cap.Permitted, cap.IPC_LOCK); err != nil || !permitted {
		t.Skip("this user has none to keep")
	}
	dir := newWorld(t)
	out := confined(t, dir, Options{AnyFile: true, Keep: []cap.Value{cap.IPC_LOCK}}, false)
	if out.State.Capabilities != "= cap_ipc_lock+ep" && out.State.Capabilities != "cap_ipc_lock=ep" {
		t.Errorf("capabilities %q", out.State.Capabilities)
	}
}

// TestRootPassesPermissionBits where it has to, and only there.
func TestRootPassesPermissionBits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs two users' files")
	}
	dir := newWorld(t)
	giveTo(t, filepath.Join(dir, "other"), nobody)
	foreign, own := filepath.Join(dir, "other"), filepath.Join(dir, "image")
	for name, test := range map[string]struct {
		options Options
		mode    os.FileMode // of the other's file
		passes  bool
	}{
		"its own":                      {Options{RemoveIn: []string{dir}, Read: []string{own}, Write: []string{own}}, 0o600, false},
		"another's to read, closed":    {Options{Read: []string{foreign}}, 0o600, true},
		"another's to read, open":      {Options{Read: []string{foreign}}, 0o644, false},
		"another's to write, closed":   {Options{Write: []string{foreign}}, 0o644, true},
		"another's to write, open":     {Options{Write: []string{foreign}}, 0o666, false},
		"another's to remove from":     {Options{RemoveIn: []string{foreign}}, 0o755, true},
		"nothing":                      {Options{RemoveIn: []string{filepath.Join(dir, "none")}}, 0o600, true},
		"behind a file that is closed": {Options{Read: []string{own, filepath.Join(foreign, "x")}}, 0o600, true},
	} {
		check(t, os.Chmod(foreign, test.mode))
		test.options.Keep = []cap.Value{cap.IPC_LOCK}
		want := []cap.Value{cap.IPC_LOCK}
		if test.passes {
			want = append(want, cap.DAC_OVERRIDE)
		}
		if keep := test.options.keep(); !slices.Equal(keep, want) {
			t.Errorf("%s: kept %v, want %v", name, keep, want)
		}
	}
	check(t, os.Chmod(dir, 0o700))
	check(t, os.Chown(dir, nobody, nobody))
	o := Options{Read: []string{own}}
	if keep := o.keep(); len(keep) != 1 {
		t.Errorf("behind another's directory: kept %v", keep)
	}
}

// TestWhatIsNeededIsLookedForToItsEnd: by a relative name and through links, over
// another user's directories, only a capability leads.
func TestWhatIsNeededIsLookedForToItsEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs another user's directory")
	}
	dir := t.TempDir()
	for up := dir; up != "/"; up = filepath.Dir(up) { // what is above must not decide
		if !reachable(up, enter) {
			t.Skipf("%s itself is closed", up)
		}
	}
	theirs, open := filepath.Join(dir, "theirs"), filepath.Join(dir, "open")
	check(t, os.MkdirAll(filepath.Join(theirs, "sub"), 0o755))
	check(t, os.Mkdir(open, 0o755))
	for _, name := range []string{filepath.Join(theirs, "sub/image"), filepath.Join(open, "image")} {
		check(t, os.WriteFile(name, nil, 0o666))
	}
	check(t, os.Symlink(filepath.Join(theirs, "sub/image"), filepath.Join(open, "link")))
	check(t, os.Symlink(filepath.Join(open, "image"), filepath.Join(theirs, "sub/link")))
	check(t, os.Chmod(theirs, 0o700))
	check(t, os.Chown(theirs, nobody, nobody))
	t.Chdir(filepath.Join(theirs, "sub"))
	for path, want := range map[string]bool{
		filepath.Join(open, "image"): true,
		filepath.Join(open, "link"):  false,
		"image":                      false,
		"link":                       false,
	} {
		if got := permitted(path, read); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
