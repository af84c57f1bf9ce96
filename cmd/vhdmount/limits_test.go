package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestALimitOnTheSizeOfFilesIsWhole: a device may have sectors of 4096 bytes, and
// refuses a direct write that a limit cuts off inside one.
func TestALimitOnTheSizeOfFilesIsWhole(t *testing.T) {
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before)) })
	const large = 1 << 40 // more than a test writes
	for limit, want := range map[uint64]uint64{
		large:              large,
		large + 1:          large,
		large + 2001<<10:   large + 2000<<10,
		large + 4095:       large,
		unix.RLIM_INFINITY: unix.RLIM_INFINITY,
	} {
		if limit > before.Max {
			continue
		}
		must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: before.Max}))
		limitToWholeSectors()
		var got unix.Rlimit
		must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &got))
		if got != (unix.Rlimit{Cur: want, Max: before.Max}) {
			t.Errorf("a limit of %d became %d of %d, want %d of %d", limit, got.Cur, got.Max, want, before.Max)
		}
	}
}
