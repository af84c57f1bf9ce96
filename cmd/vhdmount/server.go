package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/probe"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/serve"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/signals"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// writebackInterval is how old uncommitted metadata may grow: the BAT and the
// bitmaps. Data is the kernel's to write back until a flush.
const writebackInterval = 5 * time.Second

// diskServer is a mount in the making: its parts, in the order in which they
// come to be.
type diskServer struct {
	plan    mountPlan // its mount point made absolute
	stage   stage
	show    func(fuse.Options) frontend.Frontend
	driver  blktap.Driver
	tapDir  string                  // of tap-ctl's sockets; empty: where tap-ctl looks
	lock    bool                    // memory, before a block device is made
	probe   func(path string) error // reads from a new block device
	workDir string                  // that relative names of files are in
	point   string                  // the mount point as it was named
	dir     *registry.Dir
	name    string // of the mount, in the registry
	log     *slog.Logger
	disk    *livedisk.Disk
	layers  []vhd.Layer // as of the start
	made    bool        // the mount point is ours to remove
	session frontend.Session
	server  *serve.Server
	control *control.Server
	tapSide *tapdiskSide // nil without a block device

	confine func(*diskServer) (end func() error) // nil: the process keeps its rights
	endHelp func() error                         // ends what confine started; nil: nothing

	since time.Time

	// mu guards the fields below once the control socket listens. It is held
	// while the registry is written. It comes after the disk's turn: who holds it
	// neither pauses the disk nor uses it.
	mu      sync.Mutex
	image   string // absolute, without symbolic links
	holding *registry.Holding
}

// serveDisk shows a disk, and returns when it is no longer shown and the image
// closed.
func serveDisk(plan mountPlan, st stage) error {
	signals.IgnoreWriteSignals()
	limitMemory()
	limitToWholeSectors()
	if plan.frontend == frontendBlktap {
		makeRoomForRing()
	}
	s := &diskServer{
		plan: plan, stage: st,
		show:    func(o fuse.Options) frontend.Frontend { return fuse.New(o) },
		driver:  blktap.System(),
		lock:    true,
		confine: confineServer,
		probe:   probe.Device,
	}
	return s.run()
}

func (s *diskServer) run() error {
	received, stop := signals.Terminating()
	defer stop()
	err := s.prepare()
	if err == nil {
		err = s.serve(received)
	}
	return errors.Join(err, s.removeMountpoint(), s.stage.close(err))
}

// prepare does all that can fail before the image is opened.
func (s *diskServer) prepare() (err error) {
	if s.workDir, err = os.Getwd(); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	s.image = s.absolute(s.plan.image)
	if s.plan.mountpoint != "" {
		s.point, s.plan.mountpoint = s.plan.mountpoint, s.absolute(s.plan.mountpoint)
	}
	if s.dir, err = openRegistry(); err != nil {
		return err
	}
	s.name = registry.NewName(s.plan.image)
	out, err := s.stage.openLog(s.dir.Log(s.name))
	if err != nil {
		return err
	}
	s.log = s.plan.logger(out)
	return nil
}

func (p *mountPlan) logger(out io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: p.logLevel}
	if p.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, o))
	}
	return slog.New(slog.NewTextHandler(out, o))
}

// serve opens the image, shows it, and watches over it to its end.
func (s *diskServer) serve(received <-chan os.Signal) error {
	if err := s.openImage(); err != nil {
		return err
	}
	s.disk.StartWriteback()
	if err := s.attach(); err != nil {
		return errors.Join(err, s.disk.StopWriteback(), s.disk.Close())
	}
	s.server = serve.New(s.session, s.disk, s.disk.StopWriteback, s.log)
	if s.plan.frontend == frontendBlktap {
		s.server.NeverHide()
	}
	announceErr := s.announce()
	if announceErr != nil {
		// Nobody can have opened it yet; the session's end ends Run.
		announceErr = errors.Join(announceErr, s.session.Detach(frontend.WithLazy(context.Background())))
	}
	err := s.server.Run(received)
	return errors.Join(announceErr, err, s.leave())
}

// openImage opens the image and says what is odd about it.
func (s *diskServer) openImage() (err error) {
	s.disk, err = livedisk.Open(livedisk.Options{
		Path: s.plan.image, VHD: s.plan.open, Direct: s.plan.direct,
		WritebackInterval: writebackInterval, BeforeGoingOn: s.goesOnWith,
	})
	if s.plan.direct && errors.Is(err, storage.ErrNotSupported) {
		return fmt.Errorf("%w: leave --direct-io out", err)
	}
	if err != nil {
		return err
	}
	s.layers = s.disk.Image().Layers()
	for _, text := range s.disk.Warnings() {
		s.stage.warn(text)
	}
	return nil
}

// announce listens, enters the mount in the registry, and says that the disk
// is there, in this order: whoever reads its path can unmount it. Requests may
// come from the first of these on, and pause the disk.
func (s *diskServer) announce() (err error) {
	s.since = time.Now()
	if s.control, err = control.Listen(s.dir.Socket(s.name), s.server.Handle); err != nil {
		return err
	}
	image, err := s.enter()
	if err != nil {
		return err
	}
	s.answerTapCtl()
	if s.confine != nil {
		s.endHelp = s.confine(s)
	}
	s.log.Info("mounted", "image", image, "disk", s.session.Path(), "read_only", s.plan.open.ReadOnly)
	return s.stage.announce(s.session.Path())
}

// enter enters the mount in the registry, with the image that is shown.
func (s *diskServer) enter() (image string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding, err = s.dir.Add(s.name, s.entry())
	return s.image, err
}

// goesOnWith has the registry name the image that the disk is about to go on
// with: see livedisk.Options.BeforeGoingOn. Were it told later, and the server
// killed in between, the entry would name an image without the last writes;
// who mounts that writes to the parent of the one that has them.
func (s *diskServer) goesOnWith(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.image = s.absolute(path)
	if s.holding == nil {
		return nil // it isn't entered yet
	}
	if err := s.holding.Update(s.entry()); err != nil {
		return fmt.Errorf("the list of mounts can't name it: %w", err)
	}
	return nil
}

// entry is what the registry is told. mu is held.
func (s *diskServer) entry() registry.Entry {
	e := registry.Entry{
		Image:          s.image,
		Disk:           s.session.Path(),
		Mountpoint:     s.plan.mountpoint,
		MadeMountpoint: s.made,
		Frontend:       s.plan.frontend,
		PID:            os.Getpid(),
		Since:          s.since,
		ReadOnly:       s.plan.open.ReadOnly,
		Log:            s.stage.logPath(),
	}
	if session, ok := s.session.(*blktap.Session); ok {
		e.Minor = new(session.Tap().Minor)
	}
	return e
}

// absolute is path without symbolic links, seen from where the command was
// called; with them where it doesn't exist.
func (s *diskServer) absolute(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.workDir, path)
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// leave undoes announce: the requests that wait get their answers before the
// entry goes, and the entry before the process.
func (s *diskServer) leave() error {
	errs := []error{s.leaveTapCtl()}
	if s.endHelp != nil {
		errs = append(errs, s.endHelp())
	}
	if s.control != nil {
		errs = append(errs, s.control.Close())
	}
	if s.holding != nil {
		errs = append(errs, s.removeMountpoint(), s.holding.Remove())
	}
	s.log.Info("unmounted")
	return errors.Join(errs...)
}

// removeMountpoint takes away the directory that attach made.
func (s *diskServer) removeMountpoint() error {
	if !s.made {
		return nil
	}
	s.made = false
	return s.dir.RemoveMountpoint(s.plan.mountpoint)
}
