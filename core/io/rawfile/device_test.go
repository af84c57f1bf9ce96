package rawfile_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
	"github.com/vhdmount/vhdmount/core/io/storage"
)

var withRoot = flag.Bool("root", false, "run the tests that need root, which set up a loop device")

// TestConformanceOfABlockDevice runs the suite on a loop device.
func TestConformanceOfABlockDevice(t *testing.T) {
	if !*withRoot {
		t.Skip("needs -root")
	}
	blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
		return open(t, storage.OS, loopDevice(t, size), false)
	}, blockdevtest.WithSizes(300<<10), blockdevtest.WithOps(100), blockdevtest.WithTornReads())
}

// loopDevice is a block device of size bytes.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
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
