package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is a mounted image.
type Mount struct {
	Image string // as it was named
	Point string // absolute
	Disk  string // what mount printed

	box *Box
}

// Mount mounts an image at a new directory, whose name is the image's with
// .mnt, and fails the test unless it prints the disk's path and nothing else.
func (b *Box) Mount(image string, flags ...string) *Mount {
	b.t.Helper()
	point := b.Path(filepath.Base(image) + ".mnt")
	if _, err := os.Lstat(point); os.IsNotExist(err) {
		b.Mkdir(point)
	}
	return b.MountAt(point, image, flags...)
}

// MountAt mounts an image at point, a directory or a regular file.
func (b *Box) MountAt(point, image string, flags ...string) *Mount {
	b.t.Helper()
	m := &Mount{Image: image, Point: b.Path(point), box: b}
	info, err := os.Stat(m.Point)
	if err != nil {
		b.t.Fatal(err)
	}
	want := m.Point
	if info.IsDir() {
		want = filepath.Join(m.Point, "disk.raw")
	}
	m.Disk = strings.TrimSuffix(b.OK(append(append([]string{"mount"}, flags...), image, point)...), "\n")
	if m.Disk != want {
		b.t.Fatalf("mount printed %q, want %q", m.Disk, want)
	}
	return m
}

// Unmount takes the disk away, and fails the test unless it is gone from the
// mount table and the list, and its server has ended.
func (m *Mount) Unmount(flags ...string) {
	m.box.t.Helper()
	pid := m.PID()
	m.box.OK(append(append([]string{"unmount"}, flags...), m.Point)...)
	m.box.CheckGone(m.Point)
	m.box.AwaitEnd(pid)
}

// Unmount runs the unmount verb, for a disk that the test has closed. Another
// test's program has the files of this process for a moment, between fork and
// exec, and a disk that is busy with that alone is tried again.
func (b *Box) Unmount(args ...string) Result {
	b.t.Helper()
	for end := time.Now().Add(timeout); ; {
		r := b.Run(append([]string{"unmount"}, args...)...)
		if r.Code == 0 || !heldByFork(r.Stderr) || time.Now().After(end) {
			return r
		}
	}
}

// heldByFork tells whether a refusal is about a process that has this one's
// name and isn't it, or one that was gone when its name was looked for.
func heldByFork(refusal string) bool {
	if strings.Contains(refusal, "the disk is in use; ") {
		return true
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return false
	}
	_, who, found := strings.Cut(refusal, strings.TrimSpace(string(comm))+" (pid ")
	pid, _, _ := strings.Cut(who, ")")
	return found && pid != strconv.Itoa(os.Getpid())
}

// Part is the path of partition n.
func (m *Mount) Part(n string) string { return filepath.Join(m.Point, "p"+n+".raw") }

// PID is the number of the mount's server.
func (m *Mount) PID() int {
	m.box.t.Helper()
	for _, l := range m.box.List() {
		if l.Mountpoint == m.Point {
			return l.PID
		}
	}
	m.box.t.Fatalf("%s is not in the list", m.Point)
	return 0
}

// Log is what the mount's server has logged.
func (m *Mount) Log() string {
	m.box.t.Helper()
	for _, l := range m.box.List() {
		if l.Mountpoint == m.Point {
			return string(m.box.Read(l.Log))
		}
	}
	m.box.t.Fatalf("%s is not in the list", m.Point)
	return ""
}

// Open opens the disk with flags beside O_CLOEXEC; it is closed at the end of
// the test at the latest.
func (m *Mount) Open(flags int) *os.File {
	m.box.t.Helper()
	return m.box.Open(m.Disk, flags)
}

// Open opens a file; it is closed at the end of the test at the latest.
func (b *Box) Open(name string, flags int) *os.File {
	b.t.Helper()
	f, err := os.OpenFile(b.Path(name), flags, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return f
}

// Listed is an entry of `vhdmount list --json`.
type Listed struct {
	Image      string    `json:"image"`
	Disk       string    `json:"disk"`
	Mountpoint string    `json:"mountpoint"`
	Frontend   string    `json:"frontend"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	ReadOnly   bool      `json:"read_only"`
	Log        string    `json:"log"`
	State      string    `json:"state"`
	Error      string    `json:"error"`
}

// List is what `vhdmount list --json` prints.
func (b *Box) List() []Listed {
	b.t.Helper()
	var out []Listed
	text := b.OK("list", "--json")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		b.t.Fatalf("list --json: %v: %s", err, text)
	}
	return out
}

// CheckGone fails the test if a point is still in the mount table or the list.
func (b *Box) CheckGone(point string) {
	b.t.Helper()
	for _, at := range b.Mounts() {
		if at == point {
			b.t.Errorf("%s is still mounted", point)
		}
	}
	for _, l := range b.List() {
		if l.Mountpoint == point {
			b.t.Errorf("%s is still in the list: %+v", point, l)
		}
	}
}

// Mounts is what is mounted in the box, in the order of mounting.
func (b *Box) Mounts() []string {
	b.t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(table)) {
		point := strings.ReplaceAll(strings.Fields(line)[4], `\040`, " ")
		if strings.HasPrefix(point, b.Dir+"/") {
			out = append(out, point)
		}
	}
	return out
}

// AwaitEnd waits until a process has ended.
func (b *Box) AwaitEnd(pid int) {
	b.t.Helper()
	if !awaitEnd(pid, timeout) {
		b.t.Errorf("process %d is still there after %v", pid, timeout)
	}
}

// awaitEnd tells whether a process has ended within limit.
func awaitEnd(pid int, limit time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	end := time.Now().Add(limit)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds()))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// Eventually waits for a condition of the outside world.
func (b *Box) Eventually(what string, holds func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(timeout); !holds(); <-tick.C {
		if time.Now().After(end) {
			b.t.Fatalf("after %v still not: %s", timeout, what)
		}
	}
}
