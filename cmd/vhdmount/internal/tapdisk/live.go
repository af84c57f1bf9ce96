package tapdisk

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// The kinds of image, as they stand before a path.
const (
	kindVHD = "vhd"
	kindRaw = "aio"
)

// Disk is a disk that is open, as messages see it: comparable, and safe for concurrent
// use; of Pause, Unpause and Close, messages have one run at a time.
type Disk interface {
	// Name is what is open, in tap-ctl's words: "vhd:/path".
	Name() string
	// Size is the disk's, in bytes.
	Size() int64
	// ReadOnly tells whether the disk was opened so.
	ReadOnly() bool
	// State is that of a disk which is open, in tapdisk's numbers.
	State() tapctl.State
	// Pause makes new requests wait, waits for those under way, flushes, and
	// closes the image. When ctx ends first, the requests go on. A disk that
	// is paused stays so.
	Pause(ctx context.Context) error
	// Unpause opens the image of that name ("" is the one as before) and lets
	// the requests go on. When it fails the disk stays paused, and Unpause may
	// be called again. One that isn't paused is blockdev.ErrNotPaused.
	Unpause(ctx context.Context, name string) error
	// Stats are the figures since it was opened.
	Stats() blktap.Stats
	// Close takes the block device away, flushes, and closes the image; when
	// it returns nil all of it is done. While a program has the block device
	// open the error wraps frontend.ErrBusy, and the disk goes on.
	Close(ctx context.Context) error
}

// stateResumeFailed is a paused disk whose image could not be opened again.
const stateResumeFailed = tapctl.StatePaused | 0x200

// LiveOptions say what a livedisk.Disk doesn't.
type LiveOptions struct {
	Raw      bool   // as it was opened
	ReadOnly bool   // likewise
	WorkDir  string // that a relative path of the image is seen from
	// Close is Disk.Close.
	Close func(ctx context.Context) error
}

// Live is the Disk of an image and the session that shows it.
func Live(disk *livedisk.Disk, session *blktap.Session, o LiveOptions) Disk {
	return &live{disk: disk, session: session, LiveOptions: o}
}

type live struct {
	disk    *livedisk.Disk
	session *blktap.Session
	LiveOptions
}

func (l *live) kind() string {
	if l.Raw {
		return kindRaw
	}
	return kindVHD
}

func (l *live) Name() string {
	path := l.disk.Path()
	if !filepath.IsAbs(path) {
		path = filepath.Join(l.WorkDir, path)
	}
	return l.kind() + ":" + path
}

func (l *live) Size() int64    { return l.disk.Device().Size() }
func (l *live) ReadOnly() bool { return l.LiveOptions.ReadOnly }

func (l *live) State() tapctl.State {
	switch {
	case !l.disk.Paused():
		return tapctl.StateRunning
	case l.disk.Trouble() != nil:
		return stateResumeFailed
	default:
		return tapctl.StatePaused
	}
}

func (l *live) Pause(ctx context.Context) error { return Pause(ctx, l.disk) }

// Pause pauses a disk for a message, or for the module. One that is paused so
// already stays so; one that another has paused is livedisk.ErrHeld.
func Pause(ctx context.Context, disk *livedisk.Disk) error {
	if err := disk.Pause(ctx, livedisk.ByMessage); err != nil && !errors.Is(err, blockdev.ErrPaused) {
		return err
	}
	return nil
}

// Resume has a disk go on for the module, which may find that a message has
// done so.
func Resume(ctx context.Context, disk *livedisk.Disk) error {
	if err := disk.Unpause(ctx, livedisk.ByMessage, "", nil); err != nil && !errors.Is(err, blockdev.ErrNotPaused) {
		return err
	}
	return nil
}

func (l *live) Unpause(ctx context.Context, name string) error {
	path := ""
	if name != "" {
		kind, p, err := parseName(name)
		if err != nil {
			return err
		}
		if kind != l.kind() {
			return refuse(unix.EINVAL, "%s: the disk was opened as %s, and stays one", name, l.kind())
		}
		path = p
	}
	return l.disk.Unpause(ctx, livedisk.ByMessage, path, nil)
}

func (l *live) Stats() blktap.Stats { return l.session.Stats() }

func (l *live) Close(ctx context.Context) error { return l.LiveOptions.Close(ctx) }

// parseName takes "vhd:/path" apart.
func parseName(name string) (kind, path string, err error) {
	kind, path, found := strings.Cut(name, ":")
	switch {
	case !found || path == "":
		return "", "", refuse(unix.EINVAL, "%q names no image: want vhd:PATH or aio:PATH", name)
	case kind != kindVHD && kind != kindRaw:
		return "", "", refuse(unix.EINVAL, "%q: images of kind %q are not known: want vhd:PATH or aio:PATH", name, kind)
	}
	return kind, path, nil
}

// busyRetry is how often a close is tried again while it may yet succeed.
const busyRetry = 200 * time.Millisecond
