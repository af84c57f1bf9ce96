package blktap

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lockMemory keeps all of the process in memory, now and from now on. Where
// the swap or the root file system is on a disk that is served here, a page of
// ours that had to be read from it would never come.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("%w: %w; it needs root, CAP_IPC_LOCK or \"ulimit -l unlimited\"", ErrMemoryLock, err)
	}
	return nil
}
