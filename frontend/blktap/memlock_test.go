package blktap

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Flags of a thread in /proc/PID/task/TID/stat, include/linux/sched.h.
const (
	localThrottle = 0x00100000
	reclaimNoIO   = 0x00080000
)

// TestEveryThreadGetsMemoryWithoutIO, in a process of its own, since it is for
// good: without cgo, as the program is built.
func TestEveryThreadGetsMemoryWithoutIO(t *testing.T) {
	if os.Getenv("RECLAIM_WITHOUT_IO") == "" {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^"+t.Name()+"$", "-v", ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "RECLAIM_WITHOUT_IO=1")
		out, err := cmd.CombinedOutput()
		switch {
		case strings.Contains(string(out), "SKIP"):
			t.Skip("needs CAP_SYS_RESOURCE and a kernel since 5.6")
		case err != nil:
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	if _, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	if err := reclaimWithoutIO(); err != nil {
		t.Fatal(err)
	}
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(stats) < 2 {
		t.Fatalf("%d threads, %v", len(stats), err)
	}
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, fields, _ := strings.Cut(string(data), ") ")
		flags, err := strconv.ParseUint(strings.Fields(fields)[6], 10, 64)
		if err != nil || flags&(reclaimNoIO|localThrottle) != reclaimNoIO|localThrottle {
			t.Errorf("%s: flags %#x, %v", name, flags, err)
		}
	}
}
