package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// archOffset is where seccomp_data has the machine whose call it is.
const archOffset = 4

// foreignCalls is a filter, in the kernel's BPF, that answers EPERM to every
// call but those of machine (an AUDIT_ARCH of the kernel's).
func foreignCalls(machine uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: archOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: machine},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
}

// denyForeignCalls puts foreignCalls in force on every thread. It is a filter
// beside the library's, and the kernel heeds the stricter of the two: that one
// lets through what comes by another machine's numbers. A process of 64 bits
// makes such calls too, by an instruction: int 0x80 on amd64.
func denyForeignCalls(machine uint32) error {
	filter := foreignCalls(machine)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	switch {
	case errno != 0:
		return errno
	case thread != 0: // seccomp(2): one that has a filter which the others lack
		return fmt.Errorf("thread %d can't be brought in line", thread)
	}
	return nil
}
