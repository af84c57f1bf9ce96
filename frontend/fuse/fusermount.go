package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// fusermount mounts with the set-user-ID program of libfuse, which sends the
// descriptor of /dev/fuse over a socket.
func fusermount(ctx context.Context, mnt mountpoint, o *Options) (fd int, err error) {
	program, err := fusermountProgram()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	cmd := exec.CommandContext(ctx, program, "-o", fusermountOptions(o), "--", mnt.path)
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	err = run(cmd, "_FUSE_COMMFD=3")
	theirs.Close()
	if err != nil {
		return -1, err
	}
	return receiveDescriptor(pair[0])
}

// fusermountOptions is the -o argument. Commas and backslashes of the name are
// escaped as libfuse does.
func fusermountOptions(o *Options) string {
	opts := append([]string{
		"nosuid", "nodev", "subtype=vhdmount",
		"fsname=" + strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(o.FSName),
	}, kernelOptions(o)...)
	if o.ReadOnly {
		opts = append(opts, "ro")
	}
	return strings.Join(opts, ",")
}

// fusermountProgram finds fusermount3 or, from libfuse 2, fusermount.
func fusermountProgram() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		for _, path := range []string{name, filepath.Join("/usr/bin", name), filepath.Join("/bin", name)} {
			if found, err := exec.LookPath(path); err == nil {
				return found, nil
			}
		}
	}
	return "", fmt.Errorf("%w: an administrator must install fuse3", ErrNoFusermount)
}

// run runs cmd; what it complains of becomes the error.
func run(cmd *exec.Cmd, env ...string) error {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if msg := strings.TrimSpace(complaint.String()); errors.As(err, &exit) && msg != "" {
		return errors.New(msg)
	}
	return err
}

// receiveDescriptor takes the one descriptor that came over a socket.
func receiveDescriptor(socket int) (int, error) {
	data, control := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fusermount: no descriptor: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errors.New("fusermount: no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("fusermount: no descriptor came")
	}
	return fds[0], nil
}
