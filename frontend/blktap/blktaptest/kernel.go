package blktaptest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// Call is a call of the module that a test can have fail.
type Call int

// The calls.
const (
	CallAllocate Call = iota
	CallOpen
	CallFree
	CallCreateDevice
	CallCreateDeviceCompat
	CallRemoveDevice
	CallRespond
	CallWait
	CallPaused
	CallResumed
)

// Kernel is a blktap module. It is safe for concurrent use.
type Kernel struct {
	variant Variant
	options

	// mu guards the fields below. It is a leaf.
	mu      sync.Mutex
	taps    map[int]*tap // by minor
	fail    map[Call][]error
	holders []string
}

var _ blktap.Driver = (*Kernel)(nil)

// options are what New was asked for.
type options struct {
	report    func(string)
	guard     bool
	unchecked bool
	seed      uint64
}

// Option changes what New makes.
type Option func(*options)

// WithReport has what a server must not do reported to f in place of the test.
func WithReport(f func(string)) Option { return func(o *options) { o.report = f } }

// WithGuard has the shared memory outside of the heap, and takes access to
// the pages of answered requests away as the module does: a touch ends the
// test's process. Without it a touch is found by what it leaves or gets, or by
// the race detector, which sees the heap alone.
func WithGuard() Option { return func(o *options) { o.guard = true } }

// WithScheduler has requests come in another order than they were made, at
// ids and places in their pages that are not the first, a part of them late,
// and their completions late and in another order too.
func WithScheduler(seed uint64) Option { return func(o *options) { o.seed = seed } }

// Unchecked leaves the checks out that cost time, for benchmarks.
func Unchecked() Option { return func(o *options) { o.unchecked = true } }

// New returns a module with no minor allocated.
func New(t testing.TB, v Variant, opts ...Option) *Kernel {
	k := &Kernel{variant: v, taps: map[int]*tap{}, fail: map[Call][]error{}}
	k.report = func(s string) { t.Error("blktaptest: " + s) }
	for _, o := range opts {
		o(&k.options)
	}
	return k
}

// Fail has the next calls of a kind fail, one with each of the errors.
func (k *Kernel) Fail(c Call, errs ...error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail[c] = append(k.fail[c], errs...)
}

// failure is what a call must fail with, nil if it may go on.
func (k *Kernel) failure(c Call) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	errs := k.fail[c]
	if len(errs) == 0 {
		return nil
	}
	k.fail[c] = errs[1:]
	return errs[0]
}

// SetHolders says who has a block device open, for Holders.
func (k *Kernel) SetHolders(who ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders = who
}

// Allocated is how many minors are allocated.
func (k *Kernel) Allocated() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.taps)
}

// Allocate implements blktap.Driver.
func (k *Kernel) Allocate() (blktap.Tap, error) {
	if err := k.failure(CallAllocate); err != nil {
		return blktap.Tap{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for minor := range minors {
		if k.taps[minor] == nil {
			t := newTap(k, minor)
			k.taps[minor] = t
			return t.describe(), nil
		}
	}
	return blktap.Tap{}, unix.ENOMEM
}

// Free implements blktap.Driver. openxt's waits for what is pending and asks
// an open ring to close; the others refuse.
func (k *Kernel) Free(tap blktap.Tap) error {
	if err := k.failure(CallFree); err != nil {
		return err
	}
	t := k.tap(tap.Minor)
	if t == nil {
		return blktap.ErrNoMinor
	}
	if t.free() {
		k.forget(t.minor)
		return nil
	}
	if k.variant == OpenXT {
		return nil
	}
	return unix.EBUSY
}

// Find implements blktap.Driver.
func (k *Kernel) Find(minor int) (blktap.Tap, error) {
	t := k.tap(minor)
	if t == nil {
		return blktap.Tap{}, blktap.ErrNoMinor
	}
	return t.describe(), nil
}

// describe is the minor as a server knows it.
func (t *tap) describe() blktap.Tap {
	return blktap.Tap{Minor: t.minor, RingMajor: 251, DeviceMajor: 252, Path: t.path}
}

func (k *Kernel) tap(minor int) *tap {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.taps[minor]
}

func (k *Kernel) forget(minor int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.taps, minor)
}

// Open implements blktap.Driver.
func (k *Kernel) Open(tap blktap.Tap) (blktap.Port, error) {
	if err := k.failure(CallOpen); err != nil {
		return nil, err
	}
	t := k.tap(tap.Minor)
	if t == nil {
		return nil, blktap.ErrNoMinor
	}
	return t.open()
}

// Served implements blktap.Driver.
func (k *Kernel) Served(tap blktap.Tap) (bool, error) {
	t := k.tap(tap.Minor)
	if t == nil {
		return false, blktap.ErrNoMinor
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.port != nil, nil
}

// Hide implements blktap.Driver.
func (k *Kernel) Hide(tap blktap.Tap) error {
	t := k.tap(tap.Minor)
	if t == nil {
		return blktap.ErrNoMinor
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hidden = true
	return nil
}

// Holders implements blktap.Driver.
func (k *Kernel) Holders(blktap.Tap) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holders
}

// byPath is the minor whose block device has a path.
func (k *Kernel) byPath(path string) (*tap, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.taps {
		if t.path == path {
			return t, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", path, unix.ENOENT)
}

// violation reports what a server must not do.
func (k *Kernel) violation(format string, args ...any) {
	k.report(fmt.Sprintf(format, args...))
}

// scheduler decides what WithScheduler leaves to chance. Nil decides for what
// is simplest.
type scheduler struct{ *rand.Rand }

func (k *Kernel) newScheduler(minor int) *scheduler {
	if k.seed == 0 {
		return nil
	}
	return &scheduler{rand.New(rand.NewPCG(k.seed, uint64(minor)))}
}

// pick is one of n.
func (s *scheduler) pick(n int) int {
	if s == nil {
		return 0
	}
	return s.IntN(n)
}

// chance is true once in n times.
func (s *scheduler) chance(n int) bool { return s != nil && s.IntN(n) == 0 }
