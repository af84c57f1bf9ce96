package blktap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// control reads the module's message and begins to do what it says.
func (s *server) control() {
	if m := s.ring.message(); m != messageNone {
		s.message = m
	}
	switch {
	case s.message == messageClose:
		s.message = messageNone
		s.freed = true
		s.closing.Store(true)
		s.log.Info("blktap: somebody frees the minor: the disk goes once nobody has it open")
	case s.controlling:
	case s.message == messagePause && s.inFlight == 0:
		s.begin(taskPause)
	case s.message == messageResume:
		s.begin(taskResume)
	case s.message > messageClose:
		s.log.Warn("blktap: unknown message", "message", uint8(s.message))
		s.message = messageNone
	}
}

func (s *server) begin(t task) {
	s.message, s.controlling = messageNone, true
	s.batch = append(s.batch, s.newJob(t))
	s.dispatch()
}

// controlled answers a message that was handled. A disk that could not be
// flushed is not paused: whoever asked goes on waiting, and can be
// interrupted.
func (s *server) controlled(j *job) {
	s.controlling = false
	var err error
	switch {
	case j.task == taskResume:
		err = s.port.Resumed(errnoOf(j.err))
	case j.err == nil:
		err = s.port.Paused()
	}
	if err = errors.Join(j.err, err); err != nil {
		s.log.Error("blktap: pause or resume failed", "error", err)
	}
}

// errnoOf is why a resume failed, for the module.
func errnoOf(err error) int {
	if err == nil {
		return 0
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	return int(unix.EIO)
}

// remove removes the block device if that is asked for, none of its requests
// is in flight (the module would wait for it inside of the call, and we with
// it) and nobody has it open.
func (s *server) remove() error {
	if s.removal == nil {
		select {
		case s.removal = <-s.removals:
		default:
		}
	}
	if s.removal == nil && !s.closing.Load() || s.inFlight > 0 || len(s.batch) > 0 {
		return nil
	}
	err := s.port.RemoveDevice()
	if err == nil {
		s.removed = true
		return nil
	}
	if s.removal != nil {
		s.removal.reply <- err
		s.removal = nil
		return nil
	}
	if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove device: %w", err)
	}
	return nil
}
