package storage

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// DeviceOpener is an FS that can open a block device as a File, which Open
// refuses: for those whom the user named one, never for a name from an image.
type DeviceOpener interface {
	// OpenDevice opens a block device. Its File has the device's size, which
	// nothing can change; it punches holes in whole blocks alone. To write, nobody else may have it
	// for itself: one that is mounted is EBUSY. Anything but a block device is
	// ErrNotRegular.
	OpenDevice(name string, flag Flag) (File, error)
}

var _ DeviceOpener = osFS{}

// deviceFile is a block device. Its inode knows nothing of its size.
type deviceFile struct {
	*osFile
	size int64
}

// errNotBlock is anything else in the place of a block device.
var errNotBlock = &sysError{kind: ErrNotRegular, errno: unix.ENOTBLK}

// OpenDevice implements DeviceOpener.
func (osFS) OpenDevice(name string, flag Flag) (File, error) {
	mode := unix.O_RDONLY
	if flag&ReadWrite != 0 {
		mode = unix.O_RDWR | unix.O_EXCL
	}
	if flag&NoFollow != 0 {
		mode |= unix.O_NOFOLLOW
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(name, &st) }); err != nil {
		return nil, pathError("open", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, pathError("open", name, errNotBlock)
	}
	fd, err := open(name, mode|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	size, err := deviceSize(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, pathError("open", name, err)
	}
	return &deviceFile{osFile: &osFile{name: name, fd: fd, writable: flag&ReadWrite != 0}, size: size}, nil
}

// deviceSize is the size of a block device in bytes. The name may have been
// given to something else since it was looked at.
func deviceSize(fd int) (int64, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, errNotBlock
	}
	return unix.Seek(fd, 0, unix.SEEK_END)
}

// Size implements File.
func (f *deviceFile) Size() (int64, error) {
	if _, err := f.osFile.Stat(); err != nil {
		return 0, err
	}
	return f.size, nil
}

// Stat implements File. All of a device counts as allocated.
func (f *deviceFile) Stat() (Info, error) {
	info, err := f.osFile.Stat()
	info.Size, info.Allocated = f.size, f.size
	return info, err
}

// Truncate implements File.
func (f *deviceFile) Truncate(int64) error {
	return &fs.PathError{Op: "truncate", Path: f.Name(), Err: ErrNotSupported}
}

// PunchHole implements File. A range that is not made of the device's own
// blocks can't be one.
func (f *deviceFile) PunchHole(off, n int64) error {
	err := f.osFile.PunchHole(off, n)
	if errors.Is(err, unix.EINVAL) {
		return &fs.PathError{Op: "punch hole", Path: f.Name(), Err: ErrNotSupported}
	}
	return err
}
