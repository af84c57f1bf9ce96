package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend/blktap"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// block is a mounted block device of a simulated module.
type block struct {
	*house
	server  *diskServer
	kernel  *blktaptest.Kernel
	path    string // of the block device
	signals chan os.Signal
	result  chan error
}

// mountBlock mounts h's image as a block device.
func (h *house) mountBlock(variant blktaptest.Variant, plan mountPlan) *block {
	h.t.Helper()
	b := &block{house: h, kernel: blktaptest.New(h.t, variant), signals: make(chan os.Signal, 4), result: make(chan error, 1)}
	plan.frontend = frontendBlktap
	out, in := io.Pipe()
	s := &diskServer{
		plan: plan, stage: &foreground{stdout: in, stderr: io.Discard}, show: h.show,
		driver: b.kernel, tapDir: filepath.Join(h.run, "ctl"), probe: b.read,
	}
	b.server = s
	go func() {
		err := s.prepare()
		if err == nil {
			err = s.serve(b.signals)
		}
		in.Close()
		b.result <- err
	}()
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err != nil {
		h.t.Fatal(err, <-b.result)
	}
	b.path = strings.TrimSuffix(string(line[:n]), "\n")
	return b
}

// read is probe.Read of the simulated block device.
func (b *block) read(path string) error {
	disk, err := b.kernel.OpenDisk(path)
	if err != nil {
		return err
	}
	_, err = disk.ReadAt(make([]byte, 512), 0)
	return errors.Join(err, disk.Close())
}

func (b *block) open() blockdev.Device {
	b.t.Helper()
	disk, err := b.kernel.OpenDisk(b.path)
	must(b.t, err)
	return disk
}

// wantGone checks that the server has ended and left nothing.
func (b *block) wantGone() {
	b.t.Helper()
	must(b.t, <-b.result)
	if n := b.kernel.Allocated(); n != 0 {
		b.t.Errorf("%d minors are allocated", n)
	}
	if left := b.records(); len(left) != 0 {
		b.t.Errorf("registry: %+v", left)
	}
	if left, _ := os.ReadDir(filepath.Join(b.run, "ctl")); len(left) != 0 {
		b.t.Errorf("tap-ctl's sockets: %v", left)
	}
	img, err := vhd.Open(b.image, vhd.Options{})
	must(b.t, err)
	must(b.t, img.Close())
}

func TestABlockDeviceIsMountedAndUnmounted(t *testing.T) {
	for _, variant := range blktaptest.Variants {
		t.Run(variant.String(), func(t *testing.T) {
			h := newHouse(t)
			b := h.mountBlock(variant, h.plan(""))
			disk := b.open()
			_, err := disk.WriteAt([]byte("written"), 4096)
			must(t, err)
			records := h.records()
			if len(records) != 1 || !records[0].Alive {
				t.Fatalf("registry: %+v", records)
			}
			if e := records[0].Entry; e.Disk != b.path || e.Frontend != "blktap" || e.Minor == nil || e.Mountpoint != "" {
				t.Errorf("entry %+v", e)
			}
			if code, _, stderr := h.vhdmount("unmount", h.image); code != 1 || !strings.Contains(stderr, "in use") {
				t.Errorf("unmount while open: %d, %s", code, stderr)
			}
			must(t, disk.Close())
			if code, _, stderr := h.vhdmount("unmount", b.path); code != 0 || stderr != "" {
				t.Errorf("unmount: %d, %s", code, stderr)
			}
			b.wantGone()
			img, err := vhd.Open(h.image, vhd.Options{ReadOnly: true})
			must(t, err)
			defer img.Close()
			got := make([]byte, 7)
			if _, err := img.ReadAt(got, 4096); err != nil || string(got) != "written" {
				t.Errorf("the image has %q, %v", got, err)
			}
		})
	}
}

// TestABlockDeviceThatDoesNotAnswerIsNotAnnounced, and is taken away again.
func TestABlockDeviceThatDoesNotAnswerIsNotAnnounced(t *testing.T) {
	h := newHouse(t)
	k := blktaptest.New(t, blktaptest.OpenXT)
	plan := h.plan("")
	plan.frontend = frontendBlktap
	var out strings.Builder
	s := &diskServer{
		plan: plan, stage: &foreground{stdout: &out, stderr: io.Discard}, driver: k,
		probe: func(string) error { return unix.EIO },
	}
	if err := s.run(); !errors.Is(err, unix.EIO) || out.Len() > 0 {
		t.Errorf("%v, printed %q", err, out.String())
	}
	if n := k.Allocated(); n != 0 || len(h.records()) != 0 {
		t.Errorf("%d minors are allocated, %d entries", n, len(h.records()))
	}
}

// TestASignalWaitsForTheGuest: a block device in use is served on, however many
// signals come, and goes when it is closed.
func TestASignalWaitsForTheGuest(t *testing.T) {
	h := newHouse(t)
	b := h.mountBlock(blktaptest.OpenXT, h.plan(""))
	disk := b.open()
	for range 3 {
		b.signals <- unix.SIGTERM
	}
	for range 100 {
		_, err := disk.WriteAt(make([]byte, 4096), 0)
		must(t, err)
	}
	if len(b.result) != 0 || len(h.records()) != 1 {
		t.Error("the server has ended")
	}
	must(t, disk.Close())
	b.wantGone()
}

func TestASnapshotUnderABlockDevice(t *testing.T) {
	h := newHouse(t)
	b := h.mountBlock(blktaptest.OpenXT, h.plan(""))
	disk := b.open()
	_, err := disk.WriteAt([]byte("before"), 0)
	must(t, err)
	child := filepath.Join(filepath.Dir(h.image), "child.vhd")
	if code, _, stderr := h.vhdmount("snapshot", "--live", b.path, child); code != 0 {
		t.Fatalf("snapshot: %d, %s", code, stderr)
	}
	_, err = disk.WriteAt([]byte("after"), 512)
	must(t, err)
	got := make([]byte, 6)
	if _, err := disk.ReadAt(got, 0); err != nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
	if e := h.records()[0].Entry; e.Image != child {
		t.Errorf("the registry says %s", e.Image)
	}
	must(t, disk.Close())
	if code, _, stderr := h.vhdmount("unmount", child); code != 0 {
		t.Errorf("unmount: %d, %s", code, stderr)
	}
	b.wantGone()
}

// TestTapCtlFindsAMountedBlockDevice: it lists it, has it go on with another
// image, and takes it away.
func TestTapCtlFindsAMountedBlockDevice(t *testing.T) {
	h := newHouse(t)
	b := h.mountBlock(blktaptest.DKMS, h.plan(""))
	child := filepath.Join(filepath.Dir(h.image), "child.vhd")
	minor := uint16(*h.records()[0].Entry.Minor)
	tap, pid, ctx := tapctl.Dir{Path: filepath.Join(h.run, "ctl")}, os.Getpid(), t.Context()

	must(t, tap.Pause(ctx, pid, minor))
	if got := look(ctx, must1(registry.Open(h.run)), h.records()[0]); got.State != string(control.Paused) {
		t.Errorf("list says %s", got.State)
	}
	must(t, vhd.Snapshot(h.image, child, vhd.SnapshotOptions{}))
	must(t, tap.Unpause(ctx, pid, minor, tapctl.OpenRequest{Params: tapctl.Params{Path: "vhd:" + child}}))
	if e := h.records()[0].Entry; e.Image != child {
		t.Errorf("the registry says %s", e.Image)
	}
	disk := b.open()
	if err := tap.Close(ctx, pid, minor, false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("close while open: %v", err)
	}
	must(t, disk.Close())
	must(t, tap.Close(ctx, pid, minor, false))
	must(t, tap.Detach(ctx, pid, minor))
	b.wantGone()
}

// TestNoWriteOvertakesTheEntryOfABlockDevice: after a message had the disk go on
// with another image, the entry names it before a write reaches it. Where the disk
// could not go on with it, the entry names the one before.
func TestNoWriteOvertakesTheEntryOfABlockDevice(t *testing.T) {
	h := newHouse(t)
	b := h.mountBlock(blktaptest.DKMS, h.plan(""))
	small, child := filepath.Join(filepath.Dir(h.image), "small.vhd"), filepath.Join(filepath.Dir(h.image), "child.vhd")
	minor := uint16(*h.records()[0].Entry.Minor)
	tap, pid, ctx := tapctl.Dir{Path: filepath.Join(h.run, "ctl")}, os.Getpid(), t.Context()
	unpause := func(image string) error {
		return tap.Unpause(ctx, pid, minor, tapctl.OpenRequest{Params: tapctl.Params{Path: "vhd:" + image}})
	}
	disk := b.open()
	must(t, tap.Pause(ctx, pid, minor))
	must(t, vhd.Create(small, vhd.CreateOptions{Type: format.Dynamic, Size: 1 << 20}))
	if err := unpause(small); err == nil {
		t.Error("a disk has changed its size")
	}
	if e := h.records()[0].Entry; e.Image != h.image {
		t.Errorf("after an unpause that failed the registry says %s", e.Image)
	}

	must(t, vhd.Snapshot(h.image, child, vhd.SnapshotOptions{}))
	written, unpaused := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := disk.WriteAt(make([]byte, 4096), 0)
		written <- err
	}()
	b.server.mu.Lock() // the registry can't be written meanwhile
	go func() { unpaused <- unpause(child) }()
	select {
	case err := <-written:
		t.Errorf("a write was done, %v, and the registry says %s", err, h.records()[0].Entry.Image)
		written <- err
	case <-time.After(200 * time.Millisecond): // an unpause takes less than one
	}
	b.server.mu.Unlock()
	must(t, <-unpaused)
	must(t, <-written)
	if e := h.records()[0].Entry; e.Image != child {
		t.Errorf("the registry says %s", e.Image)
	}
	must(t, disk.Close())
	must(t, tap.Close(ctx, pid, minor, false))
	must(t, tap.Detach(ctx, pid, minor))
	b.wantGone()
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestADeadServersMinorIsFreed, and one that somebody serves by now is not.
func TestADeadServersMinorIsFreed(t *testing.T) {
	h := newHouse(t)
	k := blktaptest.New(t, blktaptest.OpenXT)
	dir := must1(registry.Open(h.run))
	dead := func(minor int) registry.Record {
		return registry.Record{Name: "none", Entry: registry.Entry{Disk: "/dev/x", Frontend: frontendBlktap, Minor: &minor}}
	}
	u := unmounter{Context: cli.NewContext(newApp(io.Discard, io.Discard), nil, nil), dir: dir, driver: k, name: "disk.vhd"}
	u.Context.Context = t.Context()

	tap, err := k.Allocate()
	must(t, err)
	must(t, u.clear(dead(tap.Minor)))
	if n := k.Allocated(); n != 0 {
		t.Errorf("%d minors are left", n)
	}
	must(t, u.clear(dead(tap.Minor))) // freed by somebody else

	served, err := blktap.New(blktap.Options{Driver: k}).Attach(t.Context(), blockdev.NewMemory(4096))
	must(t, err)
	must(t, u.clear(dead(served.(*blktap.Session).Tap().Minor)))
	if n := k.Allocated(); n != 1 {
		t.Errorf("%d minors are left, want the one in use", n)
	}
	must(t, served.Detach(context.Background()))
	k.Fail(blktaptest.CallFree, unix.EIO)
	tap, err = k.Allocate()
	must(t, err)
	if err := u.clear(dead(tap.Minor)); !errors.Is(err, unix.EIO) {
		t.Errorf("clear: %v", err)
	}
	must(t, k.Free(tap))
}

func TestNoModuleIsSaidPlainly(t *testing.T) {
	if blktap.Available() == nil {
		t.Skip("there is a module")
	}
	h := newHouse(t)
	code, out, stderr := h.vhdmount("mount", "-f", "--frontend", "blktap", h.image)
	if code != 1 || out != "" || !strings.Contains(stderr, "blktap module is not loaded") || !strings.Contains(stderr, "--frontend fuse") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%d, %q, %q", code, out, stderr)
	}
}

func TestANodeThatIsYoungerThanTheMountIsAnothers(t *testing.T) {
	node := filepath.Join(t.TempDir(), "tapdev0")
	before := time.Now().Add(-time.Minute)
	must(t, os.WriteFile(node, nil, 0o600))
	if !madeAfter(node, before) || madeAfter(node, time.Now().Add(time.Minute)) || madeAfter(node+"x", before) {
		t.Error("wrong about a node's age")
	}
}
