package mount

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

func TestMountReturnsWhenTheDiskIsThere(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	info, err := os.Stat(m.Disk) // no waiting
	check(t, err)
	if info.Size() != 64<<20 || !info.Mode().IsRegular() {
		t.Errorf("%d bytes, %v; want a regular file of 64 MiB", info.Size(), info.Mode())
	}
	f := m.Open(os.O_RDWR)
	writeAt(t, f, []byte("hello"), 4095)
	if got := readAt(t, f, 7, 4094); string(got) != "\x00hello\x00" {
		t.Errorf("read %q", got)
	}
	check(t, f.Close())
	m.Unmount()
	if left := b.RunFiles(); len(left) != 0 {
		t.Errorf("the runtime directory has %v after the unmount", left)
	}
	if entries, err := os.ReadDir(m.Point); err != nil || len(entries) != 0 {
		t.Errorf("the mount point has %v, %v after the unmount", entries, err)
	}
}

// TestTheServerIsADaemon: it must not keep its caller's terminal, pipes or
// directory.
func TestTheServerIsADaemon(t *testing.T) {
	t.Parallel()
	b, m := mounted(t, "64M")
	proc := fmt.Sprintf("/proc/%d", m.PID())
	cwd, err := os.Readlink(proc + "/cwd")
	check(t, err)
	if cwd != "/" {
		t.Errorf("it works in %s", cwd)
	}
	for fd, want := range map[string]string{"0": "/dev/null", "1": "/dev/null", "2": b.Runtime + "/"} {
		if to, err := os.Readlink(proc + "/fd/" + fd); err != nil || !strings.HasPrefix(to, want) {
			t.Errorf("descriptor %s is %s, %v; want %s", fd, to, err, want)
		}
	}
	if sid, err := unix.Getsid(m.PID()); err != nil || sid != m.PID() {
		t.Errorf("its session is %d, %v; want its own, %d", sid, err, m.PID())
	}
}

func TestMountWithoutAMountPointMakesOneAndTakesItAway(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	disk := strings.TrimSuffix(b.OK("mount", "disk.vhd"), "\n")
	if filepath.Base(disk) != "disk.raw" || !strings.HasPrefix(disk, b.Runtime+"/") {
		t.Errorf("the disk is %s; want disk.raw in the runtime directory", disk)
	}
	if got := allocated(t, disk); got != 0 {
		t.Errorf("a new disk takes %d bytes", got)
	}
	b.OK("unmount", "disk.vhd")
	if _, err := os.Stat(filepath.Dir(disk)); !os.IsNotExist(err) {
		t.Errorf("the mount point after the unmount: %v", err)
	}
	if tree := b.Tree(); len(tree) != 2 {
		t.Errorf("left behind: %v; want the box and disk.vhd", tree)
	}
}

func TestARegularFileAsTheMountPointBecomesTheDisk(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	b.Write("disk.img", []byte("what was there before"))
	m := b.MountAt("disk.img", "disk.vhd")
	f := m.Open(os.O_RDWR)
	if info, err := f.Stat(); err != nil || info.Size() != 64<<20 {
		t.Errorf("%v, %v; want 64 MiB", info, err)
	}
	data := harness.Random(1, 100<<10)
	writeAt(t, f, data, 1<<20)
	check(t, f.Close())
	m.Unmount()
	if got := b.Read("disk.img"); string(got) != "what was there before" {
		t.Errorf("after the unmount the file has %q", got)
	}
	f = b.MountAt("disk.img", "disk.vhd").Open(os.O_RDONLY)
	if !bytes.Equal(readAt(t, f, len(data), 1<<20), data) {
		t.Error("what was written is not there")
	}
}

func TestInTheForegroundItStaysAndLogsToStandardError(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	point := b.Mkdir("mnt")
	cmd := b.Command(t.Context(), harness.Binary(t), "mount", "--foreground", "--log-format", "json", "disk.vhd", "mnt")
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != point+"/disk.raw\n" {
		t.Fatalf("it printed %q, %v", line, err)
	}
	if list := b.List(); len(list) != 1 || list[0].PID != cmd.Process.Pid || list[0].State != "running" {
		t.Errorf("the list: %+v; want the process itself", list)
	}
	b.OK("unmount", "mnt")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if text := log.String(); !strings.Contains(text, `"msg":"mounted"`) {
		t.Errorf("the log: %q", text)
	}
	b.CheckGone(point)
}

// TestAFailureIsSaidByTheCommandItself: not by its background process, later.
func TestAFailureIsSaidByTheCommandItself(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	for _, flags := range [][]string{nil, {"--foreground"}} {
		b.Fails(append(append([]string{"mount"}, flags...), "disk.vhd", "nowhere"), "nowhere", "no such file or directory")
	}
	if left := b.RunFiles(); len(left) != 0 {
		t.Errorf("the runtime directory has %v", left)
	}
}

func TestTheBlktapFrontendIsRefusedPlainly(t *testing.T) {
	t.Parallel()
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	b.Fails([]string{"mount", "--frontend", "blktap", "disk.vhd"}, "blktap")
}

func TestVersionHasTheCommit(t *testing.T) {
	t.Parallel()
	if got := harness.New(t).OK("--version"); !strings.Contains(got, harness.Version) || !strings.Contains(got, harness.Commit) {
		t.Errorf("--version prints %q", got)
	}
}
