package mount

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

// liar is what somebody might make of a server: it says of itself what it likes.
// It is this process, and has the files open that a test opens.
type liar struct {
	b        *harness.Box
	says     string // the image, when it pauses
	listener *net.UnixListener
	requests chan string
	files    chan int // came with each request
}

// newLiar enters a mount of image at place, and answers for it.
func newLiar(t *testing.T, b *harness.Box, image, place, says string) *liar {
	t.Helper()
	b.OK("list") // makes the runtime directory
	l := &liar{b: b, says: b.Path(says), requests: make(chan string, 8), files: make(chan int, 8)}
	text, err := json.Marshal(map[string]any{"image": b.Path(image), "disk": place + "/disk.raw", "mountpoint": place, "frontend": "fuse", "pid": os.Getpid()})
	check(t, err)
	b.Write(".run/liar.json", text)
	check(t, unix.Flock(int(b.Open(".run/liar.json", os.O_RDWR).Fd()), unix.LOCK_EX))
	l.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.Runtime, "liar.sock"), Net: "unix"})
	check(t, err)
	served := make(chan struct{})
	go func() { defer close(served); l.serve(t) }()
	t.Cleanup(func() { l.listener.Close(); <-served })
	return l
}

// serve answers one conversation.
func (l *liar) serve(t *testing.T) {
	conn, err := l.listener.AcceptUnix()
	if err != nil {
		return // the test ended without one
	}
	defer conn.Close()
	in := bufio.NewReader(readerOf{conn, l.files})
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return // it is over
		}
		var request struct {
			Op    string `json:"op"`
			Image []byte `json:"image"`
		}
		if err := json.Unmarshal([]byte(line), &request); err != nil {
			t.Errorf("request %q: %v", line, err)
		}
		l.requests <- request.Op
		answer := map[string]any{"state": "running", "image": request.Image}
		if request.Op == "pause" {
			var st unix.Stat_t
			if err := unix.Stat(l.says, &st); err != nil {
				t.Error(err)
			}
			answer = map[string]any{"state": "paused", "image": []byte(l.says),
				"file": map[string]any{"Dev": st.Dev, "Ino": st.Ino, "Size": st.Size, "ModifiedNs": st.Mtim.Nano()}}
		}
		text, err := json.Marshal(answer)
		if err == nil {
			_, err = fmt.Fprintf(conn, "%s\n", text)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// readerOf counts the files that come with what is read, and closes them.
type readerOf struct {
	conn  *net.UnixConn
	files chan int
}

func (r readerOf) Read(p []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(4*16))
	n, m, _, _, err := r.conn.ReadMsgUnix(p, rights)
	messages, _ := unix.ParseSocketControlMessage(rights[:m])
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			unix.Close(fd)
		}
		r.files <- len(fds)
	}
	return n, err
}

// TestASnapshotDoesNotTakeItsServersWord for which image it is of, nor the
// image's for what its parents are: the server would get their files.
func TestASnapshotDoesNotTakeItsServersWord(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opens  []string // by the server, for writing
		says   string
		named  string // by the user; empty: the mount point
		refuse string // empty: it is the truth
	}{
		"the truth, by the mount point":     {[]string{"own.vhd"}, "own.vhd", "", ""},
		"the truth, by the image":           {[]string{"own.vhd"}, "own.vhd", "own.vhd", ""},
		"the truth, with a parent":          {[]string{"child.vhd", "own.vhd"}, "child.vhd", "", ""},
		"an image that it doesn't have":     {[]string{"own.vhd"}, "other.vhd", "", "other.vhd: the server says"},
		"nothing open":                      {nil, "own.vhd", "", "own.vhd: the server says"},
		"its own, and another was named":    {[]string{"own.vhd"}, "own.vhd", "other.vhd", "own.vhd, which is another file"},
		"another's, and that one was named": {[]string{"own.vhd"}, "other.vhd", "other.vhd", "other.vhd: the server says"},
		"a parent that it doesn't have":     {[]string{"child.vhd"}, "child.vhd", "", "own.vhd: the server says"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := harness.New(t)
			for _, image := range []string{"own.vhd", "other.vhd"} {
				b.OK("create", "8M", image)
			}
			b.OK("snapshot", "own.vhd", "child.vhd")
			place := b.Mkdir("mnt")
			image := c.named // it claims the image that the user means
			if image == "" {
				image = "own.vhd"
			}
			l := newLiar(t, b, image, place, c.says)
			for _, name := range c.opens {
				b.Open(name, os.O_RDWR)
			}
			base := c.named
			if base == "" {
				base = place
			}
			if c.refuse == "" {
				b.OK("snapshot", "--live", base, "new.vhd")
				if n := <-l.files; n < 2 {
					t.Errorf("%d files came", n)
				}
				return
			}
			b.Fails([]string{"snapshot", "--live", base, "new.vhd"}, c.refuse)
			if n := len(l.files); n != 0 {
				t.Errorf("files came all the same, %d times", n)
			}
			if _, err := os.Stat(b.Path("new.vhd")); err == nil {
				t.Error("a child was left")
			}
			if got := <-l.requests + ", " + <-l.requests; got != "pause, unpause" {
				t.Errorf("requests: %s; want the disk to go on", got)
			}
		})
	}
}
