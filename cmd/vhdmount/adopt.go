package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapdisk"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// tapdiskSide is a mounted block device as tap-ctl sees it: the server's second
// socket.
type tapdiskSide struct {
	server *tapdisk.Server
	disk   *tapdisk.Adopted
}

// answerTapCtl lets tap-ctl find the block device. A mount works without that,
// so that a failure is told and no more.
func (s *diskServer) answerTapCtl() {
	session, ok := s.session.(*blktap.Session)
	if !ok {
		return
	}
	side := tapdiskSide{server: tapdisk.New(tapdisk.Options{Driver: s.driver, Dir: s.tapDir, Log: s.log})}
	disk := tapdisk.Live(s.disk, session, tapdisk.LiveOptions{ReadOnly: s.plan.open.ReadOnly, Close: s.closeByMessage})
	var err error
	if side.disk, err = side.server.Adopt(session.Tap(), disk); err == nil {
		err = side.server.Listen()
	}
	if err != nil {
		s.log.Warn("tap-ctl won't find this disk", "error", err)
		err = side.server.Close()
		if err != nil {
			s.log.Warn("tap-ctl's socket", "error", err)
		}
		return
	}
	s.tapSide = &side
}

// leaveTapCtl ends what answerTapCtl began.
func (s *diskServer) leaveTapCtl() error {
	if s.tapSide == nil {
		return nil
	}
	s.tapSide.disk.Gone(context.Background())
	return s.tapSide.server.Close()
}

// closeByMessage unmounts as `vhdmount unmount` does.
func (s *diskServer) closeByMessage(ctx context.Context) error {
	r := s.server.Handle(ctx, control.Request{Op: control.Unmount, Lazy: frontend.Lazy(ctx)})
	switch {
	case r.Busy:
		return fmt.Errorf("%w: %s", frontend.ErrBusy, r.Error)
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}
