package blktaptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// port is an open and mapped ring.
type port struct {
	t      *tap
	mem    []byte
	wake   chan struct{} // has room for one
	timer  *time.Timer
	thread atomic.Int32 // that makes the calls; 0 before the first
	bound  bool
	polls  atomic.Uint64
	closed bool // guarded by t.mu
}

var _ blktap.Port = (*port)(nil)

// newPort maps the shared memory. t.mu is held.
func newPort(t *tap) (*port, error) {
	p := &port{t: t, wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	if !t.k.guard {
		p.mem = make([]byte, memorySize)
		for page := pageSize; page < memorySize && !t.k.unchecked; page += pageSize {
			copy(p.mem[page:], poisoned)
		}
		return p, nil
	}
	var err error
	p.mem, err = unix.Mmap(-1, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return p, p.protect(p.mem[pageSize:], unix.PROT_NONE)
}

func (p *port) protect(b []byte, prot int) error {
	if err := unix.Mprotect(b, prot); err != nil {
		return fmt.Errorf("mprotect: %w", err)
	}
	return nil
}

// pages is the memory of the first n segments of a request id.
func (p *port) pages(id, n int) []byte {
	return p.mem[pageSize+id*segmentMax*pageSize:][:n*pageSize]
}

// data is where a request's data lies in its pages: one run, since all of its
// segments but the first begin with their page.
func (p *port) data(r *request) []byte {
	return p.pages(r.id, r.pages)[r.first*sectorSize:][:len(r.data)]
}

// mapPages gives a request its pages, which hold something that a read must
// replace. t.mu is held.
func (p *port) mapPages(id, n int) {
	b := p.pages(id, n)
	if p.t.k.guard && n > 0 {
		if err := p.protect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			p.t.k.violation("%v", err)
		}
	}
	for ; len(b) > 0 && !p.t.k.unchecked; b = b[pageSize:] {
		if !p.t.k.guard {
			p.checkPoison(b[:pageSize])
		}
		copy(b, garbage)
	}
}

// unmapPages takes a request's pages away. The race detector takes the write
// of the poison for what it stands for. t.mu is held.
func (p *port) unmapPages(id, n int) {
	b := p.pages(id, n)
	if p.t.k.guard && n > 0 {
		if err := p.protect(b, unix.PROT_NONE); err != nil {
			p.t.k.violation("%v", err)
		}
		return
	}
	for ; len(b) > 0 && !p.t.k.unchecked; b = b[pageSize:] {
		copy(b, poisoned)
	}
}

// checkPoison checks that nobody wrote to a page that was not mapped.
func (p *port) checkPoison(page []byte) {
	if !bytes.Equal(page, poisoned) {
		p.t.k.violation("a segment page was written to after its request was answered")
	}
}

// enter begins a system call: it checks that one thread makes all of them.
func (p *port) enter(c Call) error {
	if !p.t.k.unchecked {
		self := int32(unix.Gettid())
		if !p.thread.CompareAndSwap(0, self) && p.thread.Load() != self {
			p.t.k.violation("thread %d makes a system call on the ring of thread %d", self, p.thread.Load())
		}
	}
	return p.t.k.failure(c)
}

// Bind implements blktap.Port.
func (p *port) Bind() {
	if !p.t.k.unchecked {
		runtime.LockOSThread()
		p.bound = true
	}
}

// Memory implements blktap.Port.
func (p *port) Memory() []byte { return p.mem }

// CreateDevice implements blktap.Port. XenServer's module reads all 56 bytes
// and writes nothing back; the others read as much as the flags ask for and
// write back those that they know, whether the device can be made or not.
func (p *port) CreateDevice(info []byte) error {
	if err := p.enter(CallCreateDevice); err != nil {
		return err
	}
	if len(info) < 56 || binary.NativeEndian.Uint32(info[8:]) != sectorSize {
		return unix.EINVAL
	}
	mask := p.t.k.variant.mask()
	flags := binary.NativeEndian.Uint64(info[16:])
	d := gendisk{capacity: binary.NativeEndian.Uint64(info), flags: flags & mask, physical: sectorSize}
	if p.t.k.variant == XenServer {
		d.physical = binary.NativeEndian.Uint32(info[12:])
	} else {
		if flags&flagPSZ != 0 {
			d.physical = binary.NativeEndian.Uint32(info[24:])
		}
		binary.NativeEndian.PutUint64(info[16:], flags&mask)
		if trim := binary.NativeEndian.Uint32(info[32:]); flags&flagTrim != 0 && (trim < sectorSize || trim&(trim-1) != 0) {
			return unix.EINVAL
		}
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.t.createDevice(d)
}

// CreateDeviceCompat implements blktap.Port.
func (p *port) CreateDeviceCompat(params []byte) error {
	if err := p.enter(CallCreateDeviceCompat); err != nil {
		return err
	}
	if len(params) != 272 || binary.NativeEndian.Uint64(params[264:]) != sectorSize {
		return unix.EINVAL
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.t.createDevice(gendisk{capacity: binary.NativeEndian.Uint64(params[256:]), physical: sectorSize})
}

// RemoveDevice implements blktap.Port.
func (p *port) RemoveDevice() error {
	if err := p.enter(CallRemoveDevice); err != nil {
		return err
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if p.t.disk == nil {
		return nil
	}
	if p.t.openers > 0 {
		return unix.EBUSY
	}
	if p.t.count > 0 {
		p.t.k.violation("the block device is removed while %d requests are pending: the call would never return", p.t.count)
	}
	p.t.disk = nil
	return nil
}

// Respond implements blktap.Port.
func (p *port) Respond() error {
	if err := p.enter(CallRespond); err != nil {
		return err
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.t.respond()
	return nil
}

// Paused implements blktap.Port.
func (p *port) Paused() error {
	if err := p.enter(CallPaused); err != nil {
		return err
	}
	return p.t.answered(func(t *tap) { t.paused = true })
}

// Resumed implements blktap.Port.
func (p *port) Resumed(errno int) error {
	if err := p.enter(CallResumed); err != nil {
		return err
	}
	return p.t.answered(func(t *tap) { t.resumed, t.paused = errno, errno != 0 })
}

// Wait implements blktap.Port.
func (p *port) Wait(on blktap.Events, timeout time.Duration) (blktap.Events, error) {
	if err := p.enter(CallWait); err != nil {
		return 0, err
	}
	var expired <-chan time.Time
	if timeout > 0 {
		p.timer.Reset(timeout)
		defer p.timer.Stop()
		expired = p.timer.C
	}
	for {
		got := p.ready(on)
		if got != 0 || timeout == 0 {
			return got, nil
		}
		kick := p.t.kick
		if on&blktap.EventRing == 0 {
			kick = nil
		}
		select {
		case <-p.wake:
			return got | blktap.EventWake, nil
		case <-kick:
		case <-expired:
			return got, nil
		}
	}
}

// ready is the events that have happened.
func (p *port) ready(on blktap.Events) (got blktap.Events) {
	if on&blktap.EventRing != 0 {
		p.polls.Add(1)
		p.t.mu.Lock()
		if p.t.poll() {
			got |= blktap.EventRing
		}
		p.t.mu.Unlock()
	}
	select {
	case <-p.wake:
		got |= blktap.EventWake
	default:
	}
	return got
}

// Wake implements blktap.Port.
func (p *port) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close implements blktap.Port.
func (p *port) Close() error {
	if p.bound {
		defer runtime.UnlockOSThread()
	}
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.closed {
		t.k.violation("a ring is closed twice")
		return unix.EBADF
	}
	p.closed = true
	t.failAll()
	t.port, t.disk, t.lie = nil, nil, 0
	t.changed.Broadcast()
	if t.shutdown {
		t.k.forget(t.minor)
	}
	if t.k.guard {
		return unix.Munmap(p.mem)
	}
	for page := pageSize; page < memorySize && !t.k.unchecked; page += pageSize {
		p.checkPoison(p.mem[page:][:pageSize])
	}
	return nil
}
