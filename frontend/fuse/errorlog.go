package fuse

import (
	"log/slog"
	"sync"
	"time"
)

const (
	errorBurst    = 20          // lines at once
	errorInterval = time.Second // and one more each
)

// errorLog writes a device's errors to the log, a line each, and bounds how
// many: a broken disk under a busy client would fill the log otherwise. It is
// safe for concurrent use.
type errorLog struct {
	log *slog.Logger

	// mu guards the fields below. It is a leaf.
	mu      sync.Mutex
	spent   int // lines of the burst that were used
	since   time.Time
	dropped int // lines left out since the last one
}

// failed reports that an operation on [off, off+n) of a file failed.
func (l *errorLog) failed(op, file string, off, n int64, err error) {
	dropped, ok := l.take()
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
// the last one that was.
func (l *errorLog) take() (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
