package blktap

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// LatencyBuckets is how many classes a latency histogram has.
const LatencyBuckets = 24

// OpStats is what a session did with one operation since it began.
type OpStats struct {
	Requests uint64 `json:"requests"`  // answered, failed ones among them
	Bytes    uint64 `json:"bytes"`     // of those that did not fail
	Merges   uint64 `json:"merges"`    // requests that went to the device as part of another's call
	Errors   uint64 `json:"errors"`    // answered with an error
	InFlight uint64 `json:"in_flight"` // taken and not answered
	// Latency counts answered requests by the time from taking to answering:
	// class 0 is below 1 µs, class i from 2^(i-1) to 2^i µs, the last all above.
	Latency [LatencyBuckets]uint64 `json:"latency"`
}

// Stats is what a session did since it began, by operation.
type Stats struct {
	Read  OpStats `json:"read"`
	Write OpStats `json:"write"`
	Flush OpStats `json:"flush"`
	Trim  OpStats `json:"trim"`
	// Invalid counts requests that were refused unread: bad ids, counts,
	// sectors, operations.
	Invalid uint64 `json:"invalid"`
	// WriteFlushes counts flushes that no request asked for: those that make
	// writes stable where the ring has no flush.
	WriteFlushes uint64 `json:"write_flushes"`
}

// counters are written by a server's goroutine alone and read by anyone.
type counters struct {
	op           [ops]opCounters
	invalid      atomic.Uint64
	writeFlushes atomic.Uint64
}

type opCounters struct {
	taken, answered, bytes, merges, errors atomic.Uint64
	latency                                [LatencyBuckets]atomic.Uint64
}

// answer counts a response.
func (c *opCounters) answer(bytes uint64, status int16, took time.Duration) {
	c.answered.Add(1)
	if status == statusOK {
		c.bytes.Add(bytes)
	} else {
		c.errors.Add(1)
	}
	c.latency[latencyClass(took)].Add(1)
}

func latencyClass(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0)/time.Microsecond)), LatencyBuckets-1)
}

// snapshot is the counters as they are, each for itself.
func (c *counters) snapshot() Stats {
	return Stats{
		Read:         c.op[Read].snapshot(),
		Write:        c.op[Write].snapshot(),
		Flush:        c.op[Flush].snapshot(),
		Trim:         c.op[Trim].snapshot(),
		Invalid:      c.invalid.Load(),
		WriteFlushes: c.writeFlushes.Load(),
	}
}

func (c *opCounters) snapshot() OpStats {
	answered := c.answered.Load() // before taken, so that the difference is never negative
	s := OpStats{
		Requests: answered,
		Bytes:    c.bytes.Load(),
		Merges:   c.merges.Load(),
		Errors:   c.errors.Load(),
		InFlight: c.taken.Load() - answered,
	}
	for i := range s.Latency {
		s.Latency[i] = c.latency[i].Load()
	}
	return s
}
