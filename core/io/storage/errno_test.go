package storage

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrorsAreBothSentinelAndErrno(t *testing.T) {
	tests := []struct {
		errno    unix.Errno
		sentinel error
	}{
		{unix.ENOSPC, ErrNoSpace},
		{unix.EDQUOT, ErrNoSpace},
		{unix.EFBIG, ErrNoSpace},
		{unix.EROFS, ErrReadOnly},
		{unix.EBADF, ErrReadOnly},
		{unix.EOPNOTSUPP, ErrNotSupported},
		{unix.ENOSYS, ErrNotSupported},
		{unix.EISDIR, ErrNotRegular},
		{unix.ELOOP, ErrNotRegular},
		{unix.ENXIO, ErrNotRegular},
		{unix.ENOENT, fs.ErrNotExist},
		{unix.EEXIST, fs.ErrExist},
		{unix.EACCES, fs.ErrPermission},
		{unix.EPERM, fs.ErrPermission},
		{unix.EIO, nil},
	}
	for _, test := range tests {
		for _, err := range []error{
			pathError("write", "a.vhd", test.errno),
			linkError("link", "a.vhd", "b.vhd", test.errno),
		} {
			if !errors.Is(err, test.errno) {
				t.Errorf("%v is not %v", err, test.errno)
			}
			for _, sentinel := range []error{ErrNoSpace, ErrReadOnly, ErrNotSupported, ErrNotRegular, fs.ErrNotExist, fs.ErrExist, fs.ErrPermission} {
				if is := errors.Is(err, sentinel); is != (sentinel == test.sentinel) {
					t.Errorf("%v is %v: %v", err, sentinel, is)
				}
			}
		}
	}
}

func TestErrorsNameCallAndFile(t *testing.T) {
	err := pathError("write", "a.vhd", unix.ENOSPC)
	var path *fs.PathError
	if !errors.As(err, &path) || path.Op != "write" || path.Path != "a.vhd" {
		t.Errorf("%#v", err)
	}
	if got := err.Error(); got != "write a.vhd: no space left on device" {
		t.Errorf("%q", got)
	}
	err = linkError("rename", "a.vhd", "b.vhd", unix.EXDEV)
	var link *os.LinkError
	if !errors.As(err, &link) || link.Old != "a.vhd" || link.New != "b.vhd" {
		t.Errorf("%#v", err)
	}
	if pathError("write", "a.vhd", nil) != nil || linkError("link", "a", "b", nil) != nil {
		t.Error("success is an error")
	}
}
