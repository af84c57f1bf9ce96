// Package serve is the life of a mounted disk, from the moment it is shown
// until its image is closed: it waits for whatever ends it (an unmount request,
// a signal, someone else's umount) and does what must be done, in order. It
// knows neither the engine nor a frontend.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/frontend"
)

// lazyGrace is how long a lazy unmount's answer waits for a disk that nobody
// has open, so that it can say that the image is closed.
const lazyGrace = 250 * time.Millisecond

// Image is what is shown, as far as its end is concerned.
type Image interface {
	Flush() error
	Err() error // why it turned read-only; nil if it didn't
	Close() error
}

// Server watches over one disk. Make it with New, run it with Run; Handle is
// safe for concurrent use meanwhile.
type Server struct {
	session frontend.Session
	image   Image
	stop    func() error
	log     *slog.Logger

	hidden atomic.Bool   // taken out of sight, and perhaps still open
	done   chan struct{} // closed when the image is; result is set before
	result error
}

// New returns the server of a session that shows image. stop ends the
// background write-back of image and is called before it is closed.
func New(session frontend.Session, image Image, stop func() error, log *slog.Logger) *Server {
	return &Server{session: session, image: image, stop: stop, log: log, done: make(chan struct{})}
}

// Run returns when the disk is no longer shown and the image closed, with all
// that went wrong on the way.
//
// The first of signals takes the disk away; one that is in use is flushed and
// hidden, and goes when its last user has closed it. A further signal gives up
// waiting for that, but not before everything is on stable storage.
func (s *Server) Run(signals <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- s.session.Wait() }() // ends with the session or the process
	signalled := false
	for {
		select {
		case err := <-ended:
			return s.finish(err)
		case sig := <-signals:
			if signalled && len(ended) == 0 {
				return s.abandon(sig)
			}
			signalled = true
			s.terminate(sig)
		}
	}
}

// terminate takes the disk away as far as its users let it. Run hears of it
// by the session's end.
func (s *Server) terminate(sig os.Signal) {
	s.log.Info("taking the disk away", "signal", sig.String())
	err := s.session.Detach(context.Background())
	if err == nil {
		return
	}
	s.log.Warn("can't take the disk away yet", "error", err)
	if err := s.image.Flush(); err != nil {
		s.log.Error("flush failed", "error", err)
	}
	if err := s.session.Detach(frontend.WithLazy(context.Background())); err != nil {
		s.log.Error("still shown; a second signal ends the server", "error", err)
		return
	}
	s.hidden.Store(true)
	s.log.Info("hidden; the image is closed when its last user has closed the disk")
}

// abandon ends a server whose disk is still open somewhere.
func (s *Server) abandon(sig os.Signal) error {
	s.log.Warn("closing the image although the disk is open", "signal", sig.String())
	return s.finish(nil)
}

// finish closes the image and tells everyone who waits for that.
func (s *Server) finish(ended error) error {
	var errs []error
	for _, step := range []struct {
		name string
		err  error
	}{
		{"serving", ended},
		{"write-back", s.stop()},
		{"closing", s.image.Close()},
	} {
		if step.err != nil {
			s.log.Error(step.name+" failed", "error", step.err)
			errs = append(errs, fmt.Errorf("%s: %w", step.name, step.err))
		}
	}
	s.result = distinct(errs)
	close(s.done)
	return s.result
}

// distinct joins errors in one line, each cause once: what the write-back met
// is what the last flush meets again.
func distinct(errs []error) error {
	var out error
	seen := map[string]bool{}
	for _, err := range errs {
		cause := errors.Unwrap(err).Error()
		switch {
		case seen[cause]:
		case out == nil:
			out = err
		default:
			out = fmt.Errorf("%w; %w", out, err)
		}
		seen[cause] = true
	}
	return out
}

// Handle answers a request that came by the control socket.
func (s *Server) Handle(ctx context.Context, request control.Request) control.Response {
	switch request.Op {
	case control.Status:
		return s.status()
	case control.Flush:
		return failure(s.image.Flush())
	case control.Unmount:
		return s.unmount(ctx, request.Lazy)
	}
	return control.Response{Error: fmt.Sprintf("unknown request %q", request.Op)}
}

func (s *Server) status() control.Response {
	switch err := s.image.Err(); {
	case s.hidden.Load():
		return control.Response{State: control.Closing}
	case err != nil:
		return control.Response{State: control.ReadOnlyAfterError, Error: err.Error()}
	}
	return control.Response{State: control.Running}
}

func (s *Server) unmount(ctx context.Context, lazy bool) control.Response {
	if lazy {
		ctx = frontend.WithLazy(ctx)
	}
	if err := s.session.Detach(ctx); err != nil {
		select {
		case <-s.done: // someone else's unmount came first
			return s.closed()
		default:
			return control.Response{Error: err.Error(), Busy: errors.Is(err, frontend.ErrBusy)}
		}
	}
	s.hidden.Store(true)
	var grace <-chan time.Time // none for an unmount that isn't lazy: its session has ended
	if lazy {
		timer := time.NewTimer(lazyGrace)
		defer timer.Stop()
		grace = timer.C
	}
	select {
	case <-s.done:
		return s.closed()
	case <-grace:
		return control.Response{Pending: true, State: control.Closing}
	}
}

// closed is the answer to an unmount, once done is closed.
func (s *Server) closed() control.Response {
	r := failure(s.result)
	r.Closed = true
	return r
}

func failure(err error) control.Response {
	if err == nil {
		return control.Response{}
	}
	return control.Response{Error: err.Error()}
}
