package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/describe"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/frontend"
	"github.com/vhdmount/vhdmount/frontend/fuse"
)

// stand is a frontend without a kernel: it shows a disk to whoever has the
// stand.
type stand struct {
	options   fuse.Options
	dev       blockdev.Device
	attachErr error
	busy      bool
	end       func()
	ended     chan struct{}
}

func newStand() *stand {
	s := &stand{ended: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	return s
}

func (s *stand) Attach(_ context.Context, dev blockdev.Device) (frontend.Session, error) {
	s.dev = dev
	if s.attachErr != nil {
		return nil, s.attachErr
	}
	return s, nil
}

func (s *stand) Path() string { return filepath.Join(s.options.Mountpoint, "disk.raw") }
func (s *stand) Wait() error  { <-s.ended; return nil }

func (s *stand) Detach(ctx context.Context) error {
	if err := s.dev.Flush(); err != nil {
		return err
	}
	if s.busy && !frontend.Lazy(ctx) {
		return frontend.ErrBusy
	}
	s.end()
	return nil
}

// house is a runtime directory, an image, and a stand to show it on.
type house struct {
	t     *testing.T
	image string
	run   string
	stand *stand
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	h := &house{t: t, image: filepath.Join(dir, "disk.vhd"), run: filepath.Join(dir, "run"), stand: newStand()}
	must(t, vhd.Create(h.image, vhd.CreateOptions{Type: format.Dynamic, Size: 64 << 20}))
	t.Setenv("VHDMOUNT_RUNTIME_DIR", h.run)
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a server in the foreground, waits for what it prints, and returns
// that with the way to hear of its end.
func (h *house) serve(plan mountPlan) (disk string, result chan error) {
	h.t.Helper()
	out, in := io.Pipe()
	server := &diskServer{plan: plan, stage: &foreground{stdout: in, stderr: io.Discard}, show: h.show}
	result = make(chan error, 1)
	go func() {
		err := server.run()
		in.Close()
		result <- err
	}()
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err != nil && err != io.EOF {
		h.t.Fatal(err)
	}
	return strings.TrimSuffix(string(line[:n]), "\n"), result
}

func (h *house) show(o fuse.Options) frontend.Frontend {
	h.stand.options = o
	return h.stand
}

func (h *house) plan(mountpoint string) mountPlan {
	return mountPlan{image: h.image, mountpoint: mountpoint, frontend: frontendFUSE, logFormat: "text"}
}

func (h *house) records() []registry.Record {
	h.t.Helper()
	dir, err := registry.Open(h.run)
	must(h.t, err)
	records, err := dir.Records()
	must(h.t, err)
	return records
}

// vhdmount runs the command in this process.
func (h *house) vhdmount(args ...string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

func TestAServerIsInTheRegistryBeforeItSaysWhereTheDiskIs(t *testing.T) {
	h := newHouse(t)
	mnt := t.TempDir()
	disk, result := h.serve(h.plan(mnt))
	if disk != filepath.Join(mnt, "disk.raw") {
		t.Errorf("printed %q", disk)
	}
	records := h.records()
	if len(records) != 1 || !records[0].Alive {
		t.Fatalf("records %+v", records)
	}
	if e := records[0].Entry; e.Image != h.image || e.Disk != disk || e.Mountpoint != mnt || e.MadeMountpoint || e.Frontend != "fuse" || e.PID != os.Getpid() || e.ReadOnly || e.Log != "" {
		t.Errorf("entry %+v", e)
	}
	if code, out, stderr := h.vhdmount("unmount", mnt); code != 0 || out+stderr != "" {
		t.Errorf("unmount: %d, %q, %q", code, out, stderr)
	}
	must(t, <-result)
	if left := h.records(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
	img, err := vhd.Open(h.image, vhd.Options{}) // closed, and its lock given back
	must(t, err)
	must(t, img.Close())
}

func TestWhatWasWrittenIsInTheImageAfterUnmount(t *testing.T) {
	h := newHouse(t)
	_, result := h.serve(h.plan(t.TempDir()))
	_, err := h.stand.dev.WriteAt([]byte("precious"), 10<<20)
	must(t, err)
	if code, _, stderr := h.vhdmount("unmount", h.image); code != 0 {
		t.Fatalf("unmount: %d, %s", code, stderr)
	}
	must(t, <-result)
	img, err := vhd.Open(h.image, vhd.Options{ReadOnly: true})
	must(t, err)
	defer img.Close()
	got := make([]byte, 8)
	_, err = img.ReadAt(got, 10<<20)
	if err != nil || string(got) != "precious" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestASignalEndsAServerInOrder(t *testing.T) {
	h := newHouse(t)
	_, result := h.serve(h.plan(t.TempDir()))
	must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
	must(t, <-result)
	if left := h.records(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
}

func TestAMountPointOfItsOwnIsMadeAndRemoved(t *testing.T) {
	h := newHouse(t)
	disk, result := h.serve(h.plan(""))
	mnt := filepath.Join(h.run, "mnt", "disk")
	if disk != filepath.Join(mnt, "disk.raw") || !h.records()[0].Entry.MadeMountpoint {
		t.Errorf("printed %q, entry %+v", disk, h.records()[0].Entry)
	}
	if code, _, stderr := h.vhdmount("unmount", disk); code != 0 {
		t.Errorf("unmount: %s", stderr)
	}
	must(t, <-result)
	if _, err := os.Stat(mnt); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount point: %v", err)
	}
}

func TestAFailedAttachLeavesNothing(t *testing.T) {
	h := newHouse(t)
	h.stand.attachErr = errors.New("no such luck")
	printed, result := h.serve(h.plan(""))
	if err := <-result; !errors.Is(err, h.stand.attachErr) || printed != "" {
		t.Errorf("got %v, printed %q", err, printed)
	}
	if left, err := os.ReadDir(filepath.Join(h.run, "mnt")); err != nil || len(left) != 0 {
		t.Errorf("mount points left: %v, %v", left, err)
	}
	if left := h.records(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
	img, err := vhd.Open(h.image, vhd.Options{})
	must(t, err)
	must(t, img.Close())
}

// TestTheImageAndItsParentsAreNoMountPoints, by whatever name.
func TestTheImageAndItsParentsAreNoMountPoints(t *testing.T) {
	h := newHouse(t)
	dir := filepath.Dir(h.image)
	child, link, hard := filepath.Join(dir, "child.vhd"), filepath.Join(dir, "link"), filepath.Join(dir, "hard")
	must(t, vhd.Snapshot(h.image, child, vhd.SnapshotOptions{}))
	must(t, os.Symlink("disk.vhd", link))
	must(t, os.Link(h.image, hard))
	t.Chdir(dir)
	for _, c := range []struct{ image, point, want string }{
		{h.image, h.image, h.image + ": is the image itself"},
		{"disk.vhd", "disk.vhd", "disk.vhd: is the image itself"},
		{"disk.vhd", "link", "link: is the image itself"},
		{"link", "hard", "hard: is the image itself"},
		{"child.vhd", "child.vhd", "child.vhd: is the image itself"},
		{"child.vhd", "disk.vhd", "disk.vhd: is a parent of the image"},
		{child, link, link + ": is a parent of the image"},
	} {
		for _, readOnly := range []bool{false, true} {
			plan := h.plan(c.point)
			plan.image, plan.open.ReadOnly = c.image, readOnly
			printed, result := h.serve(plan)
			if err := <-result; err == nil || err.Error() != c.want || printed != "" {
				t.Errorf("%s at %s: %v, printed %q; want %s", c.image, c.point, err, printed, c.want)
			}
		}
	}
	if h.stand.dev != nil || len(h.records()) != 0 {
		t.Error("it was shown all the same")
	}
	h.stand.end() // at once
	plan := h.plan(child)
	_, result := h.serve(plan)
	must(t, <-result) // a file that the disk has nothing to do with
}

func TestADiskThatCantBeAnnouncedIsTakenAwayAgain(t *testing.T) {
	h := newHouse(t)
	broken, in := io.Pipe()
	broken.Close() // nobody reads: the path can't be printed
	server := &diskServer{plan: h.plan(""), stage: &foreground{stdout: in, stderr: io.Discard}, show: h.show}
	if err := server.run(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	<-h.stand.ended
	if left := h.records(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
}

// TestAPauseBeforeTheDiskIsAnnouncedEnds, while confine waits for the disk.
func TestAPauseBeforeTheDiskIsAnnouncedEnds(t *testing.T) {
	h := newHouse(t)
	server := &diskServer{plan: h.plan(""), stage: &foreground{stdout: io.Discard, stderr: io.Discard}, show: h.show}
	server.confine = func(s *diskServer) func() error {
		paused := s.server.Handle(t.Context(), control.Request{Op: control.Pause})
		read := make(chan error, 1)
		go func() {
			_, err := h.stand.dev.ReadAt(make([]byte, 512), 0)
			read <- err
		}()
		if r := s.server.Handle(t.Context(), control.Request{Op: control.Unpause, Token: paused.Token}); r.Error != "" {
			t.Errorf("unpause: %s", r.Error)
		}
		must(t, <-read)
		return nil
	}
	h.stand.end() // at once
	must(t, server.run())
}

func TestTheFrontendIsToldWhatWasAskedFor(t *testing.T) {
	h := newHouse(t)
	plan := h.plan(t.TempDir())
	plan.open.ReadOnly = true
	plan.options.AllowOther, plan.options.UID, plan.options.Umask = true, new(uint32(7)), new(fs.FileMode(0o022))
	_, result := h.serve(plan)
	o := h.stand.options
	if !o.ReadOnly || !o.AllowOther || *o.UID != 7 || o.GID != nil || *o.Umask != 0o022 || o.FSName != h.image {
		t.Errorf("options %+v", o)
	}
	h.stand.end()
	must(t, <-result)
}

func TestInfoJSONIsWhatInfoPrints(t *testing.T) {
	h := newHouse(t)
	plan := h.plan(t.TempDir())
	plan.open.ReadOnly = true
	_, result := h.serve(plan)
	var shown, printed describe.Disk
	must(t, json.Unmarshal(h.stand.options.Info(), &shown))
	code, out, stderr := h.vhdmount("info", "--json", "--chain", h.image)
	if code != 0 || stderr != "" {
		t.Errorf("info: %d, %s", code, stderr)
	}
	must(t, json.Unmarshal([]byte(out), &printed))
	a, _ := json.Marshal(shown)
	b, _ := json.Marshal(printed)
	if string(a) != string(b) {
		t.Errorf("info.json %s\ninfo      %s", a, b)
	}
	h.stand.end()
	must(t, <-result)
}

func TestInfoAndMapReadAnImageThatIsInUse(t *testing.T) {
	h := newHouse(t)
	_, result := h.serve(h.plan(t.TempDir()))
	for _, verb := range []string{"info", "map"} {
		code, out, stderr := h.vhdmount(verb, h.image)
		if code != 0 || out == "" || !strings.Contains(stderr, "in use") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: %d, %q, %q", verb, code, out, stderr)
		}
	}
	if code, _, stderr := h.vhdmount("check", h.image); code != 1 || !strings.Contains(stderr, "in use") {
		t.Errorf("check: %d, %q", code, stderr)
	}
	h.stand.end()
	must(t, <-result)
}

func TestWarningsOfOpenAreForTheUser(t *testing.T) {
	h := newHouse(t)
	other := filepath.Join(filepath.Dir(h.image), "other.vhd")
	must(t, vhd.Create(other, vhd.CreateOptions{Type: format.Dynamic, Size: 64 << 20}))
	child := filepath.Join(filepath.Dir(h.image), "child.vhd")
	must(t, vhd.Snapshot(h.image, child, vhd.SnapshotOptions{}))
	plan := h.plan(t.TempDir())
	plan.image, plan.open.Parent, plan.open.ForceParent = child, other, true
	var stderr strings.Builder
	st := &foreground{stdout: io.Discard, stderr: &stderr}
	server := &diskServer{plan: plan, stage: st, show: h.show}
	h.stand.end() // at once
	must(t, server.run())
	if !strings.Contains(stderr.String(), "vhdmount: warning: "+child+": ") || !strings.Contains(stderr.String(), "accepted by force") {
		t.Errorf("standard error: %s", &stderr)
	}
}

func TestTheLogHasTheFormatAndLevelAskedFor(t *testing.T) {
	for format, want := range map[string]string{"text": `level=WARN msg=hot`, "json": `"level":"WARN","msg":"hot"`} {
		var out strings.Builder
		plan := mountPlan{logFormat: format}
		must(t, plan.logLevel.UnmarshalText([]byte("warn")))
		log := plan.logger(&out)
		log.Info("cold")
		log.Warn("hot")
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "cold") {
			t.Errorf("%s: %s", format, &out)
		}
	}
}
