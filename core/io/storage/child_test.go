package storage_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// childEnv names what this test binary does, when started by one of its own
// tests, in place of testing.
const childEnv = "STORAGE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "limit":
		report(writePastLimit(os.Args[1], os.Args[2]))
	case "shared":
		report(holdLock(os.Args[1], storage.Shared))
	case "exclusive":
		report(holdLock(os.Args[1], storage.Exclusive))
	case "interrupted":
		report(interrupted(m))
	}
}

func report(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// child starts this binary to do something else.
func child(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	return cmd
}

// writePastLimit sets the limit that ulimit -f sets.
func writePastLimit(name, limitBytes string) error {
	limit, err := strconv.ParseUint(limitBytes, 10, 64)
	if err != nil {
		return err
	}
	f, err := storage.OS.Open(name, storage.ReadWrite)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	n, err := f.WriteAt(make([]byte, limit+100), 0)
	if uint64(n) != limit || !errors.Is(err, storage.ErrNoSpace) || !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("WriteAt = %d, %v", n, err)
	}
	if err := f.Truncate(int64(limit) + 1); !errors.Is(err, storage.ErrNoSpace) {
		return fmt.Errorf("Truncate: %v", err)
	}
	return nil
}

func TestFileSizeLimitIsNoSpace(t *testing.T) {
	name := file(t)
	if out, err := child(t, "limit", name, "10000").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if info, err := os.Stat(name); err != nil || info.Size() != 10000 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

// holdLock has the lock until its input ends.
func holdLock(name string, access storage.Access) error {
	f, err := storage.OS.Open(name, storage.ReadWrite)
	if err != nil {
		return err
	}
	if err := f.Lock(access); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// holder starts a child that has the lock. Stop ends it.
func holder(t *testing.T, what, name string) (cmd *exec.Cmd, stop func()) {
	t.Helper()
	cmd = child(t, what, name)
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
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		stop()
		t.Fatalf("the child says %q, %v", line, err)
	}
	return cmd, stop
}

func TestLocksExcludeOtherProcesses(t *testing.T) {
	accesses := map[string]storage.Access{"shared": storage.Shared, "exclusive": storage.Exclusive}
	for held, heldAccess := range accesses {
		for asked, access := range accesses {
			t.Run("held="+held+"/asked="+asked, func(t *testing.T) {
				name := file(t)
				f := open(t, name, storage.ReadWrite)
				other, stop := holder(t, held, name)
				err := f.Lock(access)
				if heldAccess == storage.Shared && access == storage.Shared {
					if err != nil {
						t.Error(err)
					}
					stop()
					return
				}
				var inUse *storage.InUseError
				if !errors.As(err, &inUse) || len(inUse.Holders) != 1 || inUse.Holders[0].PID != other.Process.Pid {
					t.Errorf("error %v, but process %d has it", err, other.Process.Pid)
				} else if comm := filepath.Base(os.Args[0]); inUse.Holders[0].Name != comm[:min(15, len(comm))] {
					t.Errorf("the holder's name is %q", inUse.Holders[0].Name)
				}
				stop()
				if err := f.Lock(access); err != nil {
					t.Errorf("the holder has gone: %v", err)
				}
			})
		}
	}
}
