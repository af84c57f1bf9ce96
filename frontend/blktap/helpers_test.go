package blktap_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shown is a device behind a simulated module.
type shown struct {
	k       *blktaptest.Kernel
	dev     blockdev.Device
	session *blktap.Session
}

// show attaches dev by o, and takes it away at the end of the test if nobody
// did.
func show(t testing.TB, k *blktaptest.Kernel, dev blockdev.Device, o blktap.Options) *shown {
	t.Helper()
	o.Driver = k
	session, err := blktap.New(o).Attach(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := dev.(*recorder); ok {
		r.forget()
	}
	s := &shown{k, dev, session.(*blktap.Session)}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// close detaches and closes the device. A second time it does nothing.
func (s *shown) close() error {
	return errors.Join(s.session.Detach(context.Background()), s.session.Wait(), s.dev.Close())
}

// open opens the block device.
func (s *shown) open(t testing.TB) blockdev.Device {
	t.Helper()
	d, err := s.k.OpenDisk(s.session.Path())
	if err != nil {
		t.Fatal(err)
	}
	return d
}
