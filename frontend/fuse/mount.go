package fuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	fuseDevice = "/dev/fuse"
	fuseConf   = "/etc/fuse.conf"
)

// mount mounts at mnt and returns the descriptor of /dev/fuse that the kernel
// talks to. It asks the kernel itself, and fusermount3 where that is not
// allowed.
func mount(ctx context.Context, mnt mountpoint, o *Options) (fd int, err error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	fd, err = openDevice(fuseDevice)
	if err != nil {
		return -1, err
	}
	err = mountDirect(fd, mnt, o)
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if !errors.Is(err, unix.EPERM) {
		return -1, fmt.Errorf("%s: mount: %w", mnt.path, err)
	}
	if (o.AllowOther || o.AllowRoot) && os.Geteuid() != 0 {
		if err := checkAllowOther(fuseConf); err != nil {
			return -1, err
		}
	}
	return fusermount(ctx, mnt, o)
}

// openDevice opens /dev/fuse. fusermount3 opens it with the user's own rights
// too, so what is refused here is refused there.
func openDevice(name string) (int, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return fd, nil
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return -1, fmt.Errorf("%w: %s: %w; an administrator must load the kernel's module (modprobe fuse) or let this container have the device", ErrNoFuse, name, err)
	case unix.EACCES, unix.EPERM:
		return -1, fmt.Errorf("%w: %s: %w; an administrator must allow it (chmod 0666 %s)", ErrNoFuse, name, err, name)
	default:
		return -1, fmt.Errorf("%w: %s: %w", ErrNoFuse, name, err)
	}
}

// mountDirect mounts as one who may.
func mountDirect(fd int, mnt mountpoint, o *Options) error {
	rootMode := unix.S_IFDIR
	if mnt.file {
		rootMode = unix.S_IFREG
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", fd, rootMode, os.Geteuid(), os.Getegid())
	for _, opt := range kernelOptions(o) {
		data += "," + opt
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount(o.FSName, mnt.path, fsType, flags, data)
}

// kernelOptions are the options that the kernel knows, beside those of the
// connection. Permission bits are always checked by the kernel: with
// allow_other nobody else would.
func kernelOptions(o *Options) []string {
	opts := []string{"default_permissions", fmt.Sprintf("max_read=%d", maxWrite)}
	if o.AllowOther || o.AllowRoot {
		opts = append(opts, "allow_other")
	}
	return opts
}

// checkAllowOther tells whether users may let others in, before fusermount3
// refuses it less plainly.
func checkAllowOther(conf string) error {
	refused := fmt.Errorf("%w: allow_other and allow_root need the line user_allow_other in %s, which an administrator must add", ErrNoFuse, conf)
	f, err := os.Open(conf)
	if err != nil {
		return refused
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.TrimSpace(s.Text()) == "user_allow_other" {
			return nil
		}
	}
	return refused
}
