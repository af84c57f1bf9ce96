package storage_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

var withRoot = flag.Bool("root", false, "run the tests that need root, which sets up a loop device")

// loopDevice is a block device of size bytes.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	if !*withRoot {
		t.Skip("needs -root")
	}
	backing := filepath.Join(t.TempDir(), "backing")
	if err := os.WriteFile(backing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(backing, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", backing).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	name := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", name).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return name
}

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
	name := loopDevice(t, size)
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
