// Package control is how one vhdmount process speaks to the server of a mount:
// a request and a response, each a line of JSON, over a Unix socket that only
// the mount's user and root may use.
package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Op is what a request asks for.
type Op string

const (
	// Unmount takes the disk away and closes the image. The response comes
	// when that is done or refused.
	Unmount Op = "unmount"
	// Status asks how the mount is.
	Status Op = "status"
	// Flush brings everything acknowledged so far to stable storage.
	Flush Op = "flush"
	// Pause holds the disk's requests back and closes the image and its
	// parents, so that others may work on them. The disk goes on with the
	// Unpause that comes by the same connection, and as it was when that
	// connection ends without one: see Conversation.
	Pause Op = "pause"
	// Unpause opens the chain of Request.Image, and lets the requests go on.
	Unpause Op = "unpause"
)

// State is how a mount is.
type State string

const (
	// Running shows the disk.
	Running State = "running"
	// Failing shows it, but its last flush failed: what was written may not get
	// to stable storage. It goes away with a flush that succeeds.
	Failing State = "failing"
	// ReadOnlyAfterError shows it, but a failed sync made it read-only for good.
	ReadOnlyAfterError State = "read-only after an error"
	// Paused holds requests back: while a snapshot is made, or because the
	// image could not be opened again.
	Paused State = "paused"
	// Closing has hidden the disk and waits for its last user to close it.
	Closing State = "closing"
)

// Request is a line from the client.
type Request struct {
	Op   Op   `json:"op"`
	Lazy bool `json:"lazy,omitempty"` // Unmount: hide the disk at once, although it is in use
	// Image is what Unpause opens, an absolute path; empty: what was open.
	Image string `json:"-"`
	// Token is the Token of the Pause that an Unpause ends; the server of a
	// conversation sets it.
	Token uint64 `json:"-"`
	// Files are open files that come with Unpause: those of the chain, for a
	// server that may open none. Who gets the request closes them.
	Files []*os.File `json:"-"`
}

// File is a file as it was at some moment: another one, or one that was written
// to, differs.
type File struct {
	Dev, Ino   uint64
	Size       int64 // bytes
	ModifiedNs int64 // since 1970
}

// StatFile is the file that path leads to.
func StatFile(path string) (File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return File{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return File{Dev: st.Dev, Ino: st.Ino, Size: st.Size, ModifiedNs: st.Mtim.Nano()}, nil
}

// wireRequest is a request as a line has it: a path need not be UTF-8.
type wireRequest struct {
	Request
	Image []byte `json:"image,omitempty"`
}

// Response is the line that answers.
type Response struct {
	State   State  `json:"state,omitempty"`
	Busy    bool   `json:"busy,omitempty"`    // Unmount was refused: a program has the disk open; with Pending, out of sight
	Pending bool   `json:"pending,omitempty"` // Unmount: hidden, not closed yet; with an Error and not Busy it isn't flushed either
	Closed  bool   `json:"closed,omitempty"`  // Unmount: the image is closed, and the server ends
	Error   string `json:"error,omitempty"`   // what failed, in one line; empty: nothing
	Image   []byte `json:"image,omitempty"`   // Pause, Unpause: the path of the image in use
	File    File   `json:"file,omitzero"`     // Pause: that image's file
	Token   uint64 `json:"-"`                 // Pause: the disk is paused, and this is whose it is; 0: it isn't
}

var (
	// ErrForbidden is a peer that is neither the mount's user nor root.
	ErrForbidden = errors.New("control socket: the peer is another user")
	// ErrNoAnswer is a server that ended before it answered.
	ErrNoAnswer = errors.New("control socket: the server ended without an answer")
)

const (
	// maxLine bounds a request or response, in bytes.
	maxLine = 64 << 10
	// maxConversation bounds what a server says in one conversation, in bytes.
	maxConversation = 16 * maxLine
	// maxFiles bounds the files that come with a request: a chain of 256 parents
	// and its image, and some more.
	maxFiles = 300
	// maxRights is how many files go with one message (SCM_MAX_FD is 253).
	maxRights = 200
)

// maxSocketPath is the longest path that fits a sockaddr_un, in bytes.
const maxSocketPath = 107

// withShortPath calls f with a path for the same socket that fits its address.
// A longer one is reached through a descriptor of its directory.
func withShortPath(path string, f func(string) error) error {
	if len(path) <= maxSocketPath {
		return f(path)
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer dir.Close()
	return f(filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path)))
}
