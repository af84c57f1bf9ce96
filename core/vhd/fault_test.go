package vhd_test

import (
	"flag"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/vhdmount/vhdmount/core/vhd/vhdtest"
)

var (
	faultStates = flag.Uint64("fault.states", 2, "states looked at for each point of a power cut that follows a failed call")
	faultAll    = flag.Bool("fault.all", false, "calls fail on every kind of image")
)

// faultKinds are those of vhdtest's kinds that take different ways through the
// engine's calls. The others are for -fault.all.
var faultKinds = []string{
	"fixed",
	"dynamic, blocks of 512 bytes",
	"dynamic, blocks of 2048 bytes",
	"dynamic, footer of 511 bytes",
	"dynamic, no footer at the end",
	"dynamic, bad footer at the start",
	"dynamic, tapdisk's partial bitmaps",
	"dynamic, tapdisk's batmap",
	"differencing, blocks of 2048 bytes",
	"differencing, over a raw parent",
	"differencing, no footer at the end",
}

// TestEveryCallFailsOnce fails each call of the storage that each operation
// makes, in each way; vhdtest.FailEach says what must hold then.
func TestEveryCallFailsOnce(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	ways := vhdtest.Ways()
	if vhdtest.Slow || testing.Short() {
		ways = ways[:2]
	}
	var mu sync.Mutex
	all := vhdtest.FaultReport{Kind: "all kinds"}
	t.Run("kinds", func(t *testing.T) {
		for _, k := range vhdtest.Kinds() {
			if !*faultAll && !slices.Contains(faultKinds, k.Name) {
				continue
			}
			t.Run(k.Name, func(t *testing.T) {
				t.Parallel()
				r, err := vhdtest.FailEach(k, ways, *faultStates)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(r)
				mu.Lock()
				defer mu.Unlock()
				all.Add(r)
			})
		}
	})
	t.Log(&all)
	if all.Calls == 0 || all.ReadOnly == 0 || all.Tolerated == 0 {
		t.Errorf("nothing failed, or nothing of a sort: %+v", all)
	}
}
