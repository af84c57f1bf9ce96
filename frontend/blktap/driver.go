package blktap

import (
	"errors"
	"time"
)

// What Attach and a Driver may fail with beside errors of the system.
var (
	// ErrNoModule is no blktap module in this kernel.
	ErrNoModule = errors.New("the blktap module is not loaded")
	// ErrMinorInUse is a minor whose ring another process has open.
	ErrMinorInUse = errors.New("another process serves this minor")
	// ErrNoMinor is a minor that is not allocated.
	ErrNoMinor = errors.New("no such minor")
	// ErrMemoryLock is memory that could not be locked.
	ErrMemoryLock = errors.New("memory can't be locked")
)

// Tap is an allocated minor.
type Tap struct {
	Minor       int
	RingMajor   int
	DeviceMajor int
	Path        string // of the block device
}

// Driver is the module's side that belongs to no ring. It is safe for
// concurrent use. System returns the kernel's; blktaptest.Kernel is another.
type Driver interface {
	// Allocate takes a free minor and makes its nodes. Errors: ErrNoModule,
	// fs.ErrPermission, ENOMEM where all minors are taken.
	Allocate() (Tap, error)
	// Free gives a minor back and takes its nodes away. A minor that is not
	// allocated is ErrNoMinor; EBUSY where its ring is still open.
	Free(tap Tap) error
	// Find is the minor of that number, as its nodes tell. One without is
	// ErrNoMinor; a minor with nodes may still not be allocated any more, which
	// Open finds out.
	Find(minor int) (Tap, error)
	// Open opens and maps the ring of a minor. One that is open already is
	// ErrMinorInUse, one that is not allocated ErrNoMinor.
	Open(tap Tap) (Port, error)
	// Served tells whether a process has the ring of a minor open; ErrNoMinor
	// where it is not allocated. Who only wants to know must not try Open: where
	// a server died, the module looks every few seconds whether its block device
	// is closed by now, and that of openxt crashes the kernel if the ring was
	// opened meanwhile.
	Served(tap Tap) (bool, error)
	// Hide takes the block device's node away, so that nobody finds it.
	Hide(tap Tap) error
	// Holders are the programs and mounts that have the block device open, one
	// line each, as far as that can be found out.
	Holders(tap Tap) []string
}

// Events are what a Wait may end for.
type Events uint8

const (
	// EventRing: the module has requests or a message, or its block device was
	// closed for the last time, or it only says so.
	EventRing Events = 1 << iota
	// EventWake: somebody called Wake.
	EventWake
)

// Port is an open ring. One goroutine calls its methods, except for Wake. The
// errors of those that are ioctls are the bare errnos.
type Port interface {
	// Bind comes before all other calls but Memory, from the goroutine that
	// will make them. Where it matters it locks that to its thread, until Close.
	Bind()
	// Memory is the MemorySize bytes that are shared with the module, until
	// Close. The pages of a request are there from its appearance on the ring
	// until Respond consumed its response: touching them at another time is
	// SIGBUS.
	Memory() []byte
	// CreateDevice is ioctl 208, with the 56 bytes of a device info, into which
	// some modules write.
	CreateDevice(info []byte) error
	// CreateDeviceCompat is ioctl 202, with 272 bytes of parameters.
	CreateDeviceCompat(params []byte) error
	// RemoveDevice is ioctl 207: EBUSY while the block device is open.
	RemoveDevice() error
	// Respond is ioctl 1: the module consumes the published responses.
	Respond() error
	// Paused is ioctl 204, the answer to the message PAUSE.
	Paused() error
	// Resumed is ioctl 206, the answer to the message RESUME: errno 0, or why
	// the disk stays paused.
	Resumed(errno int) error
	// Wait sleeps until one of the events on happens or timeout has passed; a
	// negative one never passes. Waiting for EventRing lets the module move
	// requests onto the ring: it does that at no other time.
	Wait(on Events, timeout time.Duration) (Events, error)
	// Wake makes a Wait return, this or the next. Any goroutine may call it,
	// after Close too.
	Wake()
	// Close unmaps and closes the ring; the module fails what is pending.
	Close() error
}
