package blktap

import "time"

const (
	complaintBurst    = 20
	complaintInterval = 10 * time.Second
)

// limiter bounds how often a thing is logged: a guest could fill the log that
// lies on the disk which it complains about.
type limiter struct {
	since time.Time
	n     int
}

// allow tells whether one more may be logged: complaintBurst in each
// complaintInterval.
func (l *limiter) allow(now time.Time) bool {
	if now.Sub(l.since) >= complaintInterval {
		l.since, l.n = now, 0
	}
	l.n++
	return l.n <= complaintBurst
}
