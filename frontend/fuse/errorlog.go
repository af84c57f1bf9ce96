package fuse

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	errorBurst    = 20          // lines at once
	errorInterval = time.Second // and one more each
)

// errorLog writes a device's errors to the log, a line each, and bounds how
// many: a broken disk under a busy client would fill the log otherwise. That a
// device is read-only it says once, for it stays so. It is safe for concurrent
// use.
type errorLog struct {
	log *slog.Logger

	// mu guards the fields below. It is a leaf.
	mu       sync.Mutex
	spent    int // lines of the burst that were used
	since    time.Time
	dropped  int  // lines left out since the last one
	readOnly bool // it was said that the device is
}

// failed reports that an operation on [off, off+n) of a file failed.
func (l *errorLog) failed(op operation, file string, off, n int64, err error) {
	dropped, ok := l.take(errors.Is(err, blockdev.ErrReadOnly))
	if !ok {
		return
	}
	attrs := []any{"op", op, "file", file, "offset", off, "length", n, "error", err}
	if dropped > 0 {
		attrs = append(attrs, "left_out", dropped)
	}
	l.log.Error("fuse: request failed", attrs...)
}

// take tells whether a line may be written now, and how many were not since
// the last one that was. The line that says that the device is read-only is
// always written, and never again.
func (l *errorLog) take(readOnly bool) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if readOnly {
		first := !l.readOnly
		l.readOnly = true
		return 0, first
	}
	now := time.Now()
	if back := int(now.Sub(l.since) / errorInterval); back > 0 {
		l.spent = max(0, l.spent-back)
		l.since = now
	}
	if l.spent == errorBurst {
		l.dropped++
		return 0, false
	}
	l.spent++
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}
