package mount

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// mounted is a box with a new dynamic image, disk.vhd, mounted.
func mounted(t *testing.T, size string, flags ...string) (*harness.Box, *harness.Mount) {
	t.Helper()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", size, "disk.vhd")
	return b, b.Mount("disk.vhd", flags...)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErrno checks that err is errno.
func wantErrno(t *testing.T, what string, err error, errno syscall.Errno) {
	t.Helper()
	if !errors.Is(err, errno) {
		t.Errorf("%s: %v; want %v", what, err, errno)
	}
}

// writeAt writes data whole.
func writeAt(t *testing.T, f *os.File, data []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
}

// readAt is n bytes of f.
func readAt(t *testing.T, f *os.File, n int, off int64) []byte {
	t.Helper()
	data := make([]byte, n)
	if _, err := f.ReadAt(data, off); err != nil {
		t.Fatal(err)
	}
	return data
}

// allocated is what a file takes on its file system, in bytes.
func allocated(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(name, &st))
	return st.Blocks * 512
}
