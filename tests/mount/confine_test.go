package mount

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// status is what /proc says of each thread of a process: field by field, the
// same for all.
func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	check(t, err)
	all := map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) || err == syscall.ESRCH {
			continue // the thread has ended
		}
		check(t, err)
		for _, line := range strings.Split(string(b), "\n") {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch field {
			case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
				if before, ok := all[field]; ok && before != value {
					t.Errorf("%s is %s on one thread, %s on another", field, before, value)
				}
				all[field] = value
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("no process %d", pid)
	}
	return all
}

const noCapability = "0000000000000000"

// unmounterOf is the process that unmounts for a server: its child.
func unmounterOf(t *testing.T, server int) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	check(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", server)) {
			continue
		}
		dir := filepath.Dir(file)
		if line, err := os.ReadFile(dir + "/cmdline"); err == nil && strings.Contains(string(line), "unmounts ") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			check(t, err)
			return pid
		}
	}
	t.Fatalf("server %d has nobody to unmount for it", server)
	return 0
}

// TestAServerKeepsNoCapability, root's or a user's, on any of its threads, and
// gets none by running a program.
func TestAServerKeepsNoCapability(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	is := status(t, m.PID())
	want := map[string]string{"CapInh": noCapability, "CapPrm": noCapability, "CapEff": noCapability, "CapAmb": noCapability, "NoNewPrivs": "1", "Seccomp": "2"}
	if os.Geteuid() == 0 {
		want["CapBnd"] = noCapability
	}
	for field, value := range want {
		if is[field] != value {
			t.Errorf("%s is %s, want %s", field, is[field], value)
		}
	}
	m.Unmount()
}

// TestTheUnmountingProcessKeepsWhatItNeeds, and ends with its server.
func TestTheUnmountingProcessKeepsWhatItNeeds(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	harness.Root(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	server := m.PID()
	unmounter := unmounterOf(t, server)
	want := fmt.Sprintf("%016x", 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_PTRACE|1<<unix.CAP_DAC_READ_SEARCH)
	b.Eventually("the unmounting process without what it doesn't need", func() bool { // it starts beside mount
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", unmounter))
		check(t, err)
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err == nil && !strings.Contains(string(text), "\nCapPrm:\t"+want+"\n") {
				return false
			}
		}
		return len(threads) > 0
	})
	if is := status(t, unmounter); is["CapPrm"] != want || is["CapEff"] != want {
		t.Errorf("capabilities %s, %s; want %s", is["CapPrm"], is["CapEff"], want)
	}
	check(t, unix.Kill(server, unix.SIGKILL))
	b.AwaitEnd(server)
	b.AwaitEnd(unmounter)
	b.OK("unmount", m.Point)
}

// speak sends requests to a server's control socket, a line each, and returns
// its answers.
func speak(t *testing.T, socket string, requests ...string) []map[string]any {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	check(t, err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	var answers []map[string]any
	for _, request := range requests {
		_, err := fmt.Fprintln(conn, request)
		check(t, err)
		line, err := in.ReadBytes('\n')
		check(t, err)
		var answer map[string]any
		check(t, json.Unmarshal(line, &answer))
		answers = append(answers, answer)
	}
	return answers
}

// TestAServerOpensNoOtherFile, though asked to by one who may: it can't. It
// goes on with the image that it had.
func TestAServerOpensNoOtherFile(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	for _, name := range []string{"disk.vhd", "other.vhd"} {
		b.OK("create", "64M", name)
	}
	m := b.Mount("disk.vhd", "--log-level", "debug")
	if log := m.Log(); !strings.Contains(log, "msg=confined without.files=true without.network=true without.system_calls=true") {
		t.Errorf("the log doesn't say what the server can't do: %s", log)
	}
	sockets, err := filepath.Glob(filepath.Join(b.Runtime, "*.sock"))
	check(t, err)
	f := m.Open(os.O_RDWR)
	content := harness.Random(1, 4096)
	_, err = f.WriteAt(content, 0)
	check(t, err)
	image, err := json.Marshal([]byte(b.Path("other.vhd"))) // bytes: a path need not be UTF-8
	check(t, err)
	answers := speak(t, sockets[0], `{"op":"pause"}`, `{"op":"unpause","image":`+string(image)+`}`, `{"op":"unpause"}`)
	if said := fmt.Sprint(answers[1]["error"]); !strings.Contains(said, "permission denied") {
		t.Errorf("asked for another file it answers %v; want permission denied", answers[1])
	}
	if said, failed := answers[2]["error"]; failed {
		t.Errorf("asked to go on: %v", said)
	}
	got := make([]byte, len(content))
	_, err = f.ReadAt(got, 0)
	check(t, err)
	if string(got) != string(content) {
		t.Error("the disk has other bytes")
	}
	check(t, f.Close())
	m.Unmount()
	b.OK("check", "disk.vhd")
}

// TestAServerWithoutItsUnmountingProcess says so, and ends well when others
// unmount.
func TestAServerWithoutItsUnmountingProcess(t *testing.T) {
	t.Parallel()
	harness.Fuse(t)
	b := harness.New(t)
	b.OK("create", "64M", "disk.vhd")
	m := b.Mount("disk.vhd")
	server := m.PID()
	f := m.Open(os.O_RDWR)
	content := harness.Random(2, 4096)
	_, err := f.WriteAt(content, 0)
	check(t, err)
	check(t, f.Close())
	unmounter := unmounterOf(t, server)
	check(t, unix.Kill(unmounter, unix.SIGKILL))
	b.Fails([]string{"unmount", m.Point}, "has ended", "fusermount3 -u")
	if os.Geteuid() == 0 {
		b.Tool("umount", m.Point)
	} else {
		b.Tool("fusermount3", "-u", m.Point)
	}
	b.AwaitEnd(server)
	if list := b.List(); len(list) != 0 {
		t.Errorf("left behind: %+v", list)
	}
	b.OK("check", "disk.vhd")
	m = b.Mount("disk.vhd")
	if got := b.Read(m.Disk)[:len(content)]; string(got) != string(content) {
		t.Error("what was written is lost")
	}
	m.Unmount()
}
