package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func jobNamed(t *testing.T, name string) job {
	t.Helper()
	chosen, err := choose(allJobs, name)
	if err != nil {
		t.Fatal(err)
	}
	return chosen[0]
}

func TestFigureSumsTheProcesses(t *testing.T) {
	const two = `fio: a warning
{"fio version": "fio-3.33", "jobs": [
  {"jobname": "a", "error": 0, "read": {"io_bytes": 4096, "bw_bytes": 100, "iops": 10.5}, "write": {"io_bytes": 4096, "bw_bytes": 7, "iops": 3}},
  {"jobname": "a", "error": 0, "read": {"io_bytes": 4096, "bw_bytes": 200, "iops": 20}, "write": {"io_bytes": 4096, "bw_bytes": 9, "iops": 4}}
]}`
	for _, c := range []struct {
		job  string
		want float64
	}{
		{"seqread", 300}, {"read-4jobs", 30.5}, {"alloc-seq", 16}, {"write-qd32", 7},
	} {
		got, err := jobNamed(t, c.job).figure([]byte(two))
		if err != nil || math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: figure = %v, %v, want %v", c.job, got, err, c.want)
		}
	}
}

func TestFigureRefusesWhatMeasuredNothing(t *testing.T) {
	j := jobNamed(t, "read-qd1")
	for name, output := range map[string]string{
		"no JSON":             "fio: failed\n",
		"empty":               "",
		"cut off":             `{"jobs": [`,
		"no jobs":             `{"jobs": []}`,
		"nothing transferred": `{"jobs": [{"jobname": "x", "read": {"io_bytes": 0, "iops": 0}}]}`,
	} {
		if v, err := j.figure([]byte(output)); err == nil {
			t.Errorf("%s: figure = %v, want an error", name, v)
		}
	}
	_, err := j.figure([]byte(`{"jobs": [{"jobname": "x", "error": 5, "read": {"io_bytes": 4096, "iops": 9}}]}`))
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("a failed read: error %v, want EIO", err)
	}
}

func TestCommandLimitsTimedJobsByTime(t *testing.T) {
	timed := jobNamed(t, "read-qd32").command("/d", 1<<30, 4*time.Second)
	for _, want := range []string{"--filename=/d", "--size=1073741824", "--time_based", "--runtime=4", "--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=32", "--output-format=json"} {
		if !slices.Contains(timed, want) {
			t.Errorf("%q lacks %s", timed, want)
		}
	}
	whole := strings.Join(jobNamed(t, "alloc-seq").command("/d", 1<<30, 4*time.Second), " ")
	if strings.Contains(whole, "time") || !strings.Contains(whole, "--end_fsync=1") {
		t.Errorf("%q: want no limit of time, and a sync at the end", whole)
	}
}

func TestFormatHasTheUnit(t *testing.T) {
	for _, c := range []struct {
		unit unit
		v    float64
		want string
	}{
		{bytesPerSecond, 5.432e9, "5.43 GB/s"},
		{bytesPerSecond, 344e6, "344 MB/s"},
		{operationsPerSecond, 12345, "12.3k/s"},
		{operationsPerSecond, 987, "987/s"},
	} {
		if got := c.unit.format(c.v); got != c.want {
			t.Errorf("format(%v) = %q, want %q", c.v, got, c.want)
		}
	}
}

func TestParseChoosesJobsAndPeers(t *testing.T) {
	c, err := parse([]string{"-jobs", "write-fsync,seqread", "-peers", "qsd, vhdmount", "-rounds", "5", "-runtime", "2s"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(c.jobs), ","); got != "seqread,write-fsync" {
		t.Errorf("jobs %s, want them in the table's order", got)
	}
	if got := strings.Join(names(c.peers), ","); got != "vhdmount,qsd" {
		t.Errorf("peers %s, want vhdmount,qsd", got)
	}
	if c.rounds != 5 || c.runtime != 2*time.Second || c.size != 1<<30 {
		t.Errorf("rounds %d, runtime %v, size %d", c.rounds, c.runtime, c.size)
	}
	if c, err := parse([]string{"-jobs", "none"}, t.Output()); err != nil || len(c.jobs) != 0 || len(c.peers) != len(allPeers) {
		t.Errorf("-jobs none: %d jobs, %d peers, %v", len(c.jobs), len(c.peers), err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-jobs", "seqred"}, {"-peers", "vhdmount,nbd"}, {"-rounds", "0"}, {"-runtime", "100ms"}, {"-x"},
	} {
		if _, err := parse(args, t.Output()); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
