package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// peer is a way to have the disk of an image as a file.
type peer struct {
	name  string
	title string
	raw   bool     // takes the raw image, not the VHD
	write bool     // can write
	needs []string // commands
	serve func(ctx context.Context, b *bench, image string) (*served, error)
}

func (p peer) id() string { return p.name }

// served is a disk that a peer shows.
type served struct {
	file string // what fio opens
	pid  int    // the server; 0 where there is none or it isn't a child
	// stop takes the disk away. It returns when the server has ended or, of
	// one that went to the background, when the disk is no longer mounted.
	stop func() error
}

var allPeers = []peer{
	{name: "vhdmount", title: "vhdmount", write: true, serve: serveVhdmount},
	{name: "raw", title: "raw file", raw: true, write: true, serve: serveRaw},
	{name: "qsd", title: "qemu-storage-daemon", write: true, needs: []string{"qemu-storage-daemon"}, serve: serveQSD},
	{name: "nbdfuse", title: "nbdfuse + qemu-nbd", write: true, needs: []string{"qemu-nbd", "nbdfuse"}, serve: serveNBD},
	{name: "libvhdi", title: "libvhdi vhdimount", needs: []string{"vhdimount"}, serve: serveLibvhdi},
}

func serveRaw(_ context.Context, _ *bench, image string) (*served, error) {
	return &served{file: image, stop: func() error { return nil }}, nil
}

func serveVhdmount(ctx context.Context, b *bench, image string) (*served, error) {
	dir, err := b.mountpoint("vhdmount")
	if err != nil {
		return nil, err
	}
	p, err := start(b.vhdmount, "mount", "--foreground", "--frontend", "fuse", image, dir)
	if err != nil {
		return nil, err
	}
	file, err := p.firstLine(ctx)
	if err != nil {
		return nil, errors.Join(err, p.terminate())
	}
	stop := func() error {
		text, err := exec.Command(b.vhdmount, "unmount", dir).CombinedOutput()
		if err != nil {
			return errors.Join(fmt.Errorf("unmount: %s", lastLine(string(text))), p.terminate())
		}
		return p.wait()
	}
	return &served{file: file, pid: p.cmd.Process.Pid, stop: stop}, nil
}

func serveQSD(ctx context.Context, b *bench, image string) (*served, error) {
	file := filepath.Join(b.tmp, "qsd")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	p, err := start("qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=file,filename="+image,
		"--blockdev", "driver=vpc,node-name=disk,file=file",
		"--export", "type=fuse,id=export,node-name=disk,mountpoint="+file+",growable=off,writable=on")
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, hasSize(file, b.size)); err != nil {
		return nil, errors.Join(err, p.terminate())
	}
	// It unmounts by itself.
	return &served{file: file, pid: p.cmd.Process.Pid, stop: p.terminate}, nil
}

func serveNBD(ctx context.Context, b *bench, image string) (*served, error) {
	dir, err := b.mountpoint("nbdfuse")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(b.tmp, "nbd.sock")
	server, err := start("qemu-nbd", "--format=vpc", "--socket="+socket, "--persistent", "--shared=0", image)
	if err != nil {
		return nil, err
	}
	if err := server.ready(ctx, exists(socket)); err != nil {
		return nil, errors.Join(err, server.terminate())
	}
	p, err := start("nbdfuse", dir, "--unix", socket)
	if err != nil {
		return nil, errors.Join(err, server.terminate())
	}
	file := filepath.Join(dir, "nbd")
	if err := p.ready(ctx, hasSize(file, b.size)); err != nil {
		return nil, errors.Join(err, p.terminate(), server.terminate())
	}
	stop := func() error {
		if err := unmount(dir); err != nil {
			return errors.Join(err, p.terminate(), server.terminate())
		}
		return errors.Join(p.wait(), server.terminate())
	}
	return &served{file: file, pid: p.cmd.Process.Pid, stop: stop}, nil
}

func serveLibvhdi(ctx context.Context, b *bench, image string) (*served, error) {
	dir, err := b.mountpoint("libvhdi")
	if err != nil {
		return nil, err
	}
	// It goes to the background once the disk is there.
	cmd := exec.CommandContext(ctx, "vhdimount", image, dir)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("vhdimount: %w: %s", err, lastLine(string(text)))
	}
	file := filepath.Join(dir, "vhdi1")
	stop := func() error { return unmount(dir) }
	if !hasSize(file, b.size)() {
		return nil, errors.Join(fmt.Errorf("vhdimount: %s is not there", file), stop())
	}
	return &served{file: file, stop: stop}, nil
}

// hasSize tells whether the disk is shown as file.
func hasSize(file string, size int64) func() bool {
	return func() bool {
		info, err := os.Stat(file)
		return err == nil && info.Size() == size
	}
}

func exists(file string) func() bool {
	return func() bool {
		_, err := os.Lstat(file)
		return err == nil
	}
}
