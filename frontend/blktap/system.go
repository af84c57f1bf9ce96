package blktap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctls. They are plain numbers.
const (
	ioctlRespond            = 1
	ioctlAllocate           = 200 // out: three u32
	ioctlFree               = 201 // the minor by value
	ioctlCreateDeviceCompat = 202
	ioctlPause              = 204
	ioctlResume             = 206 // an errno by value
	ioctlRemoveDevice       = 207
	ioctlCreateDevice       = 208
)

// Names by which the modules register their control device.
var controlNames = [...]string{"blktap-control", "blktap/control"}

// miscMajor is the major of the misc devices, of which the control device is
// one.
const miscMajor = 10

// system is the module of the running kernel.
type system struct {
	dir  string // of the nodes
	proc string // where procfs is mounted
	sys  string // where sysfs is mounted
}

// System is the blktap module of the running kernel, with its nodes where
// tap-ctl has them: in /dev/xen/blktap-2.
func System() Driver { return &system{dir: systemDir, proc: systemProc, sys: systemSys} }

// Where System looks.
const (
	systemDir  = "/dev/xen/blktap-2"
	systemProc = "/proc"
	systemSys  = "/sys"
)

// Allocate implements Driver.
func (y *system) Allocate() (Tap, error) {
	fd, err := y.control()
	if err != nil {
		return Tap{}, err
	}
	defer unix.Close(fd)
	var b [12]byte
	if err := ioctlPointer(fd, ioctlAllocate, b[:]); err != nil {
		return Tap{}, fmt.Errorf("blktap: allocate a minor: %w", err)
	}
	tap := Tap{
		RingMajor:   int(binary.NativeEndian.Uint32(b[0:])),
		DeviceMajor: int(binary.NativeEndian.Uint32(b[4:])),
		Minor:       int(binary.NativeEndian.Uint32(b[8:])),
	}
	tap.Path = y.devicePath(tap.Minor)
	if err := y.makeNodes(tap); err != nil {
		return Tap{}, errors.Join(err, y.free(fd, tap))
	}
	return tap, nil
}

// Free implements Driver.
func (y *system) Free(tap Tap) error {
	fd, err := y.control()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return y.free(fd, tap)
}

// free frees a minor and takes its nodes away, under the lock of the control
// node: whoever gets the minor next makes its nodes under that lock too.
func (y *system) free(fd int, tap Tap) error {
	err := ioctlValue(fd, ioctlFree, uintptr(tap.Minor))
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		err = ioctlValue(fd, ioctlFree, uintptr(tap.Minor))
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("blktap: free minor %d: %w", tap.Minor, ErrNoMinor)
	}
	if err != nil {
		return fmt.Errorf("blktap: free minor %d: %w", tap.Minor, err)
	}
	return errors.Join(removeNode(y.ringPath(tap.Minor)), removeNode(y.devicePath(tap.Minor)))
}

// Find implements Driver. A block device that was hidden has no major here.
func (y *system) Find(minor int) (Tap, error) {
	ring, err := nodeDevice(y.ringPath(minor), unix.S_IFCHR, minor)
	if err != nil {
		return Tap{}, err
	}
	tap := Tap{Minor: minor, RingMajor: int(unix.Major(ring)), Path: y.devicePath(minor)}
	if device, err := nodeDevice(tap.Path, unix.S_IFBLK, minor); err == nil {
		tap.DeviceMajor = int(unix.Major(device))
	}
	return tap, nil
}

// nodeDevice is the device that a node of that kind leads to. Without one of
// the minor it is ErrNoMinor.
func nodeDevice(name string, kind uint32, minor int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil && err != unix.ENOENT {
		return 0, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != kind || int(unix.Minor(st.Rdev)) != minor {
		return 0, fmt.Errorf("%s: %w", name, ErrNoMinor)
	}
	return st.Rdev, nil
}

// Served implements Driver. The module says in sysfs which process it is:
// nothing where there is none.
func (y *system) Served(tap Tap) (bool, error) {
	task, err := os.ReadFile(filepath.Join(y.sys, "class", "blktap2", "blktap"+strconv.Itoa(tap.Minor), "task"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, ErrNoMinor
	}
	if err != nil {
		return false, fmt.Errorf("blktap: minor %d: %w", tap.Minor, err)
	}
	return strings.TrimSpace(string(task)) != "", nil
}

// Hide implements Driver.
func (y *system) Hide(tap Tap) error { return removeNode(y.devicePath(tap.Minor)) }

// Open implements Driver.
func (y *system) Open(tap Tap) (Port, error) {
	name := y.ringPath(tap.Minor)
	p, err := openPort(name)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s: %w", name, ErrMinorInUse)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", name, ErrNoMinor)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// Holders implements Driver.
func (y *system) Holders(tap Tap) []string {
	return holders(y.proc, unix.S_IFBLK, unix.Mkdev(uint32(tap.DeviceMajor), uint32(tap.Minor)))
}

func (y *system) ringPath(minor int) string {
	return filepath.Join(y.dir, "blktap"+strconv.Itoa(minor))
}

func (y *system) devicePath(minor int) string {
	return filepath.Join(y.dir, "tapdev"+strconv.Itoa(minor))
}

// control opens the control node, which it makes if it is missing or stale
// (its minor is another each time that the module is loaded), and locks it
// against others who allocate.
func (y *system) control() (int, error) {
	minor, err := y.controlMinor()
	if err != nil {
		return -1, err
	}
	name := filepath.Join(y.dir, "control")
	if err := makeNode(name, unix.S_IFCHR, miscMajor, minor); err != nil {
		return -1, err
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return fd, nil
}

// controlMinor looks the control device up in /proc/misc, which has a line
// "  61 blktap-control" for it.
func (y *system) controlMinor() (int, error) {
	f, err := os.Open(filepath.Join(y.proc, "misc"))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) != 2 || w[1] != controlNames[0] && w[1] != controlNames[1] {
			continue
		}
		minor, err := strconv.Atoi(w[0])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.Name(), err)
		}
		return minor, nil
	}
	return 0, fmt.Errorf("%w: %s has no %s; load it with \"modprobe blktap\"", ErrNoModule, f.Name(), controlNames[0])
}

func (y *system) makeNodes(tap Tap) error {
	if err := makeNode(y.ringPath(tap.Minor), unix.S_IFCHR, tap.RingMajor, tap.Minor); err != nil {
		return err
	}
	return makeNode(y.devicePath(tap.Minor), unix.S_IFBLK, tap.DeviceMajor, tap.Minor)
}

// makeNode makes a device node, for root alone, unless it is there. Another
// device's node in its place is one of a time before, and goes.
func makeNode(name string, kind uint32, major, minor int) error {
	dev := unix.Mkdev(uint32(major), uint32(minor))
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err == nil {
		if st.Mode&unix.S_IFMT == kind && st.Rdev == dev {
			return nil
		}
		if err := removeNode(name); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := unix.Mknod(name, kind|0o600, int(dev)); err != nil {
		return &fs.PathError{Op: "mknod", Path: name, Err: err}
	}
	return nil
}

// removeNode takes a device node away, and nothing else. It is fine if there
// is none.
func removeNode(name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err == unix.ENOENT {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.New("not a device node")}
	}
	if err := unix.Unlink(name); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// ioctlPointer is an ioctl whose argument is memory.
func ioctlPointer(fd int, cmd uintptr, b []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cmd, uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// ioctlValue is an ioctl whose argument is a number, or nothing.
func ioctlValue(fd int, cmd, value uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cmd, value); errno != 0 {
		return errno
	}
	return nil
}
