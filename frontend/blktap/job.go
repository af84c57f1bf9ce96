package blktap

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"unsafe"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	// workerCount is how many requests the device sees at a time: all that a
	// ring has.
	workerCount = ringSlots
	// mergeMax bounds the bytes of requests that become one call of the
	// device. Each worker has a buffer of that size.
	mergeMax = 256 << 10
	// jobCount is one job for each request, one flush that makes writes
	// stable, and one that a message asked for.
	jobCount = ringSlots + 2
)

// task is what a worker does.
type task uint8

const (
	taskRequests   task = iota // of one operation, adjacent
	taskWriteFlush             // makes writes stable that were done
	taskPause
	taskResume
)

// entry is a request in flight. Its worker has it, and the ring's pages of its
// id, from dispatch until the job is done.
type entry struct {
	request
	taken bool
	at    int64  // ns since the server began
	next  *entry // of the same job
	err   error
}

// job is a piece of work for a worker.
type job struct {
	task        task
	op          Op
	first, last *entry
	count       int   // entries
	off, n      int64 // bytes of the device
	err         error // of a task without entries
}

// joins tells whether e goes on where j ends, so that one call does both.
func (j *job) joins(e *entry) bool {
	return j.task == taskRequests && j.op == e.op && (e.op == Read || e.op == Write) &&
		int64(e.sector)*sectorSize == j.off+j.n && j.n+int64(e.sectors())*sectorSize <= mergeMax
}

func (j *job) add(e *entry) {
	if j.first == nil {
		j.first, j.off = e, int64(e.sector)*sectorSize
	} else {
		j.last.next = e
	}
	j.last = e
	j.count++
	j.n += int64(e.sectors()) * sectorSize
}

// errPage is a segment page that the module did not map.
var errPage = errors.New("segment page is not there")

// worker does jobs one at a time.
type worker struct {
	s   *server
	buf []byte // mergeMax bytes

	read, write func(p []byte, off int64) (int, error) // of the device
}

// newWorker makes a worker and touches all of its buffer, so that no page of
// it has to be found when memory is short.
func newWorker(s *server) *worker {
	w := &worker{s: s, buf: make([]byte, mergeMax), read: s.dev.ReadAt, write: s.dev.WriteAt}
	for i := 0; i < len(w.buf); i += pageSize {
		w.buf[i] = 1
	}
	return w
}

// run does jobs until there will be no more.
func (w *worker) run() {
	debug.SetPanicOnFault(true) // of this goroutine; see fault
	for j := range w.s.work {
		w.do(j)
		w.s.done <- j
		w.s.completed.Add(1)
		if w.s.asleep.CompareAndSwap(true, false) {
			w.s.port.Wake()
		}
	}
}

func (w *worker) do(j *job) {
	switch j.task {
	case taskRequests:
		w.requests(j)
	case taskWriteFlush:
		j.err = w.s.dev.Flush()
	case taskPause:
		if j.err = w.s.dev.Flush(); j.err == nil && w.s.onPause != nil {
			j.err = w.s.onPause()
		}
	case taskResume:
		j.err = nil
		if w.s.onResume != nil {
			j.err = w.s.onResume()
		}
	}
}

// requests does adjacent requests by one call or, if that failed, by one each,
// so that none fails for its neighbour.
func (w *worker) requests(j *job) {
	if j.count > 1 && w.merged(j) == nil {
		return
	}
	for e := j.first; e != nil; e = e.next {
		e.err = w.single(e)
	}
}

// merged does several requests through the worker's buffer.
func (w *worker) merged(j *job) (err error) {
	defer w.s.fault(&err)
	buf := w.buf[:j.n]
	if j.op == Write {
		w.gather(j.first, buf)
		_, err = w.write(buf, j.off)
		return err
	}
	if _, err = w.read(buf, j.off); err == nil {
		w.scatter(j.first, buf)
	}
	return err
}

// single does one request: in the shared pages where they are one run of
// memory, else through the worker's buffer.
func (w *worker) single(e *entry) (err error) {
	defer w.s.fault(&err)
	off, n := int64(e.sector)*sectorSize, int64(e.sectors())*sectorSize
	switch e.op {
	case Flush:
		return w.s.dev.Flush()
	case Trim:
		_, err = blockdev.Discard(w.s.dev, off, n)
		return err
	case Read:
		if e.contiguous() {
			_, err = w.read(w.s.ring.run(&e.request), off)
			return err
		}
		if _, err = w.read(w.buf[:n], off); err == nil {
			w.scatterOne(e, w.buf[:n])
		}
		return err
	default:
		if e.contiguous() {
			_, err = w.write(w.s.ring.run(&e.request), off)
			return err
		}
		w.gatherOne(e, w.buf[:n])
		_, err = w.write(w.buf[:n], off)
		return err
	}
}

// scatter copies buf to the segments of e and those after it.
func (w *worker) scatter(e *entry, buf []byte) {
	for ; e != nil; e = e.next {
		buf = w.scatterOne(e, buf)
	}
}

func (w *worker) scatterOne(e *entry, buf []byte) []byte {
	for i, s := range e.segments[:e.count] {
		buf = buf[copy(w.s.ring.segment(e.id, i, s), buf):]
	}
	return buf
}

// gather copies the segments of e and those after it to buf.
func (w *worker) gather(e *entry, buf []byte) {
	for ; e != nil; e = e.next {
		buf = w.gatherOne(e, buf)
	}
}

func (w *worker) gatherOne(e *entry, buf []byte) []byte {
	for i, s := range e.segments[:e.count] {
		buf = buf[copy(buf, w.s.ring.segment(e.id, i, s)):]
	}
	return buf
}

// fault makes an error of a touch of a segment page that the module did not
// map: it is SIGBUS, and would end the process and every disk in it.
func (s *server) fault(err *error) {
	r := recover()
	if r == nil {
		return
	}
	f, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	base := uintptr(unsafe.Pointer(&s.ring.mem[0]))
	if !ok || f.Addr() < base || f.Addr() >= base+MemorySize {
		panic(r)
	}
	*err = fmt.Errorf("%w: page %d", errPage, (f.Addr()-base)/pageSize)
}
