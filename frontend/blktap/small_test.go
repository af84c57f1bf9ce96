package blktap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func TestStatusTable(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int16
	}{
		{nil, 0},
		{fmt.Errorf("%w 9", errOperation), -2},
		{errNotSupported, -2},
		{errSegments, -1},
		{errCapacity, -1},
		{errPage, -1},
		{blockdev.ErrReadOnly, -1},
		{blockdev.ErrNoSpace, -1},
		{blockdev.ErrClosed, -1},
		{blockdev.ErrOutOfRange, -1},
		{unix.EIO, -1},
	} {
		if got := statusOf(c.err); got != c.want {
			t.Errorf("status of %v is %d, want %d", c.err, got, c.want)
		}
	}
}

func TestLatencyClasses(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want int
	}{
		{-time.Second, 0}, {0, 0}, {999, 0},
		{time.Microsecond, 1}, {1999, 1}, {2 * time.Microsecond, 2}, {4 * time.Microsecond, 3},
		{time.Millisecond, 10}, {time.Hour, LatencyBuckets - 1},
	} {
		if got := latencyClass(c.d); got != c.want {
			t.Errorf("%v is in class %d, want %d", c.d, got, c.want)
		}
	}
}

func TestCountersAddUp(t *testing.T) {
	var c counters
	c.op[Write].taken.Add(3)
	c.op[Write].answer(4096, statusOK, time.Microsecond)
	c.op[Write].answer(512, statusError, time.Second)
	w := c.snapshot().Write
	if w.Requests != 2 || w.Bytes != 4096 || w.Errors != 1 || w.InFlight != 1 || w.Latency[1] != 1 || w.Latency[20] != 1 {
		t.Errorf("%+v", w)
	}
}

func TestLimiterForgetsAfterAWhile(t *testing.T) {
	var l limiter
	now := time.Unix(1000, 0)
	for i := range complaintBurst {
		if !l.allow(now) {
			t.Fatalf("complaint %d of %d is not allowed", i+1, complaintBurst)
		}
	}
	if l.allow(now.Add(complaintInterval - 1)) {
		t.Error("one more is allowed")
	}
	if !l.allow(now.Add(complaintInterval)) {
		t.Error("none is allowed ever after")
	}
}

func TestNowaitGivesUpSlowly(t *testing.T) {
	var n nowait
	tries := 0
	for range 1000 {
		if n.tries() {
			tries++
			n.learn(false)
		}
	}
	if tries < 10 || tries > 30 {
		t.Errorf("%d of 1000 reads are tried where each must wait", tries)
	}
	for !n.tries() {
	}
	n.learn(true)
	if !n.tries() {
		t.Error("not tried after one that did not wait")
	}
}

func TestInfoServesBothLayouts(t *testing.T) {
	b := deviceInfo{capacity: 1 << 33, physical: 4096, readOnly: true, trim: true}.info()
	if len(b) != 56 {
		t.Errorf("%d bytes, want 56", len(b))
	}
	for at, want := range map[int]uint32{8: 512, 12: 4096, 24: 4096, 28: 0, 32: 4096, 36: 0} {
		if got := binary.NativeEndian.Uint32(b[at:]); got != want {
			t.Errorf("at %d is %d, want %d", at, got, want)
		}
	}
	if got := binary.NativeEndian.Uint64(b); got != 1<<33 {
		t.Errorf("capacity %d", got)
	}
	if got := binary.NativeEndian.Uint64(b[16:]) &^ flagNobody; got != 1|2|4|8 {
		t.Errorf("flags %#x", got)
	}
	p := deviceInfo{capacity: 77}.params()
	if len(p) != 272 || binary.NativeEndian.Uint64(p[256:]) != 77 || binary.NativeEndian.Uint64(p[264:]) != 512 || p[0] != 0 {
		t.Errorf("parameters % x", p[250:])
	}
}

func TestErrnoOfAResume(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {fmt.Errorf("open: %w", unix.ENOENT), 2}, {errors.New("damaged"), int(unix.EIO)},
	} {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("errno of %v is %d, want %d", c.err, got, c.want)
		}
	}
}

func TestOperationNames(t *testing.T) {
	for op, want := range map[Op]string{Read: "read", Write: "write", Flush: "flush", Trim: "trim", 9: "operation 9"} {
		if got := op.String(); got != want {
			t.Errorf("%d is %q, want %q", uint8(op), got, want)
		}
	}
}
