package tapctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"time"
)

// probeTimeout is how long a question is given that a tapdisk answers at once,
// whatever else it is about.
const probeTimeout = 10 * time.Second

// Bounds on what a tapdisk may answer.
const (
	statsMax = 64 << 20 // bytes
	listMax  = 1 << 16  // disks: as many as there are cookies
)

var (
	// ErrNoTapdisk is a process that has no socket, or doesn't listen there any
	// more. The errno of the connection is wrapped beside it.
	ErrNoTapdisk = errors.New("no tapdisk listens")
	// ErrUnexpected is an answer of a type that doesn't belong to the request.
	ErrUnexpected = errors.New("unexpected answer")
)

// RefusedError is a request that the tapdisk answered with an error.
type RefusedError struct {
	PID     int
	Type    Type   // of the request
	Minor   uint16 // AllMinors: of none
	Errno   syscall.Errno
	Message string // the tapdisk's own words, often none
}

// Error names the tapdisk, the disk, the request and the reason.
func (e *RefusedError) Error() string {
	s := fmt.Sprintf("tapdisk %d: ", e.PID)
	if e.Minor != AllMinors {
		s += fmt.Sprintf("minor %d: ", e.Minor)
	}
	s += fmt.Sprintf("%s: %s", e.Type, e.Errno)
	if e.Message != "" {
		s += " (" + e.Message + ")"
	}
	return s
}

// Unwrap is the errno.
func (e *RefusedError) Unwrap() error { return e.Errno }

// PID asks a tapdisk for its process's number. That is the number in its
// socket's name, unless it runs in a PID namespace of its own.
func (d Dir) PID(ctx context.Context, pid int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	m, err := d.call(ctx, pid, Message{Type: TypePID}, nil, TypePIDResponse)
	return m.PID(), err
}

// Attach gives a minor to a tapdisk, which opens its ring. EEXIST is one that
// it has already.
func (d Dir) Attach(ctx context.Context, pid int, minor uint16) error {
	return d.simple(ctx, pid, Message{Type: TypeAttach, Cookie: minor}, nil, TypeAttachResponse)
}

// Detach takes a minor from a tapdisk: EBUSY while its image is open. A tapdisk
// ends with its last minor.
func (d Dir) Detach(ctx context.Context, pid int, minor uint16) error {
	return d.simple(ctx, pid, Message{Type: TypeDetach, Cookie: minor}, nil, TypeDetachResponse)
}

// Close takes the block device away and closes the image; it waits until
// nobody has the block device open. With force, a tapdisk of Xen's doesn't
// wait for the guest's rings; ours does not either.
func (d Dir) Close(ctx context.Context, pid int, minor uint16, force bool) error {
	t := TypeClose
	if force {
		t = TypeForceShutdown
	}
	return d.simple(ctx, pid, Message{Type: t, Cookie: minor}, nil, TypeCloseResponse)
}

// Pause drains and flushes a disk, and closes its image.
func (d Dir) Pause(ctx context.Context, pid int, minor uint16) error {
	return d.simple(ctx, pid, Message{Type: TypePause, Cookie: minor}, nil, TypePauseResponse)
}

// OpenRequest is what Open and Unpause ask for.
type OpenRequest struct {
	Params  Params // the flags of the fields below are set by themselves
	LogPath string // of a log of dirty blocks; empty: none
	Key     []byte // of an encrypted image; nil: none
}

// Open opens an image on a minor that is attached, and makes its block device.
// EINVAL is one that isn't attached, EALREADY one that has an image.
func (d Dir) Open(ctx context.Context, pid int, minor uint16, o OpenRequest) (Image, error) {
	o.Params.Devnum = uint32(minor)
	m, extra, err := o.message(TypeOpen, minor)
	if err != nil {
		return Image{}, err
	}
	answer, err := d.call(ctx, pid, m, extra, TypeOpenResponse)
	if err != nil {
		return Image{}, err
	}
	return answer.Image(), nil
}

// Unpause opens a paused disk's image afresh, or another if one is named.
func (d Dir) Unpause(ctx context.Context, pid int, minor uint16, o OpenRequest) error {
	m, extra, err := o.message(TypeResume, minor)
	if err != nil {
		return err
	}
	return d.simple(ctx, pid, m, extra, TypeResumeResponse)
}

// message is the request, and the bytes that follow it.
func (o OpenRequest) message(t Type, minor uint16) (m Message, extra []byte, err error) {
	m = Message{Type: t, Cookie: minor}
	if o.Params.Secondary != "" {
		o.Params.Flags |= FlagSecondary
	}
	if o.LogPath != "" {
		if len(o.LogPath) >= LogPathSize {
			return m, nil, fmt.Errorf("log path: %w: %d bytes, a message has room for %d", ErrTooLong, len(o.LogPath), LogPathSize-1)
		}
		o.Params.Flags |= FlagAddLog
		extra = append(extra, o.LogPath...)
		extra = append(extra, make([]byte, LogPathSize-len(o.LogPath))...)
	}
	if o.Key != nil {
		if len(o.Key) > keyMax {
			return m, nil, fmt.Errorf("key: %w: %d bytes, at most %d", ErrTooLong, len(o.Key), keyMax)
		}
		o.Params.Flags |= FlagEncrypted
		extra = append(append(extra, byte(len(o.Key))), o.Key...)
	}
	return m, extra, m.SetParams(o.Params)
}

// keyMax is the longest key that a tapdisk takes, in bytes.
const keyMax = 128

// Layout finds out which layout of Params a tapdisk reads. Those of the 2020s
// know a question that the older call an unknown one; nothing changes by it.
// Minor is one that is attached.
func (d Dir) Layout(ctx context.Context, pid int, minor uint16) (Layout, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := d.call(ctx, pid, Message{Type: TypeDiskInfo, Cookie: minor}, nil, TypeDiskInfoResponse)
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return Layout2020s, err
	}
	if refused.Errno == syscall.EINVAL {
		return Layout2010s, nil
	}
	return Layout2020s, nil
}

// List asks a tapdisk for its disks, in its own order.
func (d Dir) List(ctx context.Context, pid int) ([]ListEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var entries []ListEntry
	request := Message{Type: TypeList, Cookie: AllMinors}
	err := d.exchange(ctx, pid, request, nil, func(r io.Reader) error {
		for len(entries) <= listMax {
			m, err := receive(r, pid, request, TypeListResponse)
			if err != nil {
				return err
			}
			e, err := m.ListEntry()
			if err != nil || e.Count == 0 {
				return err
			}
			entries = append(entries, e)
		}
		return fmt.Errorf("list: %w: more than %d disks", ErrCount, listMax)
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Stats asks for the figures of a disk, or with [AllMinors] of all, as JSON.
func (d Dir) Stats(ctx context.Context, pid int, minor uint16) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var text []byte
	request := Message{Type: TypeStats, Cookie: minor}
	err := d.exchange(ctx, pid, request, nil, func(r io.Reader) error {
		m, err := receive(r, pid, request, TypeStatsResponse)
		if err != nil {
			return err
		}
		n := m.StatsLength()
		if n > statsMax {
			return fmt.Errorf("stats: %w: %d bytes, at most %d", ErrTooLong, n, statsMax)
		}
		// Not by io.ReadFull into n bytes: n is the tapdisk's word.
		text, err = io.ReadAll(io.LimitReader(r, int64(n)))
		if err == nil && uint64(len(text)) < n {
			err = fmt.Errorf("stats: %w: %d of %d bytes", ErrCutShort, len(text), n)
		}
		return err
	})
	return text, err
}

// simple is a request whose answer has nothing but an errno.
func (d Dir) simple(ctx context.Context, pid int, request Message, extra []byte, want Type) error {
	m, err := d.call(ctx, pid, request, extra, want)
	if err != nil {
		return err
	}
	return refusal(pid, request, m)
}

// call is a request with one answer.
func (d Dir) call(ctx context.Context, pid int, request Message, extra []byte, want Type) (m Message, err error) {
	err = d.exchange(ctx, pid, request, extra, func(r io.Reader) error {
		m, err = receive(r, pid, request, want)
		return err
	})
	return m, err
}

// exchange sends a request and has read take the answer, for as long as ctx
// lets it.
func (d Dir) exchange(ctx context.Context, pid int, request Message, extra []byte, read func(io.Reader) error) error {
	conn, err := d.dial(ctx, pid)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// A tapdisk reads what follows a message by a single call: all in one write.
	_, writeErr := conn.Write(append(request.Append(nil), extra...))
	err = read(conn)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("tapdisk %d: %s: no answer: %w", pid, request.Type, ctx.Err())
	case writeErr != nil && !errors.As(err, new(*RefusedError)):
		// One that refuses a message may answer before it has read it all.
		return fmt.Errorf("tapdisk %d: %s: %w", pid, request.Type, writeErr)
	}
	return err
}

// dial connects to a tapdisk.
func (d Dir) dial(ctx context.Context, pid int) (net.Conn, error) {
	name := d.Socket(pid)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	var errno syscall.Errno
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("tapdisk %d: %w", pid, ctx.Err())
	case !errors.As(err, &errno):
		return nil, fmt.Errorf("tapdisk %d: %w", pid, err)
	case errno == syscall.ENOENT, errno == syscall.ECONNREFUSED:
		return nil, fmt.Errorf("tapdisk %d: %w at %s: %w", pid, ErrNoTapdisk, filepath.Clean(name), errno)
	}
	return nil, fmt.Errorf("tapdisk %d: %s: %w", pid, name, errno)
}

// receive reads a message that has to be of a type, or says why the request
// was refused.
func receive(r io.Reader, pid int, request Message, want Type) (Message, error) {
	m, err := ReadMessage(r)
	switch {
	case errors.Is(err, io.EOF):
		return m, fmt.Errorf("tapdisk %d: %s: the connection ended without an answer: %w", pid, request.Type, io.ErrUnexpectedEOF)
	case err != nil:
		return m, fmt.Errorf("tapdisk %d: %s: %w", pid, request.Type, err)
	case m.Type == want:
		return m, nil
	case m.Type == TypeError:
		if err := refusal(pid, request, m); err != nil {
			return m, err
		}
	}
	return m, fmt.Errorf("tapdisk %d: %s: %w: %s", pid, request.Type, ErrUnexpected, m.Type)
}

// refusal is the error that an answer holds, nil if it holds none.
func refusal(pid int, request, answer Message) error {
	response, err := answer.Response()
	if err != nil {
		return fmt.Errorf("tapdisk %d: %s: %w", pid, request.Type, err)
	}
	if response.Errno == 0 {
		return nil
	}
	return &RefusedError{PID: pid, Type: request.Type, Minor: request.Cookie, Errno: response.Errno, Message: response.Message}
}
