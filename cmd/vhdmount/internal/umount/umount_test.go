package umount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend"
)

// testMount is a mount in name: it does what Script says, and leaves word of it
// in the directory.
type testMount struct {
	Dir    string
	Script string
}

func (m *testMount) Unmount(ctx context.Context, lazy bool) error {
	switch m.Script {
	case "busy":
		return fmt.Errorf("/mnt: %w: open in cat (pid 7)", frontend.ErrBusy)
	case "fail":
		return errors.New("/mnt: unmount: no such luck")
	case "die":
		os.Exit(5)
	case "slow":
		if _, err := os.ReadFile(filepath.Join(m.Dir, "fifo")); err != nil { // until somebody opens it
			return err
		}
	}
	return os.WriteFile(filepath.Join(m.Dir, "unmounted"), fmt.Append(nil, lazy), 0o600)
}

func (m *testMount) Settle() { _ = os.WriteFile(filepath.Join(m.Dir, "settled"), nil, 0o600) }

func (m *testMount) Uses(context.Context) string { return "still open in " + m.Dir }

func TestMain(m *testing.M) {
	helper, ok := Child()
	if !ok {
		os.Exit(m.Run())
	}
	if err := helper.Serve(new(testMount)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func start(t *testing.T, script string) (*Process, string) {
	t.Helper()
	dir := t.TempDir()
	u, err := Start("unmounts "+dir, testMount{Dir: dir, Script: script})
	if err != nil {
		t.Fatal(err)
	}
	return u, dir
}

func end(t *testing.T, u *Process) {
	t.Helper()
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(u.PID(), 0); err != unix.ESRCH {
		t.Errorf("its process is there still: %v", err)
	}
}

func TestItUnmounts(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		u, dir := start(t, "")
		if err := u.Settle(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "settled")); err != nil {
			t.Error(err)
		}
		if err := u.Unmount(t.Context(), lazy); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "unmounted")); err != nil || string(b) != fmt.Sprint(lazy) {
			t.Errorf("lazy=%v: it did %q, %v", lazy, b, err)
		}
		if said := u.Uses(t.Context()); said != "still open in "+dir {
			t.Errorf("uses: %q", said)
		}
		end(t, u)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	u, _ := start(t, "busy")
	defer end(t, u)
	for range 2 { // the second finds its own answer
		err := u.Unmount(t.Context(), false)
		if !errors.Is(err, frontend.ErrBusy) || err.Error() != "/mnt: the disk is in use: open in cat (pid 7)" {
			t.Errorf("error %v", err)
		}
	}
	f, _ := start(t, "fail")
	defer end(t, f)
	if err := f.Unmount(t.Context(), false); err == nil || errors.Is(err, frontend.ErrBusy) || err.Error() != "/mnt: unmount: no such luck" {
		t.Errorf("error %v", err)
	}
}

// TestNamesKeepTheirBytes, also those that are no text.
func TestNamesKeepTheirBytes(t *testing.T) {
	p, err := Start("unmounts", testMount{Dir: "/a\xffb"})
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, p)
	if said := p.Uses(t.Context()); said != "still open in /a\xffb" {
		t.Errorf("uses: %q", said)
	}
}

// TestSignalsAreTheServersToAnswer: the process outlives those that its server
// takes for a word to unmount.
func TestSignalsAreTheServersToAnswer(t *testing.T) {
	u, _ := start(t, "")
	defer end(t, u)
	u.Uses(t.Context()) // it has begun to serve
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		if err := unix.Kill(u.PID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Unmount(t.Context(), false); err != nil {
		t.Error(err)
	}
	if own, err := unix.Getsid(0); err != nil {
		t.Error(err)
	} else if its, err := unix.Getsid(u.PID()); err != nil || its == own {
		t.Errorf("its session is this one (%d), %v: it would get the terminal's ^C", its, err)
	}
}

func TestOneThatDiedIsSaid(t *testing.T) {
	u, _ := start(t, "die")
	for range 2 {
		if err := u.Unmount(t.Context(), false); !errors.Is(err, ErrGone) {
			t.Errorf("error %v", err)
		}
	}
	if said := u.Uses(t.Context()); !strings.Contains(said, ErrGone.Error()) {
		t.Errorf("uses: %q", said)
	}
	if err := u.Close(); err == nil || !strings.Contains(err.Error(), "exit status 5") {
		t.Errorf("Close: %v", err)
	}
}

// TestGivingUpWaiting leaves the request under way, and the answer to it is
// nobody else's.
func TestGivingUpWaiting(t *testing.T) {
	u, dir := start(t, "slow")
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error)
	go func() { given <- u.Unmount(ctx, true) }()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // it waits until the process reads
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := u.Unmount(ctx, true); !errors.Is(err, context.Canceled) {
		t.Errorf("while another is under way: %v", err)
	}
	w.Close()
	if said := u.Uses(t.Context()); said != "still open in "+dir {
		t.Errorf("the next answer is %q", said)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "unmounted")); err != nil || string(b) != "true" {
		t.Errorf("it did %q, %v", b, err)
	}
	end(t, u)
}

// TestItEndsWithItsServer, killed or not.
func TestItEndsWithItsServer(t *testing.T) {
	u, _ := start(t, "")
	if err := u.conn.Close(); err != nil { // all that the process sees of a server that was killed
		t.Fatal(err)
	}
	if err := u.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOthersAreNoChildren(t *testing.T) {
	if _, ok := Child(); ok {
		t.Error("this process is none")
	}
	u, dir := start(t, "")
	defer end(t, u)
	u.Uses(t.Context())
	if at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", u.PID())); err != nil || at != "/" {
		t.Errorf("it stands in %q, %v", at, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", u.PID()))
	if err != nil || !strings.Contains(string(line), "unmounts "+dir) {
		t.Errorf("its title is %q, %v", line, err)
	}
}
