package blktap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend"
)

// Session is a disk that is shown as a block device.
type Session struct {
	tap    Tap
	driver Driver
	server *server
	dev    blockdev.Device
	free   bool // the minor, in the end

	done chan struct{} // closed when serving ended
	err  error         // why, from then on

	// detach lets one Detach run at a time. It is held while waiting for the
	// disk and for the server.
	detach sync.Mutex
}

var _ frontend.Session = (*Session)(nil)

// serve runs until the block device is gone.
func (s *Session) serve(created chan<- error) {
	err := s.server.main(created)
	shown := s.server.shown
	if shown {
		err = errors.Join(err, s.flush())
	}
	// A minor that somebody else freed may be a third one's by now.
	if shown && s.free && !s.server.freed {
		if freeErr := s.driver.Free(s.tap); freeErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.tap.Path, freeErr))
		}
	}
	s.err = err
	close(s.done)
}

// Path implements frontend.Session: the block device.
func (s *Session) Path() string { return s.tap.Path }

// Tap is the minor that the disk is served on.
func (s *Session) Tap() Tap { return s.tap }

// Stats are the session's figures until now. It may be called at any time.
func (s *Session) Stats() Stats { return s.server.stats.snapshot() }

// Wait implements frontend.Session. It is nil after Detach, and where the
// minor was freed by somebody else; the error is that of a module which failed
// or a last flush which did.
func (s *Session) Wait() error {
	<-s.done
	return s.err
}

// Detach implements frontend.Session. When it returned nil without WithLazy
// all that was written is on stable storage, the block device is gone and the
// minor freed. Cancelling ctx does not stop a removal that was asked for.
func (s *Session) Detach(ctx context.Context) error {
	s.detach.Lock()
	defer s.detach.Unlock()
	if s.ended() {
		return s.err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.flush()
	if frontend.Lazy(ctx) {
		return s.hide(err)
	}
	if err != nil {
		return err
	}
	if err := s.remove(ctx); err != nil {
		return err
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hide takes the block device's node away, and has the server remove the device
// when its last user has closed it. unflushed is why the disk could not be
// flushed before, if it couldn't.
func (s *Session) hide(unflushed error) error {
	if err := s.driver.Hide(s.tap); err != nil {
		return errors.Join(unflushed, fmt.Errorf("%s: %w", s.tap.Path, err))
	}
	s.server.closing.Store(true)
	s.server.port.Wake()
	if unflushed != nil {
		return fmt.Errorf("%w: %w", frontend.ErrUnflushed, unflushed)
	}
	return nil
}

// remove has the server remove the block device.
func (s *Session) remove(ctx context.Context) error {
	r := &removal{reply: make(chan error, 1)}
	select {
	case s.server.removals <- r:
		s.server.port.Wake()
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.reply:
		return s.refused(err)
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refused is why the block device could not be removed.
func (s *Session) refused(err error) error {
	if !errors.Is(err, unix.EBUSY) {
		if err != nil {
			err = fmt.Errorf("%s: remove device: %w", s.tap.Path, err)
		}
		return err
	}
	who := s.driver.Holders(s.tap)
	if len(who) == 0 {
		return fmt.Errorf("%s: %w", s.tap.Path, frontend.ErrBusy)
	}
	return fmt.Errorf("%s: %w: %s", s.tap.Path, frontend.ErrBusy, strings.Join(who, ", "))
}

func (s *Session) flush() error {
	if err := s.dev.Flush(); err != nil {
		return fmt.Errorf("%s: flush: %w", s.tap.Path, err)
	}
	return nil
}

func (s *Session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
