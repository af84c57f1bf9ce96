package main

import (
	"math"
	"os"
	"strings"
	"testing"
)

func TestMedianOfRounds(t *testing.T) {
	j, p := job{name: "j"}, peer{name: "p"}
	for _, c := range []struct {
		figures []float64
		want    float64
		ok      bool
	}{
		{nil, 0, false},
		{[]float64{7}, 7, true},
		{[]float64{9, 1}, 5, true},
		{[]float64{100, 1, 3}, 3, true},
		{[]float64{8, 2, 4, 100}, 6, true},
	} {
		r := newReport([]job{j}, []peer{p})
		for _, v := range c.figures {
			r.add(j, p, v)
		}
		if got, ok := r.median("j", "p"); got != c.want || ok != c.ok {
			t.Errorf("median of %v = %v, %t, want %v, %t", c.figures, got, ok, c.want, c.ok)
		}
	}
}

func TestRatioNeedsBothFigures(t *testing.T) {
	j := job{name: "j"}
	r := newReport([]job{j}, nil)
	r.add(j, peer{name: "a"}, 30)
	r.add(j, peer{name: "zero"}, 0)
	r.add(j, peer{name: "b"}, 4)
	if got, ok := r.ratio("j", "a", "b"); !ok || math.Abs(got-7.5) > 1e-9 {
		t.Errorf("ratio = %v, %t, want 7.5, true", got, ok)
	}
	for _, other := range []string{"absent", "zero"} {
		if got, ok := r.ratio("j", "a", other); ok {
			t.Errorf("ratio to %s = %v, want none", other, got)
		}
	}
}

// The jobs of the tables below: one above its floor, one below it, one that a
// peer can't do.
func figures() *report {
	jobs := []job{
		{name: "read", title: "read", unit: operationsPerSecond, floor: 2},
		{name: "write", title: "write", writes: true, floor: 20},
	}
	peers := []peer{{name: "vhdmount", title: "vhdmount"}, {name: "raw", title: "raw file"}, {name: "qsd", title: "qemu-storage-daemon"}, {name: "libvhdi", title: "libvhdi"}}
	r := newReport(jobs, peers)
	for i, v := range []float64{50e3, 100e3, 20e3, 4000} {
		r.add(jobs[0], peers[i], v)
	}
	for i, v := range []float64{1.5e9, 3e9, 100e6} {
		r.add(jobs[1], peers[i], v)
	}
	return r
}

func TestTablesShowFiguresRatiosAndMissedFloors(t *testing.T) {
	var out strings.Builder
	if missed := figures().write(&out); !missed {
		t.Error("no floor was missed, want the second job's")
	}
	want := strings.TrimPrefix(`
1 GiB dynamic VHD, median of rounds  vhdmount   raw file   qemu-storage-daemon  libvhdi
read                                 50.0k/s    100.0k/s   20.0k/s              4000/s
write                                1.50 GB/s  3.00 GB/s  100 MB/s             -

vhdmount, times …  qemu-storage-daemon  floor          raw file
read               2.50×                2.00×  ok      0.50×
write              15.0×                20.0×  MISSED  0.50×
`, "\n")
	if got := out.String(); got != want {
		t.Errorf("tables:\n%s\nwant:\n%s", got, want)
	}
}

func TestNoFloorIsMissedWithoutTheReference(t *testing.T) {
	r := figures()
	delete(r.figures, cell{"write", "qsd"})
	var out strings.Builder
	if r.write(&out) {
		t.Errorf("a floor counts as missed though qemu-storage-daemon was not measured:\n%s", out.String())
	}
}

func TestNothingIsPrintedWithoutJobs(t *testing.T) {
	var out strings.Builder
	if newReport(nil, allPeers).write(&out) || out.Len() > 0 {
		t.Errorf("printed %q, want nothing", out.String())
	}
}

func TestFindings(t *testing.T) {
	var out strings.Builder
	good := finding{"opening", "7ms", "50ms", true}
	if writeFindings(&out, []finding{good}) {
		t.Error("a good finding counts as missed")
	}
	if !writeFindings(&out, []finding{{"memory", "80 MiB", "64 MiB", false}, good}) {
		t.Error("a missed limit does not count")
	}
	if got := out.String(); strings.Count(got, "MISSED") != 1 || strings.Count(got, "ok") != 2 {
		t.Errorf("printed:\n%s\nwant one MISSED and two ok", got)
	}
}

func TestPeakMemory(t *testing.T) {
	got, err := parsePeak("Name:\tvhdmount\nVmPeak:\t  999 kB\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n")
	if err != nil || got != 12345<<10 {
		t.Errorf("parsePeak = %d, %v, want %d", got, err, 12345<<10)
	}
	if _, err := parsePeak("Name:\tkthreadd\n"); err == nil {
		t.Error("a status without VmHWM is no error")
	}
	if got, err := peakMemory(os.Getpid()); err != nil || got < 1<<20 {
		t.Errorf("this process's peak = %d, %v, want more than 1 MiB", got, err)
	}
}
