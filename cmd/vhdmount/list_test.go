package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
)

func TestListShowsEveryState(t *testing.T) {
	h := newHouse(t)
	for name, answer := range map[string]control.Response{
		"a": {State: control.Running},
		"b": {State: control.Closing},
		"c": {State: control.ReadOnlyAfterError, Error: "a sync failed"},
		"d": {State: control.Failing, Error: "BAT:\ninput/output error"},
	} {
		h.registered(name, "/mnt/"+name, answering(answer))
	}
	code, out, stderr := h.vhdmount("list")
	if code != 0 || stderr != "" {
		t.Errorf("code %d, %s", code, stderr)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 5 || strings.Join(strings.Fields(lines[0]), " ") != "IMAGE PATH FRONTEND PID STATE SINCE ERROR" {
		t.Fatalf("got\n%s", out)
	}
	for i, want := range []struct{ state, problem string }{
		{"/mnt/a/disk.raw fuse 17 running", ""},
		{"/mnt/b/disk.raw fuse 17 closing", ""},
		{"/mnt/c/disk.raw fuse 17 read-only after an error", " a sync failed"},
		{"/mnt/d/disk.raw fuse 17 failing", " BAT:; input/output error"},
	} {
		if got := strings.Join(strings.Fields(lines[i+1]), " "); got != h.image+" "+want.state+" 2024-05-06 07:08:09"+want.problem {
			t.Errorf("line %d: %s", i+1, got)
		}
	}
}

func TestListAsJSON(t *testing.T) {
	h := newHouse(t)
	h.registered("a", "/mnt/a", answering(control.Response{State: control.ReadOnlyAfterError, Error: "a sync failed"}))
	_, out, _ := h.vhdmount("list", "--json")
	var got []map[string]any
	must(t, json.Unmarshal([]byte(out), &got))
	if len(got) != 1 {
		t.Fatalf("got %s", out)
	}
	for key, want := range map[string]any{
		"image": h.image, "disk": "/mnt/a/disk.raw", "mountpoint": "/mnt/a", "frontend": "fuse", "pid": float64(17),
		"state": "read-only after an error", "error": "a sync failed", "read_only": false,
	} {
		if got[0][key] != want {
			t.Errorf("%s: %v, want %v", key, got[0][key], want)
		}
	}
}

func TestListSaysThatALivingServerDoesNotAnswer(t *testing.T) {
	h := newHouse(t)
	h.registered("a", "/mnt/a", answering(control.Response{}))
	dir, err := registry.Open(h.run)
	must(t, err)
	must(t, os.Remove(dir.Socket("a")))
	if _, out, _ := h.vhdmount("list"); !strings.Contains(out, "not answering") {
		t.Errorf("got %s", out)
	}
}

func TestABrokenEntryIsReportedBesideTheOthers(t *testing.T) {
	h := newHouse(t)
	h.registered("a", "/mnt/a", answering(control.Response{State: control.Running}))
	must(t, os.WriteFile(filepath.Join(h.run, "bad.json"), []byte("{"), 0o600))
	code, out, stderr := h.vhdmount("list")
	if code != 1 || !strings.Contains(out, "/mnt/a/disk.raw") || !strings.Contains(stderr, "bad.json") {
		t.Errorf("code %d, %q, %q", code, out, stderr)
	}
	if code, _, stderr := h.vhdmount("unmount", "/mnt/none"); code != 1 || !strings.Contains(stderr, "bad.json") {
		t.Errorf("unmount of an unknown one: %d, %q", code, stderr)
	}
}

// TestListWaitsForSilentServersTogether: several cost no more than one.
func TestListWaitsForSilentServersTogether(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"a", "b", "c"} {
		h.registered(name, "/mnt/"+name, func(ctx context.Context, _ control.Request) control.Response {
			<-ctx.Done() // until the test's end
			return control.Response{}
		})
	}
	began := time.Now()
	_, out, _ := h.vhdmount("list")
	if n := strings.Count(out, "not answering"); n != 3 {
		t.Errorf("got\n%s", out)
	}
	if took := time.Since(began); took >= 2*statusTimeout {
		t.Errorf("it took %v", took)
	}
}

// TestStraysAreMountsOfThisUserThatNoEntryNames, and that may be this registry's.
func TestStraysAreMountsOfThisUserThatNoEntryNames(t *testing.T) {
	world := t.TempDir()
	in := func(name string) string { return filepath.Join(world, name) }
	me := os.Geteuid()
	mounts := []mountinfo.Mount{
		{Point: in("stray"), Type: mountinfo.Ours, Source: "a.vhd", Owner: me},
		{Point: in("stray"), Type: mountinfo.Ours, Source: "b.vhd", Owner: me},
		{Point: in("untold"), Type: mountinfo.Ours, Owner: -1},
		{Point: in("run/mnt/made"), Type: mountinfo.Ours, Owner: me},
		{Point: in("entered"), Type: mountinfo.Ours, Owner: me},
		{Point: in("another's"), Type: mountinfo.Ours, Owner: me + 1},
		{Point: in("other"), Type: "fuse.sshfs", Owner: me},
		{Point: "/elsewhere", Type: mountinfo.Ours, Owner: me},
		{Point: world + "-not", Type: mountinfo.Ours, Owner: me},
	}
	records := []registry.Record{{Entry: registry.Entry{Mountpoint: in("entered")}}}
	want := []string{in("stray"), in("untold"), in("run/mnt/made")}
	if got := points(strays(world, mounts, records)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := points(strays("/", mounts, records)); !slices.Contains(got, "/elsewhere") {
		t.Errorf("of all there are: %v", got)
	}
}

func TestARuntimeDirectoryOfTheEnvironmentIsAWorldApart(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink(dir, dir+"-link"))
	getenv := func(name string) string {
		return map[string]string{registry.Variable: dir, "XDG_RUNTIME_DIR": "/x"}[name]
	}
	own := registry.Locate(func(string) string { return "" }, os.Geteuid())
	if os.Geteuid() != 0 {
		own = "/x/vhdmount"
	}
	for path, want := range map[string]string{
		own:                               "/",
		filepath.Join(dir, "run"):         dir,
		filepath.Join(dir+"-link", "run"): dir,
		"/nowhere/at/all":                 "/nowhere/at",
	} {
		if got := worldOf(path, getenv); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func points(mounts []mountinfo.Mount) []string {
	var out []string
	for _, m := range mounts {
		out = append(out, m.Point)
	}
	return out
}
