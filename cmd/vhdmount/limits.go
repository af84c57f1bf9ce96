package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// memoryLimit and gcPercent keep a server's resident memory below 64 MiB under
// load: the limit is of what the Go runtime maps, beside which there is the
// program itself.
const (
	memoryLimit = 48 << 20
	gcPercent   = 50
)

// limitMemory bounds the Go heap, unless the environment does.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// limitStep is what a limit on the size of files is a multiple of: the largest
// sector of a device, and a page.
const limitStep = 4096

// limitToWholeSectors rounds the limit on the size of files (RLIMIT_FSIZE) down
// to a whole sector of any device. The kernel writes up to the very byte, and a
// sector that is written in part is neither what it was nor what it was to be.
// Past the page cache such a rest is no write at all: a device with sectors of
// 4096 bytes refuses it as EINVAL, where the limit should tell that there is no
// room.
func limitToWholeSectors() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return
	}
	limit.Cur -= limit.Cur % limitStep
	_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &limit) // to lower it is always allowed
}

// makeRoomForRing lets Go code run beside the goroutine of a ring, which keeps
// its processor while it sleeps in the kernel.
func makeRoomForRing() {
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
}
