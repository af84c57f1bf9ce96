package fuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend"
)

// unprivilegedEnv has the directory to work in, in the process that has given
// its rights up.
const unprivilegedEnv = "VHDMOUNT_TEST_UNPRIVILEGED"

// TestUnprivileged runs this program again as the user nobody, in a mount
// namespace where /dev/fuse is open to all, and has it mount through
// fusermount3.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	dir := openDirectory(t)
	program := filepath.Join(dir, "test")
	copyProgram(t, program)
	const script = `set -e
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$2"`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", dir, program)
	cmd.Env = append(os.Environ(), unprivilegedEnv+"="+filepath.Join(dir, "work"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// openDirectory is a directory that everybody may enter, with one in it, work,
// that everybody may change.
func openDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	work := filepath.Join(dir, "work")
	err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Mkdir(work, 0o777), os.Chmod(work, 0o777))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyProgram(t *testing.T, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "cp", self, name)
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
}

// unprivileged is the other process: its exit status is the result.
func unprivileged(dir string) int {
	err := errors.Join(mountsDirectory(dir), mountsFile(dir), refusesAllowOther(dir))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func mountsDirectory(dir string) error {
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	s, err := New(Options{Mountpoint: mnt, FSName: `a,b\c`, Partitions: noPartitions}).Attach(context.Background(), blockdev.NewMemory(1<<20))
	if err != nil {
		return err
	}
	if e, _, _ := mountAt(mnt); e.fsType != fsType || e.source != `a,b\c` {
		err = fmt.Errorf("the mount table has %+v", e)
	}
	f, openErr := os.OpenFile(s.Path(), os.O_RDWR, 0)
	if openErr != nil {
		return errors.Join(err, openErr, s.Detach(context.Background()))
	}
	_, writeErr := f.WriteAt([]byte("hello"), 4096)
	err = errors.Join(err, writeErr, f.Sync())
	if busy := s.Detach(context.Background()); !errors.Is(busy, frontend.ErrBusy) || !strings.Contains(busy.Error(), fmt.Sprint(os.Getpid())) {
		err = errors.Join(err, fmt.Errorf("Detach of an open disk: %v", busy))
	}
	got := make([]byte, 5)
	if _, readErr := f.ReadAt(got, 4096); readErr != nil || string(got) != "hello" {
		err = errors.Join(err, fmt.Errorf("read %q, %v", got, readErr))
	}
	f.Close()
	return errors.Join(err, s.Detach(context.Background()), s.Wait())
}

func mountsFile(dir string) error {
	mnt := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(mnt, nil, 0o600); err != nil {
		return err
	}
	s, err := New(Options{Mountpoint: mnt, ReadOnly: true}).Attach(context.Background(), blockdev.NewMemory(1<<20))
	if err != nil {
		return err
	}
	f, err := os.Open(s.Path())
	if err != nil {
		return errors.Join(err, s.Detach(context.Background()))
	}
	n, err := io.Copy(io.Discard, f)
	if n != 1<<20 {
		err = errors.Join(err, fmt.Errorf("the disk has %d bytes", n))
	}
	f.Close()
	err = errors.Join(err, Unmount(context.Background(), mnt, false), s.Wait())
	return err
}

// refusesAllowOther holds where /etc/fuse.conf is as it comes.
func refusesAllowOther(dir string) error {
	if checkAllowOther(fuseConf) == nil {
		return nil
	}
	mnt := filepath.Join(dir, "other")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	_, err := New(Options{Mountpoint: mnt, AllowOther: true}).Attach(context.Background(), blockdev.NewMemory(512))
	if !errors.Is(err, ErrNoFuse) || !strings.Contains(err.Error(), "user_allow_other") {
		return fmt.Errorf("allow_other: %v", err)
	}
	return nil
}
