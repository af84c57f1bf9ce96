package blktap_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

func TestDetachDrainsFlushesAndFrees(t *testing.T) {
	for _, v := range blktaptest.Variants {
		r := newRecorder(blockdev.NewMemory(diskSize))
		k := blktaptest.New(t, v)
		s := show(t, k, r, blktap.Options{})
		if got := s.session.Path(); got != "/dev/xen/blktap-2/tapdev0" || s.session.Tap().Path != got {
			t.Errorf("path %q", got)
		}
		if err := s.session.Detach(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.session.Wait(); err != nil {
			t.Error(err)
		}
		if n := k.Allocated(); n != 0 {
			t.Errorf("%v: %d minors are left", v, n)
		}
		r.await("flush", 2) // before and after the removal
		if _, err := k.OpenDisk(s.session.Path()); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v: the block device opens: %v", v, err)
		}
	}
}

func TestDetachIsRefusedWhileOpen(t *testing.T) {
	for _, v := range blktaptest.Variants {
		s, _, d := showRecorder(t, v)
		if err := s.session.Detach(t.Context()); !errors.Is(err, frontend.ErrBusy) {
			t.Errorf("%v: %v", v, err)
		}
		s.k.SetHolders("mkfs.ext4 (pid 7)", "mounted on /mnt")
		err := s.session.Detach(t.Context())
		if !errors.Is(err, frontend.ErrBusy) || !strings.Contains(err.Error(), "tapdev0: the disk is in use: mkfs.ext4 (pid 7), mounted on /mnt") {
			t.Errorf("%v: %v", v, err)
		}
		if _, err := d.WriteAt(make([]byte, 4096), 0); err != nil {
			t.Errorf("%v: it does not go on: %v", v, err)
		}
	}
}

// TestDetachWaitsForWhatIsInFlight: the module would wait for it inside of the
// removal, and nobody would answer. The simulated one reports that.
func TestDetachWaitsForWhatIsInFlight(t *testing.T) {
	for _, v := range blktaptest.Variants {
		r := newRecorder(blockdev.NewMemory(diskSize))
		s := show(t, blktaptest.New(t, v), r, blktap.Options{})
		r.set(func() { r.hold["read"] = true })
		var both sync.WaitGroup
		both.Go(func() { // of the module's own: nobody has the disk open
			status, err := s.k.Inject(s.session.Path(), blktaptest.Slot{Segments: 1, Last: [11]uint8{7}, Pages: 1})
			if status != 0 || err != nil {
				t.Errorf("%v: status %d, %v", v, status, err)
			}
		})
		r.await("read", 1)
		both.Go(func() {
			if err := s.session.Detach(t.Context()); err != nil {
				t.Error(err)
			}
		})
		r.await("flush", 1)
		r.set(func() { r.hold["read"] = false })
		both.Wait()
	}
}

// TestBusyDiskGoesOnAfterARefusedDetach, which first let it run dry.
func TestBusyDiskGoesOnAfterARefusedDetach(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.OpenXT)
	r.set(func() { r.hold["read"] = true })
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	})
	r.await("read", 1)
	both.Go(func() {
		if err := s.session.Detach(t.Context()); !errors.Is(err, frontend.ErrBusy) {
			t.Error(err)
		}
	})
	r.await("flush", 1)
	r.set(func() { r.hold["read"] = false })
	both.Wait()
	if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestDetachOfADiskThatCantBeFlushedIsRefused(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.DKMS)
	r.set(func() { r.fail["flush"] = unix.EIO })
	if err := s.session.Detach(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	r.set(func() { delete(r.fail, "flush") })
	if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestDetachMayBeCancelled(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.DKMS)
	ctx, cancel := context.WithCancel(t.Context())
	r.set(func() { r.hold["read"] = true })
	var guest sync.WaitGroup
	guest.Go(func() {
		if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	})
	r.await("read", 1)
	guest.Go(func() {
		if err := s.session.Detach(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		r.set(func() { r.hold["read"] = false })
	})
	r.await("flush", 1)
	cancel()
	guest.Wait()
	if err := s.session.Detach(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("from the start: %v", err)
	}
}

func TestLazyDetachHidesAndEndsWithTheLastUser(t *testing.T) {
	for _, v := range blktaptest.Variants {
		k := blktaptest.New(t, v)
		s := show(t, k, blockdev.NewMemory(diskSize), blktap.Options{})
		d := s.open(t)
		if err := s.session.Detach(frontend.WithLazy(t.Context())); err != nil {
			t.Fatal(err)
		}
		if _, err := k.OpenDisk(s.session.Path()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: it can still be found: %v", v, err)
		}
		if _, err := d.WriteAt(make([]byte, 8192), 100<<10); err != nil {
			t.Errorf("%v: its user: %v", v, err)
		}
		closeDisk(t, d)
		if err := s.session.Wait(); err != nil || k.Allocated() != 0 {
			t.Errorf("%v: %v, %d minors are left", v, err, k.Allocated())
		}
	}
}

// TestFreedBySomebodyElse: CLOSE comes, and the disk goes when nobody has it
// open any more. The minor is not freed again: it may be another's by then.
func TestFreedBySomebodyElse(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	s := show(t, k, blockdev.NewMemory(diskSize), blktap.Options{})
	d := s.open(t)
	k.Fail(blktaptest.CallFree, nil, unix.EPERM)
	if err := k.Free(s.session.Tap()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("its user: %v", err)
	}
	closeDisk(t, d)
	if err := s.session.Wait(); err != nil || k.Allocated() != 0 {
		t.Errorf("%v, %d minors are left", err, k.Allocated())
	}
}

func TestPauseAndResume(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	r := newRecorder(blockdev.NewMemory(diskSize))
	var mu sync.Mutex
	var did []string
	resumeErr := error(unix.ENOENT)
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		did = append(did, what)
	}
	s := show(t, k, r, blktap.Options{
		Pause:  func() error { note("pause"); return nil },
		Resume: func() error { note("resume"); return resumeErr },
	})
	d := s.open(t)
	defer closeDisk(t, d)
	if err := k.Pause(s.session.Path()); err != nil {
		t.Fatal(err)
	}
	r.await("flush", 1)
	var guest sync.WaitGroup
	guest.Go(func() {
		if _, err := d.WriteAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
		note("written")
	})
	if err := k.Resume(s.session.Path()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("resume of an image that is gone: %v", err)
	}
	resumeErr = nil
	if err := k.Resume(s.session.Path()); err != nil {
		t.Error(err)
	}
	guest.Wait()
	if got := strings.Join(did, " "); got != "pause resume resume written" {
		t.Error(got)
	}
}

// TestNoPauseOfWhatCantBeFlushed: whoever asked does not hear that it is done.
func TestNoPauseOfWhatCantBeFlushed(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	r := newRecorder(blockdev.NewMemory(diskSize))
	s := show(t, k, r, blktap.Options{})
	r.set(func() { r.fail["flush"] = unix.EIO })
	var asker sync.WaitGroup
	asker.Go(func() {
		if err := k.Pause(s.session.Path()); !errors.Is(err, unix.ENODEV) {
			t.Errorf("pause: %v, want one that ends with the ring", err)
		}
	})
	r.await("flush", 1)
	r.set(func() { delete(r.fail, "flush") })
	if err := s.session.Detach(t.Context()); err != nil {
		t.Error(err)
	}
	asker.Wait()
}

// TestNothingIsLeftOfAnAttachThatFailed, whatever call failed.
func TestNothingIsLeftOfAnAttachThatFailed(t *testing.T) {
	for _, c := range []struct {
		call blktaptest.Call
		errs []error
		want error
	}{
		{blktaptest.CallAllocate, []error{unix.ENOMEM}, unix.ENOMEM},
		{blktaptest.CallAllocate, []error{blktap.ErrNoModule}, blktap.ErrNoModule},
		{blktaptest.CallAllocate, []error{fs.ErrPermission}, fs.ErrPermission},
		{blktaptest.CallOpen, []error{blktap.ErrMinorInUse}, blktap.ErrMinorInUse},
		{blktaptest.CallOpen, []error{unix.ENOMEM}, unix.ENOMEM},
		{blktaptest.CallCreateDevice, []error{unix.EEXIST}, unix.EEXIST},
		{blktaptest.CallCreateDevice, []error{unix.ENOMEM}, unix.ENOMEM},
		{blktaptest.CallCreateDevice, []error{unix.EACCES}, unix.EACCES},
	} {
		k := blktaptest.New(t, blktaptest.DKMS)
		k.Fail(c.call, c.errs...)
		s, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), blockdev.NewMemory(diskSize))
		if !errors.Is(err, c.want) || s != nil {
			t.Errorf("call %d: %v, %v; want %v", c.call, s, err, c.want)
		}
		if n := k.Allocated(); n != 0 {
			t.Errorf("call %d, %v: %d minors are left", c.call, c.want, n)
		}
	}
	k := blktaptest.New(t, blktaptest.XenServer)
	k.Fail(blktaptest.CallCreateDevice, unix.ENOTTY)
	k.Fail(blktaptest.CallCreateDeviceCompat, unix.ENOMEM)
	if _, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), blockdev.NewMemory(diskSize)); !errors.Is(err, unix.ENOMEM) || k.Allocated() != 0 {
		t.Errorf("compat: %v, %d minors are left", err, k.Allocated())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := blktap.New(blktap.Options{Driver: k}).Attach(ctx, blockdev.NewMemory(diskSize)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMinorOfTheCallersStays(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	tap, err := k.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	f := blktap.New(blktap.Options{Driver: k, Tap: &tap})
	for range 2 { // it can be served again
		dev := blockdev.NewMemory(diskSize)
		s, err := f.Attach(t.Context(), dev)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Attach(t.Context(), dev); !errors.Is(err, blktap.ErrMinorInUse) {
			t.Errorf("a second server: %v", err)
		}
		if err := s.Detach(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := k.Allocated(); n != 1 {
		t.Errorf("%d minors, want the caller's", n)
	}
	if err := k.Free(tap); err != nil {
		t.Error(err)
	}
	if _, err := f.Attach(t.Context(), blockdev.NewMemory(diskSize)); !errors.Is(err, blktap.ErrNoMinor) {
		t.Errorf("on a minor that is none: %v", err)
	}
}

// TestModuleThatFailsEndsTheSession: with the reason, and the disk's users get
// errors and no silence.
func TestModuleThatFailsEndsTheSession(t *testing.T) {
	for _, c := range []blktaptest.Call{blktaptest.CallWait, blktaptest.CallRespond} {
		k := blktaptest.New(t, blktaptest.DKMS)
		dev := blockdev.NewMemory(diskSize)
		session, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), dev)
		if err != nil {
			t.Fatal(err)
		}
		d, err := k.OpenDisk(session.Path())
		if err != nil {
			t.Fatal(err)
		}
		k.Fail(c, unix.EACCES)
		for err == nil { // until a wait that began before has ended
			_, err = d.ReadAt(make([]byte, 512), 0)
		}
		if !errors.Is(err, unix.EIO) {
			t.Errorf("call %d: the user gets %v", c, err)
		}
		if err := session.Wait(); !errors.Is(err, unix.EACCES) {
			t.Errorf("call %d: %v", c, err)
		}
		if err := session.Detach(t.Context()); !errors.Is(err, unix.EACCES) {
			t.Errorf("call %d: detach after the end: %v", c, err)
		}
	}
}

func TestPollThatIsInterruptedGoesOn(t *testing.T) {
	s, _, d := showRecorder(t, blktaptest.OpenXT)
	s.k.Fail(blktaptest.CallWait, unix.EINTR, unix.ENOMEM, unix.EAGAIN, unix.EINTR)
	for i := range int64(10) {
		if _, err := d.WriteAt(make([]byte, 512), i*4096); err != nil {
			t.Error(err)
		}
	}
}

func TestReadOnlyRefusesWritesThatGetThrough(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	k.Fail(blktaptest.CallCreateDevice, unix.ENOTTY) // it can't be told
	var log bytes.Buffer
	dev := blockdev.NewMemory(diskSize)
	s := show(t, k, dev, blktap.Options{ReadOnly: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	d := s.open(t)
	if _, err := d.WriteAt(make([]byte, 512), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a write: %v", err)
	}
	if n := dev.Allocated(); n != 0 {
		t.Errorf("%d bytes were written", n)
	}
	closeDisk(t, d)
	if err := s.session.Detach(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "no read-only block devices") {
		t.Errorf("the log has no word of it: %s", log.String())
	}
}

// TestGuestCantFillTheLog, which may lie on the disk that it complains about.
func TestGuestCantFillTheLog(t *testing.T) {
	var log bytes.Buffer
	k := blktaptest.New(t, blktaptest.DKMS)
	s := show(t, k, blockdev.NewMemory(diskSize), blktap.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 500 {
		if _, err := k.Inject(s.session.Path(), blktaptest.Slot{Op: 9}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.session.Detach(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "invalid request"); n == 0 || n > 100 {
		t.Errorf("%d lines for 500 invalid requests", n)
	}
}

// TestAttachAndDetachAgain: the same minor, a hundred times.
func TestAttachAndDetachAgain(t *testing.T) {
	k := blktaptest.New(t, blktaptest.OpenXT)
	f := blktap.New(blktap.Options{Driver: k})
	dev := blockdev.NewMemory(diskSize)
	for range 100 {
		s, err := f.Attach(t.Context(), dev)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Detach(t.Context()), s.Wait(), s.Detach(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoDisksAtOnce(t *testing.T) {
	k := blktaptest.New(t, blktaptest.XenServer, blktaptest.WithScheduler(5))
	var users sync.WaitGroup
	for i := range byte(2) {
		d := show(t, k, blockdev.NewMemory(diskSize), blktap.Options{}).open(t)
		users.Go(func() {
			defer closeDisk(t, d)
			want, got := bytes.Repeat([]byte{i + 1}, 8192), make([]byte, 8192)
			for off := int64(0); off < diskSize; off += 64 << 10 {
				_, err := d.WriteAt(want, off)
				if err == nil {
					_, err = d.ReadAt(got, off)
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("disk %d at %d: %v", i, off, err)
				}
			}
		})
	}
	users.Wait()
	if n := k.Allocated(); n != 2 {
		t.Errorf("%d minors", n)
	}
}

func TestNothingIsAllocatedInTheSteadyState(t *testing.T) {
	for _, v := range blktaptest.Variants {
		for name, dev := range map[string]blockdev.Device{
			"memory":  filled(t, diskSize),
			"workers": struct{ blockdev.Device }{filled(t, diskSize)}, // without ReadAtNowait
		} {
			t.Run(path.Join(v.String(), name), func(t *testing.T) {
				k := blktaptest.New(t, v, blktaptest.Unchecked())
				d := show(t, k, dev, blktap.Options{}).open(t)
				defer closeDisk(t, d)
				p := make([]byte, 128<<10)
				round := func() {
					for _, n := range []int64{512, 4096, 128 << 10} {
						_, readErr := d.ReadAt(p[:n], 512)
						_, writeErr := d.WriteAt(p[:n], 8192)
						if err := errors.Join(readErr, writeErr, d.Flush()); err != nil {
							t.Fatal(err)
						}
					}
				}
				for range 50 {
					round()
				}
				runtime.GC()
				if n := testing.AllocsPerRun(200, round); n >= 1 {
					t.Errorf("%v allocations in 9 requests", n)
				}
			})
		}
	}
}

// TestADiskIsStableBeforeItIsShown: a guest whose ring has no flush has no way
// to make it so.
func TestADiskIsStableBeforeItIsShown(t *testing.T) {
	for _, v := range blktaptest.Variants {
		k, r := blktaptest.New(t, v), newRecorder(blockdev.NewMemory(diskSize))
		session, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		r.await("flush", 1)
		if err := session.Detach(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.set(func() { r.fail["flush"] = unix.EIO })
		if _, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), r); !errors.Is(err, unix.EIO) {
			t.Errorf("%v: a disk that can't be flushed: %v", v, err)
		}
		if k.Allocated() != 0 {
			t.Errorf("%v: a minor is left", v)
		}
	}
}

// TestLazyDetachOfADiskThatCannotBeFlushed hides it all the same, and says so.
func TestLazyDetachOfADiskThatCannotBeFlushed(t *testing.T) {
	k, r := blktaptest.New(t, blktaptest.OpenXT), newRecorder(blockdev.NewMemory(diskSize))
	session, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.set(func() { r.fail["flush"] = unix.EIO })
	if err := session.Detach(t.Context()); !errors.Is(err, unix.EIO) || errors.Is(err, frontend.ErrUnflushed) {
		t.Errorf("detach: %v", err)
	}
	if err := session.Detach(frontend.WithLazy(t.Context())); !errors.Is(err, frontend.ErrUnflushed) || !errors.Is(err, unix.EIO) {
		t.Errorf("lazy detach: %v", err)
	}
	if err := session.Wait(); !errors.Is(err, unix.EIO) {
		t.Errorf("wait: %v", err)
	}
	if k.Allocated() != 0 {
		t.Error("a minor is left")
	}
}
