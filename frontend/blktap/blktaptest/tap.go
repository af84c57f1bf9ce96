package blktaptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// request is what the block layer queues: data of a guest, or a slot that a
// test made up.
type request struct {
	op      uint8
	sector  uint64
	data    []byte // of the guest, whole sectors
	first   int    // sector in the first page at which the data begins
	trim    uint64 // sectors
	raw     *Slot
	id      int
	pages   int
	status  int16
	done    chan struct{} // has room for one
	next    *request      // in the queue, or free
	sibling *request      // of the same call
}

// gendisk is the block device of a minor.
type gendisk struct {
	capacity uint64 // sectors
	physical uint32 // bytes
	flags    uint64
}

// tap is a minor.
type tap struct {
	k     *Kernel
	minor int
	path  string
	kick  chan struct{} // has room for one: something happened that a poll wants to know

	// mu guards the fields below. Under it, only Kernel.mu is locked.
	mu       sync.Mutex
	changed  *sync.Cond // pending, port, paused
	sched    *scheduler
	port     *port
	disk     *gendisk
	openers  int
	hidden   bool
	shutdown bool // FREE_TAP came while the ring was open
	closed   bool // the block device was closed for the last time, and no poll said so

	queued  request // head of the queue
	tail    *request
	length  int
	unused  *request // requests to be used again
	pending [ringSize]*request
	count   int        // of pending
	raw     []*request // on the ring at an id that is not theirs
	held    []*request // completed, and the guest does not know
	stopped bool
	paused  bool
	resumed int // what the server said to RESUME; -1 before it did

	prod, cons uint32 // requests put on the ring, responses consumed
	lie        int32  // added to what the ring says of prod
}

func newTap(k *Kernel, minor int) *tap {
	t := &tap{k: k, minor: minor, path: fmt.Sprintf("/dev/xen/blktap-2/tapdev%d", minor),
		kick: make(chan struct{}, 1), sched: k.newScheduler(minor)}
	t.changed = sync.NewCond(&t.mu)
	t.tail = &t.queued
	return t
}

func (t *tap) wakePoll() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// open is the ring node's open and mmap.
func (t *tap) open() (*port, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shutdown {
		return nil, blktap.ErrNoMinor
	}
	if t.port != nil {
		return nil, blktap.ErrMinorInUse
	}
	p, err := newPort(t)
	if err != nil {
		return nil, err
	}
	t.port, t.prod, t.cons = p, 0, 0
	return p, nil
}

// free is FREE_TAP. It returns false if the ring is open.
func (t *tap) free() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.port == nil {
		return true
	}
	if t.k.variant != OpenXT {
		return false
	}
	for t.count > 0 && t.port != nil {
		t.changed.Wait()
	}
	if t.port == nil {
		return true
	}
	t.shutdown = true
	t.say(messageClose)
	return false
}

// say puts a message on the ring page. t.mu is held.
func (t *tap) say(m byte) {
	var b [4]byte
	b[0] = m
	atomic.StoreUint32(t.port.word(atMessage), binary.NativeEndian.Uint32(b[:]))
	t.wakePoll()
}

// enqueue puts a request in the queue. t.mu is held.
func (t *tap) enqueue(r *request) {
	r.next = nil
	t.tail.next = r
	t.tail = r
	t.length++
}

// dequeue takes a request out of the queue: the first or, by the scheduler,
// any. t.mu is held.
func (t *tap) dequeue() *request {
	before := &t.queued
	for range t.sched.pick(min(t.length, 8)) {
		before = before.next
	}
	r := before.next
	before.next = r.next
	if t.tail == r {
		t.tail = before
	}
	t.length--
	return r
}

// poll moves requests onto the ring, as the module does in poll alone, and
// tells whether the ring node is readable. t.mu is held.
func (t *tap) poll() bool {
	t.release()
	for t.length > 0 && !t.stopped && t.prod-t.cons < ringSize && t.count < ringSize {
		if t.sched.chance(4) {
			t.wakePoll() // the rest comes late
			break
		}
		t.submit(t.dequeue())
	}
	published := atomic.LoadUint32(t.port.word(atReqProd))
	produced := t.prod + uint32(t.lie)
	atomic.StoreUint32(t.port.word(atReqProd), produced)
	work := published != produced
	if t.k.variant == OpenXT {
		// Not what is new: what is unanswered.
		work = atomic.LoadUint32(t.port.word(atRspProd)) != produced
	}
	closed := t.closed
	t.closed = false
	return work || t.port.mem[atMessage] != 0 || closed
}

// submit puts a request on the ring. t.mu is held.
func (t *tap) submit(r *request) {
	b := t.port.mem[atSlots+int(t.prod%ringSize)*slotSize:][:slotSize]
	clear(b)
	t.prod++
	if r.raw != nil {
		t.submitRaw(r, b)
		return
	}
	r.id = t.freeID()
	t.pending[r.id] = r
	t.count++
	n := len(r.data) / sectorSize
	r.pages = (r.first + n + pageSectors - 1) / pageSectors
	b[0], b[1] = r.op, byte(r.pages)
	binary.NativeEndian.PutUint64(b[8:], uint64(r.id))
	binary.NativeEndian.PutUint64(b[16:], r.sector)
	if r.op == opTrim {
		binary.NativeEndian.PutUint64(b[24:], r.trim)
		return
	}
	for i := range r.pages {
		first, last := 0, pageSectors-1
		if i == 0 {
			first = r.first
		}
		if i == r.pages-1 {
			last = (r.first + n - 1) % pageSectors
		}
		b[24+8*i+4], b[24+8*i+5] = byte(first), byte(last)
	}
	t.port.mapPages(r.id, r.pages)
	if r.op == opWrite {
		copy(t.port.data(r), r.data)
	}
}

// freeID is the lowest id that is not pending or, by the scheduler, any.
// t.mu is held.
func (t *tap) freeID() int {
	at := t.sched.pick(ringSize)
	for t.pending[at] != nil {
		at = (at + 1) % ringSize
	}
	return at
}

// respond consumes responses. t.mu is held.
func (t *tap) respond() {
	produced := atomic.LoadUint32(t.port.word(atRspProd))
	if produced-t.cons > t.prod-t.cons {
		t.k.violation("%d responses to %d requests", produced, t.prod)
		return
	}
	for ; t.cons != produced; t.cons++ {
		b := t.port.mem[atSlots+int(t.cons%ringSize)*slotSize:][:slotSize]
		id, op := binary.NativeEndian.Uint64(b), b[8]
		status := int16(binary.NativeEndian.Uint16(b[10:]))
		if id < ringSize && t.pending[id] != nil && t.pending[id].op == op {
			t.end(t.pending[id], status)
		} else if !t.endRaw(id, op, status) {
			t.k.violation("response %d to id %d, operation %d, which is not pending", status, id, op)
		}
	}
	t.changed.Broadcast()
}

// end unmaps and completes a pending request. t.mu is held.
func (t *tap) end(r *request, status int16) {
	if r.op == opRead && status == 0 && r.raw == nil {
		copy(r.data, t.port.data(r))
	}
	t.port.unmapPages(r.id, r.pages)
	t.pending[r.id] = nil
	t.count--
	t.complete(r, status)
}

// complete tells the guest, now or at the next poll. t.mu is held.
func (t *tap) complete(r *request, status int16) {
	r.status = status
	if t.sched.chance(3) {
		t.held = append(t.held, r)
		t.wakePoll()
		return
	}
	r.done <- struct{}{}
}

// release completes what is held, in any order. t.mu is held.
func (t *tap) release() {
	for n := len(t.held); n > 0; n-- {
		i := t.sched.pick(n)
		t.held[i].done <- struct{}{}
		t.held[i] = t.held[n-1]
	}
	t.held = t.held[:0]
}

// failAll ends all requests as a ring that is closed does. t.mu is held.
func (t *tap) failAll() {
	for _, r := range t.pending {
		if r != nil {
			t.end(r, -1)
		}
	}
	for _, r := range t.raw {
		t.complete(r, -1)
	}
	t.raw = nil
	for t.length > 0 {
		t.complete(t.dequeue(), -1)
	}
	t.release()
}

// get is an unused request. t.mu is held.
func (t *tap) get() *request {
	r := t.unused
	if r == nil {
		return &request{done: make(chan struct{}, 1)}
	}
	t.unused = r.next
	*r = request{done: r.done}
	return r
}

// put gives a request back. t.mu is held.
func (t *tap) put(r *request) { r.next, t.unused = t.unused, r }

// createDevice is CREATE_DEVICE once its argument was read. t.mu is held.
func (t *tap) createDevice(d gendisk) error {
	if t.disk != nil {
		return unix.EEXIST
	}
	if d.capacity == 0 || d.physical < sectorSize || d.physical&(d.physical-1) != 0 {
		return unix.EINVAL
	}
	t.disk = &d
	return nil
}

var poisoned = bytes.Repeat([]byte{0xdb}, pageSize)

var garbage = bytes.Repeat([]byte{0xa5}, pageSize)

// word is a shared u32.
func (p *port) word(at int) *uint32 { return (*uint32)(unsafe.Pointer(&p.mem[at])) }
