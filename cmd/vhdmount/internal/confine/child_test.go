package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childVariable makes this test binary a process that confines itself.
const childVariable = "CONFINE_TEST_CHILD"

// task is what such a process is to do, in JSON. Its descriptor 3 is a socket
// by which a file comes.
type task struct {
	Options Options
	Dir     string // the world, as newWorld made it
	TCP     string // an address where somebody listens
	Parent  int    // the process that started it
}

// outcome is what became of it. An attempt's is the errno, "" for success.
type outcome struct {
	State    State
	Missing  string
	Attempts map[string]string
}

// threads is how many make the attempts.
const threads = 4

func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(t.run()); err != nil {
		panic(err)
	}
}

// run confines the process while it has other threads, and makes every attempt
// on each of them: one that was left out would show.
func (t task) run() outcome {
	opened := must(os.OpenFile(filepath.Join(t.Dir, "opened"), os.O_RDWR, 0))
	listener := must(net.Listen("unix", filepath.Join(t.Dir, "runtime", "own.sock")))
	client := must(net.Dial("unix", listener.Addr().String()))
	var applied, done sync.WaitGroup
	applied.Add(1)
	results := make([]map[string]string, threads)
	for i := range threads - 1 {
		done.Go(func() {
			runtime.LockOSThread()
			applied.Wait()
			results[i+1] = say(t.attempts(i+1, opened))
		})
	}
	runtime.LockOSThread()
	state := Apply(t.Options)
	applied.Done()
	results[0] = say(t.attempts(0, opened))
	done.Wait()
	runtime.GC() // it signals the threads
	out := outcome{State: state, Attempts: same(results)}
	for name, said := range say(map[string]func() error{
		"ok: answer at a socket that is open": func() error { return closing(listener.Accept()) },
		"ok: use a file that came":            func() error { return useReceived(3) },
		"ok: remove the socket":               func() error { return os.Remove(listener.Addr().String()) },
		"ok: end a connection":                client.Close,
	}) {
		out.Attempts[name] = said
	}
	if state.Missing != nil {
		out.Missing, out.State.Missing = state.Missing.Error(), nil
	}
	return out
}

// attempts are what an intruder would try on thread i, and what must go on
// working.
func (t task) attempts(i int, opened *os.File) map[string]func() error {
	at := func(name string) string { return filepath.Join(t.Dir, name) }
	number := strconv.Itoa(i)
	fresh := at("runtime/fresh" + number)
	return map[string]func() error{
		"read a file":                     func() error { return closing(os.Open(at("other"))) },
		"read a system file":              func() error { return closing(os.Open("/etc/passwd")) },
		"read the mount table":            func() error { return closing(os.Open("/proc/self/mountinfo")) },
		"read another's memory":           func() error { return closing(os.Open(fmt.Sprintf("/proc/%d/mem", t.Parent))) },
		"write a file":                    func() error { return closing(os.OpenFile(at("other"), os.O_WRONLY, 0)) },
		"cut a file":                      func() error { return os.Truncate(at("other"), 0) },
		"list a directory":                func() error { return closing(os.Open(t.Dir)) },
		"create a file":                   func() error { return closing(os.Create(fresh)) },
		"make a directory":                func() error { return os.Mkdir(fresh, 0o700) },
		"make a link":                     func() error { return os.Symlink("other", fresh) },
		"remove a file":                   func() error { return os.Remove(at("other")) },
		"move away":                       func() error { return os.Rename(at("runtime/mnt"), at("stolen")) },
		"run a program":                   func() error { return exec.Command("/bin/true").Run() },
		"become a shell":                  func() error { return unix.Exec("/bin/sh", []string{"sh", "-c", "exit 3"}, nil) },
		"trace":                           func() error { return unix.PtraceAttach(t.Parent) },
		"signal":                          func() error { return unix.Kill(t.Parent, 0) },
		"connect by TCP":                  func() error { return closing(net.Dial("tcp", t.TCP)) },
		"send by UDP":                     func() error { return closing(net.Dial("udp", "127.0.0.1:9")) },
		"listen":                          func() error { return closing(net.Listen("tcp", "127.0.0.1:0")) },
		"connect by a socket":             func() error { return closing(net.Dial("unix", at("outside.sock"))) },
		"mount":                           func() error { return unix.Mount("x", t.Dir, "tmpfs", 0, "") },
		"unmount":                         func() error { return unix.Unmount("/", unix.MNT_DETACH) },
		"unshare":                         func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		"change a mode":                   func() error { return os.Chmod(at("other"), 0o666) },
		"change the mode of a descriptor": func() error { return opened.Chmod(0o4777) },
		"change an owner":                 func() error { return os.Chown(at("other"), os.Getuid(), os.Getgid()) },
		"change an attribute":             func() error { return unix.Setxattr(at("other"), "user.x", []byte("y"), 0) },
		"change a time":                   func() error { return os.Chtimes(at("other"), time.Now(), time.Now()) },
		"limit another":                   func() error { return unix.Prlimit(t.Parent, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) },
		"clone into a user namespace":     func() error { return cloneInto(unix.CLONE_NEWUSER) },

		"ok: read what is open":      func() error { _, err := opened.ReadAt(make([]byte, 4), 0); return err },
		"ok: write what is open":     func() error { _, err := opened.WriteAt([]byte("data"), 0); return err },
		"ok: cut what is open":       func() error { return opened.Truncate(4) },
		"ok: allocate what is open":  func() error { return unix.Fallocate(int(opened.Fd()), 0, 0, 4) },
		"ok: sync what is open":      opened.Sync,
		"ok: look at a file":         func() error { return second(os.Stat(at("other"))) },
		"ok: a signal to itself":     func() error { return unix.Kill(unix.Getpid(), 0) },
		"ok: one to a thread of its": func() error { return unix.Tgkill(unix.Getpid(), unix.Gettid(), 0) },
		"ok: remove its file":        func() error { return os.Remove(at("runtime/file" + number)) },
		"ok: remove its directory":   func() error { return os.Remove(at("runtime/mnt/dir" + number)) },
		"open its image":             func() error { return cut(at("image")) },
		"read its parent":            func() error { return closing(os.Open(at("parent"))) },
		"write its parent":           func() error { return closing(os.OpenFile(at("parent"), os.O_RDWR, 0)) },
	}
}

// cut opens a file to change its size.
func cut(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(4096), f.Close())
}

// say makes the attempts.
func say(attempts map[string]func() error) map[string]string {
	said := map[string]string{}
	for name, attempt := range attempts {
		said[name] = errnoName(attempt())
	}
	return said
}

// same is what all threads say, or that they differ.
func same(results []map[string]string) map[string]string {
	first := results[0]
	for _, other := range results[1:] {
		for name, said := range other {
			if said != first[name] {
				first[name] = fmt.Sprintf("%q on one thread, %q on another", first[name], said)
			}
		}
	}
	return first
}

func errnoName(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// useReceived takes a descriptor from a socket, and writes and reads there.
func useReceived(socket int) error {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, 0)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fds[0]), "received")
	defer f.Close()
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		return err
	}
	return errors.Join(second(f.ReadAt(make([]byte, 3), 0)), f.Truncate(2), f.Sync())
}

func closing[C interface{ Close() error }](c C, err error) error {
	if err != nil {
		return err
	}
	return c.Close()
}

func second[T any](_ T, err error) error { return err }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// cloneInto makes a process by clone in namespaces of its own, which ends at once.
func cloneInto(namespaces uintptr) error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, namespaces|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	switch {
	case errno != 0:
		return errno
	case pid == 0:
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}
