// Package daemon starts a server in the background, and has it say when it is
// ready: Start, in the process that the user waits for, runs the same program
// again in a session of its own; Child, in that program, is the way back.
//
//	if child, ok := daemon.Child(); ok {
//		path, err := attach()
//		if err != nil {
//			return child.Fail(1, err.Error())
//		}
//		return child.Ready(path, log)
//	}
//	started, err := daemon.Start(ctx, os.Args[1:])
//
// Until it is ready, the child has the caller's standard error and working
// directory; afterwards neither.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/self"
)

// readyVariable tells a child which descriptor its caller listens at.
const readyVariable = "VHDMOUNT_READY_FD"

// readyFD is that descriptor: the first after standard error.
const readyFD = "3"

// message is what a child says, once.
type message struct {
	Ready []byte `json:"ready,omitempty"` // bytes: a path need not be UTF-8
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// FailedError is a child that said why it could not start.
type FailedError struct {
	Code    int    // the exit code it means
	Message string // in one line
}

// Error is the child's message.
func (e *FailedError) Error() string { return e.Message }

// ErrDied is a child that ended without a word. What it wrote to standard
// error, the caller has seen.
var ErrDied = errors.New("the server ended before the disk was there")

// Start runs this program with args in the background and returns what it
// passed to Ready. It returns a *FailedError for one that called Fail, an
// error that wraps ErrDied for one that just ended. When ctx ends first, the
// child is asked to end by SIGTERM, and Start waits for it all the same: it
// leaves nothing half done behind.
func Start(ctx context.Context, args []string) (string, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("background: %w", err)
	}
	defer read.Close()
	cmd, err := command(args, write)
	if err == nil {
		err = cmd.Start()
	}
	write.Close()
	if err != nil {
		return "", fmt.Errorf("background: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	var m message
	err = json.NewDecoder(read).Decode(&m)
	switch {
	case err == nil && m.Error == "" && ctx.Err() != nil: // too late to be told
		return "", errors.Join(ctx.Err(), cmd.Wait())
	case err == nil && m.Error == "":
		return string(m.Ready), cmd.Process.Release()
	case err == nil:
		err = &FailedError{Code: m.Code, Message: m.Error}
		cmd.Wait() // the message has said it
		return "", err
	case !errors.Is(err, io.EOF):
		return "", fmt.Errorf("%w: %w", ErrDied, errors.Join(err, cmd.Wait()))
	}
	return "", died(cmd.Wait())
}

func died(err error) error {
	if err == nil {
		return ErrDied
	}
	return fmt.Errorf("%w: %w", ErrDied, err)
}

// command is this program again, in a session of its own.
func command(args []string, ready *os.File) (*exec.Cmd, error) {
	cmd, err := self.Command(args...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), readyVariable+"="+readyFD)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// Readiness is a child's way to the process that waits for it.
type Readiness struct {
	pipe *os.File
}

// Child returns the way back in a process that Start started, and false in
// any other. It can be taken once: what this process starts isn't a child.
func Child() (*Readiness, bool) {
	if os.Getenv(readyVariable) != readyFD {
		return nil, false
	}
	os.Unsetenv(readyVariable)
	const fd = 3
	unix.CloseOnExec(fd)
	return &Readiness{pipe: os.NewFile(fd, "readiness pipe")}, true
}

// Ready lets go of the caller's terminal and directory, with standard error to
// log from here on, and says that the server is ready, with what the caller is
// to print. An error means that nobody waits any more.
func (r *Readiness) Ready(text string, log *os.File) error {
	defer r.pipe.Close()
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("background: %w", err)
	}
	if err := unix.Dup3(int(log.Fd()), int(os.Stderr.Fd()), 0); err != nil {
		return fmt.Errorf("background: standard error: %w", err)
	}
	return r.say(message{Ready: []byte(text)})
}

// Fail says why the server does not start, in one line, and the exit code
// that the caller is to end with.
func (r *Readiness) Fail(code int, text string) error {
	defer r.pipe.Close()
	return r.say(message{Error: strings.TrimSpace(text), Code: code})
}

func (r *Readiness) say(m message) error {
	if err := json.NewEncoder(r.pipe).Encode(m); err != nil {
		return fmt.Errorf("background: nobody waits for the server: %w", err)
	}
	return nil
}
