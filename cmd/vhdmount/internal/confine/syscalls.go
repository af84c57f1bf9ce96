package confine

import (
	"errors"
	"fmt"
	"os"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// denied are the system calls that a server of a disk has no use for once it
// is shown, and whoever took it over would have. It is a list of what is
// refused, not of what is allowed: the Go runtime's needs change with its
// version, and a server that dies of a system call loses what is unflushed.
var denied = []string{
	// programs, and other processes
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_open", "pidfd_getfd",
	"pidfd_send_signal", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setns", "unshare",
	// sockets: those that it has it keeps
	"socket", "socketpair", "connect", "bind", "listen",
	// the directory tree
	"mount", "umount2", "move_mount", "mount_setattr", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
	"pivot_root", "chroot", "open_by_handle_at",
	// the kernel, and what its flaws are mostly found in
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "bpf", "perf_event_open",
	"userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl",
	"fanotify_init", "acct", "quotactl", "swapon", "swapoff", "reboot", "syslog", "iopl", "ioperm", "personality",
	"settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname",
}

// toItself are those that may have the process itself as their target, by
// which the Go runtime stops its threads, and raises a signal that ends it.
var toItself = []string{"kill", "tgkill"}

// denySyscalls has the kernel answer EPERM to what is denied, on every thread.
// On amd64 the 32-bit calls of i386 get past it.
func denySyscalls() error {
	machine, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if !seccomp.Supported() {
		return errors.New("seccomp: the kernel has none")
	}
	refused := seccomp.SyscallGroup{Action: seccomp.ActionErrno}
	for _, name := range denied {
		if _, ok := machine.SyscallNames[name]; ok { // not every machine has each
			refused.Names = append(refused.Names, name)
		}
	}
	for _, name := range toItself {
		other := seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: uint64(os.Getpid())}
		refused.NamesWithCondtions = append(refused.NamesWithCondtions,
			seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{other}})
	}
	err = seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy:     seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{refused}},
	})
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	// A thread that the kernel could not bring in line would be no error.
	if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		return errors.Join(errors.New("seccomp: the filter is not in force"), unix.Close(fd))
	}
	return nil
}
