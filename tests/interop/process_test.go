package interop

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// process is a qemu-io that waits for commands, with an image open.
type process struct {
	pid   int
	stdin io.WriteCloser
	cmd   *exec.Cmd
}

// startQEMUIO returns when it has the image open for writing.
func startQEMUIO(t *testing.T, b *harness.Box, image string) *process {
	t.Helper()
	file, _ := harness.Find("qemu-io")
	cmd := b.Command(t.Context(), file, "-f", "vpc", image)
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	_, err = io.WriteString(stdin, "length\n")
	check(t, err)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if strings.Contains(lines.Text(), "MiB") {
			return &process{cmd.Process.Pid, stdin, cmd}
		}
	}
	t.Fatal("qemu-io didn't open the image")
	return nil
}

func (p *process) end(t *testing.T) {
	t.Helper()
	check(t, p.stdin.Close())
	check(t, p.cmd.Wait())
}

// Bytes of an image that qemu locks for what it does with it: see
// core/io/storage/lock.go.
const (
	readsByte  = 100
	writesByte = 101
)

// slowCopy is a qemu-img convert that takes longer than the test.
type slowCopy struct {
	pid   int
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
}

// startCopy returns when qemu-img convert with args has locked byte of image.
// It looks, and locks nothing itself: that could keep qemu-img out.
func startCopy(t *testing.T, b *harness.Box, image string, lock int64, args ...string) *slowCopy {
	t.Helper()
	file, _ := harness.Find("qemu-img")
	c := &slowCopy{cmd: b.Command(t.Context(), file, append([]string{"convert", "-r", "1K"}, args...)...), ended: make(chan struct{})}
	var said strings.Builder
	c.cmd.Stderr = &said
	check(t, c.cmd.Start())
	c.pid = c.cmd.Process.Pid
	go func() {
		c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(c.end)
	f := b.Open(image, os.O_RDONLY)
	defer f.Close()
	b.Eventually("qemu-img has "+image+" locked", func() bool {
		if !c.runs() {
			t.Fatalf("qemu-img has ended: %s", said.String())
		}
		lk := unix.Flock_t{Type: unix.F_WRLCK, Start: lock, Len: 1}
		check(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk))
		return lk.Type != unix.F_UNLCK
	})
	return c
}

// name is how it is named to who is refused.
func (c *slowCopy) name() string { return "qemu-img (pid " + strconv.Itoa(c.pid) + ")" }

func (c *slowCopy) runs() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// end kills it, if it runs still.
func (c *slowCopy) end() {
	c.cmd.Process.Kill()
	<-c.ended
}
