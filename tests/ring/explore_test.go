package ring

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/vhdtest"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// dynamic is the kind of image that most guests have.
const dynamic = "dynamic, blocks of 2048 bytes"

// states is how many states after a power cut are looked at, for each module
// and kind of image.
const states = 400

// TestNothingIsLostBehindTheRing runs the crash explorer's programs as a guest
// whose disk is behind a ring, one after another, on the kinds of image whose
// protocols differ.
func TestNothingIsLostBehindTheRing(t *testing.T) {
	kinds := map[string]bool{"fixed": true, dynamic: true, "differencing, blocks of 2048 bytes": true}
	for _, v := range blktaptest.Variants {
		for _, kind := range vhdtest.Kinds() {
			if !kinds[kind.Name] {
				continue
			}
			t.Run(v.String()+"/"+kind.Name, func(t *testing.T) {
				k := blktaptest.New(t, v)
				report, err := vhdtest.Explore(kind, vhdtest.Options{States: states, Workers: 1, Operations: alone(), Show: behind(k)})
				if err != nil {
					t.Fatal(err)
				}
				t.Log(report)
				if n := k.Allocated(); n != 0 {
					t.Errorf("%d minors are left", n)
				}
			})
		}
	}
}

// alone are all operations, none to be run beside another: the explorer
// schedules what programs do, not what a ring's workers do.
func alone() []vhdtest.Operation {
	ops := vhdtest.Operations()
	for i := range ops {
		ops[i].Concurrent = false
	}
	return ops
}

// behind shows images behind a ring of k.
func behind(k *blktaptest.Kernel) vhdtest.Show {
	return func(img *vhd.Image) (blockdev.Device, error) {
		session, err := blktap.New(blktap.Options{Driver: k}).Attach(context.Background(), img)
		if err != nil {
			return nil, err
		}
		dev, err := k.OpenDisk(session.Path())
		if err != nil {
			return nil, err
		}
		d := shownDisk{dev, session}
		if trim, ok := dev.(blockdev.Discarder); ok {
			return shownTrim{d, trim}, nil
		}
		return d, nil
	}
}

// shownDisk is a guest's disk. Close takes the ring away, also from an image
// that can't be flushed any more.
type shownDisk struct {
	blockdev.Device
	session frontend.Session
}

type shownTrim struct {
	shownDisk
	blockdev.Discarder
}

func (d shownDisk) Close() error {
	err := d.Device.Close()
	if detachErr := d.session.Detach(context.Background()); detachErr != nil {
		err = errors.Join(err, detachErr, d.session.Detach(frontend.WithLazy(context.Background())))
	}
	return errors.Join(err, d.session.Wait())
}

// TestALostFlushIsFoundBehindTheRing: a ring that answers flushes itself loses
// what the guest believes to be safe, and the explorer says so.
func TestALostFlushIsFoundBehindTheRing(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	for _, kind := range vhdtest.Kinds() {
		if kind.Name != dynamic {
			continue
		}
		show := func(img *vhd.Image) (blockdev.Device, error) {
			dev, err := behind(k)(img)
			return deaf{dev}, err
		}
		_, err := vhdtest.Explore(kind, vhdtest.Options{States: 5000, Workers: 1, Operations: alone(), Show: show})
		var failure *vhdtest.Failure
		if !errors.As(err, &failure) || failure.Rule != 2 {
			t.Errorf("found %v", err)
		} else if !strings.Contains(err.Error(), "flush") {
			t.Errorf("a failure without a flush: %v", err)
		}
		return
	}
	t.Errorf("there is no kind called %q", dynamic)
}

// deaf hears no flush.
type deaf struct{ blockdev.Device }

func (deaf) Flush() error { return nil }
