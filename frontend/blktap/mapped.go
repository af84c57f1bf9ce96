package blktap

import (
	"errors"
	"fmt"
	"sync"
)

// errRingUsed is a MappedRing that was closed, or that a disk was shown on.
var errRingUsed = errors.New("the mapped ring is used up")

// MappedRing is an allocated minor whose ring this process has mapped, and
// which has no block device: no other process can serve it meanwhile. It is
// what a tapdisk holds between its attach and its open. Its methods are safe
// for concurrent use.
//
// It serves for one disk, by Options.Ring: whether the block device could be
// made or not, the ring is unmapped afterwards.
type MappedRing struct {
	tap Tap

	// mu guards port. It is a leaf.
	mu   sync.Mutex
	port Port // nil once it is used up
}

// MapRing maps the ring of a minor. The errors are those of Driver.Open. The
// process must not fork afterwards.
func MapRing(d Driver, tap Tap) (*MappedRing, error) {
	port, err := d.Open(tap)
	if err != nil {
		return nil, err
	}
	return &MappedRing{tap: tap, port: port}, nil
}

// Tap is the minor.
func (r *MappedRing) Tap() Tap { return r.tap }

// Close unmaps the ring, unless it is used up.
func (r *MappedRing) Close() error {
	port, err := r.take()
	if err != nil {
		return nil
	}
	if err := port.Close(); err != nil {
		return fmt.Errorf("%s: close ring: %w", r.tap.Path, err)
	}
	return nil
}

// take uses the ring up.
func (r *MappedRing) take() (Port, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.port == nil {
		return nil, fmt.Errorf("%s: %w", r.tap.Path, errRingUsed)
	}
	port := r.port
	r.port = nil
	return port, nil
}
