package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// callerVariable makes the test binary a process that calls Start, for tests
// of what its own end does.
const callerVariable = "DAEMON_TEST_CALLER"

func TestMain(m *testing.M) {
	if child, ok := Child(); ok {
		os.Exit(childMain(child))
	}
	if os.Getenv(callerVariable) != "" {
		fmt.Println(Start(context.Background(), os.Args[1:]))
		return
	}
	os.Exit(m.Run())
}

// childMain is a server that does what its first argument says; the second is
// the directory it reports to.
func childMain(child *Readiness) int {
	dir := os.Args[2]
	report := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name+".tmp"), []byte(text), 0o600); err != nil {
			panic(err)
		}
		if err := os.Rename(filepath.Join(dir, name+".tmp"), filepath.Join(dir, name)); err != nil {
			panic(err)
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	switch os.Args[1] {
	case "ready":
		err := child.Ready("the disk", log)
		fmt.Fprintln(os.Stderr, "after ready:", err)
		report("state", state())
	case "fail":
		child.Fail(7, "no such image\n")
		return 7
	case "die":
		return 3
	case "garbage":
		child.pipe.WriteString("no JSON")
	case "terminated":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		report("waiting", "")
		<-c
		child.Fail(1, "interrupted")
		return 1
	case "orphan":
		report("pid", strconv.Itoa(os.Getpid()))
		io.Copy(io.Discard, openFIFO(dir))
		report("ready", fmt.Sprint(child.Ready("the disk", log)))
	}
	return 0
}

// openFIFO waits at the FIFO "go" of dir until the test has opened it.
func openFIFO(dir string) *os.File {
	f, err := os.Open(filepath.Join(dir, "go"))
	if err != nil {
		panic(err)
	}
	return f
}

// state is what a ready child looks like: session, directory, environment and
// standard files.
func state() string {
	sid, _ := unix.Getsid(0)
	dir, _ := os.Getwd()
	in, _ := os.Readlink("/proc/self/fd/0")
	out, _ := os.Readlink("/proc/self/fd/1")
	_, again := Child()
	comm, _ := os.ReadFile("/proc/self/comm")
	return fmt.Sprintf("leader=%v dir=%s stdin=%s stdout=%s child=%v comm=%s", sid == os.Getpid(), dir, in, out, again, comm)
}

// startIn runs Start with the child's part and a new directory.
func startIn(t *testing.T, ctx context.Context, part string) (dir, path string, err error) {
	t.Helper()
	dir = t.TempDir()
	path, err = Start(ctx, []string{part, dir})
	return dir, path, err
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wait returns the contents of a file that another process makes.
func wait(t *testing.T, dir, name string) string {
	t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			return string(b)
		}
		if _, err := unix.Read(watch, make([]byte, 4096)); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

func TestStartReturnsWhatTheChildSaysWhenItIsReady(t *testing.T) {
	dir, path, err := startIn(t, t.Context(), "ready")
	if err != nil || path != "the disk" {
		t.Fatalf("got %q, %v", path, err)
	}
	want := "leader=true dir=/ stdin=/dev/null stdout=/dev/null child=false comm=" + comm(t)
	if got := wait(t, dir, "state"); got != want {
		t.Errorf("child: %s\nwant   %s", got, want)
	}
	if got := read(t, filepath.Join(dir, "log")); got != "after ready: <nil>\n" {
		t.Errorf("log: %q", got)
	}
}

// comm is this program's name as the kernel has it.
func comm(t *testing.T) string {
	t.Helper()
	return read(t, "/proc/self/comm")
}

func TestStartReportsWhyTheChildFailed(t *testing.T) {
	_, _, err := startIn(t, t.Context(), "fail")
	var failed *FailedError
	if !errors.As(err, &failed) || *failed != (FailedError{Code: 7, Message: "no such image"}) {
		t.Errorf("got %#v", err)
	}
}

func TestStartReportsAChildThatJustEnds(t *testing.T) {
	_, _, err := startIn(t, t.Context(), "die")
	if !errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestStartReportsAChildThatSaysNonsense(t *testing.T) {
	_, _, err := startIn(t, t.Context(), "garbage")
	if !errors.Is(err, ErrDied) {
		t.Errorf("got %v", err)
	}
}

func TestStartThatIsInterruptedEndsTheChild(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Start(ctx, []string{"terminated", dir})
		done <- err
	}()
	wait(t, dir, "waiting")
	cancel()
	var failed *FailedError
	if err := <-done; !errors.As(err, &failed) || failed.Message != "interrupted" {
		t.Errorf("got %v", err)
	}
}

func TestReadyTellsTheChildThatNobodyWaits(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	caller := exec.Command(os.Args[0], "orphan", dir)
	caller.Env = append(os.Environ(), callerVariable+"=1")
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, dir, "pid")
	caller.Process.Kill()
	caller.Wait()
	goFile, err := os.OpenFile(filepath.Join(dir, "go"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	goFile.Close()
	if got := wait(t, dir, "ready"); !strings.Contains(got, "nobody waits") {
		t.Errorf("Ready: %s", got)
	}
}

func TestTheCallersStandardErrorEndsWhenTheChildIsReady(t *testing.T) {
	dir := t.TempDir()
	caller := exec.Command(os.Args[0], "ready", dir)
	caller.Env = append(os.Environ(), callerVariable+"=1")
	stderr, err := caller.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	// It ends with the caller, although the child goes on: `cmd 2>&1 | cat`
	// doesn't hang.
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		t.Errorf("standard error: %s", lines.Text())
	}
	if err := caller.Wait(); err != nil {
		t.Error(err)
	}
	wait(t, dir, "state")
}

func TestAnyOtherProcessIsNoChild(t *testing.T) {
	if _, ok := Child(); ok {
		t.Error("the test itself is taken for a child")
	}
}
