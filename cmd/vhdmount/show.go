package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/describe"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapdisk"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// attach shows the disk: as a block device; or at a mount point, one of its
// own if none was given.
func (s *diskServer) attach() (err error) {
	if s.plan.frontend == frontendBlktap {
		return s.attachBlock()
	}
	if s.plan.mountpoint == "" {
		if s.plan.mountpoint, err = s.dir.MakeMountpoint(s.plan.image); err != nil {
			return err
		}
		s.made = true
	} else if err = s.checkMountpoint(); err != nil {
		return err
	}
	s.session, err = s.fuse().Attach(context.Background(), s.disk.Device())
	return err
}

// answerPatience is how long a new block device may take to answer a read.
const answerPatience = 10 * time.Second

// takeBackInterval is how often one that did not answer is tried to be removed.
const takeBackInterval = 100 * time.Millisecond

// attachBlock shows the disk as a block device, and waits until it answers.
func (s *diskServer) attachBlock() (err error) {
	if s.session, err = s.blktap().Attach(context.Background(), s.disk.Device()); err != nil {
		return blktapAdvice(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- s.probe(s.session.Path()) }() // ends with the answer, the device or the process
	select {
	case err = <-answer:
	case <-time.After(answerPatience):
		err = fmt.Errorf("%s: no answer from the block device in %v", s.session.Path(), answerPatience)
	}
	if err != nil {
		err = errors.Join(err, takeBack(s.session))
	}
	return err
}

// takeBack takes away a block device that was never announced. Whoever looks at
// new devices (udev) may have it open for a moment; one that stays in use is
// hidden, and served until its last user has closed it.
func takeBack(session frontend.Session) error {
	ctx := context.Background()
	for end := time.Now().Add(answerPatience); time.Now().Before(end); time.Sleep(takeBackInterval) {
		if err := session.Detach(ctx); !errors.Is(err, frontend.ErrBusy) {
			return err
		}
	}
	return errors.Join(session.Detach(frontend.WithLazy(ctx)), session.Wait())
}

// A mount point that is a file of the disk to be shown there. It would work,
// but the disk would hide the image from every other program, and who names an
// image twice means something else.
var (
	errMountOnImage  = errors.New("is the image itself")
	errMountOnParent = errors.New("is a parent of the image")
)

// checkMountpoint refuses the image and its parents as the mount point, by
// whatever name. One that can't be looked at is the frontend's to refuse.
func (s *diskServer) checkMountpoint() error {
	point, err := os.Stat(s.plan.mountpoint)
	if err != nil {
		return nil
	}
	for i, layer := range s.layers {
		file, err := os.Stat(layer.Name)
		switch {
		case err != nil || !os.SameFile(point, file):
		case i == 0:
			return fmt.Errorf("%s: %w", s.point, errMountOnImage)
		default:
			return fmt.Errorf("%s: %w", s.point, errMountOnParent)
		}
	}
	return nil
}

// fuse is the frontend that shows the disk as files.
func (s *diskServer) fuse() frontend.Frontend {
	o := s.plan.options
	fo := fuse.Options{
		Mountpoint:         s.plan.mountpoint,
		ReadOnly:           s.plan.open.ReadOnly,
		AllowOther:         o.AllowOther,
		AllowRoot:          o.AllowRoot,
		DefaultPermissions: o.DefaultPermissions,
		UID:                o.UID,
		GID:                o.GID,
		Umask:              o.Umask,
		FSName:             o.FSName,
		Info:               s.info,
		Unsettled:          s.confine != nil, // by confineServer then
		Log:                s.log,
	}
	if fo.FSName == "" {
		fo.FSName = s.image
	}
	return s.show(fo)
}

// blktap is the frontend that shows the disk as a block device. What the module
// asks for by a message is what tap-ctl asks for at the socket.
func (s *diskServer) blktap() frontend.Frontend {
	return blktap.New(blktap.Options{
		Driver:     s.driver,
		ReadOnly:   s.plan.open.ReadOnly,
		LockMemory: s.lock,
		Pause:      func() error { return tapdisk.Pause(context.Background(), s.disk) },
		Resume:     func() error { return tapdisk.Resume(context.Background(), s.disk) },
		Log:        s.log,
	})
}

// blktapAdvice says what to do about a block device that could not be made.
func blktapAdvice(err error) error {
	if errors.Is(err, blktap.ErrNoModule) {
		return fmt.Errorf("mount: %w; --frontend fuse needs no module", err)
	}
	return err
}

// info is what info.json holds: what `vhdmount info --json --chain` prints. It
// is empty while the disk is paused.
func (s *diskServer) info() []byte {
	img := s.disk.Image()
	if img == nil {
		return nil
	}
	b, err := json.MarshalIndent(describe.Image(img, s.workDir), "", "\t")
	if err != nil {
		s.log.Error("info.json", "error", err)
		return nil
	}
	return append(b, '\n')
}
