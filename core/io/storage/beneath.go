package storage

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// outsideError is a way to a file that is not within its directory. It unwraps
// to ErrOutside.
type outsideError struct {
	why string
}

func (e *outsideError) Error() string { return e.why }
func (e *outsideError) Unwrap() error { return ErrOutside }

// OpenBeneath implements FS. Like Open it looks before it opens, and again
// afterwards; each time the kernel goes all the way from the directory, without
// links, so that nothing depends on what was found before.
func (osFS) OpenBeneath(dir, name string, flag Flag) (File, error) {
	path := filepath.Join(dir, name)
	if !filepath.IsLocal(name) {
		return nil, pathError("open", path, &outsideError{"it leads out of " + dir})
	}
	fd, err := openBeneath(dir, name, flag)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return &osFile{name: path, fd: fd, writable: flag&ReadWrite != 0}, nil
}

func openBeneath(dir, name string, flag Flag) (int, error) {
	at, err := openWithoutLinks(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	if err := checkBeneath(at, name); err != nil {
		return -1, err
	}
	access := unix.O_RDONLY
	if flag&ReadWrite != 0 {
		access = unix.O_RDWR
	}
	fd, err := openWithoutLinks(at, name, access|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if err := checkOpened(fd, flag|NoFollow); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// checkBeneath sees what the name is, without opening it.
func checkBeneath(at int, name string) error {
	fd, err := openWithoutLinks(at, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	return checkRegular(&st)
}

// errLink is a symbolic link on the way, which was none when the way was
// resolved.
var errLink = &outsideError{"a directory on the way is a symbolic link, or was made one meanwhile"}

// openWithoutLinks opens name, seen from the directory at, and no link on the
// way; name has no "..", but for a relative one seen from the working directory.
func openWithoutLinks(at int, name string, flags int) (int, error) {
	resolve := uint64(unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS)
	if at != unix.AT_FDCWD {
		resolve |= unix.RESOLVE_BENEATH
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	for {
		fd, err := unix.Openat2(at, name, &how)
		switch err {
		case unix.EINTR, unix.EAGAIN: // EAGAIN: something was renamed meanwhile
			continue
		case unix.ENOSYS, unix.EPERM: // Linux before 5.6; a container's filter that doesn't know the call
			return walkWithoutLinks(at, name, flags)
		case unix.ELOOP, unix.EXDEV:
			return -1, errLink
		}
		return fd, err
	}
}

// walkWithoutLinks is openWithoutLinks where the kernel can't: a component at a
// time.
func walkWithoutLinks(at int, name string, flags int) (int, error) {
	name = filepath.Clean(name)
	if rest, ok := strings.CutPrefix(name, "/"); ok {
		if rest == "" {
			return open("/", flags, 0)
		}
		root, err := open("/", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(root)
		return walkWithoutLinks(root, rest, flags)
	}
	first, rest, more := strings.Cut(name, "/")
	if !more {
		return step(at, first, flags)
	}
	next, err := step(at, first, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(next)
	return walkWithoutLinks(next, rest, flags)
}

// step opens one component.
func step(at int, name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(at, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err == unix.ENOTDIR || err == unix.ELOOP {
		var st unix.Stat_t
		if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return -1, errLink
		}
	}
	return fd, err
}
