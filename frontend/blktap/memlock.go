package blktap

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockMemory keeps all of the process in memory, now and from now on, and has
// the kernel find memory for it without writing any out. Where the swap or the
// root file system is on a disk that is served here, a page of ours that had to
// be read from it would never come; and a write to the image that needs a page
// of its own, for which the kernel swaps out another one, would wait for itself.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("%w: %w; it needs root, CAP_IPC_LOCK or \"ulimit -l unlimited\"", ErrMemoryLock, err)
	}
	return reclaimWithoutIO()
}

// reclaimWithoutIO makes all threads IO flushers (prctl(2)); later ones inherit
// it. It is done where it can be: a kernel before 5.6 has no such thing, root
// in a container may lack CAP_SYS_RESOURCE, and in a program with cgo, which
// this one is only when it is tested for races, Go does not reach all threads.
func reclaimWithoutIO() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	switch errno {
	case 0, unix.EINVAL, unix.EPERM, unix.ENOTSUP:
		return nil
	}
	return fmt.Errorf("%w: PR_SET_IO_FLUSHER: %w", ErrMemoryLock, errno)
}
