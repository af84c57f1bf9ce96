package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// bench is a run: its directory, the images in it, and what was seen on the
// way.
type bench struct {
	config
	tmp      string
	progress io.Writer
	images   images
	memory   int64 // largest resident memory of a vhdmount that was measured, bytes
}

// newBench makes the run's directory, after everything that could be missing
// was looked for.
func newBench(c config, progress io.Writer) (*bench, error) {
	if err := c.lookFor(); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(c.dir, "vhdmount-bench-")
	if err != nil {
		return nil, err
	}
	return &bench{config: c, tmp: tmp, progress: progress, images: images{dir: tmp, size: c.size}}, nil
}

func (c config) lookFor() error {
	commands := []string{"fio", "qemu-img", "fusermount3"}
	for _, p := range c.peers {
		commands = append(commands, p.needs...)
	}
	if c.has("vhdmount") {
		commands = append(commands, c.vhdmount)
	}
	for _, name := range commands {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w (make build deps-bench)", err)
		}
	}
	return nil
}

// has tells whether a peer takes part.
func (c config) has(name string) bool {
	return slices.ContainsFunc(c.peers, func(p peer) bool { return p.name == name })
}

// close removes the run's directory. A disk that could not be unmounted makes
// it fail, and says so.
func (b *bench) close() error { return os.RemoveAll(b.tmp) }

// mountpoint is an empty directory for a peer.
func (b *bench) mountpoint(peer string) (string, error) {
	dir := filepath.Join(b.tmp, "mnt-"+peer)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

// measure takes j through all peers, round by round, each round beginning with
// another: who comes first writes to blocks of the disk that nobody has used,
// which a virtual one may be slow at, and who comes later to those again.
func (b *bench) measure(ctx context.Context, j job, r *report) error {
	for round := range b.rounds {
		for i := range b.peers {
			p := b.peers[(round+i)%len(b.peers)]
			if j.writes && !p.write {
				continue
			}
			v, err := b.once(ctx, j, p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			fmt.Fprintf(b.progress, "%-17s round %d of %d  %-10s %s\n", j.name, round+1, b.rounds, p.name, j.unit.format(v))
			r.add(j, p, v)
		}
	}
	return nil
}

// once is one job on one peer.
func (b *bench) once(ctx context.Context, j job, p peer) (v float64, err error) {
	image, err := b.images.get(ctx, j, p)
	if err != nil {
		return 0, err
	}
	// What the last one left dirty is not this one's burden.
	unix.Sync()
	s, err := p.serve(ctx, b, image)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if v, err = b.fio(ctx, j, s.file); err != nil {
		return 0, err
	}
	if p.name == "vhdmount" {
		peak, err := peakMemory(s.pid)
		if err != nil {
			return 0, err
		}
		b.memory = max(b.memory, peak)
	}
	return v, nil
}
