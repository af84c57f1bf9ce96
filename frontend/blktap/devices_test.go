package blktap_test

import (
	"slices"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

// call is what a device was asked for, in bytes.
type call struct {
	op     string
	off, n int64
}

// recorder is a device that remembers its calls, and can hold and fail them.
// It has no ability beside those of every device.
type recorder struct {
	blockdev.Device

	// mu guards the fields below.
	mu      sync.Mutex
	changed *sync.Cond // any of them
	begun   []call
	ended   int
	hold    map[string]bool  // operations that wait
	fail    map[string]error // operations that fail
	failAt  map[int64]error  // reads and writes that fail, by an offset in them
}

func newRecorder(dev blockdev.Device) *recorder {
	r := &recorder{Device: dev, hold: map[string]bool{}, fail: map[string]error{}, failAt: map[int64]error{}}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	if err := r.enter("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	defer r.leave()
	return r.Device.ReadAt(p, off)
}

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	if err := r.enter("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	defer r.leave()
	return r.Device.WriteAt(p, off)
}

func (r *recorder) Flush() error {
	if err := r.enter("flush", 0, 0); err != nil {
		return err
	}
	defer r.leave()
	return r.Device.Flush()
}

func (r *recorder) enter(op string, off, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = append(r.begun, call{op, off, n})
	r.changed.Broadcast()
	for r.hold[op] {
		r.changed.Wait()
	}
	for at, err := range r.failAt {
		if off <= at && at < off+n {
			r.ended++
			return err
		}
	}
	if err := r.fail[op]; err != nil {
		r.ended++
		return err
	}
	return nil
}

func (r *recorder) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	r.changed.Broadcast()
}

// set changes the recorder, and wakes those who wait for that.
func (r *recorder) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.changed.Broadcast()
}

// await waits until n calls of an operation have begun.
func (r *recorder) await(op string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count(op) < n {
		r.changed.Wait()
	}
}

// forget drops what has ended so far: the flush before a disk is shown.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun, r.ended = nil, 0
}

// awaitEnds waits until n calls of any operation have ended.
func (r *recorder) awaitEnds(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.ended < n {
		r.changed.Wait()
	}
}

// count is how many calls of an operation have begun. r.mu is held.
func (r *recorder) count(op string) (n int) {
	for _, c := range r.begun {
		if c.op == op {
			n++
		}
	}
	return n
}

// calls is what was asked for since the last time, without flushes.
func (r *recorder) calls() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := slices.DeleteFunc(r.begun, func(c call) bool { return c.op == "flush" })
	r.begun = nil
	return got
}

// volatile is a device that loses what was not flushed: stable is what would
// be left of it.
type volatile struct {
	blockdev.Device
	stable blockdev.Device

	// mu guards dirty, and orders what is copied to stable.
	mu    sync.Mutex
	dirty []call
}

func (v *volatile) WriteAt(p []byte, off int64) (int, error) {
	n, err := v.Device.WriteAt(p, off)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirty = append(v.dirty, call{"write", off, int64(len(p))})
	return n, err
}

func (v *volatile) Flush() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.dirty {
		p := make([]byte, c.n)
		if _, err := v.Device.ReadAt(p, c.off); err != nil {
			return err
		}
		if _, err := v.stable.WriteAt(p, c.off); err != nil {
			return err
		}
	}
	v.dirty = nil
	return nil
}
