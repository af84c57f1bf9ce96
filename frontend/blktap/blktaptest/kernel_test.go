package blktaptest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// byHand is a ring that the test serves, and what the kernel says of that.
type byHand struct {
	k       *Kernel
	tap     blktap.Tap
	port    blktap.Port
	mem     []byte
	reports []string
	prod    uint32 // responses
}

func serveByHand(t *testing.T, v Variant, opts ...Option) *byHand {
	t.Helper()
	h := &byHand{}
	h.k = New(t, v, append(opts, WithReport(func(s string) { h.reports = append(h.reports, s) }))...)
	var err error
	if h.tap, err = h.k.Allocate(); err != nil {
		t.Fatal(err)
	}
	if h.port, err = h.k.Open(h.tap); err != nil {
		t.Fatal(err)
	}
	h.port.Bind()
	h.mem = h.port.Memory()
	if err := h.port.CreateDevice(info(flagFlush | flagTrim)); err != nil {
		t.Fatal(err)
	}
	return h
}

// info is a device info of 2048 sectors.
func info(flags uint64) []byte {
	b := make([]byte, 56)
	binary.NativeEndian.PutUint64(b, 2048)
	binary.NativeEndian.PutUint32(b[8:], 512)
	binary.NativeEndian.PutUint32(b[12:], 512)
	binary.NativeEndian.PutUint64(b[16:], flags)
	binary.NativeEndian.PutUint32(b[32:], 512)
	return b
}

func (h *byHand) produced() uint32 { return binary.NativeEndian.Uint32(h.mem) }

// respond answers an id.
func (h *byHand) respond(t *testing.T, id uint64, op byte, status int16) {
	t.Helper()
	b := h.mem[64+int(h.prod%32)*112:]
	binary.NativeEndian.PutUint64(b, id)
	b[8] = op
	binary.NativeEndian.PutUint16(b[10:], uint16(status))
	h.prod++
	atomic.StoreUint32(h.port.(*port).word(8), h.prod)
	if err := h.port.Respond(); err != nil {
		t.Error(err)
	}
}

// guest has one request of a guest made, and waits until it is queued.
func (h *byHand) guest(t *testing.T, do func(blockdev.Device) error) (wait func() error) {
	t.Helper()
	d, err := h.k.OpenDisk(h.tap.Path)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- do(d) }()
	minor := h.k.tap(h.tap.Minor)
	for queued := 0; queued == 0; runtime.Gosched() {
		minor.mu.Lock()
		queued = minor.length
		minor.mu.Unlock()
	}
	return func() error { return <-result }
}

func (h *byHand) poll(t *testing.T) blktap.Events {
	t.Helper()
	got, err := h.port.Wait(blktap.EventRing, 0)
	if err != nil {
		t.Error(err)
	}
	return got
}

func (h *byHand) close(t *testing.T) {
	t.Helper()
	if err := h.port.Close(); err != nil {
		t.Error(err)
	}
}

func write4K(d blockdev.Device) error {
	_, err := d.WriteAt(bytes.Repeat([]byte{7}, 4096), 512)
	return err
}

// page is the first page of request 0.
func (h *byHand) page() []byte { return h.mem[4096:8192] }

// TestRequestsAppearOnlyInPoll, with their pages.
func TestRequestsAppearOnlyInPoll(t *testing.T) {
	for _, opts := range [][]Option{nil, {WithGuard()}} {
		h := serveByHand(t, DKMS, opts...)
		wait := h.guest(t, write4K)
		if h.produced() != 0 {
			t.Error("a request is on the ring that nobody polled")
		}
		if got := h.poll(t); got != blktap.EventRing || h.produced() != 1 {
			t.Errorf("poll: %b, %d requests", got, h.produced())
		}
		slot := h.mem[64:]
		if slot[0] != 1 || slot[1] != 1 || slot[16] != 1 || slot[28] != 0 || slot[29] != 7 {
			t.Errorf("slot % x", slot[:32])
		}
		if !bytes.Equal(h.page(), bytes.Repeat([]byte{7}, 4096)) {
			t.Error("the page has not what is written")
		}
		h.respond(t, 0, 1, 0)
		if err := wait(); err != nil {
			t.Error(err)
		}
		h.close(t)
		if len(h.reports) > 0 {
			t.Errorf("reported %q", h.reports)
		}
	}
}

// TestTouchAfterTheAnswerIsFound, where the next user of the page is, or at
// the end.
func TestTouchAfterTheAnswerIsFound(t *testing.T) {
	for _, again := range []bool{false, true} {
		h := serveByHand(t, OpenXT)
		wait := h.guest(t, write4K)
		h.poll(t)
		page := h.page()
		h.respond(t, 0, 1, 0)
		if err := wait(); err != nil {
			t.Error(err)
		}
		if page[0] == 7 {
			t.Error("what was written can still be read from the page")
		}
		page[17] = 7
		if again {
			wait = h.guest(t, write4K)
			h.poll(t)
			h.respond(t, 0, 1, 0)
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		h.close(t)
		if len(h.reports) != 1 || !strings.Contains(h.reports[0], "after its request was answered") {
			t.Errorf("reported %q", h.reports)
		}
	}
}

// TestGuardedPageFaults: before its request is there, and after it was
// answered, at a read as at a write.
func TestGuardedPageFaults(t *testing.T) {
	h := serveByHand(t, DKMS, WithGuard())
	defer h.close(t)
	page := h.page()
	touches := map[string]func(){
		"read":  func() { runtime.KeepAlive(page[9]) },
		"write": func() { page[9] = 1 },
	}
	check := func(when string) {
		t.Helper()
		for name, touch := range touches {
			if !faults(touch) {
				t.Errorf("a %s %s is fine", name, when)
			}
		}
	}
	check("before")
	wait := h.guest(t, write4K)
	h.poll(t)
	for name, touch := range touches {
		if faults(touch) {
			t.Errorf("a %s meanwhile faults", name)
		}
	}
	h.respond(t, 0, 1, 0)
	check("afterwards")
	if err := wait(); err != nil {
		t.Error(err)
	}
}

func faults(touch func()) (did bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { did = recover() != nil }()
	touch()
	return false
}

// TestAnswersToNothingAreFound: an id that is not pending, another operation,
// more responses than requests.
func TestAnswersToNothingAreFound(t *testing.T) {
	for _, c := range []struct {
		id   uint64
		op   byte
		want string
	}{
		{1, 1, "not pending"}, {0, 0, "not pending"}, {32, 1, "not pending"}, {1 << 63, 1, "not pending"},
	} {
		h := serveByHand(t, DKMS)
		wait := h.guest(t, write4K)
		h.poll(t)
		h.respond(t, c.id, c.op, 0)
		h.respond(t, 0, 1, 0)
		h.close(t)
		if err := wait(); !errors.Is(err, unix.EIO) {
			t.Errorf("%+v: the request: %v", c, err)
		}
		if len(h.reports) != 2 || !strings.Contains(h.reports[0], c.want) || !strings.Contains(h.reports[1], "2 responses to 1") {
			t.Errorf("%+v: reported %q", c, h.reports)
		}
	}
}

func TestCallFromAnotherThreadIsFound(t *testing.T) {
	h := serveByHand(t, XenServer)
	var other sync.WaitGroup
	other.Go(func() { h.poll(t) }) // this goroutine's thread is its own
	other.Wait()
	h.close(t)
	if len(h.reports) != 1 || !strings.Contains(h.reports[0], "thread") {
		t.Errorf("reported %q", h.reports)
	}
}

func TestRemovalOfWhatIsPendingIsFound(t *testing.T) {
	h := serveByHand(t, DKMS)
	go func() { _, _ = h.k.Inject(h.tap.Path, Slot{Op: 2, ID: 4}) }() // ends with the ring
	for n := 0; n == 0; n, _ = h.k.Pending(h.tap.Path) {
		h.poll(t)
	}
	if err := h.port.RemoveDevice(); err != nil {
		t.Error(err)
	}
	h.close(t)
	if len(h.reports) != 1 || !strings.Contains(h.reports[0], "never return") {
		t.Errorf("reported %q", h.reports)
	}
}

func TestErrorsAreTheModules(t *testing.T) {
	for _, v := range Variants {
		h := serveByHand(t, v)
		if _, err := h.k.Open(h.tap); !errors.Is(err, blktap.ErrMinorInUse) {
			t.Errorf("%v: a second open: %v", v, err)
		}
		if _, err := h.k.Open(blktap.Tap{Minor: 9}); !errors.Is(err, blktap.ErrNoMinor) {
			t.Errorf("%v: open of no minor: %v", v, err)
		}
		if err := h.port.CreateDevice(info(0)); err != unix.EEXIST {
			t.Errorf("%v: a second device: %v", v, err)
		}
		d, err := h.k.OpenDisk(h.tap.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.port.RemoveDevice(); err != unix.EBUSY {
			t.Errorf("%v: removal while open: %v", v, err)
		}
		if _, ok := d.(blockdev.Discarder); ok != (v != XenServer) {
			t.Errorf("%v: can discard: %v", v, ok)
		}
		if want := map[bool]error{true: nil, false: unix.EBUSY}[v == OpenXT]; !errors.Is(h.k.Free(h.tap), want) {
			t.Errorf("%v: free while open is not %v", v, want)
		}
		if want := map[bool]byte{true: 3}[v == OpenXT]; h.mem[16] != want {
			t.Errorf("%v: message %d after free", v, h.mem[16])
		}
		if err := h.port.Paused(); err != map[bool]error{true: unix.EINVAL, false: unix.ENOTTY}[v == OpenXT] {
			t.Errorf("%v: a pause that nobody asked for: %v", v, err)
		}
		h.close(t)
		if _, err := d.ReadAt(make([]byte, 512), 0); !errors.Is(err, unix.EIO) {
			t.Errorf("%v: a read of a disk whose server has gone: %v", v, err)
		}
	}
}

// TestFlagsComeBackMasked, but from XenServer's module as they went.
func TestFlagsComeBackMasked(t *testing.T) {
	for v, want := range map[Variant]uint64{DKMS: 31, OpenXT: 15, XenServer: 31 | 1<<40} {
		k := New(t, v)
		tap, err := k.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		p, err := k.Open(tap)
		if err != nil {
			t.Fatal(err)
		}
		b := info(31 | 1<<40)
		binary.NativeEndian.PutUint32(b[24:], 512)
		if err := p.CreateDevice(b); err != nil {
			t.Errorf("%v: %v", v, err)
		}
		if got := binary.NativeEndian.Uint64(b[16:]); got != want {
			t.Errorf("%v: flags %#x, want %#x", v, got, want)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReadableAsTheModulesAre: openxt's is, as long as a request is
// unanswered; the others only say so once.
func TestReadableAsTheModulesAre(t *testing.T) {
	for _, v := range Variants {
		h := serveByHand(t, v)
		wait := h.guest(t, write4K)
		var got []blktap.Events
		for range 3 {
			got = append(got, h.poll(t))
		}
		want := []blktap.Events{blktap.EventRing, 0, 0}
		if v == OpenXT {
			want = []blktap.Events{blktap.EventRing, blktap.EventRing, blktap.EventRing}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
		h.respond(t, 0, 1, 0)
		if got := h.poll(t); got != 0 {
			t.Errorf("%v: readable once answered", v)
		}
		h.close(t)
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestSchedulerDisorders: neither ids nor slots come in the order of the
// requests, which are one behind the other without it.
func TestSchedulerDisorders(t *testing.T) {
	for _, seed := range []uint64{0, 1} {
		h := serveByHand(t, DKMS, WithScheduler(seed))
		wait := h.guest(t, func(d blockdev.Device) error {
			_, err := d.ReadAt(make([]byte, 512<<10), 0)
			return err
		})
		for range 100 {
			h.poll(t)
		}
		var ids, sectors []uint64
		for i := range h.produced() {
			slot := h.mem[64+i*112:]
			ids = append(ids, binary.NativeEndian.Uint64(slot[8:]))
			sectors = append(sectors, binary.NativeEndian.Uint64(slot[16:]))
		}
		if len(ids) < 12 || slices.IsSorted(ids) == (seed != 0) {
			t.Errorf("seed %d: ids %v", seed, ids)
		}
		// A guest's requests are queued last to first or first to last.
		inOrder := slices.IsSorted(sectors) || slices.IsSortedFunc(sectors, func(a, b uint64) int { return int(b) - int(a) })
		if inOrder == (seed != 0) {
			t.Errorf("seed %d: sectors %v", seed, sectors)
		}
		h.close(t)
		if err := wait(); !errors.Is(err, unix.EIO) {
			t.Errorf("a ring that is closed: %v", err)
		}
	}
}

func TestAllMinorsTaken(t *testing.T) {
	k := New(t, DKMS)
	for i := range minors {
		tap, err := k.Allocate()
		if err != nil || tap.Minor != i || tap.Path != fmt.Sprintf("/dev/xen/blktap-2/tapdev%d", i) {
			t.Fatalf("minor %d: %+v, %v", i, tap, err)
		}
	}
	if _, err := k.Allocate(); err != unix.ENOMEM {
		t.Errorf("one more: %v", err)
	}
	if err := k.Free(blktap.Tap{Minor: 5}); err != nil {
		t.Error(err)
	}
	if err := k.Free(blktap.Tap{Minor: 5}); !errors.Is(err, blktap.ErrNoMinor) {
		t.Errorf("a second time: %v", err)
	}
	if tap, err := k.Allocate(); err != nil || tap.Minor != 5 {
		t.Errorf("%+v, %v", tap, err)
	}
}
