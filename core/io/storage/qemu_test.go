package storage_test

import (
	"bufio"
	"errors"
	"flag"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

var withQEMU = flag.Bool("qemu", false, "test the locks against qemu-img and qemu-io, which must be there")

// qemuImage is a VHD made by qemu-img.
func qemuImage(t *testing.T) string {
	t.Helper()
	if !*withQEMU {
		t.Skip("needs qemu-img and qemu-io: run with -qemu")
	}
	name := filepath.Join(t.TempDir(), "a.vhd")
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "vpc", name, "8M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return name
}

// qemuIO is a qemu-io that has the image open.
var qemuIO = []struct {
	name   string
	args   []string
	access storage.Access
}{
	{"image/reader", []string{"-r", "-f", "vpc"}, storage.Shared},
	{"image/writer", []string{"-f", "vpc"}, storage.Exclusive},
	{"raw/reader", []string{"-r", "-f", "raw"}, storage.Shared},
	{"raw/writer", []string{"-f", "raw"}, storage.Exclusive},
}

func TestQEMURefusesWhatWeHaveOpen(t *testing.T) {
	name := qemuImage(t)
	for _, access := range []storage.Access{storage.Shared, storage.Exclusive} {
		for _, q := range qemuIO {
			args := append(append([]string{}, q.args...), "-c", "read 0 512", name)
			out, err := runLocked(t, name, access, "qemu-io", args...)
			refused := access == storage.Exclusive || q.access == storage.Exclusive
			if refused != (err != nil) || refused != strings.Contains(out, "lock") {
				t.Errorf("access %v, qemu-io as %s: %v: %s", access, q.name, err, out)
			}
		}
		out, err := runLocked(t, name, access, "qemu-img", "info", name)
		if refused := access == storage.Exclusive; refused != (err != nil) {
			t.Errorf("access %v, qemu-img info: %v: %s", access, err, out)
		}
	}
}

// runLocked runs the command while the image is locked.
func runLocked(t *testing.T, name string, access storage.Access, command string, args ...string) (string, error) {
	t.Helper()
	f := open(t, name, storage.ReadWrite)
	if err := f.Lock(access); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), command, args...).CombinedOutput()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

func TestWeRefuseWhatQEMUHasOpen(t *testing.T) {
	name := qemuImage(t)
	for _, q := range qemuIO {
		t.Run(q.name, func(t *testing.T) {
			pid, stop := startQEMU(t, append(append([]string{}, q.args...), name))
			defer stop()
			for _, access := range []storage.Access{storage.Shared, storage.Exclusive} {
				f := open(t, name, storage.ReadWrite)
				err := f.Lock(access)
				if access == storage.Shared && q.access == storage.Shared {
					if err != nil {
						t.Errorf("readers don't share: %v", err)
					}
					_ = f.Close()
					continue
				}
				var inUse *storage.InUseError
				if !errors.As(err, &inUse) || len(inUse.Holders) != 1 || inUse.Holders[0] != (storage.Holder{PID: pid, Name: "qemu-io"}) {
					t.Errorf("access %v: error %v, but qemu-io (pid %d) has it open", access, err, pid)
				}
			}
		})
	}
}

// startQEMU starts a qemu-io and waits until it has the image open.
func startQEMU(t *testing.T, args []string) (pid int, stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "qemu-io", args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	if _, err := in.Write([]byte("length\n")); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "MiB") || strings.Contains(lines.Text(), "KiB") {
			return cmd.Process.Pid, stop
		}
	}
	stop()
	t.Fatal("qemu-io ended")
	return 0, nil
}
