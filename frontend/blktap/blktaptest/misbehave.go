package blktaptest

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Slot is a request as a module that lies puts it on the ring.
type Slot struct {
	Op       uint8
	Segments uint8
	ID       uint64
	Sector   uint64
	First    [segmentMax]uint8
	Last     [segmentMax]uint8
	Trim     uint64 // sectors; in the place of the segments if Op is 3
	// Pages is how many pages the module maps for it, where its id is one of
	// the ring's and not pending.
	Pages int
}

// Inject puts a slot on the ring of the block device of that path, and
// returns the status of its response. Only a response with its id and
// operation is one.
func (k *Kernel) Inject(path string, s Slot) (status int16, err error) {
	t, err := k.byPath(path)
	if err != nil {
		return 0, err
	}
	r := &request{op: s.Op, raw: &s, done: make(chan struct{}, 1)}
	t.mu.Lock()
	if t.port == nil {
		t.mu.Unlock()
		return 0, unix.EIO
	}
	t.enqueue(r)
	t.wakePoll()
	t.mu.Unlock()
	<-r.done
	return r.status, nil
}

// submitRaw writes a slot as it is. t.mu is held.
func (t *tap) submitRaw(r *request, b []byte) {
	s := r.raw
	b[0], b[1] = s.Op, s.Segments
	binary.NativeEndian.PutUint64(b[8:], s.ID)
	binary.NativeEndian.PutUint64(b[16:], s.Sector)
	for i := range segmentMax {
		b[24+8*i+4], b[24+8*i+5] = s.First[i], s.Last[i]
	}
	if s.Op == opTrim {
		binary.NativeEndian.PutUint64(b[24:], s.Trim)
	}
	if s.ID >= ringSize || t.pending[s.ID] != nil {
		t.raw = append(t.raw, r)
		return
	}
	r.id, r.pages = int(s.ID), s.Pages
	t.pending[r.id] = r
	t.count++
	t.port.mapPages(r.id, r.pages)
}

// endRaw completes a request that is at no id of its own. t.mu is held.
func (t *tap) endRaw(id uint64, op uint8, status int16) bool {
	i := slices.IndexFunc(t.raw, func(r *request) bool { return r.raw.ID == id && r.op == op })
	if i < 0 {
		return false
	}
	r := t.raw[i]
	t.raw = slices.Delete(t.raw, i, i+1)
	t.complete(r, status)
	return true
}

// LieAboutProduced has the ring say that delta more requests were put on it
// than were, from the next poll on; zero is the truth again.
func (k *Kernel) LieAboutProduced(path string, delta int32) error {
	t, err := k.byPath(path)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lie = delta
	t.wakePoll()
	return nil
}

// Polls is how often the ring of that path was polled.
func (k *Kernel) Polls(path string) (uint64, error) {
	t, err := k.byPath(path)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.port == nil {
		return 0, unix.EIO
	}
	return t.port.polls.Load(), nil
}

// Pending is how many requests are on the ring of that path and not answered.
func (k *Kernel) Pending(path string) (int, error) {
	t, err := k.byPath(path)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count + len(t.raw), nil
}
