package blktap

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// systemPort is an open ring node of the kernel's module. Its descriptor is
// nobody's but its own: Go's netpoller would poll it from another thread, and
// with that move requests onto the ring.
type systemPort struct {
	fd    int
	mem   []byte
	bound bool
	poll  [2]unix.PollFd // the eventfd, the ring
	wait  unix.Timespec
	word  [8]byte // what is read from the eventfd

	// mu guards event and one: Wake may be called after Close. It is a leaf.
	mu    sync.Mutex
	event int // eventfd; -1 after Close
	one   [8]byte
}

var _ Port = (*systemPort)(nil)

// openPort opens and maps a ring node.
func openPort(name string) (*systemPort, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	p := &systemPort{fd: fd, event: -1}
	if p.mem, err = unix.Mmap(fd, 0, MemorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, errors.Join(fmt.Errorf("mmap: %w", err), p.Close())
	}
	if err := p.openEvent(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *systemPort) openEvent() error {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	p.event = event
	p.one[0], p.one[7] = 1, 1 // not zero in either byte order
	p.poll = [2]unix.PollFd{{Fd: int32(event), Events: unix.POLLIN}, {Fd: int32(p.fd), Events: unix.POLLIN}}
	return nil
}

func (p *systemPort) Memory() []byte { return p.mem }

// Bind keeps the calls on one thread: the module remembers who opened and
// mapped the ring, and a thread that sleeps in poll is one that another
// goroutine does not have to leave.
func (p *systemPort) Bind() {
	runtime.LockOSThread()
	p.bound = true
}

func (p *systemPort) CreateDevice(info []byte) error {
	return ioctlPointer(p.fd, ioctlCreateDevice, info)
}

func (p *systemPort) CreateDeviceCompat(params []byte) error {
	return ioctlPointer(p.fd, ioctlCreateDeviceCompat, params)
}

func (p *systemPort) RemoveDevice() error { return ioctlValue(p.fd, ioctlRemoveDevice, 0) }

func (p *systemPort) Respond() error { return ioctlValue(p.fd, ioctlRespond, 0) }

func (p *systemPort) Paused() error { return ioctlValue(p.fd, ioctlPause, 0) }

func (p *systemPort) Resumed(errno int) error { return ioctlValue(p.fd, ioctlResume, uintptr(errno)) }

// errHangup is a ring that the module no longer serves.
var errHangup = errors.New("the module hung up")

func (p *systemPort) Wait(on Events, timeout time.Duration) (Events, error) {
	fds := p.poll[:1]
	if on&EventRing != 0 {
		fds = p.poll[:]
	}
	p.poll[0].Revents, p.poll[1].Revents = 0, 0
	var limit *unix.Timespec
	if timeout >= 0 {
		p.wait = unix.NsecToTimespec(int64(timeout))
		limit = &p.wait
	}
	if _, err := unix.Ppoll(fds, limit, nil); err != nil {
		return 0, err
	}
	var got Events
	if p.poll[0].Revents != 0 {
		got |= EventWake
		// What it holds does not matter. It can't fail but for another reader.
		_, _ = unix.Read(int(p.poll[0].Fd), p.word[:])
	}
	if r := p.poll[1].Revents; r&unix.POLLIN != 0 {
		got |= EventRing
	} else if r != 0 {
		return got, fmt.Errorf("%w (%#x)", errHangup, r)
	}
	return got, nil
}

func (p *systemPort) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event >= 0 {
		// It can only fail if the counter is full, and then Wait returns too.
		_, _ = unix.Write(p.event, p.one[:])
	}
}

// Close unmaps first: the module fails what is pending when the mapping goes,
// and lets go of the ring when the descriptor does.
func (p *systemPort) Close() error {
	if p.bound {
		defer runtime.UnlockOSThread()
	}
	var err error
	if p.mem != nil {
		err = unix.Munmap(p.mem)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event >= 0 {
		err = errors.Join(err, unix.Close(p.event))
		p.event = -1
	}
	return errors.Join(err, unix.Close(p.fd))
}
