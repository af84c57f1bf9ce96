package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl/tapctltest"
)

// disks has a fake tapdisk list the entries.
func disks(t *testing.T, tool *tapTool, pid int, entries ...tapctl.ListEntry) {
	t.Helper()
	tapctltest.Serve(t, tool.dir, pid, func(conn net.Conn, m tapctl.Message) {
		if m.Type == tapctl.TypePID {
			tapctltest.Reply(tapctl.TypePIDResponse, func(m *tapctl.Message) { m.SetPID(pid) })(conn, m)
			return
		}
		for i := range append(entries, tapctl.ListEntry{}) {
			e := tapctl.ListEntry{Minor: -1}
			if i < len(entries) {
				e = entries[i]
			}
			e.Count = len(entries) - i
			tapctltest.Reply(tapctl.TypeListResponse, func(m *tapctl.Message) { m.SetListEntry(e) })(conn, m)
		}
	})
}

// world is a tool with what a host may have: disks that run and are paused, a
// tapdisk without one, and one that died; minors without a tapdisk, by the
// names of both kinds of module.
func world(t *testing.T) *tapTool {
	t.Helper()
	tool := toolFor(t)
	disks(t, tool, 100, tapctl.ListEntry{Minor: 0, Path: "vhd:/srv/a b.vhd"}, tapctl.ListEntry{Minor: 3, State: tapctl.StatePaused, Path: "aio:/b"})
	disks(t, tool, 9, tapctl.ListEntry{Minor: 1})
	disks(t, tool, 12)
	for _, minor := range []string{"blktap0", "blktap1", "blktap!blktap10", "blktap3", "blktap4"} {
		if err := os.MkdirAll(tool.sys+"/class/blktap2/"+minor, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, tool.dir.Socket(55), "")
	return tool
}

func TestTapListForPrograms(t *testing.T) {
	tool := world(t)
	const (
		a, b      = "pid=100 minor=0 state=0 args=vhd:/srv/a b.vhd\n", "pid=100 minor=3 state=0x2a args=aio:/b\n"
		c, d      = "pid=9 minor=1 state=0\n", "pid=12\n"
		four, ten = "minor=4\n", "minor=10\n"
	)
	for _, l := range []struct {
		want string
		args []string
	}{
		{c + d + a + b + four + ten, nil},
		{a + b, []string{"-p", "100"}},
		{d, []string{"-p", "12"}},
		{"", []string{"-p", "55"}},
		{"", []string{"-p", "1"}},
		{b, []string{"-m", "3"}},
		{four, []string{"-m", "4"}},
		{"", []string{"-m", "5"}},
		{a, []string{"-t", "vhd"}},
		{"", []string{"-t", "qcow"}},
		{a, []string{"-f", "/srv/a b.vhd"}},
		{"", []string{"-f", "/srv/a"}},
		{b, []string{"-p100", "-m3", "-taio", "-f/b"}},
	} {
		if code, stdout, stderr := runTap(tool, append([]string{"list"}, l.args...)...); code != 0 || stdout != l.want || stderr != "" {
			t.Errorf("%v: exit code %d, %q\n%s\nwant\n%s", l.args, code, stderr, stdout, l.want)
		}
	}
	for line, want := range map[string]string{"minors": "0\n1\n3\n4\n10\n", "minors -p 100": "0\n3\n", "minors -p 12": ""} {
		if code, stdout, stderr := runTap(tool, strings.Fields(line)...); code != 0 || stdout != want {
			t.Errorf("%s: exit code %d, %q, %q", line, code, stdout, stderr)
		}
	}
	if code, _, stderr := runTap(tool, "minors", "-p", "1"); code != int(unix.ENOENT) {
		t.Errorf("minors of no tapdisk: exit code %d, %q", code, stderr)
	}
}

func TestTapListForPeople(t *testing.T) {
	tool := world(t)
	tool.terminal = func() bool { return true }
	want := "" +
		"       9    1    0          - -\n" +
		"      12    -    -          - -\n" +
		"     100    0    0        vhd /srv/a b.vhd\n" +
		"     100    3 0x2a        aio /b\n" +
		"       -    4    -          - -\n" +
		"       -   10    -          - -\n"
	if code, stdout, stderr := runTap(tool, "list"); code != 0 || stdout != want {
		t.Errorf("exit code %d, %q\n%s\nwant\n%s", code, stderr, stdout, want)
	}
}

func TestTapListAsJSON(t *testing.T) {
	tool := toolFor(t)
	if _, stdout, _ := runTap(tool, "list", "--json"); stdout != "[]\n" {
		t.Errorf("nothing: %q", stdout)
	}
	disks(t, tool, 100, tapctl.ListEntry{Minor: 0, Path: "vhd:/<a>"})
	_, stdout, _ := runTap(tool, "list", "--json")
	if got, want := strings.Join(strings.Fields(stdout), " "), `[ { "pid": 100, "minor": 0, "state": 0, "args": "vhd:/<a>" } ]`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestTapListOfAnImpoliteTapdisk: a name that would move the cursor, an answer
// that is none.
func TestTapListOfAnImpoliteTapdisk(t *testing.T) {
	tool := toolFor(t)
	disks(t, tool, 100, tapctl.ListEntry{Minor: 0, Path: "vhd:/\x1b[2J\nminor=9"})
	tapctltest.Serve(t, tool.dir, 101, func(conn net.Conn, m tapctl.Message) {
		tapctltest.Reply(tapctl.TypePIDResponse, nil)(conn, m)
	})
	want := "pid=100 minor=0 state=0 args=vhd:/\uFFFD[2J\uFFFDminor=9\npid=101\n"
	if code, stdout, stderr := runTap(tool, "list"); code != 0 || stdout != want {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}
