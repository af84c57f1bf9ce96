package fuse

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestErrorLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := &logLines{}
		l := errorLog{log: logTo(lines)}
		for range 1000 {
			l.failed("read", diskName, 0, 512, errBroken)
		}
		if got := len(lines.all()); got != errorBurst {
			t.Fatalf("%d lines at once, want %d", got, errorBurst)
		}
		time.Sleep(2 * errorInterval)
		for range 1000 {
			l.failed("read", diskName, 0, 512, errBroken)
		}
		all := lines.all()
		if got := len(all); got != errorBurst+2 {
			t.Fatalf("%d lines two intervals later, want 2 more", got-errorBurst)
		}
		if !strings.Contains(all[errorBurst], "left_out=980") {
			t.Errorf("%q does not say how many were left out", all[errorBurst])
		}
		time.Sleep(time.Hour)
		for range 1000 {
			l.failed("read", diskName, 0, 512, errBroken)
		}
		if got := len(lines.all()); got != 2*errorBurst+2 {
			t.Errorf("%d lines after an hour, want the burst again", got-errorBurst-2)
		}
	})
}
