package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a server may take to end after it was asked to: it
// may have a disk's worth of dirty pages to write.
const stopTimeout = time.Minute

// process is a server that this program started. It is in a process group of
// its own: ^C on the terminal reaches this program alone, which then takes
// its servers down in order.
type process struct {
	cmd    *exec.Cmd
	stderr output
	line   chan string   // the first line of its standard output, then closed
	done   chan struct{} // closed when it was waited for
}

// output collects what a process says. Safe for concurrent use.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) lastLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return lastLine(o.buf.String())
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// start runs a server. A goroutine of the process reads its output and waits
// for it; done tells when that goroutine is through.
func start(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), line: make(chan string, 1), done: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		r := bufio.NewReader(stdout)
		if line, err := r.ReadString('\n'); err == nil {
			p.line <- strings.TrimSuffix(line, "\n")
		}
		close(p.line)
		_, _ = io.Copy(io.Discard, r)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	return p, nil
}

// failure says why the process ended before it should.
func (p *process) failure() error {
	return fmt.Errorf("%s ended too early (%v): %s", p.cmd.Args[0], p.cmd.ProcessState, p.stderr.lastLine())
}

// ready waits until check holds.
func (p *process) ready(ctx context.Context, check func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !check() {
		select {
		case <-p.done:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.cmd.Args[0], ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

// firstLine waits for the first line of the process's standard output.
func (p *process) firstLine(ctx context.Context) (string, error) {
	select {
	case line, ok := <-p.line:
		if !ok {
			<-p.done
			return "", p.failure()
		}
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// wait returns when the process has ended by itself; after stopTimeout it is
// killed.
func (p *process) wait() error {
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end in %v and was killed", p.cmd.Args[0], stopTimeout)
	}
}

// terminate asks the process to end, and waits.
func (p *process) terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.wait()
}

// unmount takes away what is mounted at path, for good: when it is still in
// use, lazily, and with an error.
func unmount(path string) error {
	text, err := exec.Command("fusermount3", "-u", path).CombinedOutput()
	if err == nil {
		return nil
	}
	_ = exec.Command("fusermount3", "-u", "-z", path).Run()
	return fmt.Errorf("unmount: %s", lastLine(string(text)))
}
