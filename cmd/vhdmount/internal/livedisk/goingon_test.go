package livedisk

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// told is an Options.BeforeGoingOn that keeps what it was told, and refuses some.
type told struct {
	paths   []string
	refused map[string]error
}

func (o *told) before(path string) error {
	o.paths = append(o.paths, path)
	return o.refused[path]
}

// want checks what it was told since the last want.
func (o *told) want(t *testing.T, paths ...string) {
	t.Helper()
	if !slices.Equal(o.paths, paths) {
		t.Errorf("told %q, want %q", o.paths, paths)
	}
	o.paths = nil
}

// movable is a disk of /a.vhd that tells o, with /b.vhd, its child, to go on with.
func movable(t *testing.T, o *told) (*Disk, *storagetest.Memory) {
	t.Helper()
	d, files := image(t, Options{BeforeGoingOn: o.before})
	check(t, d.Pause(t.Context(), ByMessage))
	check(t, vhd.Snapshot("/a.vhd", "/b.vhd", vhd.SnapshotOptions{FS: files}))
	return d, files
}

// TestNoRequestGoesOnBeforeItsImageIsTold: neither one that has waited nor one
// that comes at that moment.
func TestNoRequestGoesOnBeforeItsImageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := storagetest.NewMemory()
		check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
		var d *Disk
		var done atomic.Int32
		var guests sync.WaitGroup
		request := func() {
			guests.Go(func() {
				if _, err := d.Device().WriteAt(sector(1), 0); err != nil {
					t.Errorf("write: %v", err)
				}
				done.Add(1)
			})
		}
		called := 0
		d, err := Open(Options{Path: "/a.vhd", VHD: vhd.Options{FS: files}, BeforeGoingOn: func(path string) error {
			called++
			request()
			synctest.Wait() // all that can go on has
			if n := done.Load(); n != 0 || path != "/b.vhd" {
				t.Errorf("%d requests were done before %s was told", n, path)
			}
			if _, err := vhd.Open("/b.vhd", vhd.Options{FS: files}); err == nil {
				t.Error("it was told of an image that isn't open")
			}
			return nil
		}})
		check(t, err)
		check(t, d.Pause(t.Context(), ByMessage))
		request()
		check(t, vhd.Snapshot("/a.vhd", "/b.vhd", vhd.SnapshotOptions{FS: files}))
		check(t, d.Unpause(t.Context(), ByMessage, "/b.vhd", nil))
		guests.Wait()
		if called != 1 || done.Load() != 2 {
			t.Errorf("told %d times, %d requests done", called, done.Load())
		}
		check(t, d.Close())
	})
}

func TestAnImageThatIsRefusedIsNotGoneOnWith(t *testing.T) {
	no := errors.New("no")
	o := &told{refused: map[string]error{"/b.vhd": no}}
	d, files := movable(t, o)
	if err := d.Unpause(t.Context(), ByMessage, "/b.vhd", nil); !errors.Is(err, no) || !d.Paused() || !errors.Is(d.Trouble(), no) {
		t.Errorf("unpause: %v; paused %v, trouble %v", err, d.Paused(), d.Trouble())
	}
	o.want(t, "/b.vhd", "/a.vhd")
	child, err := vhd.Open("/b.vhd", vhd.Options{FS: files}) // it was closed again
	check(t, err)
	check(t, child.Close())
	check(t, d.Unpause(t.Context(), ByMessage, "", nil))
	o.want(t, "/a.vhd")
	if d.Path() != "/a.vhd" || d.Trouble() != nil {
		t.Errorf("gone on with %s, trouble %v", d.Path(), d.Trouble())
	}
	write(t, d.Device(), 0, 1)
}

// TestAnImageThatCantBeGoneOnWithIsTakenBack, after it was told.
func TestAnImageThatCantBeGoneOnWithIsTakenBack(t *testing.T) {
	o := &told{}
	d, files := movable(t, o)
	check(t, vhd.Create("/small.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size / 2}))
	if err := d.Unpause(t.Context(), ByMessage, "/small.vhd", nil); !errors.Is(err, blockdev.ErrSizeChanged) || !d.Paused() {
		t.Errorf("unpause: %v", err)
	}
	o.want(t, "/small.vhd", "/a.vhd")

	no := errors.New("no")
	o.refused = map[string]error{"/a.vhd": no}
	if err := d.Unpause(t.Context(), ByMessage, "/small.vhd", nil); !errors.Is(err, blockdev.ErrSizeChanged) || !errors.Is(err, no) {
		t.Errorf("taken back in vain: %v", err)
	}
	o.want(t, "/small.vhd", "/a.vhd")
	if err := d.Unpause(t.Context(), ByMessage, "", nil); !errors.Is(err, no) || !d.Paused() {
		t.Errorf("it goes on though that was not taken back: %v", err)
	}
	o.want(t, "/a.vhd")
	check(t, d.Unpause(t.Context(), ByMessage, "/b.vhd", nil))
	o.want(t, "/b.vhd")

	check(t, d.Pause(t.Context(), ByMessage))
	if err := d.Unpause(t.Context(), ByMessage, "/none.vhd", nil); err == nil {
		t.Error("unpause with an image that isn't there")
	}
	o.want(t) // nothing was open
	check(t, d.Unpause(t.Context(), ByMessage, "", nil))
}
