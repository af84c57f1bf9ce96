package tapdisk

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/frontend/blktap/blktaptest"
)

// TestTheLifeOfADisk is what tap-ctl does to one, from attach to detach.
func TestTheLifeOfADisk(t *testing.T) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			w := newWorld(t, v, nil)
			path := w.vhd("disk.vhd")
			tap := w.attach()
			w.wantState(tap.Minor, 0, "")
			w.open(tap.Minor, tapctl.Params{Path: "vhd:" + path})
			w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+path)
			if info, err := w.kernel.Info(tap.Path); err != nil || info.Sectors != diskSize/512 || info.ReadOnly {
				t.Errorf("the block device: %+v, %v", info, err)
			}

			guest := w.guest(tap)
			data := bytes.Repeat([]byte("guest\n12"), 8192)
			if _, err := guest.WriteAt(data, 0); err != nil {
				t.Fatal(err)
			}
			if err := guest.Close(); err != nil {
				t.Fatal(err)
			}
			w.must(tapctl.TypeClose, tap.Minor)
			w.wantState(tap.Minor, stateClosed, "")
			if !bytes.Equal(content(t, path, len(data)), data) {
				t.Error("the image does not hold what the guest wrote")
			}

			// Once more on the same minor, which is attached still.
			w.open(tap.Minor, tapctl.Params{Path: "vhd:" + path, Flags: tapctl.FlagReadOnly})
			if info, err := w.kernel.Info(tap.Path); err != nil || !info.ReadOnly {
				t.Errorf("the block device: %+v, %v", info, err)
			}
			w.finish(tap)
		})
	}
}

func TestRawImages(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	path := filepath.Join(w.dir, "disk.img")
	if err := os.WriteFile(path, make([]byte, diskSize), 0o600); err != nil {
		t.Fatal(err)
	}
	tap := w.attach()
	w.open(tap.Minor, tapctl.Params{Path: "aio:" + path})
	w.wantState(tap.Minor, tapctl.StateRunning, "aio:"+path)
	guest := w.guest(tap)
	if _, err := guest.WriteAt([]byte("raw"), 512); err != nil {
		t.Fatal(err)
	}
	w.must(tapctl.TypePause, tap.Minor)
	if errno, text := w.errno(with(t, tapctl.TypeResume, tap.Minor, tapctl.Params{Path: "vhd:" + path})); errno == 0 {
		t.Errorf("a raw image became a VHD: %s", text)
	}
	w.must(tapctl.TypeResume, tap.Minor)
	w.finish(tap, guest)
	if b, err := os.ReadFile(path); err != nil || len(b) != diskSize || string(b[512:515]) != "raw" {
		t.Errorf("the file holds %q, %v", b[512:515], err)
	}
}

func TestSeveralDisksOfOneTapdisk(t *testing.T) {
	w := newWorld(t, blktaptest.DKMS, nil)
	first, _ := w.ready()
	second := w.attach()
	other := w.vhd("other.vhd")
	w.open(second.Minor, tapctl.Params{Path: "vhd:" + other, Layout: tapctl.Layout2010s})
	third := w.attach()
	var minors []int
	for _, e := range w.list() {
		minors = append(minors, e.Minor)
	}
	if want := []int{first.Minor, second.Minor, third.Minor}; !slices.Equal(minors, want) {
		t.Errorf("minors %v, want %v", minors, want)
	}
	m, _ := w.ask(tapctl.Message{Type: tapctl.TypeListMinors})
	if got, err := m.Minors(); err != nil || !slices.Equal(got, minors) {
		t.Errorf("LIST_MINORS: %v, %v", got, err)
	}
	w.must(tapctl.TypeDetach, third.Minor)
	w.must(tapctl.TypeClose, first.Minor)
	w.must(tapctl.TypeDetach, first.Minor)
	w.wantState(second.Minor, tapctl.StateRunning, "vhd:"+other)
	w.finish(second)
}

func TestBothLayoutsOfParameters(t *testing.T) {
	for _, layout := range []tapctl.Layout{tapctl.Layout2010s, tapctl.Layout2020s} {
		t.Run(layout.String(), func(t *testing.T) {
			w := newWorld(t, blktaptest.OpenXT, nil)
			path, other := w.vhd("a.vhd"), w.vhd("b.vhd")
			tap := w.attach()
			w.open(tap.Minor, tapctl.Params{Layout: layout, Devnum: uint32(tap.Minor), Path: "vhd:" + path, Timeout: 7})
			w.must(tapctl.TypePause, tap.Minor)
			m := with(t, tapctl.TypeResume, tap.Minor, tapctl.Params{Layout: layout, Path: "vhd:" + other})
			if errno, text := w.errno(m); errno != 0 {
				t.Errorf("unpause: %v: %s", errno, text)
			}
			w.wantState(tap.Minor, tapctl.StateRunning, "vhd:"+other)
			w.finish(tap)
		})
	}
}

func TestPIDAndDiskInfo(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	m, _ := w.ask(tapctl.Message{Type: tapctl.TypePID})
	if m.Type != tapctl.TypePIDResponse || m.PID() != os.Getpid() {
		t.Errorf("%v: pid %d", m.Type, m.PID())
	}
	path := w.vhd("disk.vhd")
	tap := w.attach()
	open, _ := w.ask(with(t, tapctl.TypeOpen, tap.Minor, tapctl.Params{Path: "vhd:" + path, Flags: tapctl.FlagReadOnly}))
	info, _ := w.ask(tapctl.Message{Type: tapctl.TypeDiskInfo, Cookie: uint16(tap.Minor)})
	want := tapctl.Image{Sectors: diskSize / 512, SectorSize: 512, Info: tapctl.InfoReadOnly}
	if open.Image() != want || info.Image() != want || info.Type != tapctl.TypeDiskInfoResponse {
		t.Errorf("open answers %+v, disk info %v %+v; want %+v", open.Image(), info.Type, info.Image(), want)
	}
	w.finish(tap)
}

func TestStats(t *testing.T) {
	w := newWorld(t, blktaptest.OpenXT, nil)
	tap, path := w.ready()
	guest := w.guest(tap)
	for i := range 3 {
		if _, err := guest.WriteAt(make([]byte, 4096), int64(i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := guest.ReadAt(make([]byte, 8192), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := blockdev.Discard(guest, 0, 4096); err != nil {
		t.Fatal(err)
	}
	if err := guest.Flush(); err != nil {
		t.Fatal(err)
	}
	check := func(s diskStats) {
		t.Helper()
		if s.Name != "vhd:"+path || s.Tap.Minor != tap.Minor || s.Paused || s.Sectors != [2]uint64{16, 24} {
			t.Errorf("stats %+v", s)
		}
		if s.Write.Requests != 3 || s.Write.Bytes != 3*4096 || s.Read.Bytes != 8192 || s.Flush.Requests != 1 || s.Trim.Requests != 1 {
			t.Errorf("by operation: %+v", s.Stats)
		}
		sum := uint64(0)
		for _, n := range s.Write.Latency {
			sum += n
		}
		if sum != 3 || s.Outstanding != 0 || s.Tap.Requests[0] != s.Tap.Requests[1] {
			t.Errorf("latencies of %d writes, %d outstanding, requests %v", sum, s.Outstanding, s.Tap.Requests)
		}
	}
	var one diskStats
	w.figures(uint16(tap.Minor), &one)
	check(one)
	var all []diskStats
	w.figures(tapctl.AllMinors, &all)
	if len(all) != 1 {
		t.Fatalf("%d disks", len(all))
	}
	check(all[0])
	w.finish(tap, guest)
}
