package fuse

import (
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// invalidator makes the kernel drop pages that it has of files. It sends one
// range a file at a time and joins those that come meanwhile into one, so that
// what is queued is bounded and dropping too much is the price of being late.
// All methods are safe for concurrent use.
type invalidator struct {
	send func(msg []byte) error

	// mu guards the fields below. It is a leaf.
	mu      sync.Mutex
	changed sync.Cond // pending, done or stopped changed
	pending map[uint64]extent
	queued  uint64 // ranges added so far
	done    uint64 // of those, how many were sent
	stopped bool
}

// extent is [start, end) of a file, in bytes.
type extent struct{ start, end int64 }

// newInvalidator returns an invalidator whose messages go to send. Its owner
// runs run, and stop.
func newInvalidator(send func(msg []byte) error) *invalidator {
	v := &invalidator{send: send, pending: make(map[uint64]extent)}
	v.changed.L = &v.mu
	return v
}

// add queues [start, end) of the file node. It does not wait.
func (v *invalidator) add(node uint64, start, end int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e, ok := v.pending[node]; ok {
		start, end = min(start, e.start), max(end, e.end)
	}
	v.pending[node] = extent{start, end}
	v.queued++
	v.changed.Broadcast()
}

// idle tells whether nothing is queued or being sent.
func (v *invalidator) idle() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.done == v.queued
}

// wait returns when all that was added before the call was sent.
func (v *invalidator) wait() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for want := v.queued; v.done < want && !v.stopped; {
		v.changed.Wait()
	}
}

// run sends until stop is called.
func (v *invalidator) run() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for {
		for len(v.pending) == 0 && !v.stopped {
			v.changed.Wait()
		}
		if v.stopped {
			return
		}
		batch, upTo := v.pending, v.queued
		v.pending = make(map[uint64]extent)
		v.mu.Unlock()
		for node, e := range batch {
			// The kernel answers ENOENT for a file that it has nothing of,
			// and refuses everything after an unmount: both are as good.
			_ = v.send(invalidateMessage(node, e))
		}
		v.mu.Lock()
		v.done = upTo
		v.changed.Broadcast()
	}
}

// stop makes run return, and every wait.
func (v *invalidator) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	v.changed.Broadcast()
}

// invalidateMessage is FUSE_NOTIFY_INVAL_INODE: a reply's header with the
// notification's number for a status and none for a request, the node, the
// offset and the length.
func invalidateMessage(node uint64, e extent) []byte {
	const size = 40
	m := make([]byte, 0, size)
	m = binary.NativeEndian.AppendUint32(m, size)
	m = binary.NativeEndian.AppendUint32(m, uint32(-fuse.NOTIFY_INVAL_INODE))
	m = binary.NativeEndian.AppendUint64(m, 0)
	m = binary.NativeEndian.AppendUint64(m, node)
	m = binary.NativeEndian.AppendUint64(m, uint64(e.start))
	return binary.NativeEndian.AppendUint64(m, uint64(e.end-e.start))
}
