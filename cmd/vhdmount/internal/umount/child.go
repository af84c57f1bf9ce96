package umount

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/frontend"
)

// socketVariable tells the process which descriptor its server is at;
// socketFD is that: the first after standard error.
const (
	socketVariable = "VHDMOUNT_UMOUNT_FD"
	socketFD       = "3"
)

// Mount is what the process can do for its server.
type Mount interface {
	// Unmount takes the mount away. One in use is frontend.ErrBusy.
	Unmount(ctx context.Context, lazy bool) error
	// Uses says who uses the mount once it is out of sight.
	Uses(ctx context.Context) string
	// Settle opens the disk once.
	Settle()
}

// Helper is the process that Start started, seen from within.
type Helper struct {
	socket *os.File
}

// Child is the way to the server in a process that Start started, and false in
// any other. It can be taken once: what this process starts is none.
func Child() (*Helper, bool) {
	if os.Getenv(socketVariable) != socketFD {
		return nil, false
	}
	os.Unsetenv(socketVariable)
	const fd = 3
	unix.CloseOnExec(fd)
	return &Helper{socket: os.NewFile(fd, "server")}, true
}

// Serve reads the mount's description into mount, which is a pointer, and does
// what the server asks for until that ends. Signals that end others are not
// heeded: whoever sends them to all processes, as a system that shuts down
// does, means the server, which needs this one to unmount.
func (h *Helper) Serve(mount Mount) error {
	defer h.socket.Close()
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	in, out := gob.NewDecoder(h.socket), gob.NewEncoder(h.socket)
	if err := in.Decode(mount); err != nil {
		return fmt.Errorf("unmounting process: no mount was named: %w", err)
	}
	for {
		var q request
		if err := in.Decode(&q); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return fmt.Errorf("unmounting process: %w", err)
		}
		if err := out.Encode(answer(mount, q)); err != nil {
			return nil // the server has gone; nobody else asked
		}
	}
}

func answer(mount Mount, q request) response {
	switch q.Op {
	case opUnmount:
		err := mount.Unmount(context.Background(), q.Lazy)
		if err != nil {
			return response{Error: err.Error(), Busy: errors.Is(err, frontend.ErrBusy)}
		}
		return response{}
	case opSettle:
		mount.Settle()
		return response{}
	case opUses:
		return response{Text: mount.Uses(context.Background())}
	}
	return response{Error: fmt.Sprintf("unmounting process: unknown request %q", q.Op)}
}
