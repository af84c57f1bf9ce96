package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	path, ok := Child()
	if !ok {
		os.Exit(m.Run())
	}
	err := Read(path)
	if who := os.Getenv("TEST_PROBE_PID"); who != "" {
		_ = os.WriteFile(who, fmt.Append(nil, os.Getpid()), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestItIsAnotherProcessThatReads a whole sector, and the error that comes back
// is that process's.
func TestItIsAnotherProcessThatReads(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TEST_PROBE_PID", filepath.Join(dir, "pid"))
	disk := filepath.Join(dir, "a disk")
	for size, want := range map[int]string{512: "", 511: "EOF"} {
		if err := os.WriteFile(disk, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Device(disk)
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%d bytes: %v; want %q", size, err, want)
		}
		pid, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil || string(pid) == fmt.Sprint(os.Getpid()) {
			t.Errorf("read by process %s, %v", pid, err)
		}
	}
	if err := Device(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no device: %v", err)
	}
}

// TestOneThatDiesIsNoAnswer: whatever ended it, the device was not seen to work.
func TestOneThatDiesIsNoAnswer(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- Device(fifo) }()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // when the child has opened it
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil {
		t.Error("a device that can't be read from answers")
	}
}
