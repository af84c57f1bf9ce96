package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start returns the socket of a server that answers by handler.
func start(t *testing.T, handler Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	s, err := Listen(path, handler)
	check(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return path
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheHandlerSeesTheRequestAndTheClientItsResponse(t *testing.T) {
	want := Response{State: Running, Busy: true, Pending: true, Closed: true, Error: "line\nbreak"}
	var seen Request
	path := start(t, func(_ context.Context, r Request) Response { seen = r; return want })
	got, err := Call(t.Context(), path, Request{Op: Unmount, Lazy: true})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("response %+v, %v; want %+v", got, err, want)
	}
	if !reflect.DeepEqual(seen, Request{Op: Unmount, Lazy: true}) {
		t.Errorf("request %+v", seen)
	}
}

func TestTheSocketIsClosedToOthers(t *testing.T) {
	path := start(t, func(context.Context, Request) Response { return Response{} })
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestAPeerThatIsNotAllowedReachesNoHandler(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	asked := make(chan uint32, 1)
	s, err := listen(path, func(context.Context, Request) Response {
		t.Error("the handler was called")
		return Response{}
	}, func(uid uint32) bool { asked <- uid; return false })
	check(t, err)
	defer s.Close()
	r, err := Call(t.Context(), path, Request{Op: Status})
	if err != nil || r.Error != ErrForbidden.Error() {
		t.Errorf("got %+v, %v", r, err)
	}
	if uid := <-asked; int(uid) != os.Geteuid() {
		t.Errorf("the peer was taken for user %d, it is %d", uid, os.Geteuid())
	}
}

// TestTheOwnerAndRootAreAllowedAlone asks the rule that a server has.
func TestTheOwnerAndRootAreAllowedAlone(t *testing.T) {
	s, err := Listen(filepath.Join(t.TempDir(), "s.sock"), func(context.Context, Request) Response { return Response{} })
	check(t, err)
	defer s.Close()
	const nobody = 65534
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1: false, nobody: own == nobody, math.MaxUint32: false} {
		if s.allowed(uid) != want {
			t.Errorf("user %d allowed: %t, want %t; the server is user %d's", uid, !want, want, own)
		}
	}
}

// TestAnAnswerIsHeardThatCameBeforeTheQuestion: a peer that is not allowed is
// told so, and the connection closed, without a look at its request.
func TestAnAnswerIsHeardThatCameBeforeTheQuestion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	check(t, err)
	defer l.Close()
	conn, err := Dial(t.Context(), path)
	check(t, err)
	defer conn.Close()
	server, err := l.Accept()
	check(t, err)
	_, err = server.Write([]byte("refused\n"))
	check(t, errors.Join(err, server.Close()))
	if answer, err := conn.exchange([]byte("question\n"), nil); err != nil || string(answer) != "refused\n" {
		t.Errorf("got %q, %v", answer, err)
	}
	if answer, err := conn.exchange([]byte("another\n"), nil); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("without an answer: %q, %v; want why it could not be sent", answer, err)
	}
}

// TestAnotherUserIsRefused dials as a user that is neither root nor the
// server's, which takes root to become.
func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the rule is asked above, and nobody else dials")
		return
	}
	dir := t.TempDir()
	// The kernel alone would refuse by the mode; the rule must hold without it.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		check(t, os.Chmod(d, 0o755))
	}
	path := filepath.Join(dir, "s.sock")
	s, err := Listen(path, func(context.Context, Request) Response {
		t.Error("the handler was called")
		return Response{State: Running}
	})
	check(t, err)
	defer s.Close()
	check(t, os.Chmod(path, 0o666))
	const nobody = 65534
	conn := dialAs(t, nobody, path)
	defer conn.Close()
	// A server that lets it ask would wait for the question.
	_, err = conn.Write([]byte(`{"op":"unmount"}` + "\n"))
	line, readErr := bufio.NewReader(conn).ReadString('\n')
	if readErr != nil || !strings.Contains(line, ErrForbidden.Error()) {
		t.Errorf("got %q, %v, %v", line, err, readErr)
	}
}

// dialAs connects from a thread that is another user's, and ends after. The
// process stays whose it is: a server in it asks for that.
func dialAs(t *testing.T, uid int, path string) net.Conn {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	check(t, err)
	connected := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: it is no thread for others
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETREUID, ^uintptr(0), uintptr(uid), 0); errno != 0 {
			connected <- errno
			return
		}
		connected <- syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
	}()
	check(t, <-connected)
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	conn, err := net.FileConn(f)
	check(t, err)
	return conn
}

func TestASocketWhosePathIsTooLongForItsAddress(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	check(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "s.sock")
	s, err := Listen(path, func(context.Context, Request) Response { return Response{State: Closing} })
	check(t, err)
	defer s.Close()
	r, err := Call(t.Context(), path, Request{Op: Status})
	if err != nil || r.State != Closing {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestListenTakesTheNameOfADeadServersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	check(t, os.WriteFile(path, nil, 0o600))
	s, err := Listen(path, func(context.Context, Request) Response { return Response{State: Running} })
	check(t, err)
	defer s.Close()
	if r, err := Call(t.Context(), path, Request{Op: Status}); err != nil || r.State != Running {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestCloseWaitsForTheAnswerOnItsWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	entered := make(chan struct{})
	s, err := Listen(path, func(ctx context.Context, _ Request) Response {
		close(entered)
		<-ctx.Done() // the server closes
		return Response{Error: "late"}
	})
	check(t, err)
	answered := make(chan Response, 1)
	go func() {
		r, err := Call(t.Context(), path, Request{Op: Flush})
		if err != nil {
			t.Errorf("call: %v", err)
		}
		answered <- r
	}()
	<-entered
	check(t, s.Close())
	if r := <-answered; r.Error != "late" {
		t.Errorf("got %+v", r)
	}
	if _, err := Call(t.Context(), path, Request{Op: Status}); err == nil {
		t.Error("a closed server answers")
	}
}

func TestBadRequestsGetAnErrorAndNoHandler(t *testing.T) {
	path := start(t, func(context.Context, Request) Response {
		t.Error("the handler was called")
		return Response{}
	})
	for name, request := range map[string]string{
		"no JSON":     "hello\n",
		"no line end": `{"op":"status"}`,
		"nothing":     "",
		"too long":    `{"op":"` + strings.Repeat("x", maxLine) + "\"}\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
			check(t, err)
			defer conn.Close()
			if _, err := conn.Write([]byte(request)); err == nil {
				conn.CloseWrite()
			}
			var r Response
			err = json.NewDecoder(conn).Decode(&r)
			// A line too long leaves bytes unread, for which the kernel may cut
			// the connection before the answer is read.
			if err != nil && name != "too long" || err == nil && r.Error == "" {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func TestCallSaysThatTheServerIsNotThere(t *testing.T) {
	_, err := Call(t.Context(), filepath.Join(t.TempDir(), "none.sock"), Request{Op: Status})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestCallSaysThatTheServerDiedOverIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	check(t, err)
	defer l.Close()
	var server sync.WaitGroup
	server.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		bufio.NewReader(conn).ReadString('\n')
		conn.Close()
	})
	if _, err := Call(t.Context(), path, Request{Op: Unmount}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("got %v", err)
	}
	server.Wait()
}

func TestCallEndsWithItsContext(t *testing.T) {
	entered := make(chan struct{})
	path := start(t, func(ctx context.Context, _ Request) Response {
		close(entered)
		<-ctx.Done()
		return Response{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := Call(ctx, path, Request{Op: Unmount}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
