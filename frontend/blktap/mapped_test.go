package blktap_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// mapRing allocates a minor and maps its ring.
func mapRing(t *testing.T, k *blktaptest.Kernel) *blktap.MappedRing {
	t.Helper()
	tap, err := k.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := blktap.MapRing(k, tap)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestAMappedRingIsNobodyElses(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	ring := mapRing(t, k)
	if _, err := blktap.MapRing(k, ring.Tap()); !errors.Is(err, blktap.ErrMinorInUse) {
		t.Errorf("mapped twice: %v", err)
	}
	if _, err := k.OpenDisk(ring.Tap().Path); !errors.Is(err, unix.ENXIO) {
		t.Errorf("a block device before one was made: %v", err)
	}
	for range 2 {
		if err := ring.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := blktap.New(blktap.Options{Driver: k, Ring: ring}).Attach(t.Context(), blockdev.NewMemory(4096)); err == nil {
		t.Error("a closed ring shows a disk")
	}
	if err := k.Free(ring.Tap()); err != nil {
		t.Errorf("free after Close: %v", err)
	}
}

// TestADiskOnAMappedRing has the session take the ring over, and leave the
// minor allocated.
func TestADiskOnAMappedRing(t *testing.T) {
	k := blktaptest.New(t, blktaptest.DKMS)
	ring := mapRing(t, k)
	s := show(t, k, blockdev.NewMemory(1<<20), blktap.Options{Ring: ring})
	if s.session.Tap() != ring.Tap() {
		t.Errorf("shown on %+v, want %+v", s.session.Tap(), ring.Tap())
	}
	d := s.open(t)
	if _, err := d.WriteAt([]byte("mapped"), 0); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := ring.Close(); err != nil {
		t.Errorf("a ring that was taken over: %v", err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if k.Allocated() != 1 {
		t.Error("the minor was freed with the session")
	}
	again, err := blktap.MapRing(k, ring.Tap())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestAMappedRingIsUsedUpByAFailure: it is unmapped, and can be mapped again.
func TestAMappedRingIsUsedUpByAFailure(t *testing.T) {
	k := blktaptest.New(t, blktaptest.XenServer)
	ring := mapRing(t, k)
	k.Fail(blktaptest.CallCreateDevice, unix.EIO)
	f := blktap.New(blktap.Options{Driver: k, Ring: ring})
	if _, err := f.Attach(t.Context(), blockdev.NewMemory(4096)); !errors.Is(err, unix.EIO) {
		t.Errorf("Attach: %v", err)
	}
	again, err := blktap.MapRing(k, ring.Tap())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
