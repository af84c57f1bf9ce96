package fuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
	"github.com/vhdmount/vhdmount/frontend"
)

// What Attach and Unmount may fail with beside errors of the system.
var (
	// ErrMountpoint is a mount point that can't be used: it is missing, not
	// empty, neither a directory nor a regular file, or mounted already; for
	// Unmount, one where nothing of this package is mounted.
	ErrMountpoint = errors.New("unsuitable mount point")
	// ErrNoFuse is no FUSE for this user: /dev/fuse is missing or closed, or
	// the system's configuration forbids what was asked for. The message says
	// what an administrator must do.
	ErrNoFuse = errors.New("FUSE is not available")
	// ErrNoFusermount is no program to mount with for one who may not.
	ErrNoFusermount = errors.New("neither fusermount3 nor fusermount is installed")
)

// Options say where and how a disk is shown.
type Options struct {
	// Mountpoint is an existing empty directory, which shows disk.raw, p1.raw
	// … and info.json, or an existing regular file, which becomes the disk.
	Mountpoint string
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// AllowOther lets every user in, as far as the permission bits do.
	// Without it the mounting user alone is let in, not even root.
	AllowOther bool
	// AllowRoot lets root in beside the mounting user. Together with
	// AllowOther it changes nothing.
	AllowRoot bool
	// DefaultPermissions is mount(8)'s word for having the kernel check
	// permission bits. It always does here.
	DefaultPermissions bool
	// UID and GID own what is shown. Nil is the mounting process's own.
	UID, GID *uint32
	// Umask has the permission bits that files don't get of 0666, and the
	// directory of 0555. Nil is 0077, so that the owner alone may enter; with
	// AllowOther it is 0022, so that the others may read.
	Umask *fs.FileMode
	// FSName is the first column of the mount table; "vhdmount" if empty.
	FSName string
	// Info makes the contents of info.json, anew at each opening and each
	// look at its size. Nil: the size of the disk and how much of it is
	// allocated. It must be safe for concurrent use.
	Info func() []byte
	// Partitions reads the partition table; nil: partition.Read.
	Partitions func(blockdev.Device) ([]partition.Partition, error)
	// Threads is how many threads take requests at a time while none of them
	// waits for a disk; 0: chosen.
	Threads int
	// Unsettled leaves it to another process to call Place.Settle before anybody
	// uses the disk.
	Unsettled bool
	// Log gets a line for each failed request, within bounds. Nil: none.
	Log *slog.Logger
}

// Frontend shows disks through FUSE. It is safe for concurrent use.
type Frontend struct {
	options Options
}

var _ frontend.Frontend = (*Frontend)(nil)

// New returns a Frontend that shows disks as o says. One mount point holds one
// disk: a second Attach while the first is there is ErrMountpoint.
func New(o Options) *Frontend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FSName == "" {
		o.FSName = "vhdmount"
	}
	if o.Partitions == nil {
		o.Partitions = partition.Read
	}
	return &Frontend{options: o}
}

// Attach implements frontend.Frontend. Its errors wrap ErrMountpoint,
// ErrNoFuse or ErrNoFusermount where these apply.
func (f *Frontend) Attach(ctx context.Context, dev blockdev.Device) (frontend.Session, error) {
	o := f.options
	if o.Info == nil {
		o.Info = func() []byte { return deviceInfo(dev) }
	}
	mnt, err := findMountpoint(o.Mountpoint)
	if err != nil {
		return nil, err
	}
	files := newFilesystem(&o, dev, mnt.file)
	if o.AllowRoot && !o.AllowOther {
		files.deny, files.onlyUID = true, uint32(os.Geteuid())
	}
	fd, err := mount(ctx, mnt, &o)
	if err != nil {
		return nil, err
	}
	s, err := startSession(ctx, mnt, files, newDev(fd, o.Threads, o.Log))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", mnt.path, err)
	}
	if !o.Unsettled {
		s.Place().Settle()
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", mnt.path, errors.Join(err, s.abandon()))
	}
	return s, nil
}

// newServer is go-fuse's protocol over files, with what INIT negotiates.
func newServer(files *filesystem) *fuse.ProtocolServer {
	return fuse.NewProtocolServer(files, &fuse.MountOptions{
		Name:     "vhdmount",
		MaxWrite: maxWrite, // and MAX_PAGES, 256 of them
		// Without ASYNC_DIO a client's queued direct reads go one by one. With
		// ABORT_ERROR a connection that was cut can be told from an unmount.
		ExtraCapabilities:    fuse.CAP_ASYNC_DIO | fuse.CAP_ABORT_ERROR,
		DisabledCapabilities: fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH,
		DisableReadDirPlus:   true,
		MaxBackground:        maxBackground,
		CongestionThreshold:  maxBackground * 3 / 4,
		// The kernel would drop all pages whenever the time of the last
		// change, which is the disk's and not the file's, moves on.
		ExplicitDataCacheControl: true,
		// ENOSYS, once: the kernel asks for an attribute before each write
		// otherwise.
		DisableXAttrs: true,
		PanicHandler:  files.panicked,
		Logger:        slog.NewLogLogger(files.log.Handler(), slog.LevelDebug),
	})
}

// maxBackground is how many requests that no thread of a client waits for
// (readahead, asynchronous direct I/O) the kernel has under way at a time.
const maxBackground = 256

// deviceInfo is info.json where nobody else makes it.
func deviceInfo(dev blockdev.Device) []byte {
	info := struct {
		Size      int64 `json:"size"`
		Allocated int64 `json:"allocated"`
	}{dev.Size(), blockdev.Allocated(dev)}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		panic(err) // two numbers always marshal
	}
	return append(b, '\n')
}
