package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
)

// registered enters a mount of image at mnt in h's registry, whose server
// answers by handler.
func (h *house) registered(name, mnt string, handler control.Handler) *registry.Holding {
	h.t.Helper()
	dir, err := registry.Open(h.run)
	must(h.t, err)
	server, err := control.Listen(dir.Socket(name), handler)
	must(h.t, err)
	h.t.Cleanup(func() { server.Close() })
	holding, err := dir.Add(name, registry.Entry{
		Image: h.image, Disk: filepath.Join(mnt, "disk.raw"), Mountpoint: mnt, Frontend: "fuse", PID: 17,
		Since: time.Date(2024, 5, 6, 7, 8, 9, 10, time.Local), Log: "/run/x.log",
	})
	must(h.t, err)
	h.t.Cleanup(func() { holding.Remove() })
	return holding
}

func answering(r control.Response) control.Handler {
	return func(context.Context, control.Request) control.Response { return r }
}

func TestUnmountReportsWhatTheServerAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer control.Response
		flags  []string
		code   int
		want   string // of standard error, after "vhdmount: "
	}{
		"busy": {control.Response{Busy: true, Error: "MNT: the disk is in use: open in less (pid 17)"}, nil, 1,
			"MNT: the disk is in use: open in less (pid 17); close it there, or hide it with --lazy\n"},
		"hidden, but mounted elsewhere": {control.Response{Busy: true, Pending: true, Error: "MNT: the disk is in use: hidden here, but another mount namespace still has it mounted"}, nil, 1,
			"MNT: the disk is in use: hidden here, but another mount namespace still has it mounted; the image is closed when that has ended\n"},
		"can't be flushed": {control.Response{Error: "no space left"}, nil, 1,
			"MNT: still mounted: no space left; --lazy takes it away without what can't be flushed (log: /run/x.log)\n"},
		"hidden, but not flushed": {control.Response{Pending: true, State: control.Closing, Error: "not flushed: no space left"}, []string{"--lazy"}, 1,
			"MNT: hidden, but not flushed: no space left; the image is closed when the last program has closed the disk (log: /run/x.log)\n"},
		"neither flushed nor hidden": {control.Response{Error: "no space left"}, []string{"--lazy"}, 1,
			"MNT: still mounted: no space left (log: /run/x.log)\n"},
		"hidden below another mount": {control.Response{Busy: true, Error: "MNT: the disk is in use: none (tmpfs) is mounted over it"}, []string{"--lazy"}, 1,
			"MNT: the disk is in use: none (tmpfs) is mounted over it\n"},
		"hidden": {control.Response{Pending: true, State: control.Closing}, []string{"-l"}, 0,
			"warning: MNT: hidden; the image is closed when the last program has closed the disk\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			mnt := t.TempDir()
			answer := c.answer
			answer.Error = strings.ReplaceAll(answer.Error, "MNT", mnt)
			h.registered("disk-1", mnt, answering(answer))
			code, out, stderr := h.vhdmount(append([]string{"unmount", mnt}, c.flags...)...)
			want := "vhdmount: " + strings.ReplaceAll(c.want, "MNT", mnt)
			if code != c.code || out != "" || stderr != want {
				t.Errorf("code %d, %q\ngot  %s\nwant %s", code, out, stderr, want)
			}
		})
	}
}

func TestUnmountWaitsForTheServersEndAndReportsItsLastFlush(t *testing.T) {
	h := newHouse(t)
	mnt := t.TempDir()
	var holding *registry.Holding
	answered := make(chan struct{})
	holding = h.registered("disk-1", mnt, func(context.Context, control.Request) control.Response {
		close(answered)
		return control.Response{Closed: true, Error: "closing: input/output error"}
	})
	go func() { <-answered; holding.Remove() }()
	code, _, stderr := h.vhdmount("unmount", mnt)
	if want := "vhdmount: " + mnt + ": unmounted, but closing: input/output error (log: /run/x.log)\n"; code != 1 || stderr != want {
		t.Errorf("code %d\ngot  %s\nwant %s", code, stderr, want)
	}
	if left := h.records(); len(left) != 0 {
		t.Errorf("returned before the server's end: %+v", left)
	}
}

func TestUnmountPassesLazyOn(t *testing.T) {
	h := newHouse(t)
	mnt := t.TempDir()
	seen := make(chan control.Request, 2)
	h.registered("disk-1", mnt, func(_ context.Context, r control.Request) control.Response {
		seen <- r
		return control.Response{Busy: true}
	})
	h.vhdmount("unmount", mnt)
	h.vhdmount("umount", "--lazy", mnt)
	for _, lazy := range []bool{false, true} {
		if r := <-seen; r.Op != control.Unmount || r.Lazy != lazy {
			t.Errorf("request %+v, want lazy %v", r, lazy)
		}
	}
}

func TestAnImageMountedTwiceMustBeNamedByItsPlace(t *testing.T) {
	h := newHouse(t)
	one, two := t.TempDir(), t.TempDir()
	h.registered("disk-1", one, answering(control.Response{Busy: true}))
	h.registered("disk-2", two, answering(control.Response{Busy: true}))
	code, _, stderr := h.vhdmount("unmount", h.image)
	if want := "mounted 2 times: name one of " + one + ", " + two; code != 1 || !strings.Contains(stderr, want) {
		t.Errorf("code %d, %s", code, stderr)
	}
}

// dead enters a mount whose server has died.
func (h *house) dead(name string, e registry.Entry) {
	h.t.Helper()
	e.Image, e.Frontend, e.PID, e.Since = h.image, "fuse", 17, time.Now()
	b, err := json.Marshal(e)
	must(h.t, err)
	must(h.t, os.WriteFile(filepath.Join(h.run, name+".json"), b, 0o600)) // nobody holds its lock
	must(h.t, os.WriteFile(filepath.Join(h.run, name+".sock"), nil, 0o600))
}

func TestADeadServersEntryIsListedAndCleared(t *testing.T) {
	h := newHouse(t)
	dir, err := registry.Open(h.run)
	must(t, err)
	mnt, err := dir.MakeMountpoint(h.image)
	must(t, err)
	h.dead("disk-1", registry.Entry{Mountpoint: mnt, Disk: filepath.Join(mnt, "disk.raw"), MadeMountpoint: true})
	if code, out, stderr := h.vhdmount("list"); code != 0 || !strings.Contains(out, " dead ") || stderr != "" {
		t.Errorf("list: %d, %q, %q", code, out, stderr)
	}
	code, _, stderr := h.vhdmount("unmount", h.image)
	if code != 0 || !strings.HasPrefix(stderr, "vhdmount: warning: "+h.image+": its server had died, and what it had not flushed is lost") {
		t.Errorf("unmount: %d, %q", code, stderr)
	}
	if left := h.records(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
	if _, err := os.Stat(mnt); !os.IsNotExist(err) {
		t.Errorf("its mount point: %v", err)
	}
}

func TestClearingADeadEntryLeavesAUsersOwnMountPoint(t *testing.T) {
	h := newHouse(t)
	_, err := registry.Open(h.run)
	must(t, err)
	mnt := t.TempDir()
	h.dead("disk-1", registry.Entry{Mountpoint: mnt, Disk: filepath.Join(mnt, "disk.raw")})
	if code, _, stderr := h.vhdmount("unmount", mnt); code != 0 {
		t.Errorf("unmount: %d, %q", code, stderr)
	}
	if _, err := os.Stat(mnt); err != nil {
		t.Errorf("the user's directory: %v", err)
	}
}

func TestUnmountOfAServerThatDoesNotListen(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"no socket":    func(string) error { return nil },
		"nobody there": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		// As of a killed one, as long as a process that it was about to start has
		// its socket and its lock.
		"asked, and no answer": func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { l.Close() })
				go func() {
					for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
						conn.Close()
					}
				}()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			mnt := t.TempDir()
			holding := h.registered("disk-1", mnt, answering(control.Response{}))
			dir, err := registry.Open(h.run)
			must(t, err)
			must(t, os.Remove(dir.Socket("disk-1")))
			must(t, spoil(dir.Socket("disk-1")))
			u := unmounter{Context: cli.NewContext(newApp(io.Discard, io.Discard), nil, nil), dir: dir, name: mnt, patience: time.Millisecond}
			record, err := u.find()
			must(t, err)
			if err := u.ask(record); err == nil || err.Error() != mnt+": its server doesn't listen: `kill 17` ends it in order" {
				t.Errorf("while it lives: %v", err)
			}
			u.patience = time.Hour
			ended := make(chan error, 1)
			go func() { ended <- u.ask(record) }()
			must(t, holding.Remove())
			must(t, <-ended)
		})
	}
}

// TestUnmountTakesAwayWhatAServerLeftThatDiedLast: the image is closed, so that
// nothing is lost and nothing is said.
func TestUnmountTakesAwayWhatAServerLeftThatDiedLast(t *testing.T) {
	h := newHouse(t)
	mnt := t.TempDir()
	dir, err := registry.Open(h.run)
	must(t, err)
	text, err := json.Marshal(registry.Entry{Image: h.image, Disk: filepath.Join(mnt, "disk.raw"), Mountpoint: mnt, Frontend: "fuse", PID: 17})
	must(t, err)
	entry := filepath.Join(h.run, "disk-1.json")
	must(t, os.WriteFile(entry, text, 0o600))
	lock, err := os.Open(entry)
	must(t, err)
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	server, err := control.Listen(dir.Socket("disk-1"), func(context.Context, control.Request) control.Response {
		lock.Close() // it dies
		return control.Response{Closed: true}
	})
	must(t, err)
	defer server.Close()
	other := filepath.Join(h.run, "other.json") // what is wrong with another mount's entry is no matter of this one
	must(t, os.WriteFile(other, []byte("nonsense"), 0o600))
	if code, _, stderr := h.vhdmount("unmount", mnt); code != 0 || stderr != "" {
		t.Errorf("unmount: %d, %s", code, stderr)
	}
	must(t, os.Remove(other))
	if left := h.records(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// TestUnmountIsNotFailedByAnothersEntry, when the server has left nothing.
func TestUnmountIsNotFailedByAnothersEntry(t *testing.T) {
	h := newHouse(t)
	mnt := t.TempDir()
	entries := make(chan *registry.Holding, 1)
	entries <- h.registered("disk-1", mnt, func(context.Context, control.Request) control.Response {
		if err := (<-entries).Remove(); err != nil {
			t.Error(err)
		}
		return control.Response{Closed: true}
	})
	must(t, os.WriteFile(filepath.Join(h.run, "other.json"), []byte("nonsense"), 0o600))
	if code, _, stderr := h.vhdmount("unmount", mnt); code != 0 || stderr != "" {
		t.Errorf("unmount: %d, %s", code, stderr)
	}
}
