package tapctl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl/tapctltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const pid = 4711

// tapdisk is a directory in which a tapdisk answers as it says.
func tapdisk(t *testing.T, answer tapctltest.Answer) tapctl.Dir {
	t.Helper()
	dir := tapctl.Dir{Path: t.TempDir()}
	tapctltest.Serve(t, dir, pid, answer)
	return dir
}

// refuse answers with an errno, which may be none.
func refuse(errno syscall.Errno, text string) tapctltest.Answer {
	return tapctltest.Reply(tapctl.TypeError, func(m *tapctl.Message) { m.SetResponse(tapctl.Response{Errno: errno, Message: text}) })
}

// calls are all requests that have one answer, with its type.
func calls(ctx context.Context, dir tapctl.Dir) map[tapctl.Type]struct {
	call   func() error
	answer tapctl.Type
} {
	type c = struct {
		call   func() error
		answer tapctl.Type
	}
	open := tapctl.OpenRequest{Params: tapctl.Params{Path: "vhd:/disk.vhd"}}
	return map[tapctl.Type]c{
		tapctl.TypePID:           {func() error { _, err := dir.PID(ctx, pid); return err }, tapctl.TypePIDResponse},
		tapctl.TypeAttach:        {func() error { return dir.Attach(ctx, pid, 7) }, tapctl.TypeAttachResponse},
		tapctl.TypeDetach:        {func() error { return dir.Detach(ctx, pid, 7) }, tapctl.TypeDetachResponse},
		tapctl.TypeClose:         {func() error { return dir.Close(ctx, pid, 7, false) }, tapctl.TypeCloseResponse},
		tapctl.TypeForceShutdown: {func() error { return dir.Close(ctx, pid, 7, true) }, tapctl.TypeCloseResponse},
		tapctl.TypePause:         {func() error { return dir.Pause(ctx, pid, 7) }, tapctl.TypePauseResponse},
		tapctl.TypeResume:        {func() error { return dir.Unpause(ctx, pid, 7, open) }, tapctl.TypeResumeResponse},
		tapctl.TypeOpen:          {func() error { _, err := dir.Open(ctx, pid, 7, open); return err }, tapctl.TypeOpenResponse},
		tapctl.TypeList:          {func() error { _, err := dir.List(ctx, pid); return err }, tapctl.TypeListResponse},
		tapctl.TypeStats:         {func() error { _, err := dir.Stats(ctx, pid, 7); return err }, tapctl.TypeStatsResponse},
	}
}

func TestEachCallSendsItsRequestAndTakesItsAnswer(t *testing.T) {
	got := make(chan tapctl.Message, 1)
	var answer tapctl.Type
	dir := tapdisk(t, func(conn net.Conn, request tapctl.Message) {
		got <- request
		tapctltest.Reply(answer, nil)(conn, request)
	})
	for typ, c := range calls(t.Context(), dir) {
		answer = c.answer
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		want := uint16(7)
		switch typ {
		case tapctl.TypeList:
			want = tapctl.AllMinors
		case tapctl.TypePID:
			want = 0
		}
		if m := <-got; m.Type != typ || m.Cookie != want {
			t.Errorf("%s: the request was %s of minor %d, want minor %d", typ, m.Type, m.Cookie, want)
		}
	}
}

func TestRefusalsNameTapdiskMinorRequestAndReason(t *testing.T) {
	dir := tapdisk(t, refuse(syscall.EBUSY, "held by qemu"))
	for typ, c := range calls(t.Context(), dir) {
		err := c.call()
		var refused *tapctl.RefusedError
		if !errors.As(err, &refused) || refused.PID != pid || refused.Type != typ || !errors.Is(err, syscall.EBUSY) {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, "tapdisk 4711: ") || !strings.HasSuffix(text, typ.String()+": device or resource busy (held by qemu)") {
			t.Errorf("%s: %s", typ, text)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	cases := map[string]struct {
		answer tapctltest.Answer
		want   error
	}{
		"no answer":           {func(net.Conn, tapctl.Message) {}, io.ErrUnexpectedEOF},
		"cut short":           {func(conn net.Conn, _ tapctl.Message) { fmt.Fprint(conn, "half a message") }, tapctl.ErrCutShort},
		"another type":        {tapctltest.Reply(tapctl.TypeDiskInfoResponse, nil), tapctl.ErrUnexpected},
		"an unknown type":     {tapctltest.Reply(99, nil), tapctl.ErrUnexpected},
		"an error of no kind": {refuse(0, ""), tapctl.ErrUnexpected},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for typ, call := range calls(t.Context(), tapdisk(t, c.answer)) {
				if err := call.call(); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "tapdisk 4711: "+typ.String()) {
					t.Errorf("%s: %v, want %v", typ, err, c.want)
				}
			}
		})
	}
}

// TestARefusalInTheAnswersOwnType is how some tapdisks refuse to attach.
func TestARefusalInTheAnswersOwnType(t *testing.T) {
	dir := tapdisk(t, tapctltest.Reply(tapctl.TypeAttachResponse, func(m *tapctl.Message) { m.SetResponse(tapctl.Response{Errno: syscall.EEXIST}) }))
	if err := dir.Attach(t.Context(), pid, 3); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("attach: %v", err)
	}
}

func TestOpenSendsWhatFollowsTheMessage(t *testing.T) {
	image := tapctl.Image{Sectors: 1 << 21, SectorSize: 512}
	type seen struct {
		params tapctl.Params
		extra  string
	}
	got := make(chan seen, 1)
	answer := tapctltest.Reply(tapctl.TypeOpenResponse, func(m *tapctl.Message) { m.SetImage(image) })
	dir := tapdisk(t, func(conn net.Conn, request tapctl.Message) {
		p, err := request.Params()
		if err != nil {
			t.Error(err)
		}
		extra := make([]byte, tapctl.LogPathSize+3)
		n := 0
		if p.Flags&(tapctl.FlagAddLog|tapctl.FlagEncrypted) != 0 {
			if n, err = io.ReadFull(conn, extra); err != nil {
				t.Error(err)
			}
		}
		got <- seen{p, string(extra[:n])}
		answer(conn, request)
	})
	params := tapctl.Params{Layout: tapctl.Layout2010s, Path: "vhd:/a", Flags: tapctl.FlagReadOnly}
	if i, err := dir.Open(t.Context(), pid, 9, tapctl.OpenRequest{Params: params}); err != nil || i != image {
		t.Errorf("open: %+v, %v", i, err)
	}
	params.Devnum = 9
	if s := <-got; s.params != params || s.extra != "" {
		t.Errorf("sent %+v", s)
	}
	params.Secondary = "vhd:/b"
	if _, err := dir.Open(t.Context(), pid, 9, tapctl.OpenRequest{Params: params, LogPath: "/log", Key: []byte("ky")}); err != nil {
		t.Error(err)
	}
	params.Flags |= tapctl.FlagSecondary | tapctl.FlagAddLog | tapctl.FlagEncrypted
	want := "/log" + strings.Repeat("\x00", tapctl.LogPathSize-4) + "\x02ky"
	if s := <-got; s.params != params || s.extra != want {
		t.Errorf("sent %+v\nwant %+v, %q", s, params, want)
	}
}

func TestWhatDoesNotFitIsNotSent(t *testing.T) {
	dir := tapdisk(t, func(net.Conn, tapctl.Message) { t.Error("the tapdisk was asked") })
	long := strings.Repeat("x", 256)
	for _, o := range []tapctl.OpenRequest{
		{Params: tapctl.Params{Path: long}}, {Params: tapctl.Params{Secondary: long}}, {LogPath: long}, {Key: make([]byte, 129)},
	} {
		if _, err := dir.Open(t.Context(), pid, 1, o); !errors.Is(err, tapctl.ErrTooLong) {
			t.Errorf("open: %v", err)
		}
		if err := dir.Unpause(t.Context(), pid, 1, o); !errors.Is(err, tapctl.ErrTooLong) {
			t.Errorf("unpause: %v", err)
		}
	}
}

// list answers LIST with the entries, which it counts down itself.
func list(entries ...tapctl.ListEntry) tapctltest.Answer {
	return func(conn net.Conn, request tapctl.Message) {
		for i := 0; i <= len(entries); i++ {
			e := tapctl.ListEntry{Minor: -1}
			if i < len(entries) {
				e = entries[i]
			}
			e.Count = len(entries) - i
			tapctltest.Reply(tapctl.TypeListResponse, func(m *tapctl.Message) { m.SetListEntry(e) })(conn, request)
		}
	}
}

func TestListIsReadToItsEnd(t *testing.T) {
	want := []tapctl.ListEntry{{Minor: 3, Path: "vhd:/a"}, {Minor: 1, State: tapctl.StatePaused, Path: "aio:/b"}, {Minor: -1}}
	got, err := tapdisk(t, list(want...)).List(t.Context(), pid)
	for i := range want {
		want[i].Count = len(want) - i
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if got, err := tapdisk(t, list()).List(t.Context(), pid); err != nil || len(got) != 0 {
		t.Errorf("no disks: %+v, %v", got, err)
	}
	half := func(conn net.Conn, request tapctl.Message) {
		tapctltest.Reply(tapctl.TypeListResponse, func(m *tapctl.Message) { m.SetListEntry(tapctl.ListEntry{Count: 2}) })(conn, request)
	}
	if got, err := tapdisk(t, half).List(t.Context(), pid); !errors.Is(err, io.ErrUnexpectedEOF) || got != nil {
		t.Errorf("a list that ends early: %+v, %v", got, err)
	}
	endless := func(conn net.Conn, _ tapctl.Message) {
		m := tapctl.Message{Type: tapctl.TypeListResponse}
		m.SetListEntry(tapctl.ListEntry{Count: 1})
		for tapctl.WriteMessage(conn, m) == nil {
		}
	}
	if got, err := tapdisk(t, endless).List(t.Context(), pid); !errors.Is(err, tapctl.ErrCount) || got != nil {
		t.Errorf("a list without an end: %d disks, %v", len(got), err)
	}
}

// stats says n and sends text.
func stats(n uint64, text string) tapctltest.Answer {
	return func(conn net.Conn, request tapctl.Message) {
		tapctltest.Reply(tapctl.TypeStatsResponse, func(m *tapctl.Message) { m.SetStatsLength(n) })(conn, request)
		fmt.Fprint(conn, text)
	}
}

func TestStatsAreAsManyBytesAsWereSaid(t *testing.T) {
	text := `{"name": "` + strings.Repeat("x", 100_000) + `"}`
	for n, want := range map[uint64]error{
		uint64(len(text)): nil, 2: nil, 0: nil, uint64(len(text)) + 1: tapctl.ErrCutShort, 1 << 40: tapctl.ErrTooLong, 1<<64 - 1: tapctl.ErrTooLong,
	} {
		got, err := tapdisk(t, stats(n, text)).Stats(t.Context(), pid, 1)
		if !errors.Is(err, want) || err == nil && string(got) != text[:n] {
			t.Errorf("length %d: %d bytes, %v, want %v", n, len(got), err, want)
		}
	}
}

// TestLayoutIsFoundOutByAQuestion: the answers of the versions in the field.
func TestLayoutIsFoundOutByAQuestion(t *testing.T) {
	for name, c := range map[string]struct {
		answer tapctltest.Answer
		want   tapctl.Layout
		err    error
	}{
		"of the 2020s":           {tapctltest.Reply(tapctl.TypeDiskInfoResponse, nil), tapctl.Layout2020s, nil},
		"of the 2020s, no minor": {refuse(syscall.ENODEV, ""), tapctl.Layout2020s, nil},
		"of the 2010s":           {refuse(syscall.EINVAL, ""), tapctl.Layout2010s, nil},
		"none":                   {func(net.Conn, tapctl.Message) {}, tapctl.Layout2020s, io.ErrUnexpectedEOF},
	} {
		if got, err := tapdisk(t, c.answer).Layout(t.Context(), pid, 1); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestATapdiskThatDoesNotAnswer(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	dir := tapdisk(t, func(net.Conn, tapctl.Message) { <-over })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for typ, c := range calls(ctx, dir) {
		if err := c.call(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if pids, err := dir.Tapdisks(ctx); err != nil || len(pids) != 0 {
		t.Errorf("tapdisks: %v, %v", pids, err)
	}
}

func TestNoTapdisk(t *testing.T) {
	dir := tapctl.Dir{Path: t.TempDir()}
	if err := dir.Attach(t.Context(), 1, 1); !errors.Is(err, tapctl.ErrNoTapdisk) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
	leaveSocket(t, dir, 2)
	if err := dir.Attach(t.Context(), 2, 1); !errors.Is(err, tapctl.ErrNoTapdisk) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a dead socket: %v", err)
	}
}

// leaveSocket is what a tapdisk that died leaves behind.
func leaveSocket(t *testing.T, dir tapctl.Dir, pid int) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: dir.Socket(pid)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestTapdisksAreFoundByTheirSockets(t *testing.T) {
	dir := tapctl.Dir{Path: filepath.Join(t.TempDir(), "blktap-control")}
	if pids, err := dir.Tapdisks(t.Context()); err != nil || pids != nil {
		t.Errorf("no directory: %v, %v", pids, err)
	}
	alive := tapctltest.Reply(tapctl.TypePIDResponse, func(m *tapctl.Message) { m.SetPID(1) })
	for _, pid := range []int{12, 9, 100} {
		tapctltest.Serve(t, dir, pid, alive)
	}
	leaveSocket(t, dir, 10)
	for _, name := range []string{"ctl", "ctlx", "ctl-9", "ctl012", "ctl+9", "nbd9", "ctl7"} {
		if err := os.WriteFile(filepath.Join(dir.Path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pids, err := dir.Tapdisks(t.Context()); err != nil || !slices.Equal(pids, []int{9, 12, 100}) {
		t.Errorf("%v, %v", pids, err)
	}
	file := tapctl.Dir{Path: filepath.Join(dir.Path, "ctl7")}
	if _, err := file.Tapdisks(t.Context()); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file for a directory: %v", err)
	}
}

func TestLocate(t *testing.T) {
	env := func(key string) string { return map[string]string{tapctl.DirVariable: "/elsewhere"}[key] }
	if dir := tapctl.Locate(env); dir.Path != "/elsewhere" {
		t.Errorf("by the environment: %v", dir)
	}
	dir := tapctl.Locate(func(string) string { return "" })
	if dir.Path != tapctl.DefaultDir && dir.Path != tapctl.NewerDir {
		t.Errorf("without: %v", dir)
	}
	if got := (tapctl.Dir{Path: "/x"}).Socket(77); got != "/x/ctl77" {
		t.Errorf("socket %q", got)
	}
}
