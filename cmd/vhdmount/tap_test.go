package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl/tapctltest"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

const tapdiskPID = 77

// toolFor is the tool in a world of its own: no tapdisk, no minor, a simulated
// module.
func toolFor(t *testing.T) *tapTool {
	t.Helper()
	return &tapTool{
		dir: tapctl.Dir{Path: t.TempDir()}, driver: blktaptest.New(t, blktaptest.OpenXT),
		proc: t.TempDir(), sys: t.TempDir(),
		available: func() error { return nil }, terminal: func() bool { return false },
		spawn: func(context.Context) (int, error) { return tapdiskPID, nil },
	}
}

// runTap is the command line `vhdmount tap ARGS` on a tool.
func runTap(t *tapTool, args ...string) (code int, stdout, stderr string) {
	var out bytes.Buffer
	app := newApp(&out, io.Discard)
	for i, verb := range app.Commands {
		if verb.Name == "tap" {
			app.Commands[i] = t.verb()
		}
	}
	app.Reader = strings.NewReader(strings.Repeat("k", 32))
	err := runApp(app, append([]string{"tap"}, args...))
	if err != nil {
		stderr = message(err)
	}
	return exitcode.Of(err), out.String(), stderr
}

// sent is a request as a tapdisk sees it.
type sent struct {
	typ    tapctl.Type
	minor  uint16
	params tapctl.Params
}

// listenAs has a fake tapdisk answer every request well, and tell of them all
// but questions.
func listenAs(t *testing.T, tool *tapTool, layout tapctl.Layout) <-chan sent {
	t.Helper()
	got := make(chan sent, 8)
	tapctltest.Serve(t, tool.dir, tapdiskPID, func(conn net.Conn, m tapctl.Message) {
		s := sent{typ: m.Type, minor: m.Cookie}
		answer := m.Type + 1
		switch m.Type {
		case tapctl.TypeDiskInfo:
			if layout == tapctl.Layout2010s {
				tapctltest.Reply(tapctl.TypeError, func(m *tapctl.Message) { m.SetResponse(tapctl.Response{Errno: unix.EINVAL}) })(conn, m)
				return
			}
		case tapctl.TypeOpen, tapctl.TypeResume:
			s.params, _ = m.Params()
		case tapctl.TypeForceShutdown:
			answer = tapctl.TypeCloseResponse
		}
		if m.Type != tapctl.TypeDiskInfo {
			got <- s
		}
		tapctltest.Reply(answer, nil)(conn, m)
	})
	return got
}

// TestTapVerbsSendWhatTheyAreTold, with tap-ctl's own flags.
func TestTapVerbsSendWhatTheyAreTold(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	open := func(p tapctl.Params) tapctl.Params {
		p.Devnum = 5
		if p.ParentDevnum == 0 {
			p.ParentDevnum = 0xffffffff
		}
		return p
	}
	for line, want := range map[string]sent{
		"attach -p 77 -m 5":                  {typ: tapctl.TypeAttach, minor: 5},
		"detach -m 16383 -p 77":              {typ: tapctl.TypeDetach, minor: 16383},
		"close -p77 -m5":                     {typ: tapctl.TypeClose, minor: 5},
		"close -p 77 -m 5 -f -t 3":           {typ: tapctl.TypeForceShutdown, minor: 5},
		"pause -p 77 -m 0 -t 10":             {typ: tapctl.TypePause, minor: 0},
		"unpause -p 77 -m 0":                 {typ: tapctl.TypeResume},
		"unpause -p 77 -m 0 -a vhd:/new.vhd": {typ: tapctl.TypeResume, params: tapctl.Params{Path: "vhd:/new.vhd"}},
		"open -p 77 -m 5 -a vhd:/d.vhd":      {typ: tapctl.TypeOpen, minor: 5, params: open(tapctl.Params{Path: "vhd:/d.vhd"})},
		"open -p 77 -m 5 -a aio:d.img -R":    {typ: tapctl.TypeOpen, minor: 5, params: open(tapctl.Params{Path: "aio:" + wd + "/d.img", Flags: tapctl.FlagReadOnly})},
		"open -p 77 -m 5 -a nbd:x -RDrs -2 vhd:/s -e 3 -t 40": {typ: tapctl.TypeOpen, minor: 5, params: open(tapctl.Params{
			Path: "nbd:x", Secondary: "vhd:/s", ParentDevnum: 3, Timeout: 40,
			Flags: tapctl.FlagReadOnly | tapctl.FlagNoODirect | tapctl.FlagAddLCache | tapctl.FlagStandby | tapctl.FlagSecondary | tapctl.FlagReuseParent,
		})},
		"open -p 77 -m 5 -a vhd:/d -E":             {typ: tapctl.TypeOpen, minor: 5, params: open(tapctl.Params{Path: "vhd:/d", Flags: tapctl.FlagEncrypted})},
		"open -p 77 -m 5 -a vhd:/d -C /log":        {typ: tapctl.TypeOpen, minor: 5, params: open(tapctl.Params{Path: "vhd:/d", Flags: tapctl.FlagAddLog})},
		"open -p 77 -m 5 -a vhd:/d --layout 2010s": {typ: tapctl.TypeOpen, minor: 5, params: open(tapctl.Params{Path: "vhd:/d", Layout: tapctl.Layout2010s})},
	} {
		tool := toolFor(t)
		got := listenAs(t, tool, tapctl.Layout2020s)
		if code, stdout, stderr := runTap(tool, strings.Fields(line)...); code != 0 || stdout != "" || stderr != "" {
			t.Errorf("%s: exit code %d, %q, %q", line, code, stdout, stderr)
			continue
		}
		if s := <-got; s != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", line, s, want)
		}
	}
}

func TestAnOlderTapdiskIsSpokenToInItsLayout(t *testing.T) {
	tool := toolFor(t)
	got := listenAs(t, tool, tapctl.Layout2010s)
	for _, line := range []string{"open -p 77 -m 5 -a vhd:/d", "unpause -p 77 -m 5 -a vhd:/d"} {
		if code, _, stderr := runTap(tool, strings.Fields(line)...); code != 0 {
			t.Fatalf("%s: %s", line, stderr)
		}
		if s := <-got; s.params.Layout != tapctl.Layout2010s || s.params.Path != "vhd:/d" {
			t.Errorf("%s: %+v", line, s)
		}
	}
}

// TestRefusalsEndWithTheirErrno, in one line that says what to do.
func TestRefusalsEndWithTheirErrno(t *testing.T) {
	var errno syscall.Errno
	tool := toolFor(t)
	tapctltest.Serve(t, tool.dir, tapdiskPID, func(conn net.Conn, m tapctl.Message) {
		if m.Type == tapctl.TypeDiskInfo {
			tapctltest.Reply(tapctl.TypeDiskInfoResponse, nil)(conn, m)
			return
		}
		tapctltest.Reply(tapctl.TypeError, func(m *tapctl.Message) { m.SetResponse(tapctl.Response{Errno: errno}) })(conn, m)
	})
	for _, c := range []struct {
		line   string
		errno  syscall.Errno
		stderr string
	}{
		{"attach -p 77 -m 5", unix.EEXIST, "tapdisk 77: minor 5: attach: file exists (it has that minor already: open an image on it)"},
		{"attach -p 77 -m 5", unix.ENXIO, "tapdisk 77: minor 5: attach: no such device or address (vhdmount tap allocate makes a minor)"},
		{"open -p 77 -m 5 -a vhd:/d", unix.EALREADY, "tapdisk 77: minor 5: open: operation already in progress (an image is open there"},
		{"open -p 77 -m 5 -a vhd:/d", unix.EINVAL, "vhdmount check tells"},
		{"detach -p 77 -m 5", unix.EBUSY, "close its image first"},
		{"close -p 77 -m 5", unix.EBUSY, "somebody has the block device open"},
		{"unpause -p 77 -m 5", unix.ENOENT, "the disk stays paused"},
		{"pause -p 77 -m 5", unix.ENODEV, "vhdmount tap list shows those it has"},
		{"destroy -p 77 -m 5", unix.EIO, "tapdisk 77: minor 5: close: input/output error"},
		{"stats -p 77 -m 5", unix.ENODEV, "tapdisk 77: minor 5: stats: no such device"},
	} {
		errno = c.errno
		code, stdout, stderr := runTap(tool, strings.Fields(c.line)...)
		if code != int(c.errno) || stdout != "" || !strings.Contains(stderr, c.stderr) || strings.Contains(stderr, "\n") {
			t.Errorf("%s: exit code %d, want %d; %q, %q", c.line, code, c.errno, stdout, stderr)
		}
	}
}

func TestARefusalThatSaysWhatToDoIsLeftAlone(t *testing.T) {
	err := &tapctl.RefusedError{PID: 77, Type: tapctl.TypeOpen, Minor: 5, Errno: unix.EINVAL, Message: "attach it first"}
	if got, want := (tapMessage{err}).Error(), "tapdisk 77: minor 5: open: invalid argument (attach it first)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTapBadInput(t *testing.T) {
	tool := toolFor(t)
	listenAs(t, tool, tapctl.Layout2020s)
	tapctltest.Serve(t, tool.dir, 78, func(conn net.Conn, _ tapctl.Message) { conn.Write([]byte("half")) })
	tapctltest.Serve(t, tool.dir, 79, tapctltest.Reply(99, nil))
	over := make(chan struct{})
	defer close(over)
	tapctltest.Serve(t, tool.dir, 80, func(net.Conn, tapctl.Message) { <-over })
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		line   string
		errno  syscall.Errno
		stderr string
	}{
		{"attach -m 5", unix.EINVAL, "tap attach: --pid is missing: vhdmount tap attach -p PID -m MINOR"},
		{"attach -p 77", unix.EINVAL, "tap attach: --minor is missing"},
		{"attach -p 77 -m 65535", unix.EINVAL, `tap attach: --minor "65535": not a number from 0 to 65534`},
		{"attach -p 0 -m 1", unix.EINVAL, `tap attach: --pid "0": not a number from 1`},
		{"attach -p 77 -m 1 more", unix.EINVAL, `tap attach: unexpected argument "more"`},
		{"attach -p 77 -m", unix.EINVAL, "tap attach: flag -m needs a value; see vhdmount tap attach --help"},
		{"atach", unix.EINVAL, `tap: unknown verb "atach" (did you mean attach?)`},
		{"list --jsn", unix.EINVAL, "tap list: unknown flag --jsn (did you mean --json?)"},
		{"open -p 77 -m 5", unix.EINVAL, "tap open: --args is missing"},
		{"open -p 77 -m 5 -a /d.vhd", unix.EINVAL, "an image is named TYPE:PATH, as in vhd:/disk.vhd"},
		{"open -p 77 -m 5 -a vhd:", unix.EINVAL, "an image is named TYPE:PATH"},
		{"open -p 77 -m 5 -a vhd:/d --layout 1990s", unix.EINVAL, `--layout "1990s" is none of auto, 2010s, 2020s`},
		{"open -p 77 -m 5 -a vhd:/" + long, unix.ENAMETOOLONG, "261 bytes, a message has room for 255 (give it a shorter name, by a symbolic link)"},
		{"unpause -p 77 -m 5 -a vhd:/" + long, unix.ENAMETOOLONG, "a message has room for 255"},
		{"close -p 77 -m 5 -t soon", unix.EINVAL, `--timeout "soon": not a number`},
		{"attach -p 76 -m 5", unix.ENOENT, "no tapdisk listens at " + tool.dir.Socket(76) + ": no such file or directory (vhdmount tap list shows those that run)"},
		{"attach -p 78 -m 5", unix.EPROTO, "message is cut short: 4 of 544 bytes (it is a tapdisk of a version that speaks otherwise)"},
		{"attach -p 79 -m 5", unix.EPROTO, "unexpected answer: type 99"},
		{"close -p 80 -m 5 -t 1", unix.ETIMEDOUT, "tapdisk 80: close: no answer: context deadline exceeded (it may be busy"},
		{"free -m 5", unix.ENODEV, "no such minor"},
	} {
		code, stdout, stderr := runTap(tool, strings.Fields(c.line)...)
		if code != int(c.errno) || stdout != "" || !strings.Contains(stderr, c.stderr) || strings.Contains(stderr, "\n") {
			t.Errorf("%s: exit code %d, want %d; %q, %q", c.line, code, c.errno, stdout, stderr)
		}
	}
}

// TestTapWithoutAModule, and without permission.
func TestTapWithoutAModule(t *testing.T) {
	for err, want := range map[error]struct {
		code int
		text string
	}{
		blktap.ErrNoModule: {int(unix.ENOSYS), "the blktap module is not loaded"},
		error(&os.PathError{Op: "open", Path: "/dev/control", Err: unix.EACCES}): {int(unix.EACCES), "/dev/control: permission denied (only root may)"},
	} {
		tool := toolFor(t)
		tool.available = func() error { return err }
		tool.driver.(*blktaptest.Kernel).Fail(blktaptest.CallAllocate, err, err)
		for _, line := range []string{"check", "minors", "allocate", "create -a vhd:/d"} {
			if code, stdout, stderr := runTap(tool, strings.Fields(line)...); code != want.code || stdout != "" || !strings.HasSuffix(stderr, want.text) {
				t.Errorf("%s: exit code %d, %q, %q; want %+v", line, code, stdout, stderr, want)
			}
		}
	}
	if code, stdout, _ := runTap(toolFor(t), "check"); code != 0 || stdout != "ok\n" {
		t.Errorf("with one: exit code %d, %q", code, stdout)
	}
}

// write makes a file, and its directories.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestMajorIsThatOfTheBlockDevices(t *testing.T) {
	tool := toolFor(t)
	write(t, tool.proc+"/devices", "Character devices:\n 10 misc\n251 blktap2\n\nBlock devices:\n  8 sd\n253 tapdev\n")
	for _, args := range [][]string{{"major"}, {"major", "-b"}} {
		if code, stdout, stderr := runTap(tool, args...); code != 0 || stdout != "253\n" {
			t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
		}
	}
	write(t, tool.proc+"/devices", "Block devices:\n  8 sd\n")
	if code, stdout, stderr := runTap(tool, "major"); code != int(unix.ENODEV) || stdout != "" || !strings.Contains(stderr, "modprobe blktap") {
		t.Errorf("without a module: exit code %d, %q, %q", code, stdout, stderr)
	}
}

// TestCreateThatFailsLeavesNothing: no minor, no tapdisk.
func TestCreateThatFailsLeavesNothing(t *testing.T) {
	tool := toolFor(t)
	program := exec.Command("sleep", "600")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	tool.spawn = func(context.Context) (int, error) { return program.Process.Pid, nil }
	tapctltest.Serve(t, tool.dir, program.Process.Pid,
		tapctltest.Reply(tapctl.TypeError, func(m *tapctl.Message) { m.SetResponse(tapctl.Response{Errno: unix.ENOMEM}) }))
	code, stdout, stderr := runTap(tool, "create", "-a", "vhd:/d")
	if code != int(unix.ENOMEM) || stdout != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	var exit *exec.ExitError
	if err := program.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("the tapdisk: %v", err)
	}
	tool.spawn = func(context.Context) (int, error) { return 0, unix.ENOEXEC }
	if code, _, stderr := runTap(tool, "create", "-a", "vhd:/d"); code != int(unix.ENOEXEC) {
		t.Errorf("without a program: exit code %d, %q", code, stderr)
	}
	if n := tool.driver.(*blktaptest.Kernel).Allocated(); n != 0 {
		t.Errorf("%d minors are allocated", n)
	}
}

// TestSpawnSpeaksToPeopleAndPrograms, as tap-ctl does.
func TestSpawnSpeaksToPeopleAndPrograms(t *testing.T) {
	tool := toolFor(t)
	for terminal, want := range map[bool]string{false: "77\n", true: "tapdisk spawned with pid 77\n"} {
		tool.terminal = func() bool { return terminal }
		if code, stdout, stderr := runTap(tool, "spawn"); code != 0 || stdout != want {
			t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
		}
	}
}

func TestSpawnStartsTheProgramThatTheEnvironmentNames(t *testing.T) {
	program := filepath.Join(t.TempDir(), "some-tapdisk")
	for _, variable := range []string{"TAPDISK", "TAPDISK2"} {
		s := &spawner{getenv: func(key string) string { return map[string]string{variable: program}[key] }}
		for script, want := range map[string]int{
			"echo /var/run/blktap-control/ctl4711":           4711,
			"(exec 2>&-; echo /run/ctl12) & exit 0":          12,
			"echo /run/ctl12; exit 5":                        0,
			"echo out of memory":                             0,
			"exit 0":                                         0,
			"echo /run/nbd12":                                0,
			"head -c 100000 /dev/zero 2>/dev/null || exit 0": 0,
		} {
			write(t, program, "#!/bin/sh\n"+script+"\n")
			pid, err := s.spawn(t.Context())
			if pid != want || (err == nil) != (want != 0) {
				t.Errorf("%s, %s: %d, %v", variable, script, pid, err)
			}
			if err != nil && !strings.Contains(err.Error(), program) {
				t.Errorf("%s: %v", script, err)
			}
		}
	}
}

func TestATapdisksNameIsAVerb(t *testing.T) {
	for name, want := range map[string]string{
		"/usr/libexec/tapdisk": "tap tapdisk -D", "tapdisk2": "tap tapdisk -D", "/usr/bin/vhdmount": "-D", "tapdisk-x": "-D",
	} {
		if got := strings.Join(argumentsOf([]string{name, "-D"}), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestManualNamesEveryTapVerbAndFlag, in a section of their own.
func TestManualNamesEveryTapVerbAndFlag(t *testing.T) {
	page, err := os.ReadFile("../../man/vhdmount.1")
	if err != nil {
		t.Fatal(err)
	}
	_, manual, ok := strings.Cut(strings.ReplaceAll(string(page), `\-`, "-"), "\n.SS tap ")
	if manual, _, _ = strings.Cut(manual, "\n.SS "); !ok {
		t.Fatal("no section")
	}
	for _, verb := range tapVerb().Subcommands {
		if !strings.Contains(manual, verb.Name) {
			t.Errorf("the manual lacks %s", verb.Name)
		}
		for _, f := range verb.Flags {
			for _, flag := range spelled(f) {
				if !strings.Contains(manual, flag) {
					t.Errorf("the manual lacks %s of %s", flag, verb.Name)
				}
			}
		}
	}
}
