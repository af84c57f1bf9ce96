package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapdisk"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// flow is the tool with a real tapdisk in this process, on a simulated module.
type flow struct {
	*testing.T
	tool   *tapTool
	kernel *blktaptest.Kernel
	server *tapdisk.Server
	dir    string // of images
}

func newFlow(t *testing.T) *flow {
	t.Helper()
	tool := toolFor(t)
	f := &flow{T: t, tool: tool, kernel: tool.driver.(*blktaptest.Kernel), dir: t.TempDir()}
	tool.spawn = func(context.Context) (int, error) {
		f.server = tapdisk.New(tapdisk.Options{Driver: f.kernel, Dir: tool.dir.Path, CloseGrace: time.Millisecond})
		t.Cleanup(func() { f.server.Close() })
		return os.Getpid(), f.server.Listen()
	}
	return f
}

// run is a command line that must end with code; PID stands for the tapdisk's
// number, DIR for the images' directory.
func (f *flow) run(code int, line string) string {
	f.Helper()
	line = strings.NewReplacer("PID", fmt.Sprint(os.Getpid()), "DIR", f.dir).Replace(line)
	got, stdout, stderr := runTap(f.tool, strings.Fields(line)...)
	if got != code {
		f.Fatalf("tap %s: exit code %d, want %d: %s", line, got, code, stderr)
	}
	return stdout
}

// vhdmount runs another verb of the command.
func (f *flow) vhdmount(args ...string) {
	f.Helper()
	var stderr bytes.Buffer
	if code := run(args, io.Discard, &stderr); code != 0 {
		f.Fatalf("vhdmount %v: %s", args, &stderr)
	}
}

// guest is the block device as a guest has it open.
func (f *flow) guest(path string) blockdev.Device {
	f.Helper()
	disk, err := f.kernel.OpenDisk(path)
	if err != nil {
		f.Fatal(err)
	}
	return disk
}

func (f *flow) shows(disk blockdev.Device, want []byte) {
	f.Helper()
	got := make([]byte, len(want))
	if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		f.Errorf("read %.20q…, %v; want %.20q…", got, err, want)
	}
}

// ended waits for the tapdisk.
func (f *flow) ended() {
	f.Helper()
	<-f.server.Done()
	if n := f.kernel.Allocated(); n != 0 {
		f.Errorf("%d minors are allocated", n)
	}
}

// TestTapFlow is a disk's life by tap-ctl's verbs, with a snapshot under a
// guest that has it open.
func TestTapFlow(t *testing.T) {
	f := newFlow(t)
	base, child := filepath.Join(f.dir, "base.vhd"), filepath.Join(f.dir, "child.vhd")
	f.vhdmount("create", "16M", base)
	device := f.run(0, "allocate")
	if device != "/dev/xen/blktap-2/tapdev0\n" {
		t.Errorf("allocate printed %q", device)
	}
	f.run(0, "spawn")
	f.run(0, "attach -p PID -m 0")
	f.run(int(unix.EEXIST), "attach -p PID -m 0")
	f.run(int(unix.ENOENT), "open -p PID -m 0 -a vhd:DIR/none.vhd")
	f.run(0, "open -p PID -m 0 -a vhd:DIR/base.vhd")
	f.run(int(unix.EALREADY), "open -p PID -m 0 -a vhd:DIR/base.vhd")
	f.run(int(unix.EBUSY), "detach -p PID -m 0")

	disk := f.guest(strings.TrimSpace(device))
	first, second := bytes.Repeat([]byte("first..."), 512), bytes.Repeat([]byte("second.."), 512)
	if _, err := disk.WriteAt(first, 0); err != nil {
		t.Fatal(err)
	}
	if got, want := f.run(0, "list"), fmt.Sprintf("pid=%d minor=0 state=0 args=vhd:%s\n", os.Getpid(), base); got != want {
		t.Errorf("list printed %q, want %q", got, want)
	}
	if stats := f.run(0, "stats -p PID -m 0"); !json.Valid([]byte(stats)) || !strings.Contains(stats, base) {
		t.Errorf("stats printed %s", stats)
	}

	f.run(0, "pause -p PID -m 0")
	if got := f.run(0, "list -m 0"); !strings.Contains(got, " state=0x2a ") {
		t.Errorf("list printed %q", got)
	}
	f.vhdmount("snapshot", base, child)
	f.run(int(unix.ENOENT), "unpause -p PID -m 0 -a vhd:DIR/none.vhd")
	f.run(0, "unpause -p PID -m 0 -a vhd:DIR/child.vhd")
	f.shows(disk, first)
	if _, err := disk.WriteAt(second, 0); err != nil {
		t.Fatal(err)
	}
	f.run(int(unix.EBUSY), "close -p PID -m 0")
	f.shows(disk, second)
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	f.run(0, "close -p PID -m 0")
	f.run(0, "detach -p PID -m 0")
	f.run(0, "free -m 0")
	f.ended()
	f.vhdmount("check", base)
	f.vhdmount("check", "--parents", child)
}

// TestTapCreateAndDestroy is the same in two verbs, of a raw image, in the
// older messages.
func TestTapCreateAndDestroy(t *testing.T) {
	f := newFlow(t)
	text := bytes.Repeat([]byte("raw image"), 1024*512/9+1)[:1024*512]
	write(t, f.dir+"/disk.raw", string(text))
	f.run(int(unix.ENOENT), "create -a aio:DIR/none.raw")
	f.ended()
	f.server.Close()
	device := f.run(0, "create -R --layout 2010s -a aio:DIR/disk.raw")
	disk := f.guest(strings.TrimSpace(device))
	f.shows(disk, text)
	if _, err := disk.WriteAt(text[:512], 0); err == nil {
		t.Error("a read-only disk was written to")
	}
	f.run(int(unix.EBUSY), "destroy -p PID -m 0")
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	f.run(0, "destroy -p PID -m 0")
	f.ended()
}
