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
	"sync"
	"sync/atomic"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/frontend"
)

// patience is how often a disk that a signal may not hide is looked at.
const patience = time.Second

// lazyGrace is how long a lazy unmount's answer waits for a disk that nobody
// has open, so that it can say that the image is closed.
const lazyGrace = 250 * time.Millisecond

// errPaused is a block device that can't be taken away while it is paused.
var errPaused = fmt.Errorf("%w: it is paused, and must go on first", frontend.ErrBusy)

// Image is what is shown, as far as its pauses and its end are concerned.
type Image interface {
	Flush() error
	FlushError() error // why the last flush failed; nil if it didn't
	Err() error        // why it turned read-only; nil if it didn't
	Close() error

	// Pause holds requests back and closes the image's chain; Unpause, of the
	// same owner, opens that of the image at path, the same one if that is
	// empty, with files in place of names where they are given.
	Pause(ctx context.Context, owner livedisk.Owner) error
	Unpause(ctx context.Context, owner livedisk.Owner, path string, files []*os.File) error
	NewOwner() livedisk.Owner
	PausedBy(owner livedisk.Owner) bool
	Paused() bool
	Trouble() error // why it is paused although it was to go on; nil if it isn't
	Path() string   // of the image that is open, or was before the pause
}

// Server watches over one disk. Make it with New, run it with Run; Handle is
// safe for concurrent use meanwhile.
type Server struct {
	session frontend.Session
	image   Image
	stop    func() error
	log     *slog.Logger
	stays   bool // set by NeverHide, before Run

	hidden atomic.Bool   // taken out of sight, and perhaps still open
	done   chan struct{} // closed when the image is; result is set before
	result error
}

// New returns the server of a session that shows image. stop ends the
// background write-back of image and is called before it is closed.
func New(session frontend.Session, image Image, stop func() error, log *slog.Logger) *Server {
	return &Server{session: session, image: image, stop: stop, log: log, done: make(chan struct{})}
}

// NeverHide has a signal leave a disk that is in use as it is, and take it away
// when its last user has closed it: the guest of a block device would hang for
// ever. Call it before Run.
func (s *Server) NeverHide() { s.stays = true }

// Run returns when the disk is no longer shown and the image closed, with all
// that went wrong on the way.
//
// The first of signals takes the disk away; one that is in use is flushed and
// hidden, and goes when its last user has closed it. A further signal gives up
// waiting for that, but not before everything is on stable storage that can
// still get there. After NeverHide neither is so.
func (s *Server) Run(signals <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- s.session.Wait() }() // ends with the session or the process
	ctx, cancel := context.WithCancel(context.Background())
	var terminating sync.WaitGroup
	settle := func() { // nothing uses the image after it but finish
		cancel()
		terminating.Wait()
	}
	defer cancel()
	signalled := false
	for {
		select {
		case err := <-ended:
			settle()
			return s.finish(err)
		case sig := <-signals:
			if s.stays {
				s.log.Info("asked to end", "signal", sig.String())
				if !signalled {
					terminating.Go(func() { s.outwait(ctx) })
				}
				signalled = true
				continue
			}
			if signalled && len(ended) == 0 {
				settle()
				if s.unsaved(sig) {
					continue
				}
				return s.abandon(sig)
			}
			signalled = true
			terminating.Go(func() { s.terminate(ctx, sig) })
		}
	}
}

// terminate takes the disk away as far as its users let it. Run hears of it
// by the session's end. A disk that is hidden already it waits for, until ctx
// ends.
func (s *Server) terminate(ctx context.Context, sig os.Signal) {
	s.log.Info("taking the disk away", "signal", sig.String())
	err := s.detach(ctx)
	switch {
	case err == nil:
		return
	case s.hidden.Load():
		s.log.Warn("hidden", "error", err)
		return
	}
	s.log.Warn("can't take the disk away yet", "error", err)
	if err := s.image.Flush(); err != nil {
		// Whoever made room, say, could still save what is unflushed.
		s.log.Error("flush failed; still shown; a further signal tries again", "error", err)
		return
	}
	if err := s.detach(frontend.WithLazy(ctx)); err != nil {
		s.log.Error("can't hide the disk; a second signal ends the server", "error", err)
		return
	}
	s.log.Info("hidden; the image is closed when its last user has closed the disk")
}

// outwait takes the disk away as soon as nobody has it open, until ctx ends. A
// disk that can't be flushed it tries again too: somebody may make room.
func (s *Server) outwait(ctx context.Context) {
	said := ""
	for {
		err := s.detach(ctx)
		if err == nil || s.hidden.Load() || ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			s.log.Warn("not ended: the disk is served on until it can be taken away", "error", err)
			said = text
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(patience):
		}
	}
}

// detach takes the disk away, and notes that it is out of sight: flushed or,
// with an error, not; or flushed and in use still.
func (s *Server) detach(ctx context.Context) error {
	if s.stays && s.image.Paused() {
		// Requests that wait for the end of the pause would be waited for, and
		// nobody could end it meanwhile.
		return errPaused
	}
	err := s.session.Detach(ctx)
	if err == nil || errors.Is(err, frontend.ErrUnflushed) || errors.Is(err, frontend.ErrHidden) {
		s.hidden.Store(true)
	}
	return err
}

// unsaved flushes, and tells whether to end now would lose what may yet be
// saved. What an image holds that can't be written any more is lost already.
func (s *Server) unsaved(sig os.Signal) bool {
	err := s.image.Flush()
	if err == nil || s.image.Err() != nil {
		return false
	}
	s.log.Error("not ended: flush failed, and what is unflushed would be lost; a further signal tries again",
		"signal", sig.String(), "error", err)
	return true
}

// abandon ends a server whose disk is still open somewhere, or can't be
// flushed. A disk that is shown would be a dead mount.
func (s *Server) abandon(sig os.Signal) error {
	s.log.Warn("closing the image although the disk is open", "signal", sig.String())
	if !s.hidden.Load() {
		if err := s.detach(frontend.WithLazy(context.Background())); err != nil {
			s.log.Error("taking the disk away", "error", err)
		}
	}
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
	case control.Pause:
		return s.pause(ctx)
	case control.Unpause:
		return s.unpause(ctx, request)
	}
	return control.Response{Error: fmt.Sprintf("unknown request %q", request.Op)}
}

func (s *Server) status() control.Response {
	switch err := s.image.Err(); {
	case s.hidden.Load():
		return control.Response{State: control.Closing}
	case err != nil:
		return control.Response{State: control.ReadOnlyAfterError, Error: err.Error()}
	case s.image.Paused():
		r := failure(s.image.Trouble())
		r.State = control.Paused
		return r
	}
	if err := s.image.FlushError(); err != nil {
		return control.Response{State: control.Failing, Error: err.Error()}
	}
	return control.Response{State: control.Running}
}

// pause answers when the image is flushed and its chain closed. The pause is
// whose the token is.
func (s *Server) pause(ctx context.Context) control.Response {
	owner := s.image.NewOwner()
	err := s.image.Pause(ctx, owner)
	r := s.afterwards(err)
	if s.image.PausedBy(owner) {
		r.Token = uint64(owner)
		// Whoever paused it sees by this whether others were faster.
		r.File, _ = control.StatFile(s.image.Path())
	}
	if err == nil {
		s.log.Info("paused")
	} else {
		s.log.Error("can't pause", "error", err)
	}
	return r
}

// unpause answers when the disk goes on, or why it doesn't.
func (s *Server) unpause(ctx context.Context, request control.Request) control.Response {
	err := s.image.Unpause(ctx, livedisk.Owner(request.Token), request.Image, request.Files)
	r := s.afterwards(err)
	if err == nil {
		s.log.Info("goes on", "image", r.Image)
	} else {
		s.log.Error("can't go on", "image", request.Image, "error", err)
	}
	return r
}

// afterwards is how the disk is after a pause or an unpause.
func (s *Server) afterwards(err error) control.Response {
	r := failure(err)
	r.State, r.Image = control.Running, []byte(s.image.Path())
	if s.image.Paused() {
		r.State = control.Paused
	}
	return r
}

func (s *Server) unmount(ctx context.Context, lazy bool) control.Response {
	if lazy {
		return s.unmountLazily(ctx)
	}
	err := s.detach(ctx)
	if err != nil && (!s.hidden.Load() || errors.Is(err, frontend.ErrBusy)) {
		return s.refused(err)
	}
	<-s.done // the session has ended; what it could not flush, closing meets again
	return s.closed()
}

// unmountLazily answers when the image is closed, or soon after the disk was
// hidden.
func (s *Server) unmountLazily(ctx context.Context) control.Response {
	err := s.detach(frontend.WithLazy(ctx))
	if err != nil && !s.hidden.Load() {
		return s.refused(err)
	}
	grace := time.NewTimer(lazyGrace)
	defer grace.Stop()
	select {
	case <-s.done:
		return s.closed()
	case <-grace.C:
		r := failure(err)
		r.Pending, r.State = true, control.Closing
		return r
	}
}

// refused is the answer to an unmount that failed, unless someone else's came
// first.
func (s *Server) refused(err error) control.Response {
	select {
	case <-s.done:
		return s.closed()
	default:
		return control.Response{
			Error:   err.Error(),
			Busy:    errors.Is(err, frontend.ErrBusy),
			Pending: errors.Is(err, frontend.ErrHidden),
		}
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
