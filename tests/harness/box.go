package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// timeout is how long a program may take.
const timeout = 2 * time.Minute

// Box is a directory to work in with a runtime directory of its own: the world
// of one test. Relative names in its methods are relative to Dir.
type Box struct {
	Dir     string // without symbolic links, and short: sockets live below it
	Runtime string // VHDMOUNT_RUNTIME_DIR

	t    testing.TB
	user *syscall.Credential // nil: the test's own
	env  []string            // beside the standard one
}

// New makes a Box, which is emptied and removed at the end of the test.
func New(t testing.TB) *Box {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm-")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := &Box{Dir: dir, Runtime: filepath.Join(dir, ".run"), t: t}
	t.Cleanup(b.cleanup)
	Binary(t)
	return b
}

// As is b as another user sees it, with a runtime directory of that user's own.
// Dir becomes the user's.
func (b *Box) As(uid, gid uint32) *Box {
	b.t.Helper()
	if err := os.Chown(b.Dir, int(uid), int(gid)); err != nil {
		b.t.Fatal(err)
	}
	other := *b
	other.user = &syscall.Credential{Uid: uid, Gid: gid}
	other.Runtime = b.Runtime + "-user"
	b.t.Cleanup(other.endServers)
	return &other
}

// With is b with variables ("NAME=value") in its environment; one that ends
// with "=" is unset.
func (b *Box) With(env ...string) *Box {
	other := *b
	other.env = append(append([]string{}, b.env...), env...)
	return &other
}

// Path is the absolute name of a file of the box.
func (b *Box) Path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.Dir, name)
}

// Result is how a program ended.
type Result struct {
	Stdout, Stderr string
	Code           int // -1: by a signal
}

// Run runs the program with args.
func (b *Box) Run(args ...string) Result {
	b.t.Helper()
	return b.run(Binary(b.t), args)
}

// OK is Run for a command that must succeed; it returns its standard output.
func (b *Box) OK(args ...string) string {
	b.t.Helper()
	var r Result
	if args[0] == "unmount" {
		r = b.Unmount(args[1:]...)
	} else {
		r = b.Run(args...)
	}
	if r.Code != 0 {
		b.t.Fatalf("vhdmount %s: exit code %d: %s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Fails is Run for a command that must fail with exit code 1 and one line,
// that has each of words in it, and nothing on standard output. It returns the
// line.
func (b *Box) Fails(args []string, words ...string) string {
	b.t.Helper()
	r := b.Run(args...)
	name := "vhdmount " + strings.Join(args, " ")
	if r.Code != 1 || r.Stdout != "" {
		b.t.Errorf("%s: exit code %d, standard output %q; want 1 and nothing", name, r.Code, r.Stdout)
	}
	if strings.Count(r.Stderr, "\n") != 1 || !strings.HasPrefix(r.Stderr, "vhdmount: ") {
		b.t.Errorf("%s: %q; want one line that begins with vhdmount:", name, r.Stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.Stderr, word) {
			b.t.Errorf("%s: %q; want %q in it", name, r.Stderr, word)
		}
	}
	return r.Stderr
}

// Try runs another program.
func (b *Box) Try(name string, args ...string) Result {
	b.t.Helper()
	file, ok := Find(name)
	if !ok {
		b.t.Fatalf("%s is not installed", name)
	}
	return b.run(file, args)
}

// Tool is Try for one that must succeed; it returns its standard output.
func (b *Box) Tool(name string, args ...string) string {
	b.t.Helper()
	r := b.Try(name, args...)
	if r.Code != 0 {
		b.t.Fatalf("%s %s: exit code %d: %s%s", name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func (b *Box) run(file string, args []string) Result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := b.Command(ctx, file, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		b.t.Fatalf("%s %s: %v, %v: %s", file, strings.Join(args, " "), err, ctx.Err(), stderr.String())
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Command is a program to be started in the box. When ctx ends it is killed.
func (b *Box) Command(ctx context.Context, file string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Dir = b.Dir
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH") + ":" + strings.Join(sbin, ":"),
		"HOME=" + b.Dir, "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=" + b.Dir,
		"VHDMOUNT_RUNTIME_DIR=" + b.Runtime,
		// The detector waits for a second at each exit unless it is told not to.
		"GORACE=atexit_sleep_ms=0 log_path=" + b.raceLog(),
	}, b.env...)
	if b.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.user}
	}
	return cmd
}

// raceLog is where the race detector of a server writes, with a dot and the
// server's number after it.
func (b *Box) raceLog() string { return filepath.Join(b.Dir, ".race") }

// Write makes a file.
func (b *Box) Write(name string, data []byte) {
	b.t.Helper()
	if err := os.WriteFile(b.Path(name), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// Read is a file's contents.
func (b *Box) Read(name string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(b.Path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// Mkdir makes a directory and returns its absolute name.
func (b *Box) Mkdir(name string) string {
	b.t.Helper()
	if err := os.Mkdir(b.Path(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if b.user != nil {
		if err := os.Chown(b.Path(name), int(b.user.Uid), int(b.user.Gid)); err != nil {
			b.t.Fatal(err)
		}
	}
	return b.Path(name)
}
