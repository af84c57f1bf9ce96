package interop

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"

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
