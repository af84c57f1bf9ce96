package format

import (
	"math"
	"time"
)

// epoch is 2000-01-01 00:00:00 UTC in Unix seconds, where the format's time
// begins.
const epoch = 946684800

// TimestampSlack is how far ahead of the clock a timestamp may be before
// vhd-util check calls it one of the future.
const TimestampSlack = 30 * time.Minute

// Time is a moment in whole seconds since 2000-01-01 00:00:00 UTC. It ends in
// 2136.
type Time uint32

// TimeOf is t cut to the second. What lies outside of the format's years
// becomes their first or last moment.
func TimeOf(t time.Time) Time {
	return Time(min(max(t.Unix()-epoch, 0), math.MaxUint32))
}

// Time is t in UTC.
func (t Time) Time() time.Time { return time.Unix(int64(t)+epoch, 0).UTC() }

// InFuture tells whether t is later than now by more than TimestampSlack.
func (t Time) InFuture(now time.Time) bool {
	return t.Time().After(now.Add(TimestampSlack))
}

// String is t as RFC 3339 in UTC.
func (t Time) String() string { return t.Time().Format(time.RFC3339) }
