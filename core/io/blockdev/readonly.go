package blockdev

import (
	"iter"
	"sync/atomic"
)

// ReadOnly returns dev with its writes refused: WriteAt, Discard and
// WriteZeroes are ErrReadOnly, whatever their range, and reach nothing of dev.
//
// It forwards the reading abilities, falling back as the package functions do
// where dev lacks one: ExtentMapper, NowaitReader (ErrWouldBlock) and Usage.
// Discarder and ZeroWriter are there only to refuse: the fallbacks would
// report a discard as done, and zeros over an empty range.
//
// Flush and Close are dev's own: the result takes dev's place and owns it.
func ReadOnly(dev Device) Device { return &readOnly{dev: dev} }

type readOnly struct {
	dev    Device
	closed atomic.Bool
}

var (
	_ Discarder    = (*readOnly)(nil)
	_ ZeroWriter   = (*readOnly)(nil)
	_ ExtentMapper = (*readOnly)(nil)
	_ NowaitReader = (*readOnly)(nil)
	_ Usage        = (*readOnly)(nil)
)

func (r *readOnly) ReadAt(p []byte, off int64) (int, error) { return r.dev.ReadAt(p, off) }

func (r *readOnly) WriteAt([]byte, int64) (int, error) { return 0, r.refuse() }

func (r *readOnly) Size() int64 { return r.dev.Size() }

func (r *readOnly) Flush() error { return r.dev.Flush() }

func (r *readOnly) Close() error {
	r.closed.Store(true)
	return r.dev.Close()
}

func (r *readOnly) Discard(_, _ int64) error { return r.refuse() }

func (r *readOnly) WriteZeroes(_, _ int64) error { return r.refuse() }

func (r *readOnly) Extents(off, n int64) iter.Seq2[Extent, error] { return Extents(r.dev, off, n) }

func (r *readOnly) ReadAtNowait(p []byte, off int64) (int, error) {
	return ReadAtNowait(r.dev, p, off)
}

func (r *readOnly) Allocated() int64 { return Allocated(r.dev) }

// refuse is why a write is not done.
func (r *readOnly) refuse() error {
	if r.closed.Load() {
		return ErrClosed
	}
	return ErrReadOnly
}
