package confine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of calls on i386 (arch/x86/entry/syscalls/syscall_32.tbl), and the bit
// that makes a number one of x32.
const (
	i386Getpid = 20
	i386Socket = 359
	x32Bit     = 0x40000000
)

// int80Code makes a call of i386. Go passes its first arguments
// in RAX, RBX, RCX and DI, and takes the result from RAX; i386 reads the call's
// number, and its arguments, from EAX, EBX, ECX and EDX. The fourth of Go's goes
// to EDX first.
var int80Code = []byte{
	0x89, 0xfa, // mov %edi, %edx
	0xcd, 0x80, // int $0x80
	0xc3, // ret
}

// int80 makes the function, on a page of its own.
func int80(t *testing.T) func(number, a, b, c uintptr) uintptr {
	t.Helper()
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	check(t, err)
	copy(page, int80Code)
	check(t, unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC))
	entry := &page[0]
	pointer := &entry // what a function value points to begins with its code's address
	return *(*func(number, a, b, c uintptr) uintptr)(unsafe.Pointer(&pointer))
}

// i386Errno is the errno of a call of i386, 0 for success.
func i386Errno(result uintptr) unix.Errno {
	if n := -int32(result); n > 0 && n < 4096 {
		return unix.Errno(n)
	}
	return 0
}

const foreignChildVariable = "CONFINE_TEST_FOREIGN_CHILD"

// TestCallsOfAnotherMachineAreRefused: a process of 64 bits makes calls of i386
// and of x32. It is one of its own, since it confines itself.
func TestCallsOfAnotherMachineAreRefused(t *testing.T) {
	if os.Getenv(foreignChildVariable) != "" {
		makeForeignCalls(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), self(t, false), "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), foreignChildVariable+"=1")
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case strings.Contains(text, "SIGSEGV") && !strings.Contains(text, "unconfined: done"):
		t.Skipf("the kernel knows no calls of i386: %v", err)
	case err != nil || !strings.Contains(text, "confined: done"):
		t.Errorf("%v\n%s", err, text)
	}
}

// makeForeignCalls makes them before and after the process is confined, and then on
// two threads.
func makeForeignCalls(t *testing.T) {
	call := int80(t)
	fmt.Println("unconfined: i386")
	if got := int(call(i386Getpid, 0, 0, 0)); got != os.Getpid() {
		t.Fatalf("getpid is %d, not %d", got, os.Getpid())
	}
	if errno := i386Errno(call(i386Socket, unix.AF_UNIX, unix.SOCK_STREAM, 0)); errno != 0 {
		t.Fatalf("socket: %v", errno)
	}
	fmt.Println("unconfined: done")
	var applied, other sync.WaitGroup
	applied.Add(1)
	other.Go(func() { // a thread that is there when the filter comes
		runtime.LockOSThread()
		applied.Wait()
		wantForeignRefused(t, call)
	})
	runtime.LockOSThread()
	if state := Apply(Options{}); !state.Syscalls {
		t.Errorf("system calls are not confined: %v", state.Missing)
	}
	applied.Done()
	other.Wait()
	wantForeignRefused(t, call)
	fmt.Println("confined: done")
}

func wantForeignRefused(t *testing.T, call func(number, a, b, c uintptr) uintptr) {
	t.Helper()
	for name, number := range map[string]uintptr{"getpid": i386Getpid, "socket": i386Socket} {
		if errno := i386Errno(call(number, unix.AF_UNIX, unix.SOCK_STREAM, 0)); errno != unix.EPERM {
			t.Errorf("%s of i386: %q; want EPERM", name, errno)
		}
	}
	if _, _, errno := unix.Syscall(x32Bit|unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0); errno != unix.ENOSYS {
		t.Errorf("socket of x32: %q; want ENOSYS", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
		t.Errorf("getpid: %v", errno)
	}
}
