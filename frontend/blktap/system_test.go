package blktap

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// procWith is a directory with a misc table.
func procWith(t *testing.T, misc string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "misc"), []byte(misc), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestControlIsFoundByEitherName(t *testing.T) {
	for _, c := range []struct {
		misc string
		want int
	}{
		{"229 fuse\n 61 blktap-control\n144 nvram\n", 61},
		{"  7 blktap/control\n", 7},
		{"229 fuse\n", -1},
		{"61 blktap-control-x\n", -1},
		{"", -1},
	} {
		y := &system{proc: procWith(t, c.misc)}
		got, err := y.controlMinor()
		if c.want < 0 {
			if !errors.Is(err, ErrNoModule) {
				t.Errorf("%q: %d, %v; want %v", c.misc, got, err, ErrNoModule)
			}
		} else if got != c.want || err != nil {
			t.Errorf("%q: %d, %v; want %d", c.misc, got, err, c.want)
		}
	}
}

func TestNoModuleSaysWhatToDo(t *testing.T) {
	y := &system{dir: t.TempDir(), proc: procWith(t, "229 fuse\n")}
	_, err := y.Allocate()
	if !errors.Is(err, ErrNoModule) || !strings.Contains(err.Error(), "modprobe blktap") {
		t.Errorf("Allocate: %v", err)
	}
	if err := y.Free(Tap{}); !errors.Is(err, ErrNoModule) {
		t.Errorf("Free: %v", err)
	}
	y.proc = filepath.Join(y.proc, "nowhere")
	if _, err := y.Allocate(); !errors.Is(err, ErrNoModule) {
		t.Errorf("without /proc: %v", err)
	}
}

// TestControlThatIsNone: a control node behind which there is no module.
var withRoot = flag.Bool("root", false, "run the tests that need root, which makes device nodes")

// needRoot skips a test that makes device nodes unless it was asked for.
func needRoot(t *testing.T) {
	t.Helper()
	if !*withRoot {
		t.Skip("needs -root")
	}
	if os.Geteuid() != 0 {
		t.Fatal("-root was given, but this is not root")
	}
}

func TestControlThatIsNone(t *testing.T) {
	needRoot(t)
	y := &system{dir: filepath.Join(t.TempDir(), "blktap-2"), proc: procWith(t, "250 blktap-control\n")}
	if _, err := y.Allocate(); !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) {
		t.Errorf("Allocate: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(y.dir, "control"), &st); err != nil || st.Rdev != unix.Mkdev(10, 250) {
		t.Errorf("the node is %#x, %v", st.Rdev, err)
	}
}

func TestNodesAreMadeOnceAndStaleOnesReplaced(t *testing.T) {
	needRoot(t)
	name := filepath.Join(t.TempDir(), "blktap-2", "tapdev3")
	check := func(minor int) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != unix.S_IFBLK|0o600 || st.Rdev != unix.Mkdev(252, uint32(minor)) {
			t.Errorf("mode %o, device %#x", st.Mode, st.Rdev)
		}
	}
	for _, minor := range []int{3, 3, 4} {
		if err := makeNode(name, unix.S_IFBLK, 252, minor); err != nil {
			t.Fatal(err)
		}
		check(minor)
	}
	for range 2 {
		if err := removeNode(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the node is there: %v", err)
	}
}

func TestAMinorIsFoundByItsNodes(t *testing.T) {
	needRoot(t)
	y := &system{dir: filepath.Join(t.TempDir(), "blktap-2")}
	want := Tap{Minor: 3, RingMajor: 251, DeviceMajor: 252, Path: y.devicePath(3)}
	if err := y.makeNodes(want); err != nil {
		t.Fatal(err)
	}
	if got, err := y.Find(3); got != want || err != nil {
		t.Errorf("Find = %+v, %v; want %+v", got, err, want)
	}
	if err := y.Hide(want); err != nil {
		t.Fatal(err)
	}
	want.DeviceMajor = 0
	if got, err := y.Find(3); got != want || err != nil {
		t.Errorf("without the block device's node: Find = %+v, %v; want %+v", got, err, want)
	}
}

func TestAMinorWithoutNodesIsNotFound(t *testing.T) {
	y := &system{dir: t.TempDir()}
	if err := os.WriteFile(y.ringPath(1), nil, 0o600); err != nil { // no node
		t.Fatal(err)
	}
	for _, minor := range []int{0, 1} {
		if _, err := y.Find(minor); !errors.Is(err, ErrNoMinor) {
			t.Errorf("minor %d: %v", minor, err)
		}
	}
}

func TestNothingButNodesIsRemoved(t *testing.T) {
	name := filepath.Join(t.TempDir(), "tapdev0")
	if err := os.WriteFile(name, []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeNode(name, unix.S_IFBLK, 252, 0); err == nil {
		t.Error("a file was replaced")
	}
	if err := removeNode(name); err == nil {
		t.Error("a file was removed")
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "somebody's" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestOpenOfAMinorThatIsNone(t *testing.T) {
	needRoot(t)
	y := &system{dir: t.TempDir()}
	if _, err := y.Open(Tap{Minor: 5}); !errors.Is(err, ErrNoMinor) {
		t.Errorf("no node: %v", err)
	}
	if err := makeNode(y.ringPath(5), unix.S_IFCHR, 4095, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Open(Tap{Minor: 5}); !errors.Is(err, ErrNoMinor) {
		t.Errorf("node of no driver: %v", err)
	}
}

func TestHoldersAreNamed(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := string(bytes.TrimSpace(comm)) + " (pid " + strconv.Itoa(os.Getpid()) + ")"
	if who := holders("/proc", unix.S_IFCHR, unix.Mkdev(1, 3)); !slices.Contains(who, want) {
		t.Errorf("holders of /dev/null are %q, without %q", who, want)
	}
	if who := holders("/proc", unix.S_IFBLK, unix.Mkdev(1, 3)); slices.Contains(who, want) {
		t.Errorf("the block device of that number is held by %q", who)
	}
}

func TestMountsAndSwapAreNamed(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "self"), 0o755); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(dir, "tapdev1")
	if err := makeNode(node, unix.S_IFBLK, 252, 1); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"self/mountinfo": "36 35 252:1 / /srv/data rw - ext4 /dev/x rw\n37 35 252:11 / /other rw - ext4 /dev/y rw\n",
		"swaps":          "Filename Type Size Used Priority\n" + node + " partition 1 0 -1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	y := &system{proc: dir}
	got := y.Holders(Tap{DeviceMajor: 252, Minor: 1})
	if want := []string{"mounted on /srv/data", "used as swap"}; !slices.Equal(got, want) {
		t.Errorf("holders %q, want %q", got, want)
	}
}

// TestSysfsSaysWhoServes, so that nobody has to open the ring for it.
func TestSysfsSaysWhoServes(t *testing.T) {
	y := &system{sys: t.TempDir()}
	for minor, task := range map[int]string{1: "", 2: "4711\n", 3: "4711:tapdisk\n"} {
		dir := filepath.Join(y.sys, "class", "blktap2", "blktap"+strconv.Itoa(minor))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "task"), []byte(task), 0o644); err != nil {
			t.Fatal(err)
		}
		if served, err := y.Served(Tap{Minor: minor}); err != nil || served != (task != "") {
			t.Errorf("task %q: served %v, %v", task, served, err)
		}
	}
	if _, err := y.Served(Tap{Minor: 9}); !errors.Is(err, ErrNoMinor) {
		t.Errorf("a minor that is not allocated: %v", err)
	}
}

// eventPort is the part of a port that needs no module.
func eventPort(t *testing.T) *systemPort {
	t.Helper()
	fd, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0) // always readable
	if err != nil {
		t.Fatal(err)
	}
	p := &systemPort{fd: fd, event: -1}
	if err := p.openEvent(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Wake() // after Close: nothing
	})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestSystemPortWaitsForWhatWasAsked(t *testing.T) {
	p := eventPort(t)
	p.Wake()
	p.Wake()
	steps := []struct {
		on      Events
		timeout time.Duration
		want    Events
	}{
		{EventWake, -1, EventWake},             // two wakes are one
		{EventWake, time.Microsecond, 0},       // and then none
		{EventWake | EventRing, -1, EventRing}, // the ring is ready
		{EventWake, 0, 0},                      // and not asked for
	}
	for i, s := range steps {
		got, err := p.Wait(s.on, s.timeout)
		if err != nil || got != s.want {
			t.Errorf("step %d: %b, %v; want %b", i, got, err, s.want)
		}
	}
	go p.Wake()
	if got, err := p.Wait(EventWake, -1); got != EventWake || err != nil {
		t.Errorf("a wake while waiting: %b, %v", got, err)
	}
}

func TestSystemPortReturnsBareErrnos(t *testing.T) {
	p := eventPort(t)
	for name, err := range map[string]error{
		"create":  p.CreateDevice(make([]byte, infoSize)),
		"compat":  p.CreateDeviceCompat(make([]byte, paramsSize)),
		"remove":  p.RemoveDevice(),
		"respond": p.Respond(),
		"paused":  p.Paused(),
		"resumed": p.Resumed(5),
	} {
		if err != unix.ENOTTY {
			t.Errorf("%s of a device that is no ring: %v", name, err)
		}
	}
}

func TestMemoryLockNeedsTheRight(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 || old.Cur == unix.RLIM_INFINITY {
		if err := lockMemory(); err != nil {
			t.Error(err)
		}
		if err := unix.Munlockall(); err != nil {
			t.Error(err)
		}
		return
	}
	if err := lockMemory(); !errors.Is(err, ErrMemoryLock) {
		t.Errorf("%v, want %v", err, ErrMemoryLock)
	}
}
