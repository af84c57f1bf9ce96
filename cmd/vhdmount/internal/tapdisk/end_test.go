package tapdisk

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// TestASignalEndsAnIdleTapdisk: what nobody has open goes at once.
func TestASignalEndsAnIdleTapdisk(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, path := w.ready()
	w.attach()
	w.signals <- unix.SIGTERM
	w.ended()
	if _, err := w.kernel.Info(tap.Path); !errors.Is(err, unix.ENXIO) {
		t.Errorf("the block device after the end: %v", err)
	}
	content(t, path, 512) // the image is closed
}

// TestASignalLeavesAGuestsDisk: it is served until its last user has closed
// it.
func TestASignalLeavesAGuestsDisk(t *testing.T) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			w := newWorld(t, v, nil)
			tap, path := w.ready()
			w.kernel.SetHolders("mounted on /mnt")
			guest := w.guest(tap)
			l := run(guest)
			for range 3 {
				w.signals <- unix.SIGTERM
				l.more(t)
			}
			eventually(t, "the log says who has it open", func() bool { return strings.Contains(w.log.String(), "mounted on /mnt") })
			w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
			other, err := w.kernel.Allocate()
			if err != nil {
				t.Fatal(err)
			}
			w.refused(unix.ESHUTDOWN, tapctl.Message{Type: tapctl.TypeAttach, Cookie: uint16(other.Minor)})
			l.end(t)
			data := block(9)
			if _, err := guest.WriteAt(data, 0); err != nil {
				t.Error(err)
			}
			if err := guest.Close(); err != nil {
				t.Error(err)
			}
			w.ended()
			if got := content(t, path, 1); got[0] != data[0] {
				t.Error("the image does not hold what the guest wrote last")
			}
		})
	}
}

// TestAMinorThatSomebodyFrees: openxt's module says so, and waits for the
// server.
func TestAMinorThatSomebodyFrees(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, path := w.ready()
	if err := w.kernel.Free(tap); err != nil {
		t.Fatal(err)
	}
	w.ended()
	content(t, path, 512)
}

// mounted is a disk as `vhdmount mount` shows one.
type mounted struct {
	disk    *livedisk.Disk
	session *blktap.Session
	closing sync.Mutex
}

func (m *mounted) Close(ctx context.Context) error {
	m.closing.Lock()
	defer m.closing.Unlock()
	if err := m.session.Detach(ctx); err != nil {
		return err
	}
	return m.disk.Close()
}

func mount(t *testing.T, w *world) (*mounted, string) {
	t.Helper()
	path := w.vhd("mounted.vhd")
	disk, err := livedisk.Open(livedisk.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	session, err := blktap.New(blktap.Options{Driver: w.kernel}).Attach(t.Context(), disk.Device())
	if err != nil {
		t.Fatal(err)
	}
	return &mounted{disk: disk, session: session.(*blktap.Session)}, path
}

// TestAnAdoptedDisk is one that was opened by other means.
func TestAnAdoptedDisk(t *testing.T) {
	w := newWorld(t, blktaptest.DKMS, nil)
	m, path := mount(t, w)
	tap := m.session.Tap()
	adopted, err := w.server.Adopt(tap, Live(m.disk, m.session, LiveOptions{Close: m.Close}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.server.Adopt(tap, nil); !errors.Is(err, unix.EEXIST) {
		t.Errorf("adopted twice: %v", err)
	}
	w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
	guest := w.guest(tap)
	if _, err := guest.WriteAt(block(1), 0); err != nil {
		t.Fatal(err)
	}
	var s diskStats
	if w.figures(uint16(tap.Minor), &s); s.Write.Bytes != 4096 || s.Name != "vhd:"+path {
		t.Errorf("stats %+v", s)
	}
	w.must(tapctl.TypePause, tap.Minor)
	w.wantState(tap.Minor, tapctl.StatePaused, "vhd:"+path)
	w.must(tapctl.TypeResume, tap.Minor)
	w.refused(unix.EBUSY, tapctl.Message{Type: tapctl.TypeClose, Cookie: uint16(tap.Minor)})
	w.refused(unix.EBUSY, tapctl.Message{Type: tapctl.TypeDetach, Cookie: uint16(tap.Minor)})
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	w.must(tapctl.TypeClose, tap.Minor)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		adopted.Gone(t.Context())
	}()
	w.must(tapctl.TypeDetach, tap.Minor)
	<-gone
	w.ended()
}

// TestAnAdoptedDiskThatEndsByItself, as by `vhdmount unmount`.
func TestAnAdoptedDiskThatEndsByItself(t *testing.T) {
	w := newWorld(t, blktaptest.XenServer, nil)
	m, _ := mount(t, w)
	adopted, err := w.server.Adopt(m.session.Tap(), Live(m.disk, m.session, LiveOptions{Close: m.Close}))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	adopted.Gone(t.Context()) // nobody asked: it does not wait
	w.ended()
}

// TestAnImageSeenFromItsOwnersDirectory has an absolute name.
func TestAnImageSeenFromItsOwnersDirectory(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	t.Chdir(w.dir)
	w.vhd("a.vhd")
	disk, err := livedisk.Open(livedisk.Options{Path: "a.vhd"})
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if name := Live(disk, nil, LiveOptions{WorkDir: w.dir}).Name(); name != "vhd:"+w.dir+"/a.vhd" {
		t.Errorf("name %q", name)
	}
}
