package tapdisk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

func (w *world) refused(want unix.Errno, m tapctl.Message) string {
	w.t.Helper()
	errno, text := w.errno(m)
	if errno != want {
		w.t.Errorf("%v of minor %d: %v (%s), want %v", m.Type, m.Cookie, errno, text, want)
	}
	if strings.Contains(text, "\n") {
		w.t.Errorf("%v: more than a line: %q", m.Type, text)
	}
	return text
}

func TestMinorsThatAreNotAttached(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, _ := w.ready()
	for typ, want := range map[tapctl.Type]unix.Errno{
		tapctl.TypeAttach: unix.ENODEV, tapctl.TypeOpen: unix.EINVAL, tapctl.TypePause: unix.ENODEV,
		tapctl.TypeResume: unix.ENODEV, tapctl.TypeClose: unix.ENODEV, tapctl.TypeForceShutdown: unix.ENODEV,
		tapctl.TypeDetach: unix.ENODEV, tapctl.TypeStats: unix.ENODEV, tapctl.TypeDiskInfo: unix.ENODEV,
	} {
		w.refused(want, tapctl.Message{Type: typ, Cookie: 77})
	}
	w.finish(tap)
}

func TestMessagesOutOfOrder(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap := w.attach()
	minor := uint16(tap.Minor)
	w.refused(unix.EEXIST, tapctl.Message{Type: tapctl.TypeAttach, Cookie: minor})
	w.refused(unix.EINVAL, tapctl.Message{Type: tapctl.TypePause, Cookie: minor})
	w.refused(unix.EINVAL, tapctl.Message{Type: tapctl.TypeResume, Cookie: minor})
	w.refused(unix.EINVAL, tapctl.Message{Type: tapctl.TypeDiskInfo, Cookie: minor})
	w.must(tapctl.TypeClose, tap.Minor) // as a tapdisk does
	path := w.vhd("disk.vhd")
	w.open(tap.Minor, tapctl.Params{Path: "vhd:" + path})
	w.refused(unix.EALREADY, with(t, tapctl.TypeOpen, tap.Minor, tapctl.Params{Path: "vhd:" + path}))
	if text := w.refused(unix.EBUSY, tapctl.Message{Type: tapctl.TypeDetach, Cookie: minor}); !strings.Contains(text, "close it first") {
		t.Errorf("detach of an open disk says %q", text)
	}
	w.refused(unix.EINVAL, tapctl.Message{Type: tapctl.TypeResume, Cookie: minor}) // not paused
	w.refused(unix.EBUSY, tapctl.Message{Type: tapctl.TypeExit})
	w.must(tapctl.TypePause, tap.Minor)
	w.must(tapctl.TypePause, tap.Minor) // again: it is paused
	w.must(tapctl.TypeResume, tap.Minor)
	w.finish(tap)
}

func TestImagesThatCantBeOpened(t *testing.T) {
	w := newWorld(t, blktaptest.DKMS, nil)
	tap := w.attach()
	garbage := filepath.Join(w.dir, "garbage")
	if err := os.WriteFile(garbage, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := w.vhd("inuse.vhd")
	img, err := vhd.Open(inUse, vhd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	for _, c := range []struct {
		p    tapctl.Params
		want unix.Errno
	}{
		{tapctl.Params{}, unix.EINVAL},
		{tapctl.Params{Path: "vhd:"}, unix.EINVAL},
		{tapctl.Params{Path: "qcow:/disk"}, unix.EINVAL},
		{tapctl.Params{Path: "/disk.vhd"}, unix.EINVAL},
		{tapctl.Params{Path: "vhd:" + w.dir + "/none.vhd"}, unix.ENOENT},
		{tapctl.Params{Path: "vhd:" + w.dir}, unix.EINVAL},
		{tapctl.Params{Path: "vhd:" + garbage}, unix.EINVAL},
		{tapctl.Params{Path: "vhd:" + inUse}, unix.EBUSY},
		{tapctl.Params{Path: "vhd:" + inUse, Flags: tapctl.FlagReadOnly}, unix.EBUSY},
		{tapctl.Params{Path: "aio:" + w.dir + "/none"}, unix.ENOENT},
		{tapctl.Params{Path: "vhd:" + inUse, Flags: tapctl.FlagSecondary, Secondary: "vhd:/x"}, unix.EOPNOTSUPP},
		{tapctl.Params{Path: "vhd:" + inUse, Flags: tapctl.FlagAddLog}, unix.EOPNOTSUPP},
	} {
		w.refused(c.want, with(t, tapctl.TypeOpen, tap.Minor, c.p))
	}
	w.refused(unix.EINVAL, unterminated(t))
	good := w.vhd("good.vhd")
	w.kernel.Fail(blktaptest.CallCreateDevice, unix.EIO)
	w.refused(unix.EIO, with(t, tapctl.TypeOpen, tap.Minor, tapctl.Params{Path: "vhd:" + good}))
	w.wantState(tap.Minor, 0, "")
	w.open(tap.Minor, tapctl.Params{Path: "vhd:" + good}) // nothing of all that is left
	w.finish(tap)
}

// unterminated is an open whose path fills its field to the last byte.
func unterminated(t *testing.T) tapctl.Message {
	t.Helper()
	m := with(t, tapctl.TypeOpen, 0, tapctl.Params{Path: "vhd:/" + strings.Repeat("x", tapctl.PathMax-5)})
	b := m.Append(nil)
	b[8+12+255] = 'x'
	m, err := tapctl.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMinorThatIsTaken(t *testing.T) {
	w := newWorld(t, blktaptest.XenServer, nil)
	tap, err := w.kernel.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	port, err := w.kernel.Open(tap)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(unix.EBUSY, tapctl.Message{Type: tapctl.TypeAttach, Cookie: uint16(tap.Minor)})
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	w.must(tapctl.TypeAttach, tap.Minor)
	w.must(tapctl.TypeDetach, tap.Minor)
	w.ended()
}

func TestMessagesThatAreNoRequests(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	for _, typ := range []tapctl.Type{0, tapctl.TypeError, tapctl.TypeRuntimeError, tapctl.TypePIDResponse, tapctl.TypeListResponse, 31, 0xffff} {
		w.refused(unix.EINVAL, tapctl.Message{Type: typ})
	}
	w.refused(unix.EOPNOTSUPP, tapctl.Message{Type: tapctl.TypeConnect})
	w.refused(unix.EOPNOTSUPP, tapctl.Message{Type: tapctl.TypeDisconnect})
	m, _ := w.ask(tapctl.Message{Type: tapctl.TypeExit})
	if m.Type != tapctl.TypeExit {
		t.Errorf("exit of a tapdisk without disks: %v", m.Type)
	}
	w.ended()
}

// TestABusyDiskIsNotClosed: the guest has it open, and goes on using it.
func TestABusyDiskIsNotClosed(t *testing.T) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			w := newWorld(t, v, nil)
			tap, path := w.ready()
			guest := w.guest(tap)
			w.kernel.SetHolders("fsck (pid 17)")
			for _, typ := range []tapctl.Type{tapctl.TypeClose, tapctl.TypeForceShutdown} {
				if text := w.refused(unix.EBUSY, tapctl.Message{Type: typ, Cookie: uint16(tap.Minor)}); !strings.Contains(text, "fsck (pid 17)") {
					t.Errorf("%v says %q", typ, text)
				}
			}
			w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
			if _, err := guest.WriteAt([]byte("still here"), 4096); err != nil {
				t.Error(err)
			}
			w.finish(tap, guest)
		})
	}
}

func TestErrnos(t *testing.T) {
	for _, c := range []struct {
		err  error
		want unix.Errno
	}{
		{errors.New("anything"), unix.EIO},
		{&os.PathError{Op: "open", Err: unix.EMFILE}, unix.EMFILE},
		{&os.PathError{Op: "open", Err: unix.EACCES}, unix.EACCES},
		{errors.Join(refuse(unix.EEXIST, "x"), unix.EIO), unix.EEXIST},
		{vhd.ErrParentMissing, unix.ENOENT},
		{errors.Join(unix.Errno(0)), unix.EIO},
	} {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
