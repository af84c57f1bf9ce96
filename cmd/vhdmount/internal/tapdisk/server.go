package tapdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

const (
	// DefaultWritebackInterval is what Options.WritebackInterval is by default.
	DefaultWritebackInterval = 5 * time.Second
	// DefaultCloseGrace is what Options.CloseGrace is by default.
	DefaultCloseGrace = time.Second
	// DefaultTimeout is what Options.Timeout is by default: a tapdisk's own.
	DefaultTimeout = 10 * time.Second
	// dismissRetry is how often it is tried to take a disk away that is in use.
	dismissRetry = time.Second
	// detachGrace is how long the entry of an adopted disk that a message
	// closed waits for the detach that follows.
	detachGrace = 5 * time.Second
)

// Options say what a server does. The zero value is a tapdisk.
type Options struct {
	// Driver is the module; nil: blktap.System, the kernel's.
	Driver blktap.Driver
	// Dir is where the socket is made, and is made itself if it is missing;
	// empty: tapctl.DefaultDir.
	Dir string
	// FS is where images are; nil: storage.OS.
	FS storage.FS
	// WritebackInterval is how old uncommitted metadata of an image may grow;
	// 0: DefaultWritebackInterval.
	WritebackInterval time.Duration
	// CloseGrace is how long a close waits for a block device that somebody
	// has open; 0: DefaultCloseGrace.
	CloseGrace time.Duration
	// Timeout is how long a client may take to send its message, and to read
	// the answer once it is there; 0: DefaultTimeout.
	Timeout time.Duration
	// LockMemory locks all memory of the process before a block device exists:
	// see blktap.Options.
	LockMemory bool
	// Log gets what happens to disks. Nil: none.
	Log *slog.Logger
}

// Server answers the messages of tap-ctl. Make it with New; its methods are
// safe for concurrent use after Listen.
type Server struct {
	o       Options
	allowed func(uid uint32) bool

	listener *net.UnixListener
	ctx      context.Context // of the messages; ends at Close
	cancel   context.CancelFunc
	// accepter is the goroutine that accepts, handlers one for each
	// connection, background those that see disks to their end.
	accepter, handlers, background sync.WaitGroup
	done                           chan struct{} // closed when the last disk is gone

	// mu guards the fields below. It is a leaf, but for attachment.mu.
	mu     sync.Mutex
	minors map[int]*attachment
	ending bool // no disk comes any more: a signal said so, or the last one went
	over   bool // done is closed
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	if o.Driver == nil {
		o.Driver = blktap.System()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Dir = cmp.Or(o.Dir, tapctl.DefaultDir)
	o.WritebackInterval = cmp.Or(o.WritebackInterval, DefaultWritebackInterval)
	o.CloseGrace = cmp.Or(o.CloseGrace, DefaultCloseGrace)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	s := &Server{
		o:       o,
		allowed: func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() },
		done:    make(chan struct{}),
		minors:  map[int]*attachment{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Socket is the path of the socket: the server is found by it.
func (s *Server) Socket() string {
	return filepath.Join(s.o.Dir, "ctl"+strconv.Itoa(os.Getpid()))
}

// Listen makes the socket, for this user and root alone, and begins to answer.
// In place of a dead process's socket it takes the name.
func (s *Server) Listen() error {
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	path := s.Socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("control socket: %w", errors.Join(err, listener.Close()))
	}
	s.listener = listener
	s.accepter.Go(s.accept)
	return nil
}

// Close stops listening, takes the socket away, ends what messages wait for,
// and waits until each has its answer. Disks that the server opened are waited
// for: they end by themselves, by messages, or by a signal to Run.
func (s *Server) Close() error {
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	s.cancel()
	s.accepter.Wait()
	s.handlers.Wait()
	s.background.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Run serves until the last disk was detached, and closes the server. The first
// of signals has each disk taken away as soon as nobody has it open: until then
// it is served on, whatever further signals come, since a tapdisk that ends
// blocks its guest.
func (s *Server) Run(signals <-chan os.Signal) error {
	for {
		select {
		case <-s.done:
			return s.Close()
		case sig := <-signals:
			s.o.Log.Info("tapdisk: asked to end", "signal", sig.String())
			if s.end() {
				continue
			}
			for _, a := range s.all() {
				s.background.Go(func() { s.dismiss(a) })
			}
			s.endIfEmpty()
		}
	}
}

// end has no disk come any more, and tells whether that was so already.
func (s *Server) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.ending
	s.ending = true
	return was
}

// Done is closed when the last disk is gone.
func (s *Server) Done() <-chan struct{} { return s.done }

// dismiss takes a disk away as soon as nobody has it open. What can't be
// flushed is tried again too: somebody may make room.
func (s *Server) dismiss(a *attachment) {
	said := ""
	for {
		err := s.tryDismiss(a)
		if err == nil {
			return
		}
		if text := err.Error(); text != said {
			s.o.Log.Warn("tapdisk: not ended: the disk is served on until it can be taken away", "minor", a.tap.Minor, "error", err)
			said = text
		}
		select {
		case <-a.gone:
			return
		case <-s.ctx.Done():
			return
		case <-time.After(dismissRetry):
		}
	}
}

// tryDismiss takes a disk away, if nobody has it open.
func (s *Server) tryDismiss(a *attachment) error {
	if a.take(s.ctx) != nil {
		return nil // it is gone, or the server is
	}
	defer a.give()
	disk := a.open()
	if disk == nil {
		s.unmap(a)
		return nil
	}
	return disk.Close(s.ctx)
}

// isEnding tells whether no disk comes any more.
func (s *Server) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// minor is the attachment of a minor, or nil.
func (s *Server) minor(n int) *attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.minors[n]
}

// all are the attachments, by minor.
func (s *Server) all() []*attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*attachment, 0, len(s.minors))
	for _, a := range s.minors {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *attachment) int { return a.tap.Minor - b.tap.Minor })
	return list
}

// add makes an attachment the server's.
func (s *Server) add(a *attachment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errEnding
	}
	if s.minors[a.tap.Minor] != nil {
		return errAttached
	}
	s.minors[a.tap.Minor] = a
	return nil
}

// remove ends an attachment; the last one ends the server. A second time it
// does nothing.
func (s *Server) remove(a *attachment) {
	s.mu.Lock()
	if s.minors[a.tap.Minor] == a {
		delete(s.minors, a.tap.Minor)
		close(a.gone)
		s.ending = s.ending || len(s.minors) == 0
	}
	s.mu.Unlock()
	s.endIfEmpty()
}

// unmap lets go of a minor that has no disk. The turn is held.
func (s *Server) unmap(a *attachment) {
	if ring := a.takeRing(); ring != nil {
		if err := ring.Close(); err != nil {
			s.o.Log.Error("tapdisk: detach", "minor", a.tap.Minor, "error", err)
		}
	}
	s.remove(a)
}

// endIfEmpty ends the server where no disk is left, and none comes.
func (s *Server) endIfEmpty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending && len(s.minors) == 0 && !s.over {
		s.over = true
		close(s.done)
	}
}

// Adopted is a disk that somebody else opened.
type Adopted struct {
	s *Server
	a *attachment
}

// Adopt lets messages find a disk that is shown on tap. Its owner says Gone
// when it was taken away. It is EEXIST where the minor is known.
func (s *Server) Adopt(tap blktap.Tap, disk Disk) (*Adopted, error) {
	a := newAttachment(tap)
	a.disk = disk
	if err := s.add(a); err != nil {
		return nil, err
	}
	return &Adopted{s, a}, nil
}

// Gone ends what Adopt began, after the disk was taken away. Where a message
// asked for that, it waits a few seconds for the detach that clients send
// next, or until ctx ends. Call it once.
func (d *Adopted) Gone(ctx context.Context) {
	if d.a.take(ctx) == nil { // a close by message has noted that it was one
		d.a.give()
	}
	d.a.set(nil, nil)
	d.a.mu.Lock()
	asked := d.a.asked
	d.a.mu.Unlock()
	if asked {
		grace := time.NewTimer(detachGrace)
		defer grace.Stop()
		select {
		case <-d.a.gone:
		case <-grace.C:
		case <-ctx.Done():
		}
	}
	d.s.remove(d.a)
}
