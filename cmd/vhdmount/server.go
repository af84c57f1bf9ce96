package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/describe"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/serve"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/signals"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

const (
	// writebackInterval is how old uncommitted metadata may grow: the BAT and
	// the bitmaps. Data is the kernel's to write back until a flush.
	writebackInterval = 5 * time.Second
	// memoryLimit and gcPercent keep a server's resident memory below 64 MiB
	// under load: the limit is of what the Go runtime maps, beside which there
	// is the program itself.
	memoryLimit = 48 << 20
	gcPercent   = 50
)

// diskServer is a mount in the making: its parts, in the order in which they
// come to be.
type diskServer struct {
	plan    mountPlan // its mount point made absolute
	stage   stage
	show    func(fuse.Options) frontend.Frontend
	workDir string // that relative names of files are in
	image   string // absolute, without symbolic links
	point   string // the mount point as it was named
	dir     *registry.Dir
	name    string // of the mount, in the registry
	log     *slog.Logger
	img     *vhd.Image
	made    bool // the mount point is ours to remove
	session frontend.Session
	server  *serve.Server
	control *control.Server
	holding *registry.Holding
}

// serveDisk shows a disk, and returns when it is no longer shown and the image
// closed.
func serveDisk(plan mountPlan, st stage) error {
	signals.IgnoreWriteSignals()
	limitMemory()
	s := &diskServer{plan: plan, stage: st, show: func(o fuse.Options) frontend.Frontend { return fuse.New(o) }}
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

// limitMemory bounds the Go heap, unless the environment does.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
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
	writeback := vhd.StartWriteback(s.img, writebackInterval)
	if err := s.attach(); err != nil {
		return errors.Join(err, writeback.Stop(), s.img.Close())
	}
	s.server = serve.New(s.session, s.img, writeback.Stop, s.log)
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
	if s.img, err = vhd.Open(s.plan.image, s.plan.open); err != nil {
		return err
	}
	for _, text := range s.img.Warnings() {
		s.stage.warn(text)
	}
	return nil
}

// attach shows the disk, at a mount point of its own if none was given.
func (s *diskServer) attach() (err error) {
	if s.plan.mountpoint == "" {
		if s.plan.mountpoint, err = s.dir.MakeMountpoint(s.plan.image); err != nil {
			return err
		}
		s.made = true
	} else if err = s.checkMountpoint(); err != nil {
		return err
	}
	s.session, err = s.frontend().Attach(context.Background(), s.img)
	return err
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
	for i, layer := range s.img.Layers() {
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

// frontend is the one that chooseFrontend chose.
func (s *diskServer) frontend() frontend.Frontend {
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
		Log:                s.log,
	}
	if fo.FSName == "" {
		fo.FSName = s.image
	}
	return s.show(fo)
}

// info is what info.json holds: what `vhdmount info --json --chain` prints.
func (s *diskServer) info() []byte {
	b, err := json.MarshalIndent(describe.Image(s.img, s.workDir), "", "\t")
	if err != nil {
		s.log.Error("info.json", "error", err)
		return nil
	}
	return append(b, '\n')
}

// announce enters the mount in the registry, listens, and says that the disk
// is there, in this order: whoever reads its path can unmount it.
func (s *diskServer) announce() (err error) {
	if s.control, err = control.Listen(s.dir.Socket(s.name), s.server.Handle); err != nil {
		return err
	}
	if s.holding, err = s.dir.Add(s.name, s.entry()); err != nil {
		return err
	}
	s.log.Info("mounted", "image", s.image, "disk", s.session.Path(), "read_only", s.plan.open.ReadOnly)
	return s.stage.announce(s.session.Path())
}

func (s *diskServer) entry() registry.Entry {
	return registry.Entry{
		Image:          s.image,
		Disk:           s.session.Path(),
		Mountpoint:     s.plan.mountpoint,
		MadeMountpoint: s.made,
		Frontend:       s.plan.frontend,
		PID:            os.Getpid(),
		Since:          time.Now(),
		ReadOnly:       s.plan.open.ReadOnly,
		Log:            s.stage.logPath(),
	}
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
	var errs []error
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
