package tapdisk

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// What the server itself refuses.
var (
	errAttached = refuse(unix.EEXIST, "this minor is attached already")
	errEnding   = refuse(unix.ESHUTDOWN, "this tapdisk is ending: spawn another one")
)

// answer is what goes back for a message: messages, and bytes behind them.
type answer struct {
	messages []tapctl.Message
	tail     []byte
}

func (a answer) encode() []byte {
	b := make([]byte, 0, len(a.messages)*tapctl.MessageSize+len(a.tail))
	for i := range a.messages {
		b = a.messages[i].Append(b)
	}
	return append(b, a.tail...)
}

// one is an answer of a message alone.
func one(m tapctl.Message) answer { return answer{messages: []tapctl.Message{m}} }

// failed is the protocol's own error, with a line about it that tap-ctl
// doesn't show and others may.
func failed(cookie uint16, err error) answer {
	m := tapctl.Message{Type: tapctl.TypeError, Cookie: cookie}
	m.SetResponse(tapctl.Response{Errno: errnoOf(err), Message: strings.ReplaceAll(err.Error(), "\n", "; ")})
	return one(m)
}

// handler answers a message; an error becomes the protocol's own.
type handler func(*Server, context.Context, tapctl.Message) (answer, error)

// handlers are by type. What isn't here is no request, or one that makes no
// sense to a server of blktap.
var handlers = map[tapctl.Type]handler{
	tapctl.TypePID:           (*Server).pid,
	tapctl.TypeAttach:        (*Server).attach,
	tapctl.TypeOpen:          onMinor(unix.EINVAL, (*Server).open),
	tapctl.TypePause:         onMinor(unix.ENODEV, (*Server).pause),
	tapctl.TypeResume:        onMinor(unix.ENODEV, (*Server).resume),
	tapctl.TypeClose:         onMinor(unix.ENODEV, (*Server).close),
	tapctl.TypeForceShutdown: onMinor(unix.ENODEV, (*Server).close),
	tapctl.TypeDetach:        onMinor(unix.ENODEV, (*Server).detach),
	tapctl.TypeListMinors:    (*Server).listMinors,
	tapctl.TypeList:          (*Server).list,
	tapctl.TypeStats:         (*Server).stats,
	tapctl.TypeConnect:       (*Server).unsupported,
	tapctl.TypeDisconnect:    (*Server).unsupported,
	tapctl.TypeDiskInfo:      (*Server).diskInfo,
	tapctl.TypeExit:          (*Server).exit,
}

// handle answers a message, whatever it is.
func (s *Server) handle(ctx context.Context, m tapctl.Message) answer {
	h := handlers[m.Type]
	if h == nil {
		h = (*Server).unknown
	}
	a, err := h(s, ctx, m)
	if err != nil {
		s.o.Log.Warn("tapdisk: refused", "message", m.Type.String(), "minor", m.Cookie, "error", err)
		return failed(m.Cookie, err)
	}
	return a
}

// onMinor has a message about an attached minor handled in its turn; any other
// minor is answered with errno.
func onMinor(errno unix.Errno, do func(*Server, context.Context, *attachment, tapctl.Message) (answer, error)) handler {
	return func(s *Server, ctx context.Context, m tapctl.Message) (answer, error) {
		a := s.minor(int(m.Cookie))
		if a == nil {
			return answer{}, notAttached(errno, m)
		}
		if err := a.take(ctx); err != nil {
			return answer{}, err
		}
		defer a.give()
		return do(s, ctx, a, m)
	}
}

func notAttached(errno unix.Errno, m tapctl.Message) error {
	return refuse(errno, "minor %d is not attached to this tapdisk: attach it first", m.Cookie)
}

// reply is an answer of a type to m.
func reply(m tapctl.Message, t tapctl.Type) tapctl.Message {
	return tapctl.Message{Type: t, Cookie: m.Cookie}
}

func (s *Server) unknown(_ context.Context, m tapctl.Message) (answer, error) {
	return answer{}, refuse(unix.EINVAL, "%s (%d) is no request", m.Type, uint16(m.Type))
}

func (s *Server) unsupported(_ context.Context, m tapctl.Message) (answer, error) {
	return answer{}, refuse(unix.EOPNOTSUPP, "%s: this tapdisk serves blktap devices, not rings of Xen's block interface", m.Type)
}

func (s *Server) pid(_ context.Context, m tapctl.Message) (answer, error) {
	r := reply(m, tapctl.TypePIDResponse)
	r.SetPID(os.Getpid())
	return one(r), nil
}

func (s *Server) attach(_ context.Context, m tapctl.Message) (answer, error) {
	minor := int(m.Cookie)
	if s.minor(minor) != nil {
		return answer{}, errAttached
	}
	tap, err := s.o.Driver.Find(minor)
	if err != nil {
		return answer{}, err
	}
	ring, err := blktap.MapRing(s.o.Driver, tap)
	if err != nil {
		return answer{}, err
	}
	a := newAttachment(tap)
	a.ring = ring
	if err := s.add(a); err != nil {
		return answer{}, errors.Join(err, ring.Close())
	}
	s.o.Log.Info("tapdisk: attached", "minor", minor)
	return one(reply(m, tapctl.TypeAttachResponse)), nil
}

// unsupportedFlags are those that change where a disk's bytes go: to open the
// image without what they ask for would be something else.
const unsupportedFlags = tapctl.FlagAddCache | tapctl.FlagVHDIndex | tapctl.FlagAddLog | tapctl.FlagAddLCache |
	tapctl.FlagSecondary | tapctl.FlagStandby | tapctl.FlagEncrypted

// params are those of an open or an unpause.
func params(m tapctl.Message) (tapctl.Params, error) {
	p, err := m.Params()
	if err != nil {
		return p, refuse(unix.EINVAL, "%v", err)
	}
	if odd := p.Flags & unsupportedFlags; odd != 0 {
		return p, refuse(unix.EOPNOTSUPP, "flags %#x are not supported: no logs, caches, secondaries or keys", uint32(odd))
	}
	return p, nil
}

func (s *Server) open(ctx context.Context, a *attachment, m tapctl.Message) (answer, error) {
	if d := a.open(); d != nil {
		return answer{}, refuse(unix.EALREADY, "minor %d has %s open", a.tap.Minor, d.Name())
	}
	if s.isEnding() {
		return answer{}, errEnding
	}
	p, err := params(m)
	if err != nil {
		return answer{}, err
	}
	d, err := s.openImage(ctx, a, p)
	if err != nil {
		return answer{}, err
	}
	s.o.Log.Info("tapdisk: opened", "minor", a.tap.Minor, "image", d.Name(), "disk", a.tap.Path, "read_only", d.ReadOnly())
	return one(describe(m, tapctl.TypeOpenResponse, d)), nil
}

// describe is an answer that tells a disk's size.
func describe(m tapctl.Message, t tapctl.Type, d Disk) tapctl.Message {
	r := reply(m, t)
	i := tapctl.Image{Sectors: uint64(d.Size()) / sectorSize, SectorSize: sectorSize}
	if d.ReadOnly() {
		i.Info = tapctl.InfoReadOnly
	}
	r.SetImage(i)
	return r
}

func (s *Server) pause(ctx context.Context, a *attachment, m tapctl.Message) (answer, error) {
	d, err := a.opened()
	if err != nil {
		return answer{}, err
	}
	if err := d.Pause(ctx); err != nil {
		return answer{}, err
	}
	s.o.Log.Info("tapdisk: paused", "minor", a.tap.Minor, "image", d.Name())
	return one(reply(m, tapctl.TypePauseResponse)), nil
}

func (s *Server) resume(ctx context.Context, a *attachment, m tapctl.Message) (answer, error) {
	d, err := a.opened()
	if err != nil {
		return answer{}, err
	}
	p, err := params(m)
	if err != nil {
		return answer{}, err
	}
	if d.State()&tapctl.StatePaused != tapctl.StatePaused {
		return answer{}, blockdev.ErrNotPaused
	}
	// Who asked may not wait for the answer; the guest does.
	if err := d.Unpause(context.WithoutCancel(ctx), p.Path); err != nil {
		return answer{}, err
	}
	s.o.Log.Info("tapdisk: unpaused", "minor", a.tap.Minor, "image", d.Name())
	return one(reply(m, tapctl.TypeResumeResponse)), nil
}

// close is nothing to do where no image is open.
func (s *Server) close(ctx context.Context, a *attachment, m tapctl.Message) (answer, error) {
	if d := a.open(); d != nil {
		if err := d.Close(ctx); err != nil {
			return answer{}, err
		}
		a.forget(d)
	}
	return one(reply(m, tapctl.TypeCloseResponse)), nil
}

func (s *Server) detach(_ context.Context, a *attachment, m tapctl.Message) (answer, error) {
	if d := a.open(); d != nil {
		return answer{}, refuse(unix.EBUSY, "minor %d has %s open: close it first", a.tap.Minor, d.Name())
	}
	s.unmap(a)
	s.o.Log.Info("tapdisk: detached", "minor", a.tap.Minor)
	return one(reply(m, tapctl.TypeDetachResponse)), nil
}

func (s *Server) listMinors(_ context.Context, m tapctl.Message) (answer, error) {
	var minors []int
	for _, a := range s.all() {
		minors = append(minors, a.tap.Minor)
	}
	r := reply(m, tapctl.TypeListMinorsResponse)
	err := r.SetMinors(minors[:min(len(minors), tapctl.MinorsMax)])
	return one(r), err
}

// list has a message for each disk, and one after them.
func (s *Server) list(_ context.Context, m tapctl.Message) (answer, error) {
	var out answer
	all := s.all()
	for i, a := range all {
		state, name := a.state()
		r := reply(m, tapctl.TypeListResponse)
		r.SetListEntry(tapctl.ListEntry{Count: len(all) - i, Minor: a.tap.Minor, State: state, Path: name})
		out.messages = append(out.messages, r)
	}
	end := reply(m, tapctl.TypeListResponse)
	end.SetListEntry(tapctl.ListEntry{Minor: -1})
	out.messages = append(out.messages, end)
	return out, nil
}

// stats are those of a disk or, under the cookie of none, of each.
func (s *Server) stats(_ context.Context, m tapctl.Message) (answer, error) {
	var figures any
	if m.Cookie == tapctl.AllMinors {
		all := []diskStats{}
		for _, a := range s.all() {
			all = append(all, statsOf(a))
		}
		figures = all
	} else {
		a := s.minor(int(m.Cookie))
		if a == nil {
			return answer{}, notAttached(unix.ENODEV, m)
		}
		figures = statsOf(a)
	}
	b, err := json.Marshal(figures)
	if err != nil {
		return answer{}, err
	}
	r := reply(m, tapctl.TypeStatsResponse)
	r.SetStatsLength(uint64(len(b)))
	return answer{[]tapctl.Message{r}, b}, nil
}

func (s *Server) diskInfo(_ context.Context, m tapctl.Message) (answer, error) {
	a := s.minor(int(m.Cookie))
	if a == nil {
		return answer{}, notAttached(unix.ENODEV, m)
	}
	d, err := a.opened()
	if err != nil {
		return answer{}, err
	}
	return one(describe(m, tapctl.TypeDiskInfoResponse, d)), nil
}

// exit ends a tapdisk that has no disk. The answer is the message itself: the
// protocol has none.
func (s *Server) exit(_ context.Context, m tapctl.Message) (answer, error) {
	s.mu.Lock()
	n := len(s.minors)
	s.ending = s.ending || n == 0
	s.mu.Unlock()
	if n > 0 {
		return answer{}, refuse(unix.EBUSY, "%d disks are attached: close and detach them first", n)
	}
	s.endIfEmpty()
	return one(reply(m, tapctl.TypeExit)), nil
}
