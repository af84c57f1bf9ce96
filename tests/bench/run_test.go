package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	withFuse  = flag.Bool("fuse", false, "run the tests that need /dev/fuse")
	withTools = flag.Bool("tools", false, "run the tests that need fio, qemu and the other peers")
)

// small is a run on a small disk: what is tested is the harness.
func small(t *testing.T, jobs, peers string) config {
	t.Helper()
	if !*withFuse || !*withTools {
		t.Skip("needs -fuse and -tools")
	}
	c, err := parse([]string{"-jobs", jobs, "-peers", peers, "-rounds", "1", "-runtime", "1s", "-dir", t.TempDir(), "-checks=false"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	c.size = 16 << 20
	return c
}

// wantNothingLeft checks that a run cleaned up, mounts included.
func wantNothingLeft(t *testing.T, c config) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(c.dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %q, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(c.dir)) {
		t.Errorf("still mounted, or %v:\n%s", err, mounts)
	}
}

func TestRunMeasuresEveryPeer(t *testing.T) {
	c := small(t, "read-qd1,alloc-seq", "raw,qsd,nbdfuse,libvhdi")
	var out strings.Builder
	if err := run(t.Context(), c, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "random read 4 KiB, QD1") })
	if i < 0 || strings.Count(lines[i], "/s") != 4 {
		t.Errorf("want four figures of the read job:\n%s", out.String())
	}
	i = slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "allocating write 1 MiB") })
	if i < 0 || strings.Count(lines[i], "/s") != 3 {
		t.Errorf("want three figures of the write job, none of libvhdi:\n%s", out.String())
	}
	wantNothingLeft(t, c)
}

func TestInterruptLeavesNothing(t *testing.T) {
	for _, peer := range []string{"qsd", "nbdfuse", "libvhdi"} {
		t.Run(peer, func(t *testing.T) {
			c := small(t, "read-qd1", peer)
			c.runtime = time.Minute
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			// fio would run for a minute.
			serve := c.peers[0].serve
			c.peers[0].serve = func(ctx context.Context, b *bench, image string) (*served, error) {
				s, err := serve(ctx, b, image)
				time.AfterFunc(100*time.Millisecond, cancel)
				return s, err
			}
			begin := time.Now()
			if err := run(ctx, c, io.Discard, t.Output()); !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v, want that it was cancelled", err)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("took %v to stop", took)
			}
			wantNothingLeft(t, c)
		})
	}
}

func TestAMissingPeerIsSaidBeforeAnythingIsMade(t *testing.T) {
	c := small(t, "read-qd1", "vhdmount")
	c.vhdmount = filepath.Join(c.dir, "absent", "vhdmount")
	if err := run(t.Context(), c, io.Discard, t.Output()); err == nil || !strings.Contains(err.Error(), "vhdmount") {
		t.Errorf("run: %v, want that the binary is missing", err)
	}
	wantNothingLeft(t, c)
}

// TestRunMeasuresVhdmount goes through the whole of a run, what fio can't
// measure included, with a binary built for it.
func TestRunMeasuresVhdmount(t *testing.T) {
	c := small(t, "write-fsync", "vhdmount,qsd")
	c.checks, c.vhdmount = true, filepath.Join(t.TempDir(), "vhdmount")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", c.vhdmount, "../../cmd/vhdmount").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var out strings.Builder
	if err := run(t.Context(), c, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"write 4 KiB + fsync", "opening a 2040 GiB dynamic image", "all there", "resident memory under load"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, out.String())
		}
	}
	wantNothingLeft(t, c)
}
