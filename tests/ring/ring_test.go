package ring

import (
	"context"
	"errors"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/blockdev/blockdevtest"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// guestDisk is an image as a guest has it through the ring. Close takes it all
// down.
type guestDisk struct {
	blockdev.Device
	session frontend.Session
	image   *vhd.Image
}

func (d guestDisk) Close() error {
	return errors.Join(d.Device.Close(), d.session.Detach(context.Background()), d.session.Wait(), d.image.Close())
}

// guestTrim is a guestDisk whose ring has TRIM.
type guestTrim struct {
	guestDisk
	blockdev.Discarder
}

func serve(t *testing.T, k *blktaptest.Kernel, img *vhd.Image) blockdev.Device {
	t.Helper()
	session, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := k.OpenDisk(session.Path())
	if err != nil {
		t.Fatal(err)
	}
	d := guestDisk{dev, session, img}
	if trim, ok := dev.(blockdev.Discarder); ok {
		return guestTrim{d, trim}
	}
	return d
}

// TestAVHDBehindTheRingConforms runs the suite of all disks on a dynamic image
// through each module's ring, answered in disorder.
func TestAVHDBehindTheRingConforms(t *testing.T) {
	for _, v := range blktaptest.Variants {
		t.Run(v.String(), func(t *testing.T) {
			blockdevtest.Run(t, func(t *testing.T, size int64) blockdev.Device {
				fsys := storagetest.NewMemory()
				if err := vhd.Create("/disk.vhd", vhd.CreateOptions{FS: fsys, Type: format.Dynamic, Size: size, BlockSize: 64 << 10}); err != nil {
					t.Fatal(err)
				}
				img, err := vhd.Open("/disk.vhd", vhd.Options{FS: fsys})
				if err != nil {
					t.Fatal(err)
				}
				return serve(t, blktaptest.New(t, v, blktaptest.WithScheduler(3)), img)
			}, blockdevtest.WithBlockSize(64<<10), blockdevtest.WithSizes(512, 9*512, 300<<10))
		})
	}
}
