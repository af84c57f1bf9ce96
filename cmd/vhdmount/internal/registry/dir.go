// Package registry knows the mounts of one user: an entry a mount, in the
// user's runtime directory, each held locked by the server that serves it.
//
// The directory of a mount called NAME holds
//
//	NAME.json   the entry; locked for as long as its server lives
//	NAME.sock   the server's control socket (package control)
//	NAME.log    what the server logged in the background; that of one which
//	            failed or died stays, as long as it is among the newest few
//	mnt/DIR     a mount point that vhdmount made itself
//
// The lock, not the pid in the entry, tells whether the server lives: a pid
// may belong to somebody else by now.
package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsafe is a runtime directory that somebody else could write to.
var ErrUnsafe = errors.New("not a safe runtime directory")

// Dir is a runtime directory. Its methods are safe for concurrent use, by
// several processes too.
type Dir struct {
	path string
}

// Variable is the environment's name for another runtime directory.
const Variable = "VHDMOUNT_RUNTIME_DIR"

// Locate is the runtime directory of the user uid in an environment:
// $VHDMOUNT_RUNTIME_DIR if set; /run/vhdmount for root, whatever the session;
// else vhdmount in $XDG_RUNTIME_DIR or, where that is unset, in /run/user/UID if
// that exists; else /tmp/vhdmount-UID. It touches nothing.
func Locate(getenv func(string) string, uid int) string {
	if dir := getenv(Variable); dir != "" {
		return dir
	}
	if uid == 0 {
		return "/run/vhdmount"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "vhdmount")
	}
	session := filepath.Join("/run/user", strconv.Itoa(uid))
	if info, err := os.Stat(session); err == nil && info.IsDir() {
		return filepath.Join(session, "vhdmount")
	}
	return filepath.Join(os.TempDir(), "vhdmount-"+strconv.Itoa(uid))
}

// Open makes the runtime directory if it isn't there and checks that it is a
// directory, no symbolic link, of the caller's, and closed to everybody else;
// if not, the error wraps ErrUnsafe.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(abs, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("runtime directory %s: %w", abs, cause(err))
	}
	if err := verify(abs); err != nil {
		return nil, fmt.Errorf("runtime directory %s: %w", abs, err)
	}
	d := &Dir{path: abs}
	d.pruneLogs()
	return d, nil
}

// maxDeadLogs is how many logs are kept of servers that failed or died.
const maxDeadLogs = 16

// pruneLogs removes the oldest logs that nobody holds open beyond maxDeadLogs:
// the directory is memory. One that can't be removed stays.
func (d *Dir) pruneLogs() {
	names, _ := filepath.Glob(filepath.Join(escape(d.path), "[^.]*.log"))
	type log struct {
		path    string
		changed time.Time
	}
	var dead []log
	for _, path := range names {
		if info, err := os.Lstat(path); err == nil {
			dead = append(dead, log{path, info.ModTime()})
		}
	}
	slices.SortFunc(dead, func(a, b log) int { return b.changed.Compare(a.changed) })
	for _, l := range dead[min(len(dead), maxDeadLogs):] {
		removeUnheld(l.path)
	}
}

// removeUnheld removes a log unless a server has it locked.
func removeUnheld(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return // gone, or none of ours
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		os.Remove(path)
	}
}

// verify refuses a directory that was prepared by somebody else: /tmp is open
// to all.
func verify(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return cause(err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: it is a %s", ErrUnsafe, kind(info.Mode()))
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if me := os.Geteuid(); int(owner) != me {
		return fmt.Errorf("%w: it belongs to user %d, not to %d", ErrUnsafe, owner, me)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%w: others may enter it (mode %04o; chmod 700 it)", ErrUnsafe, perm)
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m.IsRegular():
		return "regular file"
	default:
		return "special file"
	}
}

// Path is the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// Socket is the path of the control socket of the mount called name.
func (d *Dir) Socket(name string) string { return filepath.Join(d.path, name+".sock") }

// Log is the path of the log of the mount called name.
func (d *Dir) Log(name string) string { return filepath.Join(d.path, name+".log") }

func (d *Dir) entry(name string) string { return filepath.Join(d.path, name+".json") }

func (d *Dir) mountpoints() string { return filepath.Join(d.path, "mnt") }

// MakeMountpoint makes an empty directory to mount image at, named after it.
func (d *Dir) MakeMountpoint(image string) (string, error) {
	if err := os.Mkdir(d.mountpoints(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("mount point: %w", err)
	}
	base := filepath.Join(d.mountpoints(), label(image))
	for n := 1; ; n++ {
		path := base
		if n > 1 {
			path += "-" + strconv.Itoa(n)
		}
		err := os.Mkdir(path, 0o700)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("mount point: %w", err)
		}
	}
}

// RemoveMountpoint removes a directory that MakeMountpoint made, which must
// be empty and no longer mounted. One that is gone already is no error, and
// one that lies elsewhere is left alone.
func (d *Dir) RemoveMountpoint(path string) error {
	if filepath.Dir(path) != d.mountpoints() {
		return nil
	}
	// Rmdir, never anything recursive: what is below might be the disk.
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mount point %s: %w", path, err)
	}
	return nil
}

// cause is what the system said, without the operation and path that the os
// package puts before it.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
