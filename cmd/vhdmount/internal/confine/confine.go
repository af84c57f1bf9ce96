// Package confine has a process give up what it no longer needs, so that
// whoever takes it over by an image that outwits the engine finds little: it
// can open no file, run no program, reach no network, and has none of root's
// rights. What is open stays usable, and descriptors may still come over a
// socket that is open.
//
// Three means of the kernel, each worth something without the others: Landlock
// (files, TCP), capabilities, and a seccomp filter (system calls). All apply to
// every thread of the process and can't be undone. None is a cure: the process
// can do to the files that it has open whatever it likes.
//
// Unmounting ends with it, by umount(2), which Landlock refuses to everyone
// with rules on files, and by fusermount3, a set-user-ID program: the process
// must have arranged for that before (package umount).
package confine

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Options say what a process still needs. The zero value is: nothing.
type Options struct {
	// RemoveIn are directories in which, at any depth, files and empty
	// directories may be removed. Each must exist.
	RemoveIn []string
	// Read are files that may be opened again to be read, by whatever name;
	// Write those that may be written to as well. Each must exist.
	Read, Write []string
	// AnyFile leaves files to the permission bits: for a server that learns
	// only later what it is to open.
	AnyFile bool
	// Keep are the capabilities to keep, of those that the process has. To
	// these comes CAP_DAC_OVERRIDE where permission bits stand between root
	// and what is listed above.
	Keep []cap.Value
}

// State is what a process has given up.
type State struct {
	Files        bool // it opens nothing but what Options say
	Network      bool // it makes no socket, or at least neither binds nor connects one of TCP
	Syscalls     bool // it runs no program, traces none, and so on
	Capabilities string
	// Missing is what could not be had, and why: an old kernel, mostly.
	Missing error
}

// LogValue implements slog.LogValuer.
func (s State) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.Bool("files", s.Files), slog.Bool("network", s.Network), slog.Bool("system_calls", s.Syscalls),
		slog.String("capabilities", s.Capabilities),
	}
	if s.Missing != nil {
		attrs = append(attrs, slog.String("missing", strings.ReplaceAll(s.Missing.Error(), "\n", "; ")))
	}
	return slog.GroupValue(attrs...)
}

// Apply confines the process as far as the kernel can, and says how far that
// was. Call it once.
//
// Every thread is stopped for a moment. None may be in a system call that only
// another thread of the process can end, as one that waits for the process's
// own FUSE mount would be: that would be for ever.
func Apply(o Options) State {
	// The runtime reads the time zone at the first local time.
	_ = time.Now().Local().String()
	var s State
	missing := []error{noNewPrivileges(), DropCapabilities(o.keep()...)}
	landlock, err := restrictFiles(o)
	missing = append(missing, err)
	s.Files, s.Network = landlock.files, landlock.network
	if err := denySyscalls(); err != nil {
		missing = append(missing, err)
	} else {
		s.Syscalls, s.Network = true, true
	}
	s.Capabilities = cap.GetProc().String()
	s.Missing = errors.Join(missing...)
	return s
}

// noNewPrivileges takes the effect from set-user-ID programs, and lets a user
// install the filters that follow.
func noNewPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("no_new_privs: %w", errno)
	}
	return nil
}
