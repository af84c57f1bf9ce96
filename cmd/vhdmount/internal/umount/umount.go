// Package umount is a small process that unmounts for a server which can't
// any more: one that has shut itself out of the file system (package confine)
// may neither call umount(2) nor run fusermount3, nor look into /proc for who
// keeps a disk busy. The process is started before that, by Start, and does
// nothing but these, for one mount, when the server asks; and it opens the disk
// once for a server that could not be killed while it did. It reads nothing of an
// image and ends with its server, however that ends.
//
//	if helper, ok := umount.Child(); ok {
//		return helper.Serve(take)
//	}
//	process, err := umount.Start(title, place)
//
// The two speak gob, which keeps the bytes of a name whatever they are. This
// package doesn't look into the description of the mount.
package umount

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/self"
	"github.com/vhdmount/vhdmount/frontend"
)

// ErrGone is the process having ended before its server. The disk can be
// unmounted by umount(8) or fusermount3 still.
var ErrGone = errors.New("the process that unmounts has ended: unmount with umount or fusermount3 -u")

// Operations that a server asks for.
const (
	opUnmount = "unmount"
	opUses    = "uses"
	opSettle  = "settle"
)

// request is what the server sends, after the mount's description.
type request struct {
	Op   string
	Lazy bool
}

// response is the answer to one request.
type response struct {
	Error string
	Busy  bool // the error is frontend.ErrBusy
	Text  string
}

// Process is the server's end. Its methods are safe for concurrent use;
// requests are answered one at a time.
type Process struct {
	conn net.Conn
	cmd  *exec.Cmd
	slot chan struct{} // has room for one: the request under way
	out  *gob.Encoder  // its, as is in
	in   *gob.Decoder

	asking sync.WaitGroup // goroutines that wait for an answer
}

// Start runs this program again, in the root directory and with the title to
// show in lists of processes, and tells it the mount to unmount.
func Start(title string, mount any) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("unmounting process: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "umount"), os.NewFile(uintptr(pair[1]), "server")
	defer ours.Close() // conn is a duplicate
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("unmounting process: %w", err)
	}
	cmd, err := command(title, theirs)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("unmounting process: %w", errors.Join(err, conn.Close()))
	}
	p := &Process{conn: conn, cmd: cmd, slot: make(chan struct{}, 1), out: gob.NewEncoder(conn), in: gob.NewDecoder(conn)}
	if err := p.out.Encode(mount); err != nil {
		return nil, fmt.Errorf("unmounting process: %w", errors.Join(err, p.Close()))
	}
	return p, nil
}

// command is this program again, as Child knows it. It is in a session of its
// own: ^C in a terminal is the server's to answer.
func command(title string, socket *os.File) (*exec.Cmd, error) {
	cmd, err := self.Command(title)
	if err != nil {
		return nil, err
	}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), socketVariable+"="+socketFD)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Unmount has the mount taken away; lazy takes it out of the directory tree at
// once and leaves who has it open alone. A mount in use is frontend.ErrBusy. A
// request that was sent is carried out even if ctx ends before it is answered.
func (p *Process) Unmount(ctx context.Context, lazy bool) error {
	answer, err := p.ask(ctx, request{Op: opUnmount, Lazy: lazy})
	if err != nil {
		return err
	}
	return answer.err()
}

// Settle has the disk opened once, as its server had better not do itself.
func (p *Process) Settle(ctx context.Context) error {
	answer, err := p.ask(ctx, request{Op: opSettle})
	if err != nil {
		return err
	}
	return answer.err()
}

// Uses says who uses the mount after it was taken out of sight, as the end of
// a sentence.
func (p *Process) Uses(ctx context.Context) string {
	answer, err := p.ask(ctx, request{Op: opUses})
	if err != nil {
		return fmt.Sprintf("nobody can tell who has it open (%v)", err)
	}
	return answer.Text
}

// ask has one request answered. Where ctx ends first the answer is read all
// the same, so that the next one finds its own.
func (p *Process) ask(ctx context.Context, q request) (answer response, err error) {
	select {
	case p.slot <- struct{}{}:
	case <-ctx.Done():
		return response{}, ctx.Err()
	}
	answered := make(chan struct{})
	var got response
	var failed error
	p.asking.Go(func() {
		got, failed = p.exchange(q)
		<-p.slot
		close(answered)
	})
	select {
	case <-answered:
		return got, failed
	case <-ctx.Done():
		return response{}, ctx.Err()
	}
}

func (p *Process) exchange(q request) (answer response, err error) {
	if err = p.out.Encode(q); err == nil {
		err = p.in.Decode(&answer)
	}
	if err != nil {
		return response{}, fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return answer, nil
}

// Close ends the process and waits for its end. Requests under way fail.
func (p *Process) Close() error {
	err := p.conn.Close()
	p.asking.Wait()
	if waitErr := p.cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("unmounting process: %w", waitErr))
	}
	return err
}

// busyError is a mount in use, in the other process's words.
type busyError struct{ text string }

func (e *busyError) Error() string { return e.text }
func (e *busyError) Unwrap() error { return frontend.ErrBusy }

func (r *response) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Busy:
		return &busyError{r.Error}
	}
	return errors.New(r.Error)
}
