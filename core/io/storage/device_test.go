package storage_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

var withRoot = flag.Bool("root", false, "run the tests that need root, which sets up a loop device; those of O_DIRECT fail where a file system has none")

func TestOpenDeviceRefusesWhatIsNone(t *testing.T) {
	opener := storage.OS.(storage.DeviceOpener)
	for _, name := range []string{file(t), t.TempDir(), os.DevNull} {
		if _, err := opener.OpenDevice(name, 0); !errors.Is(err, unix.ENOTBLK) || !errors.Is(err, storage.ErrNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := opener.OpenDevice(filepath.Join(t.TempDir(), "none"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a name that nothing has: %v", err)
	}
}

func TestABlockDeviceIsAFileOfItsSize(t *testing.T) {
	const size = 1 << 20
	if !*withRoot {
		t.Skip("needs -root")
	}
	name := storagetest.LoopDevice(t, size)
	if _, err := storage.OS.Open(name, storage.ReadWrite); !errors.Is(err, storage.ErrNotRegular) {
		t.Errorf("Open: %v", err)
	}
	opener := storage.OS.(storage.DeviceOpener)
	f, err := opener.OpenDevice(name, storage.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if n, sizeErr := f.Size(); n != size || info.Size != size || errors.Join(err, sizeErr) != nil {
		t.Errorf("size %d, %d; %v, %v", n, info.Size, err, sizeErr)
	}
	if _, err := f.WriteAt([]byte("on a device"), size-11); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt(make([]byte, 512), size); !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("a write past the end: %v", err)
	}
	if err := f.Truncate(512); !errors.Is(err, storage.ErrNotSupported) {
		t.Errorf("Truncate: %v", err)
	}
	if err := f.PunchHole(1, 4095); !errors.Is(err, storage.ErrNotSupported) {
		t.Errorf("a hole of parts of blocks: %v", err)
	}
	if err := errors.Join(f.Lock(storage.Exclusive), f.Sync()); err != nil {
		t.Error(err)
	}
	if _, err := opener.OpenDevice(name, storage.ReadWrite); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second writer: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Size(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Size after Close: %v", err)
	}
}
