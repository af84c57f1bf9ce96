package livedisk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const size = 1 << 20 // bytes of a test's disk

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes a dynamic image called /a.vhd and opens it.
func image(t *testing.T, o Options) (*Disk, *storagetest.Memory) {
	t.Helper()
	files := storagetest.NewMemory()
	check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
	o.Path = "/a.vhd"
	if o.VHD.FS == nil {
		o.VHD.FS = files
	}
	return open(t, o), files
}

func open(t *testing.T, o Options) *Disk {
	t.Helper()
	d, err := Open(o)
	check(t, err)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func sector(fill byte) []byte { return bytes.Repeat([]byte{fill}, 512) }

func write(t *testing.T, dev blockdev.Device, off int64, fill byte) {
	t.Helper()
	_, err := dev.WriteAt(sector(fill), off)
	check(t, err)
}

func expect(t *testing.T, dev blockdev.Device, off int64, fill byte) {
	t.Helper()
	p := make([]byte, 512)
	_, err := dev.ReadAt(p, off)
	check(t, err)
	if !bytes.Equal(p, sector(fill)) {
		t.Errorf("sector at %d is %x…, want %x…", off, p[:4], fill)
	}
}

// TestASnapshotUnderARunningGuest: what was written before it is in the
// parent, what comes after in the child, and the guest's request that came in
// between has only waited.
func TestASnapshotUnderARunningGuest(t *testing.T) {
	d, files := image(t, Options{})
	write(t, d.Device(), 0, 1)
	check(t, d.Pause(t.Context(), ByMessage))
	if !d.Paused() || d.Image() != nil {
		t.Error("paused, and open all the same")
	}

	var guest sync.WaitGroup
	guest.Go(func() { d.Device().WriteAt(sector(2), 512) })
	// The chain is unlocked: others may change it.
	check(t, vhd.Snapshot("/a.vhd", "/b.vhd", vhd.SnapshotOptions{FS: files}))
	check(t, d.Unpause(t.Context(), ByMessage, "/b.vhd", nil))
	guest.Wait()

	if d.Path() != "/b.vhd" || len(d.Image().Layers()) != 2 || d.Paused() {
		t.Errorf("open is %s with %d layers", d.Path(), len(d.Image().Layers()))
	}
	expect(t, d.Device(), 0, 1)
	expect(t, d.Device(), 512, 2)
	parent, err := vhd.Open("/a.vhd", vhd.Options{FS: files, ReadOnly: true})
	check(t, err)
	defer parent.Close()
	expect(t, parent, 0, 1)
	expect(t, parent, 512, 0)
}

func TestAnImageThatIsGoneLeavesTheDiskPaused(t *testing.T) {
	d, files := image(t, Options{})
	write(t, d.Device(), 0, 1)
	check(t, d.Pause(t.Context(), ByMessage))
	check(t, files.Rename("/a.vhd", "/elsewhere.vhd"))
	if err := d.Unpause(t.Context(), ByMessage, "", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unpause: %v", err)
	}
	if err := d.Trouble(); !d.Paused() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("paused %v, trouble %v", d.Paused(), err)
	}
	check(t, vhd.Create("/small.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size / 2}))
	if err := d.Unpause(t.Context(), ByMessage, "/small.vhd", nil); err == nil || !strings.Contains(err.Error(), "524288 bytes") {
		t.Errorf("another size: %v", err)
	}
	again, err := vhd.Open("/small.vhd", vhd.Options{FS: files}) // what was refused was closed again
	check(t, err)
	check(t, again.Close())
	check(t, d.Unpause(t.Context(), ByMessage, "/elsewhere.vhd", nil))
	if d.Trouble() != nil {
		t.Errorf("trouble: %v", d.Trouble())
	}
	expect(t, d.Device(), 0, 1)
}

func TestPausedOnce(t *testing.T) {
	d, _ := image(t, Options{})
	if err := d.Unpause(t.Context(), ByMessage, "", nil); !errors.Is(err, blockdev.ErrNotPaused) {
		t.Errorf("unpause: %v", err)
	}
	check(t, d.Pause(t.Context(), ByMessage))
	if err := d.Pause(t.Context(), ByMessage); !errors.Is(err, blockdev.ErrPaused) {
		t.Errorf("second pause: %v", err)
	}
	check(t, d.Flush()) // nothing is unflushed
	check(t, d.Close())
	check(t, d.Close())
	if err := d.Pause(t.Context(), ByMessage); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("pause after close: %v", err)
	}
	if d.Paused() {
		t.Error("closed, and paused")
	}
}

func TestAPauseThatFailsGoesOn(t *testing.T) {
	files := storagetest.NewMemory()
	check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
	fault := storagetest.NewFault(files)
	d, err := Open(Options{Path: "/a.vhd", VHD: vhd.Options{FS: fault}})
	check(t, err)
	write(t, d.Device(), 0, 1)
	check(t, d.Flush())
	write(t, d.Device(), 512, 2)
	fault.Add(storagetest.Rule{Op: storagetest.OpSync})
	if err := d.Pause(t.Context(), ByMessage); err == nil || d.Paused() {
		t.Errorf("pause: %v, paused %v", err, d.Paused())
	}
	expect(t, d.Device(), 0, 1)
	if d.Err() == nil {
		t.Error("a failed sync, and writable")
	}
	d.Close()
}

func TestAPauseGivesUpWithItsContext(t *testing.T) {
	d, _ := image(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, d.Pause(t.Context(), ByMessage))
	if err := d.Unpause(ctx, ByMessage, "", nil); !errors.Is(err, context.Canceled) || !d.Paused() {
		t.Errorf("unpause: %v", err)
	}
	check(t, d.Unpause(t.Context(), ByMessage, "", nil))
}

// TestMetadataIsWrittenBack: in each chain that is opened, and not before it is
// asked for.
func TestMetadataIsWrittenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := storagetest.NewMemory()
		check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
		d, err := Open(Options{Path: "/a.vhd", VHD: vhd.Options{FS: files}, WritebackInterval: time.Second})
		check(t, err)
		write(t, d.Device(), 0, 1)
		time.Sleep(3 * time.Second)
		if !d.Image().Dirty() {
			t.Error("flushed before it was asked for")
		}
		d.StartWriteback()
		time.Sleep(3 * time.Second)
		if d.Image().Dirty() {
			t.Error("not flushed")
		}
		check(t, d.Pause(t.Context(), ByMessage))
		check(t, d.Unpause(t.Context(), ByMessage, "", nil))
		write(t, d.Device(), 128<<10, 1)
		time.Sleep(3 * time.Second)
		if d.Image().Dirty() {
			t.Error("not flushed after a pause")
		}
		check(t, d.StopWriteback())
		check(t, d.Close())
	})
}

func TestARawImage(t *testing.T) {
	files := storagetest.NewMemory()
	f, err := files.Create("/disk.img", 0o600)
	check(t, err)
	check(t, f.Truncate(size))
	check(t, f.Close())
	d := open(t, Options{Path: "/disk.img", Raw: true, VHD: vhd.Options{FS: files}})
	write(t, d.Device(), 512, 3)
	check(t, d.Pause(t.Context(), ByMessage))
	check(t, d.Unpause(t.Context(), ByMessage, "", nil))
	expect(t, d.Device(), 512, 3)
	if d.Image() != nil || d.Err() != nil || d.Warnings() != nil {
		t.Error("a raw image has no VHD")
	}
}

// TestRelativePathsOutliveTheWorkingDirectory: a server in the background has
// left it by the time of a pause.
func TestRelativePathsOutliveTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	check(t, os.Mkdir("parents", 0o700))
	check(t, os.Mkdir("children", 0o700))
	check(t, vhd.Create("parents/a.vhd", vhd.CreateOptions{Type: format.Dynamic, Size: size}))
	check(t, vhd.Snapshot("parents/a.vhd", "children/b.vhd", vhd.SnapshotOptions{}))
	check(t, os.Rename("parents/a.vhd", "parents/moved.vhd"))
	d := open(t, Options{Path: "children/b.vhd", VHD: vhd.Options{Parent: "parents/moved.vhd"}})
	t.Chdir("/")
	check(t, d.Pause(t.Context(), ByMessage))
	check(t, d.Unpause(t.Context(), ByMessage, "", nil))
	expect(t, d.Device(), 0, 0)
}

func TestAPauseIsItsOwners(t *testing.T) {
	d, files := image(t, Options{})
	one, other := d.NewOwner(), d.NewOwner()
	check(t, d.Pause(t.Context(), one))
	if err := d.Pause(t.Context(), one); !errors.Is(err, blockdev.ErrPaused) {
		t.Errorf("again: %v", err)
	}
	for _, stranger := range []Owner{other, ByMessage} {
		if err := d.Pause(t.Context(), stranger); !errors.Is(err, ErrHeld) {
			t.Errorf("pause by another: %v", err)
		}
		if err := d.Unpause(t.Context(), stranger, "", nil); !errors.Is(err, ErrHeld) || !d.PausedBy(one) || d.PausedBy(stranger) {
			t.Errorf("unpause by another: %v", err)
		}
	}
	// One that is paused against its owner's will anybody may have go on.
	check(t, files.Rename("/a.vhd", "/b.vhd"))
	if err := d.Unpause(t.Context(), one, "", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unpause: %v", err)
	}
	check(t, d.Unpause(t.Context(), ByMessage, "/b.vhd", nil))
	if err := d.Unpause(t.Context(), one, "", nil); !errors.Is(err, blockdev.ErrNotPaused) {
		t.Errorf("unpause of what has gone on: %v", err)
	}
}

// TestAPauseIsRefusedThatCouldNotEnd: what can't be opened again isn't closed.
func TestAPauseIsRefusedThatCouldNotEnd(t *testing.T) {
	dir := t.TempDir()
	path, moved := filepath.Join(dir, "a.vhd"), filepath.Join(dir, "moved.vhd")
	check(t, vhd.Create(path, vhd.CreateOptions{Type: format.Dynamic, Size: size}))
	d := open(t, Options{Path: path})
	check(t, os.Rename(path, moved))
	if err := d.Pause(t.Context(), ByMessage); !errors.Is(err, fs.ErrNotExist) || d.Paused() {
		t.Errorf("the image is gone: %v", err)
	}
	check(t, vhd.Create(path, vhd.CreateOptions{Type: format.Dynamic, Size: size}))
	if err := d.Pause(t.Context(), ByMessage); !errors.Is(err, errReplaced) || d.Paused() {
		t.Errorf("another image of that name: %v", err)
	}
	check(t, os.Rename(moved, path))
	check(t, d.Pause(t.Context(), ByMessage))
	check(t, d.Unpause(t.Context(), ByMessage, "", nil))
}

// TestPassedFilesServeAllPausesToCome, for a process that could not open them,
// and lock nobody out during one.
func TestPassedFilesServeAllPausesToCome(t *testing.T) {
	dir := t.TempDir()
	path, child := filepath.Join(dir, "a.vhd"), filepath.Join(dir, "b.vhd")
	check(t, vhd.Create(path, vhd.CreateOptions{Type: format.Dynamic, Size: size}))
	d := open(t, Options{Path: path})
	check(t, d.Pause(t.Context(), ByMessage))
	check(t, vhd.Snapshot(path, child, vhd.SnapshotOptions{}))
	var passed []*os.File
	for name, flag := range map[string]int{child: os.O_RDWR, path: os.O_RDONLY} {
		f, err := os.OpenFile(name, flag, 0)
		check(t, err)
		passed = append(passed, f)
	}
	check(t, d.Unpause(t.Context(), ByMessage, child, passed))
	closeAll(passed)
	for range 3 {
		write(t, d.Device(), 0, 1)
		check(t, d.Pause(t.Context(), ByMessage))
		if len(d.files.kept) != 0 {
			t.Errorf("%d files were opened by name", len(d.files.kept))
		}
		other, err := vhd.Open(child, vhd.Options{})
		check(t, err)
		check(t, other.Close())
		check(t, d.Unpause(t.Context(), ByMessage, "", nil))
		if other, err := vhd.Open(child, vhd.Options{}); err == nil {
			t.Error("a second writer, after the pause")
			other.Close()
		}
	}
	expect(t, d.Device(), 0, 1)
}

// TestAFlushThatFailsIsToldUntilOneSucceeds, or a pause has flushed. It is no end
// of writing: what failed was a write, and no sync.
func TestAFlushThatFailsIsToldUntilOneSucceeds(t *testing.T) {
	files := storagetest.NewMemory()
	check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
	fault := storagetest.NewFault(files)
	d := open(t, Options{Path: "/a.vhd", VHD: vhd.Options{FS: fault}})
	for name, mend := range map[string]func() error{
		"the users' flush":  d.Device().Flush,
		"the owner's flush": d.Flush,
		"a pause": func() error {
			return errors.Join(d.Pause(t.Context(), ByMessage), d.Unpause(t.Context(), ByMessage, "", nil))
		},
	} {
		_, err := blockdev.Discard(d.Device(), 0, 64<<10)
		check(t, errors.Join(err, d.Flush()))
		write(t, d.Device(), 0, 1) // the block's entry waits for the flush
		fault.Add(storagetest.Rule{Op: storagetest.OpWrite})
		err = d.Device().Flush()
		if err == nil || d.FlushError() != err || d.Err() != nil {
			t.Errorf("%s: flush: %v; FlushError is %v, Err %v", name, err, d.FlushError(), d.Err())
		}
		fault.Heal()
		check(t, mend())
		if err := d.FlushError(); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// TestAWriteBackThatFailsIsToldToo: where nobody asks for a flush nothing else
// would tell.
func TestAWriteBackThatFailsIsToldToo(t *testing.T) {
	files := storagetest.NewMemory()
	check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
	fault := storagetest.NewFault(files)
	synctest.Test(t, func(t *testing.T) {
		d, err := Open(Options{Path: "/a.vhd", VHD: vhd.Options{FS: fault}, WritebackInterval: time.Second})
		check(t, err)
		d.StartWriteback()
		write(t, d.Device(), 0, 1)
		fault.Add(storagetest.Rule{Op: storagetest.OpWrite})
		time.Sleep(1500 * time.Millisecond)
		if err := d.FlushError(); err == nil || d.Err() != nil {
			t.Errorf("FlushError is %v, Err %v", err, d.Err())
		}
		fault.Heal()
		time.Sleep(time.Second)
		if err := d.FlushError(); err != nil || d.Image().Dirty() {
			t.Errorf("after another: %v", err)
		}
		if err := d.StopWriteback(); err == nil {
			t.Error("the end says nothing of the first")
		}
		check(t, d.Close())
	})
}

// TestACloseThatFailsIsFinal: the disk can be read on, and no later pause makes
// it writable again.
func TestACloseThatFailsIsFinal(t *testing.T) {
	files := storagetest.NewMemory()
	check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}))
	fault := storagetest.NewFault(files)
	d := open(t, Options{Path: "/a.vhd", VHD: vhd.Options{FS: fault}})
	write(t, d.Device(), 0, 1)
	fault.Add(storagetest.Rule{Op: storagetest.OpTruncate}) // closing cuts the file back
	if err := d.Pause(t.Context(), ByMessage); err == nil || d.Paused() {
		t.Fatalf("pause: %v, paused %v", err, d.Paused())
	}
	fault.Heal()
	for range 2 {
		expect(t, d.Device(), 0, 1)
		if _, err := d.Device().WriteAt(sector(2), 0); !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("write: %v", err)
		}
		if err := d.Err(); !errors.Is(err, blockdev.ErrReadOnly) {
			t.Errorf("Err is %v", err)
		}
		check(t, d.Pause(t.Context(), ByMessage))
		check(t, d.Unpause(t.Context(), ByMessage, "", nil))
	}
}

// TestDirectIsSaidNotToBeThere, rather than left out: files in memory have no way
// past a page cache.
func TestDirectIsSaidNotToBeThere(t *testing.T) {
	files := storagetest.NewMemory()
	check(t, vhd.Create("/a.vhd", vhd.CreateOptions{FS: files, Type: format.Dynamic, Size: size}))
	d, err := Open(Options{Path: "/a.vhd", VHD: vhd.Options{FS: files}, Direct: true})
	if !errors.Is(err, storage.ErrNotSupported) {
		t.Errorf("%v, %v", d, err)
	}
}
