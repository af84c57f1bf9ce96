package tapdisk

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// load writes to a disk, a block of its own after another, until stop.
type load struct {
	stop   atomic.Bool
	done   atomic.Int64 // writes
	worker sync.WaitGroup
	err    error // once the worker has ended
}

func block(i int64) []byte { return bytes.Repeat([]byte{byte(i%255) + 1}, 4096) }

func run(d blockdev.Device) *load {
	l := &load{}
	blocks := d.Size() / 4096
	l.worker.Go(func() {
		for i := int64(0); !l.stop.Load() && l.err == nil; i++ {
			_, l.err = d.WriteAt(block(i%blocks), i%blocks*4096)
			l.done.Add(1)
		}
	})
	return l
}

// more waits until something more was written.
func (l *load) more(t *testing.T) {
	t.Helper()
	n := l.done.Load()
	eventually(t, "the guest's writes go on", func() bool { return l.done.Load() > n+2 })
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop.Store(true)
	l.worker.Wait()
	if l.err != nil {
		t.Errorf("the guest met %v", l.err)
	}
}

// TestASnapshotUnderARunningGuest: paused, a child made, unpaused with that.
func TestASnapshotUnderARunningGuest(t *testing.T) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			w := newWorld(t, v, nil)
			tap, path := w.ready()
			guest := w.guest(tap)
			l := run(guest)
			l.more(t)
			for range 2 {
				w.must(tapctl.TypePause, tap.Minor)
				w.wantState(tap.Minor, tapctl.StatePaused, "vhd:"+path)
				child := strings.TrimSuffix(path, ".vhd") + "+.vhd"
				if err := vhd.Snapshot(path, child, vhd.SnapshotOptions{}); err != nil {
					t.Fatal(err) // it would be in use if the chain weren't closed
				}
				if errno, text := w.errno(with(t, tapctl.TypeResume, tap.Minor, tapctl.Params{Path: "vhd:" + child})); errno != 0 {
					t.Fatalf("unpause: %v: %s", errno, text)
				}
				w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+child)
				path = child
				l.more(t)
			}
			l.end(t)
			want := make([]byte, diskSize)
			if _, err := guest.ReadAt(want, 0); err != nil {
				t.Fatal(err)
			}
			w.finish(tap, guest)
			if !bytes.Equal(content(t, path, diskSize), want) {
				t.Error("the image is not what the guest saw")
			}
			for i := int64(0); i < min(l.done.Load(), diskSize/4096); i++ {
				if !bytes.Equal(want[i*4096:][:4096], block(i)) {
					t.Fatalf("block %d is not what was written", i)
				}
			}
		})
	}
}

// TestAnImageThatIsGoneAtUnpause: the disk stays paused, and a later unpause
// works.
func TestAnImageThatIsGoneAtUnpause(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, path := w.ready()
	guest := w.guest(tap)
	l := run(guest)
	l.more(t)
	w.must(tapctl.TypePause, tap.Minor)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if text := w.refused(unix.ENOENT, tapctl.Message{Type: tapctl.TypeResume, Cookie: uint16(tap.Minor)}); !strings.Contains(text, path) {
			t.Errorf("it says %q", text)
		}
		w.wantState(tap.Minor, stateResumeFailed, "vhd:"+path)
	}
	var s diskStats
	if w.figures(uint16(tap.Minor), &s); !s.Paused {
		t.Errorf("stats %+v", s)
	}
	if !strings.Contains(w.log.String(), "refused") {
		t.Error("nothing about it in the log")
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	w.must(tapctl.TypeResume, tap.Minor)
	l.more(t)
	l.end(t)
	w.finish(tap, guest)
}

func TestAnImageOfAnotherSizeIsRefused(t *testing.T) {
	w := newWorld(t, blktaptest.DKMS, nil)
	tap, path := w.ready()
	larger := w.dir + "/larger.vhd"
	if err := vhd.Create(larger, vhd.CreateOptions{Type: format.Dynamic, Size: 2 * diskSize}); err != nil {
		t.Fatal(err)
	}
	w.must(tapctl.TypePause, tap.Minor)
	if errno, text := w.errno(with(t, tapctl.TypeResume, tap.Minor, tapctl.Params{Path: "vhd:" + larger})); errno == 0 || !strings.Contains(text, "8388608") {
		t.Errorf("unpause: %v: %s", errno, text)
	}
	w.must(tapctl.TypeResume, tap.Minor)
	w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
	w.finish(tap)
}

// TestAPausedDiskIsNotClosedUnderItsGuest: what waits would be lost.
func TestAPausedDiskIsNotClosedUnderItsGuest(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, _ := w.ready()
	guest := w.guest(tap)
	w.must(tapctl.TypePause, tap.Minor)
	written := make(chan error, 1)
	go func() {
		_, err := guest.WriteAt(block(1), 0)
		written <- err
	}()
	eventually(t, "the write is taken", func() bool {
		n, err := w.kernel.Pending(tap.Path)
		return err == nil && n == 1
	})
	if text := w.refused(unix.EBUSY, tapctl.Message{Type: tapctl.TypeClose, Cookie: uint16(tap.Minor)}); !strings.Contains(text, "unpause") {
		t.Errorf("it says %q", text)
	}
	w.must(tapctl.TypeResume, tap.Minor)
	if err := <-written; err != nil {
		t.Errorf("the write that waited: %v", err)
	}
	if _, err := guest.WriteAt(block(2), 4096); err != nil {
		t.Error(err)
	}
	w.finish(tap, guest)
}

func TestAPausedIdleDiskIsClosed(t *testing.T) {
	w := newWorld(t, blktaptest.XenServer, nil)
	tap, _ := w.ready()
	w.must(tapctl.TypePause, tap.Minor)
	w.finish(tap)
}

// stuckFS has writes of its files wait, once it is stuck, until it is released.
type stuckFS struct {
	storage.FS
	stuck    atomic.Bool
	released chan struct{}
}

type stuckFile struct {
	storage.File
	fs *stuckFS
}

func (f *stuckFS) Open(name string, flag storage.Flag) (storage.File, error) {
	file, err := f.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return stuckFile{file, f}, nil
}

func (f stuckFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.stuck.Load() {
		<-f.fs.released
	}
	return f.File.WriteAt(p, off)
}

// TestAPauseWhoseAskerGivesUp: nobody would undo it, so the guest goes on.
func TestAPauseWhoseAskerGivesUp(t *testing.T) {
	fs := &stuckFS{FS: storage.OS, released: make(chan struct{})}
	w := newWorld(t, blktaptest.OpenXT, func(o *Options) { o.FS = fs })
	tap, path := w.ready()
	guest := w.guest(tap)
	fs.stuck.Store(true)
	written := make(chan error, 1)
	go func() {
		_, err := guest.WriteAt(block(1), 0)
		written <- err
	}()
	eventually(t, "the write is taken", func() bool {
		n, err := w.kernel.Pending(tap.Path)
		return err == nil && n == 1
	})
	conn := w.dial()
	if err := tapctl.WriteMessage(conn, tapctl.Message{Type: tapctl.TypePause, Cookie: uint16(tap.Minor)}); err != nil {
		t.Fatal(err)
	}
	turn := w.server.minor(tap.Minor).turn
	eventually(t, "the pause is under way", func() bool { return len(turn) == 1 })
	conn.Close()
	eventually(t, "the pause is given up", func() bool { return len(turn) == 0 })
	w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
	fs.stuck.Store(false)
	close(fs.released)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if _, err := guest.WriteAt(block(2), 4096); err != nil {
		t.Error(err)
	}
	w.finish(tap, guest)
}

// TestTheModulesOwnPause: openxt's module pauses a disk by itself, and both
// ways see the same disk.
func TestTheModulesOwnPause(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, path := w.ready()
	guest := w.guest(tap)
	l := run(guest)
	l.more(t)
	if err := w.kernel.Pause(tap.Path); err != nil {
		t.Fatal(err)
	}
	w.wantState(tap.Minor, tapctl.StatePaused, "vhd:"+path)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := w.kernel.Resume(tap.Path); err != unix.ENOENT {
		t.Errorf("resume without the image: %v", err)
	}
	w.wantState(tap.Minor, stateResumeFailed, "vhd:"+path)
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if err := w.kernel.Resume(tap.Path); err != nil {
		t.Errorf("resume: %v", err)
	}
	l.more(t)
	l.end(t)
	w.finish(tap, guest)
}
