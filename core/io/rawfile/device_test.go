package rawfile_test

import (
	"flag"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

var withRoot = flag.Bool("root", false, "run the tests that need root, which set up a loop device")

// TestConformanceOfABlockDevice runs the suite on a loop device.
func TestConformanceOfABlockDevice(t *testing.T) {
	if !*withRoot {
		t.Skip("needs -root")
	}
	blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
		return open(t, storage.OS, storagetest.LoopDevice(t, size), false)
	}, blockdevtest.WithSizes(300<<10), blockdevtest.WithOps(100), blockdevtest.WithTornReads())
}
