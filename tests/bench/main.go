// Command bench measures a mounted VHD with fio, beside the other programs
// that show one as a file and beside the raw file itself, in one run and one
// table, with the project's floors. `make bench` runs it.
//
// The machine is noisier than the differences between two versions of a
// program, so that a figure means little by itself: each job goes through all
// peers in turn, that for some rounds, and the median of the rounds is what
// counts, as a ratio to a peer of the same run.
//
//	go run ./tests/bench -jobs read-qd1,read-qd32 -peers vhdmount,qsd -rounds 5
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// config is a run as the command line asks for it.
type config struct {
	jobs     []job
	peers    []peer
	rounds   int
	runtime  time.Duration // of a job that is limited by time
	size     int64         // of the disk, bytes
	dir      string        // where images and mount points are made
	vhdmount string        // the binary that is measured
	checks   bool          // the figures that fio can't give, too
	strict   bool          // a floor that was missed is an error
}

// diskSize is the size of the disk that is measured, in bytes.
const diskSize = 1 << 30

var errMissed = errors.New("a floor was missed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, c, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string, help io.Writer) (config, error) {
	c := config{size: diskSize}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(help)
	jobNames := fs.String("jobs", "all", "comma-separated jobs: "+strings.Join(names(allJobs), ", ")+"; or none")
	peerNames := fs.String("peers", "all", "comma-separated peers: "+strings.Join(names(allPeers), ", "))
	fs.IntVar(&c.rounds, "rounds", 3, "how often each job goes through all peers; the median counts")
	fs.DurationVar(&c.runtime, "runtime", 4*time.Second, "of each job that is limited by time, in whole seconds")
	fs.StringVar(&c.dir, "dir", os.TempDir(), "where images are made; its file system is what is measured")
	fs.StringVar(&c.vhdmount, "vhdmount", "./vhdmount", "the binary to measure")
	fs.BoolVar(&c.checks, "checks", true, "opening time, memory, and an unmount after buffered writes, too")
	fs.BoolVar(&c.strict, "strict", false, "exit 1 where a floor was missed")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	var err error
	if c.jobs, err = choose(allJobs, *jobNames); err != nil {
		return c, fmt.Errorf("-jobs: %w", err)
	}
	if c.peers, err = choose(allPeers, *peerNames); err != nil {
		return c, fmt.Errorf("-peers: %w", err)
	}
	if c.rounds < 1 || c.runtime < time.Second {
		return c, errors.New("-rounds and -runtime: at least 1 and 1s")
	}
	// Children are started in other directories.
	c.vhdmount, err = filepath.Abs(c.vhdmount)
	return c, err
}

// named is what can be chosen by name.
type named interface{ id() string }

func names[T named](all []T) []string {
	var ids []string
	for _, x := range all {
		ids = append(ids, x.id())
	}
	return ids
}

// choose returns those of all that list names, in the order of all.
func choose[T named](all []T, list string) ([]T, error) {
	switch list {
	case "all":
		return all, nil
	case "none":
		return nil, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var chosen []T
	for _, x := range all {
		if wanted[x.id()] {
			chosen = append(chosen, x)
			delete(wanted, x.id())
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("%q is none of %s", name, strings.Join(names(all), ", "))
	}
	return chosen, nil
}

// run measures and prints the tables to out; what happens meanwhile goes to
// progress.
func run(ctx context.Context, c config, out, progress io.Writer) (err error) {
	b, err := newBench(c, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r := newReport(c.jobs, c.peers)
	for _, j := range c.jobs {
		if err := b.measure(ctx, j, r); err != nil {
			return fmt.Errorf("%s: %w", j.name, err)
		}
	}
	missed := r.write(out)
	if c.checks && b.has("vhdmount") {
		findings, err := b.check(ctx)
		missed = writeFindings(out, findings) || missed
		if err != nil {
			return err
		}
	}
	if missed && c.strict {
		return errMissed
	}
	return nil
}
