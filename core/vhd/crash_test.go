package vhd_test

import (
	"flag"
	"runtime/debug"
	"testing"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
	"github.com/vhdmount/vhdmount/core/vhd"
	"github.com/vhdmount/vhdmount/core/vhd/format"
	"github.com/vhdmount/vhdmount/core/vhd/vhdtest"
)

var (
	exploreStates = flag.Int("explore.states", 0, "different states that the crash explorer looks at, on all kinds of images together; 0: vhdtest.Budget")
	exploreSeed   = flag.Uint64("explore.seed", 0, "what the crash explorer's random programs and samples begin with")
)

// TestNothingIsLostToAPowerCut explores every kind of image; package vhdtest
// says how, and which rules are held against what is found.
func TestNothingIsLostToAPowerCut(t *testing.T) {
	// It makes much garbage, and keeps little until it has seen millions.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(2 << 30))
	kinds, states := vhdtest.Kinds(), *exploreStates
	switch {
	case states > 0:
	case testing.Short():
		states = vhdtest.Budget / 10
	default:
		states = vhdtest.Budget
	}
	began, all := time.Now(), vhdtest.Report{Kind: "all kinds"}
	for _, k := range kinds {
		t.Run(k.Name, func(t *testing.T) {
			r, err := vhdtest.Explore(k, vhdtest.Options{States: states/len(kinds) + 1, Seed: *exploreSeed})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r)
			if r.MostSync > k.Syncs {
				t.Errorf("a flush cost %d syncs, more than %d", r.MostSync, k.Syncs)
			}
			if r.Flushes == 0 || r.Lives == 0 || r.Beside == 0 {
				t.Errorf("no flush, no second life or nothing concurrent has been tried: %+v", r)
			}
			all.Add(r)
		})
	}
	all.Elapsed = time.Since(began)
	t.Log(&all)
	if all.States < states {
		t.Errorf("%d different states, want %d", all.States, states)
	}
}

// dense is a file system without holes, by what it says of its files: one that
// grows takes space, and much of it.
type dense struct{ storage.FS }

func withoutHoles(fsys storage.FS) storage.FS { return dense{fsys} }

func (d dense) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := d.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return denseFile{f}, nil
}

func (d dense) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := d.FS.OpenBeneath(dir, name, flag)
	if err != nil {
		return nil, err
	}
	return denseFile{f}, nil
}

type denseFile struct{ storage.File }

func (f denseFile) Stat() (storage.Info, error) {
	info, err := f.File.Stat()
	info.Allocated = info.Size << 10
	return info, err
}

// TestNothingIsLostWithoutHoles explores where the file grows by a few blocks
// at a time, and so again and again.
func TestNothingIsLostWithoutHoles(t *testing.T) {
	for _, k := range vhdtest.Kinds() {
		if k.Block != 1 {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			r, err := vhdtest.Explore(k, vhdtest.Options{States: vhdtest.Budget / 40, Seed: *exploreSeed, Wrap: withoutHoles})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r)
		})
	}
}

// TestSyncsThatWritingCosts writes to new blocks and flushes after every few:
// beside its flushes a program pays for the growth of the file, once in many
// blocks.
func TestSyncsThatWritingCosts(t *testing.T) {
	const (
		blocks = 640
		every  = 10
		begin  = 4 // syncs: the footers made sure of, the first growth by a block, the second one
	)
	tests := map[string]struct {
		differencing bool
		wrap         func(storage.FS) storage.FS
		flush        int // syncs of each
		grow         int // syncs of all growth, at most
	}{
		"dynamic":                {false, func(f storage.FS) storage.FS { return f }, 1, begin},
		"differencing":           {true, func(f storage.FS) storage.FS { return f }, 2, begin},
		"dynamic, without holes": {false, withoutHoles, 1, begin + blocks/16},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := storagetest.NewMemory()
			if test.differencing {
				create(t, m, "/base.vhd", format.Dynamic, blocks*4096, 4096)
				must(t, vhd.Snapshot("/base.vhd", "/disk.vhd", vhd.SnapshotOptions{FS: m}))
			} else {
				create(t, m, "/disk.vhd", format.Dynamic, blocks*4096, 4096)
			}
			c := storagetest.NewCrashFrom(m)
			img := open(t, test.wrap(c), "/disk.vhd")
			flushes, inFlush := 0, 0
			for b := range int64(blocks) {
				must(t, write(img, "data", b*4096))
				if b%every == every-1 {
					before := c.Syncs("/disk.vhd")
					must(t, img.Flush())
					flushes, inFlush = flushes+1, inFlush+c.Syncs("/disk.vhd")-before
				}
			}
			grown := c.Syncs("/disk.vhd") - inFlush
			must(t, img.Close())
			t.Logf("%d new blocks, %d flushes: %d syncs in flushes, %d for growth", blocks, flushes, inFlush, grown)
			if inFlush != flushes*test.flush {
				t.Errorf("%d flushes cost %d syncs, want %d each", flushes, inFlush, test.flush)
			}
			if grown > test.grow {
				t.Errorf("growth cost %d syncs, want %d at most", grown, test.grow)
			}
		})
	}
}
