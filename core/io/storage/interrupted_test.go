package storage_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interruptible are the system calls that a signal may end with EINTR where a
// file system lets it, as FUSE and NFS do.
var interruptible = map[int32]string{
	unix.SYS_FALLOCATE: "fallocate",
	unix.SYS_FCNTL:     "fcntl", // of locks alone: see mayBeInterrupted
	unix.SYS_FDATASYNC: "fdatasync",
	unix.SYS_FSTAT:     "fstat",
	unix.SYS_FSTATFS:   "fstatfs",
	unix.SYS_FSYNC:     "fsync",
	unix.SYS_FTRUNCATE: "ftruncate",
	unix.SYS_LINKAT:    "linkat",
	unix.SYS_LSEEK:     "lseek",
	unix.SYS_OPENAT:    "openat",
	unix.SYS_OPENAT2:   "openat2",
	unix.SYS_PREAD64:   "pread",
	unix.SYS_PREADV2:   "preadv2",
	unix.SYS_PWRITE64:  "pwrite",
	unix.SYS_STATX:     "statx",
	unix.SYS_UNLINKAT:  "unlinkat",
}

// TestInterruptedCallsAreMadeAgain runs the conformance suites in a process whose
// system calls are ended by EINTR, each once before it is made: nobody may see it.
func TestInterruptedCallsAreMadeAgain(t *testing.T) {
	onDisk(t) // or those of a direct file alone would be missed
	cmd := child(t, "interrupted", "-test.run=^(TestConformance|TestDirectConformance)$")
	// The runtime must not look for the number of processors meanwhile: it would stop for that, and with it who answers.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=4")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// interrupted runs tests in that way. A call that none of them makes, or that
// was never interrupted, is an error.
func interrupted(m *testing.M) error {
	in, err := interruptCalls()
	if err != nil {
		return fmt.Errorf("seccomp's user notification, of Linux 5.7 and later: %w", err)
	}
	if code := m.Run(); code != 0 {
		return fmt.Errorf("exit code %d", code)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var errs []error
	for nr, name := range interruptible {
		if in.times[nr] == 0 {
			errs = append(errs, fmt.Errorf("%s was never interrupted", name))
		}
	}
	return errors.Join(append(errs, in.err)...)
}

// seccompNotice and seccompAnswer are struct seccomp_notif and seccomp_notif_resp
// of the kernel's include/uapi/linux/seccomp.h.
type seccompNotice struct {
	id         uint64
	thread     uint32
	flags      uint32
	nr         int32
	arch       uint32
	ip         uint64
	parameters [6]uint64
}

type seccompAnswer struct {
	id     uint64
	value  int64
	errno  int32 // negative
	_flags uint32
}

// interrupter ends calls with EINTR in the kernel's place.
type interrupter struct {
	fd uintptr // of the kernel's notices

	mu    sync.Mutex // guards what follows; a leaf
	times map[int32]int
	err   error
}

// interruptCalls begins with it, for all threads of this process.
func interruptCalls() (*interrupter, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	const numberOffset = 0 // of the call, in struct seccomp_data
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOffset}}
	for nr := range interruptible {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(nr)},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return nil, errno
	}
	in := &interrupter{fd: fd, times: map[int32]int{}}
	go in.run()
	return in, nil
}

// run ends each call of each thread once, and lets it through the next time. It
// makes no call that it would be asked about.
func (in *interrupter) run() {
	type call struct {
		thread uint32
		nr     int32
	}
	ended := map[call]bool{}
	for {
		var n seccompNotice
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, in.fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			if errno == unix.EINTR || errno == unix.ENOENT { // ENOENT: a signal ended the call by itself
				continue
			}
			in.note(0, errno)
			return
		}
		c := call{n.thread, n.nr}
		a := seccompAnswer{id: n.id, _flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if mayBeInterrupted(&n) && !ended[c] {
			a = seccompAnswer{id: n.id, errno: -int32(unix.EINTR)}
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, in.fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a))); errno != 0 {
			continue // likewise
		}
		if ended[c] = a.errno != 0; ended[c] {
			in.note(n.nr, nil)
		}
	}
}

// mayBeInterrupted leaves out those commands of fcntl that only the kernel's own
// memory answers.
func mayBeInterrupted(n *seccompNotice) bool {
	command := int(n.parameters[1])
	return n.nr != unix.SYS_FCNTL || command == unix.F_OFD_SETLK || command == unix.F_OFD_GETLK
}

// note counts a call that was interrupted, or keeps why no more are.
func (in *interrupter) note(nr int32, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.times[nr]++
	in.err = errors.Join(in.err, err)
}
