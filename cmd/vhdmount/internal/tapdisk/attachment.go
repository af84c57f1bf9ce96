package tapdisk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// stateClosed is a minor whose image was closed. One that had none yet is in
// state 0, as a running one is.
const stateClosed tapctl.State = 2

// attachment is a minor that the server has, with a disk or without.
type attachment struct {
	tap blktap.Tap
	// turn holds a token while a message, or the end of a disk, changes the
	// attachment; it is taken before mu, and held across I/O.
	turn chan struct{}
	gone chan struct{} // closed when it is no longer the server's

	// mu guards the fields below. It is a leaf.
	mu     sync.Mutex
	ring   *blktap.MappedRing // nil while a disk is open, and where it was lost
	disk   Disk               // nil: none is open
	closed bool               // one was, by now
	asked  bool               // a message closed it
}

func newAttachment(tap blktap.Tap) *attachment {
	return &attachment{tap: tap, turn: make(chan struct{}, 1), gone: make(chan struct{})}
}

// take waits for the turn. If it returns nil, the caller ends by a.give.
func (a *attachment) take(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("minor %d: another message is under way: %w", a.tap.Minor, ctx.Err())
	}
	select {
	case <-a.gone:
		a.give()
		return refuse(unix.ENODEV, "minor %d was detached meanwhile", a.tap.Minor)
	default:
		return nil
	}
}

func (a *attachment) give() { <-a.turn }

// open is the disk that is open, nil if none is.
func (a *attachment) open() Disk {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.disk
}

// opened is the disk that is open, for messages that make no sense without.
func (a *attachment) opened() (Disk, error) {
	if d := a.open(); d != nil {
		return d, nil
	}
	return nil, refuse(unix.EINVAL, "minor %d: no image is open", a.tap.Minor)
}

// set makes disk what is open, or ring what is mapped.
func (a *attachment) set(disk Disk, ring *blktap.MappedRing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = a.closed || a.disk != nil && disk == nil
	a.disk, a.ring = disk, ring
}

// forget takes note that a message has closed disk, unless its own end has
// been noted.
func (a *attachment) forget(disk Disk) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = true
	if a.disk == disk {
		a.disk, a.closed = nil, true
	}
}

// takeRing is the mapped ring, which is the caller's from here on.
func (a *attachment) takeRing() *blktap.MappedRing {
	a.mu.Lock()
	defer a.mu.Unlock()
	ring := a.ring
	a.ring = nil
	return ring
}

// state is what LIST says of the minor.
func (a *attachment) state() (tapctl.State, string) {
	a.mu.Lock()
	disk, closed := a.disk, a.closed
	a.mu.Unlock()
	switch {
	case disk != nil:
		return disk.State(), disk.Name()
	case closed:
		return stateClosed, ""
	default:
		return tapctl.StateRunning, ""
	}
}

// image is a disk that the server opened.
type image struct {
	live
	grace time.Duration // for a close that may yet succeed
	ended chan struct{} // closed when the image is; err is set before
	err   error
}

// openImage opens an image and shows it on the minor. The turn is held.
func (s *Server) openImage(ctx context.Context, a *attachment, p tapctl.Params) (Disk, error) {
	kind, path, err := parseName(p.Path)
	if err != nil {
		return nil, err
	}
	readOnly := p.Flags&tapctl.FlagReadOnly != 0
	disk, err := livedisk.Open(livedisk.Options{
		Path: path, Raw: kind == kindRaw,
		VHD:               vhd.Options{FS: s.o.FS, ReadOnly: readOnly},
		WritebackInterval: s.o.WritebackInterval,
	})
	if err != nil {
		return nil, err
	}
	for _, text := range disk.Warnings() {
		s.o.Log.Warn("tapdisk: "+text, "minor", a.tap.Minor)
	}
	session, err := s.show(ctx, a, disk, readOnly)
	if err != nil {
		_ = s.remap(a) // or the next open does it
		return nil, errors.Join(err, disk.Close())
	}
	disk.StartWriteback()
	m := &image{
		live:  live{disk: disk, session: session, LiveOptions: LiveOptions{Raw: kind == kindRaw, ReadOnly: readOnly, WorkDir: "/"}},
		grace: s.o.CloseGrace,
		ended: make(chan struct{}),
	}
	a.set(m, nil)
	s.background.Go(func() { s.watch(a, m) })
	return m, nil
}

// show makes the block device of disk.
func (s *Server) show(ctx context.Context, a *attachment, disk *livedisk.Disk, readOnly bool) (*blktap.Session, error) {
	ring := a.takeRing()
	if ring == nil {
		var err error
		if ring, err = blktap.MapRing(s.o.Driver, a.tap); err != nil {
			return nil, err
		}
	}
	session, err := blktap.New(blktap.Options{
		Driver: s.o.Driver, Ring: ring, ReadOnly: readOnly, LockMemory: s.o.LockMemory, Log: s.o.Log,
		Pause:  func() error { return Pause(context.Background(), disk) },
		Resume: func() error { return Resume(context.Background(), disk) },
	}).Attach(ctx, disk.Device())
	if err != nil {
		return nil, errors.Join(err, ring.Close())
	}
	return session.(*blktap.Session), nil
}

// remap maps the ring of a minor again after its session took it away. The
// minor stays attached without where that fails; the next open tries again.
func (s *Server) remap(a *attachment) error {
	ring, err := blktap.MapRing(s.o.Driver, a.tap)
	a.set(nil, ring)
	return err
}

// watch sees a disk to its end, whoever brings that about: a message, a
// signal, or the module.
func (s *Server) watch(a *attachment, m *image) {
	err := m.session.Wait()
	err = errors.Join(err, m.disk.StopWriteback(), m.disk.Close())
	if err != nil {
		s.o.Log.Error("tapdisk: the disk did not end well", "minor", a.tap.Minor, "image", m.Name(), "error", err)
	} else {
		s.o.Log.Info("tapdisk: closed", "minor", a.tap.Minor, "image", m.Name())
	}
	if s.isEnding() {
		a.set(nil, nil)
		s.remove(a)
	} else if mapErr := s.remap(a); mapErr != nil {
		s.o.Log.Warn("tapdisk: the minor is not ours any more", "minor", a.tap.Minor, "error", mapErr)
		if errors.Is(mapErr, blktap.ErrNoMinor) {
			s.remove(a) // somebody freed it: there is nothing to detach from
		}
	}
	m.err = err
	close(m.ended)
}

// Close implements Disk. Where the block device is busy it is tried again for
// a while: who looks at disks that appear and go (udev) has it open for
// moments.
func (m *image) Close(ctx context.Context) error {
	if m.disk.Paused() {
		// Requests that wait for the end of a pause would be waited for.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.grace+busyRetry, errPausedRequests)
		defer cancel()
	}
	retry := time.NewTicker(busyRetry)
	defer retry.Stop()
	patience := time.NewTimer(m.grace)
	defer patience.Stop()
	for {
		err := m.session.Detach(ctx)
		switch {
		case err == nil:
			<-m.ended
			return m.err
		case errors.Is(context.Cause(ctx), errPausedRequests):
			return errPausedRequests
		case !errors.Is(err, frontend.ErrBusy):
			return err
		}
		select {
		case <-retry.C:
		case <-patience.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// errPausedRequests is a close of a disk whose guest waits for the unpause.
var errPausedRequests = refuse(unix.EBUSY, "the disk is paused and requests wait for it: unpause it first")
