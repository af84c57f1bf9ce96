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
	// files that it may not open, by their names: root owns most of them
	"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
	"setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
	"utime", "utimes", "utimensat", "futimesat", "file_setattr",
	// the lot of other processes
	"setpriority", "sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity", "ioprio_set", "migrate_pages",
	"move_pages", "process_madvise", "process_mrelease",
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

// newNamespaces are the flags by which clone makes namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// denySyscalls has the kernel answer EPERM to what is denied, and to the calls
// of another machine, on every thread. Those of x32 on amd64 end in ENOSYS.
func denySyscalls() error {
	machine, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if !seccomp.Supported() {
		return errors.New("seccomp: the kernel has none")
	}
	if err := denyForeignCalls(uint32(machine.ID)); err != nil {
		return fmt.Errorf("seccomp: calls of another machine: %w", err)
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
	refused.NamesWithCondtions = append(refused.NamesWithCondtions,
		seccomp.NameWithConditions{Name: "clone", Conditions: seccomp.ArgumentConditions{
			{Argument: 0, Operation: seccomp.BitsSet, Value: newNamespaces}}},
		// Its own limits are process 0.
		seccomp.NameWithConditions{Name: "prlimit64", Conditions: seccomp.ArgumentConditions{
			{Argument: 0, Operation: seccomp.NotEqual, Value: 0}}})
	// Its flags are in memory, where no filter sees them. Go asks for clone then.
	missing := seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}}
	err = seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy:     seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{refused, missing}},
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
