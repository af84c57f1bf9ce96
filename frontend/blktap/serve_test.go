package blktap_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

const diskSize = 4 << 20

// showRecorder shows a recorder over memory, and opens the disk.
func showRecorder(t *testing.T, v blktaptest.Variant, opts ...blktaptest.Option) (*shown, *recorder, blockdev.Device) {
	t.Helper()
	r := newRecorder(blockdev.NewMemory(diskSize))
	s := show(t, blktaptest.New(t, v, opts...), r, blktap.Options{})
	d := s.open(t)
	t.Cleanup(func() { closeDisk(t, d) })
	return s, r, d
}

func closeDisk(t testing.TB, d blockdev.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestFeaturesAreWhatTheModuleHas(t *testing.T) {
	for _, v := range blktaptest.Variants {
		for _, readOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/readonly=%v", v, readOnly), func(t *testing.T) {
				s := show(t, blktaptest.New(t, v), blockdev.NewMemory(diskSize), blktap.Options{ReadOnly: readOnly, PhysicalSectorSize: 2048})
				info, err := s.k.Info(s.session.Path())
				if err != nil {
					t.Fatal(err)
				}
				want := blktaptest.Info{Sectors: diskSize / 512, PhysicalSectorSize: 2048, ReadOnly: readOnly}
				if v != blktaptest.XenServer {
					want.Flush, want.Trim = true, !readOnly
				}
				if info != want {
					t.Errorf("the block device is %+v, want %+v", info, want)
				}
			})
		}
	}
}

// TestOldCallMakesDevicesOfAllModules: where there is no CREATE_DEVICE, its
// predecessor does, and the ring has no flush.
func TestOldCallMakesDevicesOfAllModules(t *testing.T) {
	for _, errno := range []error{unix.ENOTTY, unix.Errno(515)} {
		for _, v := range blktaptest.Variants {
			k := blktaptest.New(t, v)
			k.Fail(blktaptest.CallCreateDevice, errno)
			r := newRecorder(blockdev.NewMemory(diskSize))
			s := show(t, k, r, blktap.Options{})
			info, err := k.Info(s.session.Path())
			if want := (blktaptest.Info{Sectors: diskSize / 512, PhysicalSectorSize: 512}); err != nil || info != want {
				t.Errorf("%v, %v: %+v, %v", v, errno, info, err)
			}
			d := s.open(t)
			if _, err := d.WriteAt(make([]byte, 512), 0); err != nil {
				t.Error(err)
			}
			if got := s.session.Stats().WriteFlushes; got != 1 {
				t.Errorf("%v: %d flushes for a write on a ring without flush", v, got)
			}
			closeDisk(t, d)
		}
	}
}

// TestAdjacentIsOneCall: the segments of a request, and requests, up to
// 256 KiB.
func TestAdjacentIsOneCall(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.DKMS)
	buf := bytes.Repeat([]byte("adjacent"), 300<<10/8)
	for _, c := range []struct {
		op     string
		off, n int64
		want   []call
	}{
		{"read", 4096, 44 << 10, []call{{"read", 4096, 44 << 10}}},
		{"write", 512, 128 << 10, []call{{"write", 512, 128 << 10}}},
		{"read", 0, 128 << 10, []call{{"read", 0, 128 << 10}}},
		{"write", 0, 300 << 10, []call{{"write", 0, 220 << 10}, {"write", 220 << 10, 80 << 10}}},
	} {
		do := d.ReadAt
		if c.op == "write" {
			do = d.WriteAt
		}
		if _, err := do(buf[:c.n], c.off); err != nil {
			t.Fatal(err)
		}
		got := r.calls()
		slices.SortFunc(got, func(a, b call) int { return int(a.off - b.off) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s of %d bytes at %d: %v, want %v", c.op, c.n, c.off, got, c.want)
		}
	}
	st := s.session.Stats()
	if st.Read.Merges != 2 || st.Write.Merges != 2+5 || st.Read.Requests != 4 || st.Write.Requests != 10 {
		t.Errorf("read %+v, write %+v", st.Read, st.Write)
	}
	if st.Read.Bytes != 172<<10 || st.Write.Bytes != 428<<10 || st.Read.InFlight != 0 {
		t.Errorf("%d bytes read, %d written, %d in flight", st.Read.Bytes, st.Write.Bytes, st.Read.InFlight)
	}
}

// TestWholeRingRunsAtOnce: 32 requests that aren't adjacent are under way at
// the same time.
func TestWholeRingRunsAtOnce(t *testing.T) {
	_, r, d := showRecorder(t, blktaptest.OpenXT)
	r.set(func() { r.hold["read"] = true })
	var guests sync.WaitGroup
	for i := range int64(32) {
		guests.Go(func() {
			if _, err := d.ReadAt(make([]byte, 512), i*8192); err != nil {
				t.Error(err)
			}
		})
	}
	r.await("read", 32) // none of them has ended
	r.set(func() { r.hold["read"] = false })
	guests.Wait()
}

// TestWritesAreStableWhereNobodyCanFlush: on a ring without flush a write is
// answered when it would survive.
func TestWritesAreStableWhereNobodyCanFlush(t *testing.T) {
	v := &volatile{Device: blockdev.NewMemory(diskSize), stable: blockdev.NewMemory(diskSize)}
	k := blktaptest.New(t, blktaptest.XenServer, blktaptest.WithScheduler(7))
	s := show(t, k, v, blktap.Options{})
	d := s.open(t)
	defer closeDisk(t, d)
	var guests sync.WaitGroup
	for g := range int64(8) {
		guests.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for i := range 50 {
				off := (g*100 + rnd.Int64N(90)) * 4096
				p := bytes.Repeat([]byte{byte(g), byte(i)}, 2048)
				if _, err := d.WriteAt(p, off); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(p))
				if _, err := v.stable.ReadAt(got, off); err != nil || !bytes.Equal(got, p) {
					t.Errorf("a write at %d was answered and is not stable (%v)", off, err)
					return
				}
			}
		})
	}
	guests.Wait()
}

// TestOneFlushForManyWrites: writes that are done while a flush runs share the
// next one.
func TestOneFlushForManyWrites(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.XenServer)
	r.set(func() { r.hold["flush"] = true })
	var guests sync.WaitGroup
	write := func(i int64) {
		guests.Go(func() {
			if _, err := d.WriteAt(make([]byte, 512), i*8192); err != nil {
				t.Error(err)
			}
		})
	}
	write(0)
	r.await("flush", 1)
	for i := range int64(30) {
		write(1 + i)
	}
	r.awaitEnds(31) // all writes, and no flush
	if got := s.session.Stats().Write; got.Requests != 0 || got.InFlight != 31 {
		t.Errorf("before any flush has ended: %+v", got)
	}
	r.set(func() { r.hold["flush"] = false })
	guests.Wait()
	if got := s.session.Stats().WriteFlushes; got < 2 || got > 10 {
		t.Errorf("%d flushes for one write and 30 together", got)
	}
}

func TestFailedFlushFailsItsWrites(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.XenServer)
	r.set(func() { r.fail["flush"] = unix.EIO })
	if _, err := d.WriteAt(make([]byte, 512), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a write that is not stable: %v", err)
	}
	r.set(func() { delete(r.fail, "flush") })
	if _, err := d.WriteAt(make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	if got := s.session.Stats().Write; got.Errors != 1 || got.Requests != 2 {
		t.Errorf("%+v", got)
	}
}

// TestErrorIsItsOwnRequestsAlone: adjacent requests are one call, but don't
// fail for each other, and the disk goes on.
func TestErrorIsItsOwnRequestsAlone(t *testing.T) {
	for _, v := range blktaptest.Variants {
		s, r, d := showRecorder(t, v)
		r.set(func() { r.failAt[50<<10] = blockdev.ErrNoSpace })
		p := make([]byte, 128<<10)
		for op, do := range map[string]func([]byte, int64) (int, error){"read": d.ReadAt, "write": d.WriteAt} {
			r.calls()
			if _, err := do(p, 0); !errors.Is(err, unix.EIO) {
				t.Errorf("%v: %s over a bad place: %v", v, op, err)
			}
			want := []call{{op, 0, 128 << 10}, {op, 0, 44 << 10}, {op, 44 << 10, 44 << 10}, {op, 88 << 10, 40 << 10}}
			if got := r.calls(); !slices.Equal(got, want) {
				t.Errorf("%v: %v, want %v", v, got, want)
			}
			if _, err := do(p[:4096], 44<<10); err != nil {
				t.Errorf("%v: %s beside it: %v", v, op, err)
			}
		}
		st := s.session.Stats()
		if st.Read.Errors != 1 || st.Write.Errors != 1 {
			t.Errorf("%v: %+v %+v", v, st.Read, st.Write)
		}
	}
}

// TestGuestFlushReachesTheDevice, and its failure the guest.
func TestGuestFlushReachesTheDevice(t *testing.T) {
	for _, v := range []blktaptest.Variant{blktaptest.DKMS, blktaptest.OpenXT} {
		s, r, d := showRecorder(t, v)
		if _, err := d.WriteAt(make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
		r.set(func() { r.fail["flush"] = unix.EIO })
		if err := d.Flush(); !errors.Is(err, unix.EIO) {
			t.Errorf("%v: %v", v, err)
		}
		r.set(func() { delete(r.fail, "flush") })
		if err := d.Flush(); err != nil {
			t.Errorf("%v: %v", v, err)
		}
		if st := s.session.Stats(); st.Flush.Requests != 2 || st.Flush.Errors != 1 || st.WriteFlushes != 0 {
			t.Errorf("%v: %+v, and %d of our own", v, st.Flush, st.WriteFlushes)
		}
	}
}

// TestOneThatSaysReadyForNothingIsNotSpunOn: openxt's module is readable as
// long as a request is in flight.
func TestOneThatSaysReadyForNothingIsNotSpunOn(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.OpenXT)
	r.set(func() { r.hold["read"] = true })
	var guest sync.WaitGroup
	guest.Go(func() {
		if _, err := d.ReadAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	})
	r.await("read", 1)
	start, before := time.Now(), polls(t, s)
	for polls(t, s) < before+20 {
		runtime.Gosched()
	}
	// Before each is a rest, of 50, 100, 200, 400, 800 … µs.
	if took := time.Since(start); took < 8*time.Millisecond {
		t.Errorf("20 polls in %v", took)
	}
	// And what comes meanwhile is not kept waiting for the first.
	if _, err := d.WriteAt(make([]byte, 512), 8192); err != nil {
		t.Error(err)
	}
	r.set(func() { r.hold["read"] = false })
	guest.Wait()
}

func polls(t *testing.T, s *shown) uint64 {
	t.Helper()
	n, err := s.k.Polls(s.session.Path())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLyingSlots: what makes no sense gets an error, whatever it is, and the
// disk goes on.
func TestLyingSlots(t *testing.T) {
	full := [11]uint8{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7}
	for _, c := range []struct {
		name string
		slot blktaptest.Slot
		want int16
	}{
		{"id 32", blktaptest.Slot{Op: 0, Segments: 1, ID: 32, Last: full}, -1},
		{"id of 64 bits", blktaptest.Slot{Op: 1, Segments: 1, ID: math.MaxUint64, Last: full}, -1},
		{"no segments", blktaptest.Slot{Op: 0, ID: 3}, -1},
		{"12 segments", blktaptest.Slot{Op: 1, Segments: 12, ID: 3, Last: full}, -1},
		{"255 segments", blktaptest.Slot{Op: 0, Segments: 255, ID: 3, Last: full}, -1},
		{"first after last", blktaptest.Slot{Op: 0, Segments: 1, ID: 3, First: [11]uint8{4}, Last: [11]uint8{3}}, -1},
		{"sectors past the page", blktaptest.Slot{Op: 1, Segments: 1, ID: 3, Last: [11]uint8{8}}, -1},
		{"past the end", blktaptest.Slot{Op: 1, Segments: 1, ID: 3, Sector: diskSize/512 - 7, Last: full}, -1},
		{"sector that overflows", blktaptest.Slot{Op: 0, Segments: 1, ID: 3, Sector: math.MaxUint64, Last: full}, -1},
		{"trim past the end", blktaptest.Slot{Op: 3, ID: 3, Sector: 1, Trim: diskSize / 512}, -1},
		{"trim that overflows", blktaptest.Slot{Op: 3, ID: 3, Sector: 16, Trim: math.MaxUint64 - 8}, -1},
		{"operation 4", blktaptest.Slot{Op: 4, Segments: 1, ID: 3, Last: full}, -2},
		{"operation 200", blktaptest.Slot{Op: 200, ID: 31}, -2},
		{"trim of a disk that can't", blktaptest.Slot{Op: 3, ID: 3, Trim: 8}, -2},
		{"flush", blktaptest.Slot{Op: 2, ID: 3, Segments: 99}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range blktaptest.Variants {
				s, _, d := showRecorder(t, v)
				got, err := s.k.Inject(s.session.Path(), c.slot)
				if err != nil || got != c.want {
					t.Errorf("%v: status %d, %v; want %d", v, got, err, c.want)
				}
				if _, err := d.ReadAt(make([]byte, 4096), 0); err != nil {
					t.Errorf("%v: afterwards: %v", v, err)
				}
				if got := s.session.Stats().Invalid; (got == 0) != (c.want == 0) {
					t.Errorf("%v: %d invalid requests", v, got)
				}
			}
		})
	}
}

// TestIDInFlightIsRefusedAfterIt: the module would take the pages of the first
// away with the answer to the second.
func TestIDInFlightIsRefusedAfterIt(t *testing.T) {
	s, r, d := showRecorder(t, blktaptest.DKMS)
	want := bytes.Repeat([]byte{1}, 4096)
	if _, err := d.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	r.set(func() { r.hold["read"] = true })
	got := make([]byte, 4096)
	var guests sync.WaitGroup
	guests.Go(func() {
		if _, err := d.ReadAt(got, 0); err != nil {
			t.Errorf("the one that was there first: %v", err)
		}
	})
	r.await("read", 1)
	for _, slot := range []blktaptest.Slot{{Op: 1, Segments: 1}, {Op: 0, Segments: 0}, {Op: 0, Segments: 1}} {
		guests.Go(func() {
			if status, err := s.k.Inject(s.session.Path(), slot); status != -1 || err != nil {
				t.Errorf("%+v: status %d, %v", slot, status, err)
			}
		})
	}
	for s.session.Stats().Invalid < 3 {
		runtime.Gosched()
	}
	if n, err := s.k.Pending(s.session.Path()); n != 4 || err != nil {
		t.Errorf("%d pending, %v; want all 4", n, err)
	}
	r.set(func() { r.hold["read"] = false })
	guests.Wait()
	if !bytes.Equal(got, want) {
		t.Error("the read got something else")
	}
}

// TestPagesThatAreNotThere: a request whose pages the module did not map is
// an error of that request, not the end of the process.
func TestPagesThatAreNotThere(t *testing.T) {
	last := [11]uint8{7, 7, 6, 7}
	for _, op := range []uint8{0, 1} {
		for _, segments := range []uint8{2, 4} { // in one run of memory, and not
			k := blktaptest.New(t, blktaptest.DKMS, blktaptest.WithGuard())
			s := show(t, k, blockdev.NewMemory(diskSize), blktap.Options{})
			got, err := k.Inject(s.session.Path(), blktaptest.Slot{Op: op, Segments: segments, ID: 5, Last: last, Pages: 1})
			if got != -1 || err != nil {
				t.Errorf("operation %d, %d segments: status %d, %v", op, segments, got, err)
			}
			d := s.open(t)
			if _, err := d.WriteAt(make([]byte, 8192), 0); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			closeDisk(t, d)
		}
	}
}

// TestIndexesThatLieAreWaitedOut: a ring whose index makes no sense is not
// read, what is in flight is answered, and once it makes sense it goes on.
func TestIndexesThatLieAreWaitedOut(t *testing.T) {
	for _, delta := range []int32{33, 1 << 30, -1, -40, math.MinInt32} {
		for _, v := range blktaptest.Variants {
			s, r, d := showRecorder(t, v)
			path := s.session.Path()
			r.set(func() { r.hold["read"] = true })
			var guests sync.WaitGroup
			read := func(off int64) {
				guests.Go(func() {
					if _, err := d.ReadAt(make([]byte, 512), off); err != nil {
						t.Error(err)
					}
				})
			}
			read(0)
			r.await("read", 1)
			before := polls(t, s)
			if err := s.k.LieAboutProduced(path, delta); err != nil {
				t.Fatal(err)
			}
			for polls(t, s) == before {
				runtime.Gosched()
			}
			r.set(func() { r.hold["read"] = false })
			guests.Wait()
			if err := s.k.LieAboutProduced(path, 0); err != nil {
				t.Fatal(err)
			}
			read(8192)
			guests.Wait()
		}
	}
}
