package tapdisk

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

func TestTheSocketIsItsOwners(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	for path, want := range map[string]os.FileMode{filepath.Dir(w.server.Socket()): 0o700, w.server.Socket(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestADeadProcesssSocketIsReplaced(t *testing.T) {
	var path string
	w := newWorld(t, blktaptest.OpenXT, func(o *Options) {
		path = New(*o).Socket()
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	})
	m, _ := w.ask(tapctl.Message{Type: tapctl.TypePID})
	if m.PID() != os.Getpid() {
		t.Errorf("pid %d", m.PID())
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	s := New(Options{Driver: blktaptest.New(t, blktaptest.OpenXT), Dir: filepath.Join(t.TempDir(), "ctl")})
	if !s.allowed(0) || !s.allowed(uint32(os.Geteuid())) || s.allowed(uint32(os.Geteuid())+1) {
		t.Error("others than the owner and root are allowed")
	}
	s.allowed = func(uint32) bool { return false }
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := &world{t: t, server: s}
	m, _ := w.ask(tapctl.Message{Type: tapctl.TypePID})
	if r, err := m.Response(); m.Type != tapctl.TypeError || err != nil || r.Errno != unix.EACCES {
		t.Errorf("%v: %+v, %v", m.Type, r, err)
	}
}

func TestMessagesThatAreCutShort(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, func(o *Options) { o.Timeout = 50 * time.Millisecond })
	tap, path := w.ready()
	whole := with(t, tapctl.TypeOpen, tap.Minor, tapctl.Params{Path: "vhd:" + path})
	for _, n := range []int{1, 2, 8, 543} {
		for _, hangUp := range []bool{true, false} {
			conn := w.dial()
			if _, err := conn.Write(whole.Append(nil)[:n]); err != nil {
				t.Fatal(err)
			}
			want := unix.ETIMEDOUT
			if hangUp {
				conn.CloseWrite()
				want = unix.EIO
			}
			m, rest := w.answer(conn)
			if r, err := m.Response(); m.Type != tapctl.TypeError || err != nil || r.Errno != want || len(rest) != 0 {
				t.Errorf("%d bytes (hung up: %v): %v %+v, %v", n, hangUp, m.Type, r, err)
			}
			conn.Close()
		}
	}
	w.dial().Close() // nothing at all, as a probe does
	w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
	w.finish(tap)
}

// TestBytesBehindAMessageAreDropped, as those of a log's path are.
func TestBytesBehindAMessageAreDropped(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	conn := w.dial()
	defer conn.Close()
	m := with(t, tapctl.TypeOpen, 3, tapctl.Params{Path: "vhd:/x", Flags: tapctl.FlagAddLog})
	if _, err := conn.Write(append(m.Append(nil), make([]byte, tapctl.LogPathSize)...)); err != nil {
		t.Fatal(err)
	}
	if a, _ := w.answer(conn); a.Type != tapctl.TypeError {
		t.Errorf("answer %v", a.Type)
	}
}

// TestManyConnectionsAtOnce: 200 clients, of which some say nothing.
func TestManyConnectionsAtOnce(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, path := w.ready()
	guest := w.guest(tap)
	l := run(guest)
	var silent []*net.UnixConn
	for range 40 {
		silent = append(silent, w.dial())
	}
	var clients sync.WaitGroup
	for i := range 200 {
		clients.Go(func() {
			switch i % 4 {
			case 0:
				w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
			case 1:
				w.send(tapctl.TypeClose, tap.Minor)
			case 2:
				w.send(99, tap.Minor)
			case 3:
				var s diskStats
				w.figures(uint16(tap.Minor), &s)
			}
		})
	}
	clients.Wait()
	l.more(t)
	l.end(t)
	for _, conn := range silent {
		conn.Close()
	}
	w.finish(tap, guest)
}

// TestMoreConnectionsThanAreServedAtOnceWait until others have timed out.
func TestMoreConnectionsThanAreServedAtOnceWait(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	for range maxConnections + 20 {
		defer w.dial().Close()
	}
	conn := w.dial()
	defer conn.Close()
	m := tapctl.Message{Type: tapctl.TypePID}
	if err := tapctl.WriteMessage(conn, m); err != nil {
		t.Fatal(err)
	}
	if a, _ := w.answer(conn); a.Type != tapctl.TypePIDResponse {
		t.Errorf("answer %v", a.Type)
	}
}

// FuzzHandle has any message answered in the protocol's form, with a guest's
// disk attached that nothing of it disturbs.
func FuzzHandle(f *testing.F) {
	for typ := range tapctl.TypeExit + 2 {
		m := tapctl.Message{Type: typ}
		f.Add(m.Append(nil))
	}
	open := tapctl.Message{Type: tapctl.TypeOpen}
	if err := open.SetParams(tapctl.Params{Path: "vhd:/none", Flags: tapctl.FlagReadOnly}); err != nil {
		f.Fatal(err)
	}
	f.Add(open.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := blktaptest.New(t, blktaptest.OpenXT)
		tap, err := k.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		s := New(Options{Driver: k, Dir: t.TempDir()})
		defer s.Close()
		s.handle(t.Context(), tapctl.Message{Type: tapctl.TypeAttach, Cookie: uint16(tap.Minor)})
		m, err := tapctl.Decode(b)
		if err != nil {
			return
		}
		if p, err := m.Params(); err == nil && !strings.HasPrefix(p.Path, "vhd:/none") {
			return // no file of this machine
		}
		r := bytes.NewReader(s.handle(t.Context(), m).encode())
		a, err := tapctl.ReadMessage(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := a.Response(); a.Type == tapctl.TypeError && (err != nil || resp.Errno <= 0 || resp.Errno > 4095) {
			t.Errorf("error %+v, %v", resp, err)
		}
		if a.Type != tapctl.TypeStatsResponse && r.Len()%tapctl.MessageSize != 0 {
			t.Errorf("%d bytes behind %v", r.Len(), a.Type)
		}
		s.handle(t.Context(), tapctl.Message{Type: tapctl.TypeDetach, Cookie: uint16(tap.Minor)})
	})
}
