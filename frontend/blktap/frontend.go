package blktap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend"
)

// DefaultPhysicalSectorSize is what Options.PhysicalSectorSize is by default,
// in bytes.
const DefaultPhysicalSectorSize = 4096

// Options say how a disk is shown.
type Options struct {
	// Driver is the module; nil: System, the kernel's.
	Driver Driver
	// Tap is a minor that is allocated already, and stays so after the
	// session. Nil: a new one for each disk, freed after its session.
	Tap *Tap
	// Ring is a minor whose ring is mapped already: for one disk, which takes
	// it over. Its minor stays allocated after the session. It goes before Tap.
	Ring *MappedRing
	// ReadOnly makes a block device that can't be written to. Writes that get
	// through all the same are refused.
	ReadOnly bool
	// PhysicalSectorSize is the unit, in bytes, that the block device's users
	// are told to write in, and to discard in: a power of two, at least 512.
	// 0: DefaultPhysicalSectorSize.
	PhysicalSectorSize int
	// LockMemory locks all memory of the process, for good, before a block
	// device exists, and has the kernel find more of it without writing any
	// out. Whoever serves the swap or the root device needs it, and should bound
	// Go's heap (debug.SetMemoryLimit); the image then needs all of its blocks.
	LockMemory bool
	// Pause is called when the module asks for a pause, after the disk was
	// flushed and while none of its requests is under way; Resume when it asks
	// to go on. An errno in Resume's error is what the asker gets; the disk
	// then stays paused. Both may be nil.
	Pause, Resume func() error
	// Log gets what goes wrong, within bounds. Nil: none.
	Log *slog.Logger
}

// Frontend shows disks as block devices of the blktap module. It is safe for
// concurrent use.
type Frontend struct {
	options Options
}

var _ frontend.Frontend = (*Frontend)(nil)

// New returns a Frontend that shows disks as o says. With o.Tap it shows one
// at a time; a second is ErrMinorInUse.
func New(o Options) *Frontend {
	if o.Driver == nil {
		o.Driver = System()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PhysicalSectorSize == 0 {
		o.PhysicalSectorSize = DefaultPhysicalSectorSize
	}
	return &Frontend{options: o}
}

// Attach implements frontend.Frontend; the session is a *Session. Its errors
// wrap ErrNoModule, ErrMinorInUse, ErrNoMinor, ErrMemoryLock or
// fs.ErrPermission where these apply. The process must not fork afterwards:
// become a daemon first.
func (f *Frontend) Attach(ctx context.Context, dev blockdev.Device) (frontend.Session, error) {
	o := f.options
	info := deviceInfo{
		capacity: uint64(dev.Size()) / sectorSize,
		physical: uint32(o.PhysicalSectorSize),
		readOnly: o.ReadOnly,
	}
	if o.ReadOnly {
		dev = blockdev.ReadOnly(dev)
	} else {
		_, info.trim = dev.(blockdev.Discarder)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Ring != nil {
		s, err := attach(&o, o.Ring.tap, dev, info)
		return sessionOrNil(s, err)
	}
	if o.Tap != nil {
		s, err := attach(&o, *o.Tap, dev, info)
		return sessionOrNil(s, err)
	}
	tap, err := o.Driver.Allocate()
	if err != nil {
		return nil, err
	}
	s, err := attach(&o, tap, dev, info)
	if err != nil {
		err = errors.Join(err, o.Driver.Free(tap))
	}
	return sessionOrNil(s, err)
}

// sessionOrNil keeps a nil *Session from being an interface that isn't nil.
func sessionOrNil(s *Session, err error) (frontend.Session, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// port is the ring of tap, mapped.
func (o *Options) port(tap Tap) (Port, error) {
	if o.Ring != nil {
		return o.Ring.take()
	}
	return o.Driver.Open(tap)
}

// attach serves dev on tap, which stays allocated on error.
func attach(o *Options, tap Tap, dev blockdev.Device, info deviceInfo) (*Session, error) {
	// What a killed server has left in the page cache shows again, and is not
	// stable. Where the ring has no flush, the guest has no way to ask for that.
	if err := dev.Flush(); err != nil {
		return nil, fmt.Errorf("flush before the disk is shown: %w", err)
	}
	if o.LockMemory { // now that there is a module, and before there is a device
		if err := lockMemory(); err != nil {
			return nil, err
		}
	}
	port, err := o.port(tap)
	if err != nil {
		return nil, err
	}
	server, err := newServer(port, dev, info, o)
	if err != nil {
		return nil, errors.Join(err, port.Close())
	}
	s := &Session{
		tap: tap, driver: o.Driver, server: server, dev: dev,
		free: o.Tap == nil && o.Ring == nil, done: make(chan struct{}),
	}
	created := make(chan error, 1)
	go s.serve(created)
	if err := <-created; err != nil {
		<-s.done
		return nil, fmt.Errorf("%s: %w", tap.Path, err)
	}
	if server.features.writable {
		o.Log.Warn("blktap: this module has no read-only block devices: writes will fail", "disk", tap.Path)
	}
	if !server.features.flush {
		o.Log.Info("blktap: this module's ring has no flush: every write is made stable before it is answered", "disk", tap.Path)
	}
	return s, nil
}
