package soak

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/tests/harness"
)

var duration = flag.Duration("soak", 6*time.Second, "how long the clients work")

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSoak has eight clients at work on a chain of thirty, and looks at its
// server each minute, more often where there are few.
func TestSoak(t *testing.T) {
	harness.Fuse(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := harness.New(t)
	name, model := makeChain(t, b, rand.New(rand.NewPCG(seed, clients)))
	m := b.Mount(name)
	var all []*client
	for id := range clients {
		all = append(all, newClient(id, seed, m.Open(os.O_RDWR|unix.O_DIRECT), m.Open(os.O_RDWR), model))
	}
	samples := work(t, m.PID(), all)
	for _, what := range grown(samples) {
		t.Errorf("the server has grown: %s", what)
	}
	for _, c := range all {
		t.Logf("client %d: %v", c.id, c.counts)
		check(t, c.direct.Close())
		check(t, c.cached.Close())
	}
	m.Unmount()
	if t.Failed() {
		return
	}
	b.OK("check", "--bitmaps", name)
	staysThere(t, b, name, all)
}

// work has the clients run for the test's duration, and returns what their
// server, pid, was seen to take.
func work(t *testing.T, pid int, all []*client) (samples []figures) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), *duration)
	defer cancel()
	var running sync.WaitGroup
	for _, c := range all {
		running.Go(func() {
			if err := c.run(ctx); err != nil {
				t.Error(err)
				cancel()
			}
		})
	}
	defer running.Wait()
	began := time.Now()
	tick := time.NewTicker(min(time.Minute, *duration/13))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f, err := figuresOf(pid)
			if err != nil {
				t.Error(err)
				cancel()
				return samples
			}
			t.Logf("%8v: %v", time.Since(began).Round(time.Second), f)
			samples = append(samples, f)
		case <-ctx.Done():
			return samples
		}
	}
}

// staysThere reads the whole disk through another server.
func staysThere(t *testing.T, b *harness.Box, name string, all []*client) {
	t.Helper()
	m := b.Mount(name, "--read-only")
	f := m.Open(os.O_RDONLY)
	for _, c := range all {
		for off := int64(0); off < diskSize; off += wide {
			if err := c.read(f, off, wide); err != nil {
				t.Fatalf("mounted again: client %d: %v", c.id, err)
			}
		}
	}
	check(t, f.Close())
	m.Unmount()
}
