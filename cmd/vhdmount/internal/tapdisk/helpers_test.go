package tapdisk

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// diskSize is that of the images in tests, in bytes.
const diskSize = 4 << 20

// patience bounds what a test waits for; none should take as long.
const patience = 30 * time.Second

var variants = []blktaptest.Variant{blktaptest.DKMS, blktaptest.OpenXT, blktaptest.XenServer}

// world is a module, a tapdisk before it, and where the images are.
type world struct {
	t       *testing.T
	kernel  *blktaptest.Kernel
	server  *Server
	dir     string
	signals chan os.Signal
	over    chan error // what Run returned
	log     *diary
}

// diary is a log to look into.
type diary struct {
	mu   sync.Mutex
	text []byte
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text = append(d.text, p...)
	return len(p), nil
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.text)
}

// newWorld starts a tapdisk. change, if it isn't nil, is made to its options.
// It has to have ended by the end of the test, or ends by SIGTERM then.
func newWorld(t *testing.T, v blktaptest.Variant, change func(*Options)) *world {
	t.Helper()
	w := &world{
		t: t, kernel: blktaptest.New(t, v), dir: t.TempDir(),
		signals: make(chan os.Signal, 4), over: make(chan error, 1), log: &diary{},
	}
	o := Options{Driver: w.kernel, Dir: filepath.Join(w.dir, "ctl"), CloseGrace: time.Millisecond, Log: slog.New(slog.NewTextHandler(w.log, nil))}
	if change != nil {
		change(&o)
	}
	w.server = New(o)
	if err := w.server.Listen(); err != nil {
		t.Fatal(err)
	}
	go func() { w.over <- w.server.Run(w.signals) }()
	t.Cleanup(func() {
		w.signals <- unix.SIGTERM
		w.ended()
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

// ended waits for the end of the tapdisk. It may be called again.
func (w *world) ended() {
	w.t.Helper()
	select {
	case err := <-w.over:
		if err != nil {
			w.t.Errorf("Run: %v", err)
		}
		w.over <- nil
	case <-time.After(patience):
		w.t.Fatal("the tapdisk does not end")
	}
}

// eventually waits for a condition that comes about without a call to wait for.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func (w *world) dial() *net.UnixConn {
	w.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.server.Socket(), Net: "unix"})
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// ask sends a message and returns the answer, all of it.
func (w *world) ask(m tapctl.Message) (first tapctl.Message, rest []byte) {
	w.t.Helper()
	conn := w.dial()
	defer conn.Close()
	if err := tapctl.WriteMessage(conn, m); err != nil {
		w.t.Fatal(err)
	}
	return w.answer(conn)
}

func (w *world) answer(conn *net.UnixConn) (first tapctl.Message, rest []byte) {
	w.t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	first, err := tapctl.ReadMessage(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	rest, err = io.ReadAll(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	return first, rest
}

// send is ask of a type about a minor, of which the errno counts.
func (w *world) send(t tapctl.Type, minor int) (unix.Errno, string) {
	w.t.Helper()
	return w.errno(tapctl.Message{Type: t, Cookie: uint16(minor)})
}

func (w *world) errno(m tapctl.Message) (unix.Errno, string) {
	w.t.Helper()
	a, _ := w.ask(m)
	if a.Cookie != m.Cookie {
		w.t.Errorf("%v about minor %d is answered about minor %d", m.Type, m.Cookie, a.Cookie)
	}
	if a.Type != tapctl.TypeError {
		if want := m.Type + 1; a.Type != want && !(m.Type == tapctl.TypeForceShutdown && a.Type == tapctl.TypeCloseResponse) {
			w.t.Errorf("%v is answered by %v", m.Type, a.Type)
		}
		return 0, ""
	}
	r, err := a.Response()
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Errno == 0 || r.Message == "" {
		w.t.Errorf("%v: an error that says nothing: %+v", m.Type, r)
	}
	return r.Errno, r.Message
}

// must sends a message that is to go well.
func (w *world) must(t tapctl.Type, minor int) {
	w.t.Helper()
	if errno, text := w.send(t, minor); errno != 0 {
		w.t.Fatalf("%v: %v: %s", t, errno, text)
	}
}

// with is a message with parameters.
func with(t *testing.T, typ tapctl.Type, minor int, p tapctl.Params) tapctl.Message {
	t.Helper()
	m := tapctl.Message{Type: typ, Cookie: uint16(minor)}
	if err := m.SetParams(p); err != nil {
		t.Fatal(err)
	}
	return m
}

// open opens an image on an attached minor.
func (w *world) open(minor int, p tapctl.Params) {
	w.t.Helper()
	if errno, text := w.errno(with(w.t, tapctl.TypeOpen, minor, p)); errno != 0 {
		w.t.Fatalf("open %s: %v: %s", p.Path, errno, text)
	}
}

// attach allocates and attaches a minor.
func (w *world) attach() blktap.Tap {
	w.t.Helper()
	tap, err := w.kernel.Allocate()
	if err != nil {
		w.t.Fatal(err)
	}
	w.must(tapctl.TypeAttach, tap.Minor)
	return tap
}

// vhd makes a dynamic image and returns its path.
func (w *world) vhd(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := vhd.Create(path, vhd.CreateOptions{Type: format.Dynamic, Size: diskSize}); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// ready is a minor with an image open.
func (w *world) ready() (tap blktap.Tap, path string) {
	w.t.Helper()
	path = w.vhd("disk.vhd")
	tap = w.attach()
	w.open(tap.Minor, tapctl.Params{Path: "vhd:" + path})
	return tap, path
}

// guest opens the block device.
func (w *world) guest(tap blktap.Tap) blockdev.Device {
	w.t.Helper()
	d, err := w.kernel.OpenDisk(tap.Path)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// list are the entries of LIST.
func (w *world) list() []tapctl.ListEntry {
	w.t.Helper()
	m, rest := w.ask(tapctl.Message{Type: tapctl.TypeList, Cookie: tapctl.AllMinors})
	var entries []tapctl.ListEntry
	for {
		e, err := m.ListEntry()
		if err != nil || m.Type != tapctl.TypeListResponse {
			w.t.Fatalf("%v: %v", m.Type, err)
		}
		if e.Count == 0 {
			if len(rest) != 0 {
				w.t.Errorf("%d bytes after the last entry", len(rest))
			}
			return entries
		}
		if want := 1 + len(rest)/tapctl.MessageSize - 1; e.Count != want {
			w.t.Errorf("entry with count %d, want %d", e.Count, want)
		}
		entries = append(entries, e)
		if m, err = tapctl.Decode(rest); err != nil {
			w.t.Fatal(err)
		}
		rest = rest[tapctl.MessageSize:]
	}
}

// state is the state and the name of a minor.
func (w *world) state(minor int) (tapctl.State, string) {
	w.t.Helper()
	for _, e := range w.list() {
		if e.Minor == minor {
			return e.State, e.Path
		}
	}
	w.t.Fatalf("minor %d is not in the list", minor)
	return 0, ""
}

func (w *world) wantState(minor int, state tapctl.State, name string) {
	w.t.Helper()
	if s, n := w.state(minor); s != state || n != name {
		w.t.Errorf("minor %d is in state %#x with %q, want %#x with %q", minor, s, n, state, name)
	}
}

// figures are those of STATS.
func (w *world) figures(cookie uint16, v any) {
	w.t.Helper()
	m, rest := w.ask(tapctl.Message{Type: tapctl.TypeStats, Cookie: cookie})
	if m.Type != tapctl.TypeStatsResponse || m.StatsLength() != uint64(len(rest)) {
		w.t.Fatalf("%v of %d bytes, and %d come", m.Type, m.StatsLength(), len(rest))
	}
	if err := json.Unmarshal(rest, v); err != nil {
		w.t.Fatalf("%v in %s", err, rest)
	}
}

// content reads the start of an image that nobody has open.
func content(t *testing.T, path string, n int) []byte {
	t.Helper()
	img, err := vhd.Open(path, vhd.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	b := make([]byte, n)
	if _, err := img.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// finish takes everything away in order.
func (w *world) finish(tap blktap.Tap, guests ...io.Closer) {
	w.t.Helper()
	for _, g := range guests {
		if err := g.Close(); err != nil {
			w.t.Error(err)
		}
	}
	w.must(tapctl.TypeClose, tap.Minor)
	w.must(tapctl.TypeDetach, tap.Minor)
	w.ended()
	if err := w.kernel.Free(tap); err != nil {
		w.t.Error(err)
	}
	if _, err := os.Stat(w.server.Socket()); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("the socket after the end: %v", err)
	}
}
