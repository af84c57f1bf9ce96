package storage

import (
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// OS is the file system of the operating system, which is Linux. It is safe
// for concurrent use. Errors are *fs.PathError (*os.LinkError for the calls
// with two names) around the kernel's errno and, where one applies, a sentinel
// of this package: errors.Is finds either.
//
// A process with a limit on the size of its files (ulimit -f) gets ErrNoSpace
// at the limit. The kernel sends SIGXFSZ besides, which the Go runtime catches
// and drops: a command has nothing to do about it, but must not take that
// signal for a reason to end.
var OS FS = osFS{}

type osFS struct{}

// Open implements FS. It looks at what name is before it opens it, since
// opening a device can move a tape, and again afterwards, since the name may
// have been given to something else in between. O_NONBLOCK is for that case: a
// FIFO without a writer would hold the open for ever.
func (osFS) Open(name string, flag Flag) (File, error) {
	access, nofollow, atFlags := unix.O_RDONLY, 0, 0
	if flag&ReadWrite != 0 {
		access = unix.O_RDWR
	}
	if flag&NoFollow != 0 {
		nofollow, atFlags = unix.O_NOFOLLOW, unix.AT_SYMLINK_NOFOLLOW
	}
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(unix.AT_FDCWD, name, &st, atFlags) })
	if err == nil {
		err = checkRegular(&st)
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	fd, err := open(name, access|nofollow|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if err := checkOpened(fd, flag); err != nil {
		_ = unix.Close(fd)
		return nil, pathError("open", name, err)
	}
	return &osFile{name: name, fd: fd, writable: flag&ReadWrite != 0}, nil
}

// checkOpened refuses what must not be read as an image and takes O_NONBLOCK
// off the rest: a file system may heed it even for regular files.
func checkOpened(fd int, flag Flag) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	if err := checkRegular(&st); err != nil {
		return err
	}
	if flag&NoFollow != 0 {
		if err := checkNotProc(fd); err != nil {
			return err
		}
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	return err
}

// checkNotProc refuses procfs, whose files look regular: a name that comes out
// of an image (hence NoFollow) must not lead to another process's memory.
func checkNotProc(fd int) error {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return err
	}
	if st.Type == unix.PROC_SUPER_MAGIC {
		return &kindError{"a file of the proc file system"}
	}
	return nil
}

// checkRegular refuses everything but regular files, and says what it is.
func checkRegular(st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return &kindError{"a directory"}
	case unix.S_IFLNK:
		return &kindError{"a symbolic link"}
	case unix.S_IFIFO:
		return &kindError{"a FIFO"}
	case unix.S_IFSOCK:
		return &kindError{"a socket"}
	case unix.S_IFBLK:
		return &kindError{"a block device"}
	default:
		return &kindError{"a character device"}
	}
}

// Create implements FS.
func (osFS) Create(name string, perm fs.FileMode) (File, error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY
	fd, err := open(name, flags, uint32(perm.Perm()))
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return &osFile{name: name, fd: fd, writable: true}, nil
}

// Stat implements FS.
func (osFS) Stat(name string) (Info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(name, &st) }); err != nil {
		return Info{}, pathError("stat", name, err)
	}
	return infoOf(&st), nil
}

// Resolve implements FS.
func (osFS) Resolve(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// Rename implements FS.
func (osFS) Rename(oldname, newname string) error {
	err := retry(func() error { return unix.Rename(oldname, newname) })
	return linkError("rename", oldname, newname, err)
}

// Link implements FS. A file system without hard links says EPERM, which is
// ErrNotSupported here (and fs.ErrPermission still).
func (osFS) Link(oldname, newname string) error {
	err := retry(func() error { return unix.Link(oldname, newname) })
	if err == unix.EPERM {
		err = &sysError{kind: ErrNotSupported, errno: unix.EPERM}
	}
	return linkError("link", oldname, newname, err)
}

// Remove implements FS.
func (osFS) Remove(name string) error {
	return pathError("remove", name, retry(func() error { return unix.Unlink(name) }))
}

// SyncDir implements FS. A file system that answers EINVAL has no way to sync
// a directory on its own, and nothing that a caller could do about it.
func (osFS) SyncDir(dir string) error {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return pathError("open", dir, err)
	}
	err = retry(func() error { return unix.Fsync(fd) })
	_ = unix.Close(fd)
	if err == unix.EINVAL {
		return nil
	}
	return pathError("sync", dir, err)
}

func open(name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, perm)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// retry calls f until it returns something other than EINTR: signals are
// frequent in a Go process, and none of them is meant for a file.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func infoOf(st *unix.Stat_t) Info {
	return Info{
		ID:        idOf(st),
		Size:      st.Size,
		Allocated: st.Blocks * 512, // st_blocks counts 512-byte units, whatever the file system's block
		Mode:      modeOf(st),
		ModTime:   time.Unix(st.Mtim.Unix()),
	}
}

func idOf(st *unix.Stat_t) FileID {
	return FileID{Dev: uint64(st.Dev), Ino: st.Ino} // Dev is 32 bits wide on some machines
}

// modeOf has the permission bits and, for what isn't a regular file, its type.
func modeOf(st *unix.Stat_t) fs.FileMode {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	return mode
}
