package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// requestTimeout is how long a client may take to send its line, and to read
// the response once it is there.
const requestTimeout = 5 * time.Second

// Handler answers a request. Several may run at once. Its context ends when
// the server closes.
type Handler func(context.Context, Request) Response

// Server answers the requests that come to one socket.
type Server struct {
	listener *net.UnixListener
	handler  Handler
	allowed  func(uid uint32) bool
	ctx      context.Context
	cancel   context.CancelFunc
	accepter sync.WaitGroup // the goroutine that accepts
	handlers sync.WaitGroup // one for each connection
}

// Listen makes the socket, closed to other users, and starts to answer by
// handler until Close. In place of a dead server's socket it takes the name.
func Listen(path string, handler Handler) (*Server, error) {
	return listen(path, handler, func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() })
}

func listen(path string, handler Handler, allowed func(uint32) bool) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{handler: handler, allowed: allowed}
	err := withShortPath(path, func(short string) (err error) {
		s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The name it would remove on close may be one through a descriptor that
	// is closed by now; the registry removes the socket with its entry.
	s.listener.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("control socket: %w", errors.Join(err, s.listener.Close()))
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.accepter.Go(s.accept)
	return s, nil
}

// Close stops listening, ends the handlers' context, and waits until each has
// sent its response.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.cancel()
	s.accepter.Wait()
	s.handlers.Wait()
	return err
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: it may pass
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		s.handlers.Go(func() { s.serve(conn) })
	}
}

// serve answers one request. A peer that can't be answered is gone, so that
// errors have nobody to go to.
func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	response := s.answer(conn)
	line, err := json.Marshal(response)
	if err != nil {
		return
	}
	conn.SetWriteDeadline(time.Now().Add(requestTimeout))
	conn.Write(append(line, '\n'))
}

func (s *Server) answer(conn *net.UnixConn) Response {
	uid, err := peer(conn)
	if err != nil {
		return Response{Error: err.Error()}
	}
	if !s.allowed(uid) {
		return Response{Error: ErrForbidden.Error()}
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxLine)).ReadBytes('\n')
	if err != nil {
		return Response{Error: "control socket: no request: " + err.Error()}
	}
	var request Request
	if err := json.Unmarshal(line, &request); err != nil {
		return Response{Error: "control socket: bad request: " + err.Error()}
	}
	return s.handler(s.ctx, request)
}

// peer is the user at the other end, as the kernel knew it at connect.
func peer(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("control socket: who is the peer: %w", err)
	}
	return cred.Uid, nil
}
