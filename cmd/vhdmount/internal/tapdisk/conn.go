package tapdisk

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
)

const (
	// maxConnections bounds the connections that are served at once; more wait
	// in the socket's queue.
	maxConnections = 256
	// acceptRetry is how long accepting rests where the system has no
	// descriptors or memory left.
	acceptRetry = 100 * time.Millisecond
)

// accept serves each connection by a goroutine, until the listener is closed.
func (s *Server) accept() {
	slots := make(chan struct{}, maxConnections)
	for {
		slots <- struct{}{} // given back by handlers, which end by deadline
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-slots
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(acceptRetry):
				continue
			}
		}
		s.handlers.Go(func() {
			defer func() { <-slots }()
			s.serve(conn)
		})
	}
}

// serve answers one message. A peer that can't be answered is gone, so that
// errors have nobody to go to.
func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	defer drain(conn)
	conn.SetReadDeadline(time.Now().Add(s.o.Timeout))
	answer, ok := s.converse(conn)
	if !ok {
		return
	}
	conn.SetWriteDeadline(time.Now().Add(s.o.Timeout))
	conn.Write(answer)
}

// converse reads a message and handles it; false is a peer that sent nothing.
func (s *Server) converse(conn *net.UnixConn) ([]byte, bool) {
	m, err := tapctl.ReadMessage(conn)
	switch {
	case errors.Is(err, io.EOF):
		return nil, false
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = refuse(unix.ETIMEDOUT, "no whole message came within %v", s.o.Timeout)
	case err != nil:
		err = refuse(unix.EIO, "%v", err)
	default:
		err = s.permit(conn)
	}
	if err != nil {
		return failed(m.Cookie, err).encode(), true
	}
	ctx, stop := whileConnected(s.ctx, conn)
	defer stop()
	return s.handle(ctx, m).encode(), true
}

// permit refuses other users than the server's own and root.
func (s *Server) permit(conn *net.UnixConn) error {
	uid, err := control.PeerUID(conn)
	if err == nil && !s.allowed(uid) {
		err = refuse(unix.EACCES, "user %d may not use this tapdisk", uid)
	}
	return err
}

// whileConnected returns a context that ends when the peer hangs up: nobody
// knows of a pause whose asker has gone. What the peer sends more is dropped.
// stop waits for the goroutine behind it.
func whileConnected(parent context.Context, conn *net.UnixConn) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	conn.SetReadDeadline(time.Time{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		io.Copy(io.Discard, conn)
		cancel()
	})
	return ctx, func() {
		conn.SetReadDeadline(time.Now())
		watcher.Wait()
	}
}

// drain takes what has come and was not read off the socket: closing it over
// that would make an error of the end of the answer.
func drain(conn *net.UnixConn) {
	conn.SetReadDeadline(time.Time{})
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	var b [tapctl.MessageSize]byte
	raw.Read(func(fd uintptr) bool {
		for range 8 { // a peer that never stops is not worth more
			if n, err := unix.Read(int(fd), b[:]); n <= 0 || err != nil {
				break
			}
		}
		return true
	})
}
