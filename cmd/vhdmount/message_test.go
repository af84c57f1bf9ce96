package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/check"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

func pathError(name string, errno unix.Errno) error {
	return &fs.PathError{Op: "open", Path: name, Err: errno}
}

func TestMessage(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a file that isn't there, without the system call": {
			pathError("disk.vhd", unix.ENOENT), "disk.vhd: no such file or directory (is the name right?)"},
		"the image's name once": {
			&vhd.ImageError{Image: "disk.vhd", Err: pathError("disk.vhd", unix.ENOENT)}, "disk.vhd: no such file or directory (is the name right?)"},
		"another file's name too": {
			&vhd.ImageError{Image: "disk.vhd", Place: "parent", Err: pathError("base.vhd", unix.ENOENT)},
			"disk.vhd: parent: base.vhd: no such file or directory (is the name right?)"},
		"a parent's name once": {
			&vhd.ImageError{Image: "c.vhd", Place: "parent", Err: &vhd.ImageError{Image: "base.vhd", Err: pathError("base.vhd", unix.ENOENT)}},
			"c.vhd: parent: base.vhd: no such file or directory (is the name right?)"},
		"the image as the mount point": {
			fmt.Errorf("disk.vhd: %w", errMountOnImage), "disk.vhd: is the image itself (name an empty directory, or none)"},
		"a parent as the mount point": {
			fmt.Errorf("base.vhd: %w", errMountOnParent), "base.vhd: is a parent of the image (name an empty directory, or none)"},
		"damage, with its place and numbers": {
			&vhd.ImageError{Image: "disk.vhd", Place: "block 17", Err: fmt.Errorf("%w: sector 9999 of 4096", vhd.ErrCorrupt)},
			"disk.vhd: block 17: damaged image: sector 9999 of 4096 (vhdmount check tells more)"},
		"the holder of a lock": {
			&vhd.ImageError{Image: "disk.vhd", Err: &storage.InUseError{Access: storage.Exclusive, Holders: []storage.Holder{{PID: 17, Name: "qemu"}}}},
			"disk.vhd: in use: qemu (pid 17) has it open (close it there first)"},
		"an error that says itself what to do": {
			&vhd.ImageError{Image: "c.vhd", Err: fmt.Errorf("%w: name it with --parent", vhd.ErrParentMissing)},
			"c.vhd: parent not found: name it with --parent"},
		"a mount point that isn't there": {
			fmt.Errorf("mnt: %w: %w", fuse.ErrMountpoint, unix.ENOENT),
			"mnt: unsuitable mount point: no such file or directory (name an empty directory, or none)"},
		"no space": {
			&vhd.ImageError{Image: "disk.vhd", Err: blockdev.ErrNoSpace}, "disk.vhd: no space left under the device (make room there and try again)"},
		"joined errors on one line": {
			errors.Join(errors.New("one"), errors.New("two")), "one; two"},
		"control characters": {
			errors.New("a\x1b[2Jb"), "a\uFFFD[2Jb"},
		"a message of another process as it is": {
			finished{errors.New("disk.vhd: no such file or directory (is the name right?)")}, "disk.vhd: no such file or directory (is the name right?)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := message(c.err); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMessageOfAnImageThatMayBeReadButNotWritten(t *testing.T) {
	readable := filepath.Join(t.TempDir(), "disk.vhd")
	if err := os.WriteFile(readable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := message(pathError(readable, unix.EACCES)); !strings.HasSuffix(got, "permission denied (you may read it: try --read-only)") {
		t.Errorf("got %s", got)
	}
	hidden := filepath.Join(t.TempDir(), "none.vhd")
	if got, want := message(pathError(hidden, unix.EACCES)), fmt.Sprintf("(user %d may not)", os.Geteuid()); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s at its end", got, want)
	}
}

func TestMessageNamesWhatAForeignFileIs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk.vhdx")
	if err := os.WriteFile(name, append([]byte("vhdxfile"), make([]byte, 4096)...), 0o600); err != nil {
		t.Fatal(err)
	}
	want := name + ": not a VHD image but a VHDX image: qemu-img convert -O vpc turns it into a VHD"
	for _, err := range []error{
		&vhd.ImageError{Image: name, Err: vhd.ErrNotVHD},
		fmt.Errorf("%s: %w", name, check.ErrNotVHD),
	} {
		if got := message(err); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	child := filepath.Join(t.TempDir(), "child.vhd")
	if err := os.WriteFile(child, []byte("conectix"), 0o600); err != nil {
		t.Fatal(err)
	}
	parent := &vhd.ImageError{Image: child, Place: "parent", Err: &vhd.ImageError{Image: name, Err: vhd.ErrNotVHD}}
	if got, want := message(parent), child+": parent: "+want; got != want {
		t.Errorf("a parent's:\ngot  %s\nwant %s", got, want)
	}
	gone := &vhd.ImageError{Image: name + ".gone", Err: vhd.ErrNotVHD}
	if got := message(gone); got != name+".gone: not a VHD image" {
		t.Errorf("got %s", got)
	}
}
