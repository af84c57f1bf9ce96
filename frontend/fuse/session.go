package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vhdmount/vhdmount/frontend"
)

// session is a disk that is mounted.
type session struct {
	path  string // of the disk
	mount mountEntry
	files *filesystem

	done chan struct{} // closed when serving ended
	err  error         // why, from then on
	last error         // of the flush after the last request, from then on

	// detach has room for one: the Detach that runs. It stays there while it
	// waits for the disk and for the kernel.
	detach chan struct{}
	// patience is for how long a Detach that has unmounted waits for the end
	// of serving.
	patience time.Duration

	delegate atomic.Pointer[Unmounter] // set by Delegate
}

// hiddenPatience is ample for the kernel to end what nobody uses any more.
const hiddenPatience = 10 * time.Second

// startSession serves files at mnt, which is mounted on t. On error nothing is
// left behind.
func startSession(ctx context.Context, mnt mountpoint, files *filesystem, t transport) (*session, error) {
	s := &session{
		path: mnt.path, files: files, done: make(chan struct{}),
		detach: make(chan struct{}, 1), patience: hiddenPatience,
	}
	if !mnt.file {
		s.path = filepath.Join(mnt.path, diskName)
	}
	files.transport = t
	files.inval = newInvalidator(t.notify)
	server := newServer(files)
	e, ok, err := mountAt(mnt.path)
	if err == nil && !ok {
		err = errors.New("the mount is gone already")
	}
	if err == nil {
		s.mount = e
		err = t.handshake(server)
	}
	if err == nil && !mnt.file {
		// A table that can't be read is no reason not to show the disk.
		if err := files.readTable(); err != nil {
			files.errors.failed(opPartitions, diskName, 0, 0, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, unmount(context.WithoutCancel(ctx), mountEntry{point: mnt.path}, true), t.close())
	}
	s.tuneReadahead()
	go s.serve(t, server)
	return s, nil
}

// serve runs until the disk is no longer mounted.
func (s *session) serve(t transport, h handler) {
	var invalidating sync.WaitGroup
	invalidating.Go(s.files.inval.run)
	err := t.serve(h)
	s.files.inval.stop()
	invalidating.Wait()
	err = errors.Join(err, t.close())
	if err != nil {
		// Whatever ended it was no unmount: take the dead mount away.
		if unmountErr := s.unmount(context.Background(), true); unmountErr != nil {
			s.files.log.Error("fuse: dead mount left behind", "error", unmountErr)
		}
	}
	s.err = err
	// Once more: what came between Detach's flush and the unmount, which writes
	// back pages that were mapped. Not later: once done is closed the device is
	// its owner's again, and may be closed.
	s.last = s.flush()
	close(s.done)
}

// Path implements frontend.Session: disk.raw in the mount point, or the mount
// point where that is a file.
func (s *session) Path() string { return s.path }

// Wait implements frontend.Session. An unmount by whoever is nil; the error is
// that of a connection which was cut.
func (s *session) Wait() error {
	<-s.done
	return s.err
}

// Detach implements frontend.Session. When it returned nil without WithLazy
// all that was written is on stable storage. With WithLazy a disk that can't be
// flushed is hidden all the same, and the error wraps frontend.ErrUnflushed; so
// it does where the flush after the unmount failed. Why serving ended, if that
// was no unmount, is Wait's alone to say. Cancelling ctx does not interrupt a
// flush that has begun.
//
// A copy of the mount in another mount namespace, and a file that is open since
// somebody hid the disk, outlive the unmount: then the error wraps
// frontend.ErrHidden and frontend.ErrBusy, and the disk is served on.
func (s *session) Detach(ctx context.Context) error {
	select {
	case s.detach <- struct{}{}:
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.detach }()
	if s.ended() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if frontend.Lazy(ctx) {
		return s.hide(ctx)
	}
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.unmount(ctx, false); err != nil {
		return err
	}
	return s.awaitEnd(ctx)
}

// awaitEnd waits for what an unmount brings about, which is the end of serving
// unless somebody uses the disk on, out of sight.
func (s *session) awaitEnd(ctx context.Context) error {
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	select {
	case <-s.done:
		return unflushed(s.last)
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return fmt.Errorf("%s: %w: %w, but %s", s.mount.point, frontend.ErrBusy, frontend.ErrHidden, s.unmounter().Uses(ctx))
	}
}

// hide takes the disk out of sight. What could not be flushed is tried again
// when the last user has closed the disk, and by the device's own Close.
func (s *session) hide(ctx context.Context) error {
	flushErr := s.flush()
	if err := s.unmount(ctx, true); err != nil {
		return errors.Join(err, flushErr)
	}
	return unflushed(flushErr)
}

// unflushed is what Detach returns for a disk that is no longer shown, and
// whose flush ended with err.
func unflushed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", frontend.ErrUnflushed, err)
}

func (s *session) flush() error {
	if err := s.files.dev.Flush(); err != nil {
		return fmt.Errorf("%s: flush: %w", s.path, err)
	}
	return nil
}

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// unmount takes this session's mount away, and nothing that is mounted over
// it. It is fine if somebody else was first.
func (s *session) unmount(ctx context.Context, lazy bool) error {
	return s.unmounter().Unmount(ctx, lazy)
}

// abandon takes a session away that its caller never got.
func (s *session) abandon() error {
	if err := s.unmount(context.Background(), true); err != nil {
		return err
	}
	return s.Wait()
}

// tuneReadahead lets the kernel read further ahead than its 128 KiB, where
// this process may: a tenth to a quarter faster for buffered readers.
func (s *session) tuneReadahead() {
	name := "/sys/class/bdi/" + s.mount.device + "/read_ahead_kb"
	if err := os.WriteFile(name, []byte("2048"), 0); err != nil {
		s.files.log.Debug("fuse: readahead stays as it is", "error", err)
	}
}
