package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// requestTimeout is how long a client may take to send its line, and to read
// the response once it is there.
const requestTimeout = 5 * time.Second

// maxPause is how long a client may keep a disk paused: a guest waits.
const maxPause = time.Minute

// retryInterval is how often a disk that was left paused tries to go on.
const retryInterval = 5 * time.Second

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

// serve answers one request, and those that follow a Pause. A peer that can't
// be answered is gone, so that errors have nobody to go to.
func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	in := &lines{conn: conn}
	defer in.closeFiles()
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	request, response := s.first(conn, in)
	send(conn, response)
	if request.Op == Pause && response.Token != 0 {
		s.untilUnpaused(conn, in, response.Token)
	}
}

// send writes a response.
func send(conn *net.UnixConn, response Response) error {
	line, err := json.Marshal(response)
	if err != nil {
		return err
	}
	conn.SetWriteDeadline(time.Now().Add(requestTimeout))
	_, err = conn.Write(append(line, '\n'))
	return err
}

// first answers the first request of a connection, if the peer may ask.
func (s *Server) first(conn *net.UnixConn, in *lines) (Request, Response) {
	uid, err := PeerUID(conn)
	if err != nil {
		return Request{}, Response{Error: err.Error()}
	}
	if !s.allowed(uid) {
		return Request{}, Response{Error: ErrForbidden.Error()}
	}
	request, err := in.request()
	if err != nil {
		return Request{}, Response{Error: err.Error()}
	}
	return request, s.handler(s.ctx, request)
}

// untilUnpaused answers the requests of a connection whose Pause was done,
// until an Unpause was. Where the peer goes away before, or takes too long, the
// disk goes on as it was, as soon as that can be.
func (s *Server) untilUnpaused(conn *net.UnixConn, in *lines, token uint64) {
	conn.SetReadDeadline(time.Now().Add(maxPause))
	stop := context.AfterFunc(s.ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		request, err := in.request()
		if err != nil || request.Op != Unpause {
			break
		}
		request.Token = token
		response := s.handler(s.ctx, request)
		in.closeFiles()
		if send(conn, response) == nil && response.State != Paused {
			return
		}
	}
	s.goOn(token)
}

// goOn unpauses a disk whose pauser has gone, as soon as that can be.
func (s *Server) goOn(token uint64) {
	for s.handler(s.ctx, Request{Op: Unpause, Token: token}).State == Paused {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(retryInterval):
		}
	}
}

// PeerUID is the user at the other end of a connection, as the kernel knew it
// at connect.
func PeerUID(conn *net.UnixConn) (uint32, error) {
	cred, err := peer(conn)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// peer is who is at the other end of a connection: who connected, or who began
// to listen.
func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("control socket: who is the peer: %w", err)
	}
	return cred, nil
}
