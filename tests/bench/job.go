package main

import (
	"fmt"
	"strconv"
	"time"
)

// content is what a job finds in the image.
type content int

const (
	full  content = iota // random bytes in every block
	fresh                // nothing allocated
)

// unit is what a job's figure counts.
type unit int

const (
	bytesPerSecond unit = iota
	operationsPerSecond
)

// format is a figure as the table shows it.
func (u unit) format(v float64) string {
	switch {
	case u == bytesPerSecond && v >= 1e9:
		return fmt.Sprintf("%.2f GB/s", v/1e9)
	case u == bytesPerSecond:
		return fmt.Sprintf("%.0f MB/s", v/1e6)
	case v >= 10e3:
		return fmt.Sprintf("%.1fk/s", v/1e3)
	default:
		return fmt.Sprintf("%.0f/s", v)
	}
}

// job is one way to use the disk.
type job struct {
	name    string
	title   string
	content content
	writes  bool // wants a peer that can write, and an image of the peer's own
	timed   bool // limited by time; otherwise by the disk's size
	unit    unit
	floor   float64 // at least this many times what qemu-storage-daemon does
	args    []string
}

func (j job) id() string { return j.name }

var allJobs = []job{
	{
		name: "seqread", title: "sequential read 1 MiB, direct QD8", timed: true, floor: 12,
		args: []string{"--rw=read", "--bs=1m", "--ioengine=libaio", "--direct=1", "--iodepth=8"},
	},
	{
		name: "seqread-buffered", title: "sequential read 1 MiB, buffered", timed: true, floor: 5,
		args: []string{"--rw=read", "--bs=1m", "--ioengine=psync", "--invalidate=1"},
	},
	{
		name: "read-qd1", title: "random read 4 KiB, QD1", timed: true, unit: operationsPerSecond, floor: 1.2,
		args: []string{"--rw=randread", "--bs=4k", "--direct=1", "--ioengine=psync"},
	},
	{
		name: "read-qd32", title: "random read 4 KiB, QD32", timed: true, unit: operationsPerSecond, floor: 2.5,
		args: []string{"--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=32"},
	},
	{
		name: "read-4jobs", title: "random read 4 KiB, four jobs", timed: true, unit: operationsPerSecond, floor: 1.7,
		args: []string{"--rw=randread", "--bs=4k", "--direct=1", "--ioengine=psync", "--numjobs=4"},
	},
	{
		name: "write-qd32", title: "random write 4 KiB, QD32", timed: true, writes: true, unit: operationsPerSecond, floor: 20,
		args: []string{"--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=32"},
	},
	{
		name: "alloc-seq", title: "allocating write 1 MiB, sequential", content: fresh, writes: true, floor: 1.8,
		args: []string{"--rw=write", "--bs=1m", "--direct=1", "--ioengine=psync", "--end_fsync=1"},
	},
	{
		name: "alloc-random", title: "allocating write 4 KiB, random QD32", content: fresh, timed: true, writes: true, unit: operationsPerSecond, floor: 20,
		args: []string{"--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=32"},
	},
	{
		name: "write-fsync", title: "write 4 KiB + fsync", timed: true, writes: true, unit: operationsPerSecond, floor: 1.5,
		args: []string{"--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=1"},
	},
}

// command is fio's command line for the job on file, a disk of size bytes.
func (j job) command(file string, size int64, runtime time.Duration) []string {
	args := []string{"--name=" + j.name, "--filename=" + file, "--size=" + strconv.FormatInt(size, 10), "--output-format=json"}
	if j.timed {
		args = append(args, "--time_based", "--runtime="+strconv.Itoa(int(runtime.Seconds())))
	}
	return append(args, j.args...)
}
