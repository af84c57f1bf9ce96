package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// images makes the images of a run, each when it is first asked for: the full
// ones once (they are in the page cache from then on), the fresh ones each
// time.
type images struct {
	dir  string
	size int64 // of the disk, bytes
}

// get is the image for j on p. Readers share one; a writer has a full image of
// its own for the whole run, and a new one for each fresh job.
func (im *images) get(ctx context.Context, j job, p peer) (string, error) {
	ext := ".vhd"
	if p.raw {
		ext = ".raw"
	}
	if j.content == fresh {
		name := filepath.Join(im.dir, "fresh-"+p.name+ext)
		return name, makeFresh(ctx, name, im.size, p.raw)
	}
	shared := filepath.Join(im.dir, "full"+ext)
	if err := im.makeFull(ctx); err != nil {
		return "", err
	}
	if !j.writes {
		return shared, nil
	}
	own := filepath.Join(im.dir, "full-"+p.name+ext)
	if exists(own)() {
		return own, nil
	}
	return own, copyFile(own, shared)
}

// makeFull makes the full images, raw and VHD, if there are none yet.
func (im *images) makeFull(ctx context.Context) error {
	raw, vhd := filepath.Join(im.dir, "full.raw"), filepath.Join(im.dir, "full.vhd")
	if exists(vhd)() {
		return nil
	}
	if err := writeRandom(raw, im.size); err != nil {
		return err
	}
	return qemuImg(ctx, "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=dynamic,force_size", raw, vhd)
}

// makeFresh makes name anew, with nothing in it.
func makeFresh(ctx context.Context, name string, size int64, raw bool) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !raw {
		return createVHD(ctx, name, size)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// createVHD makes a dynamic image with nothing allocated.
func createVHD(ctx context.Context, name string, size int64) error {
	return qemuImg(ctx, "create", "-f", "vpc", "-o", "subformat=dynamic,force_size", name, fmt.Sprint(size))
}

func writeRandom(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, size)
	return errors.Join(err, f.Sync(), f.Close())
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

func qemuImg(ctx context.Context, args ...string) error {
	if text, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img: %w: %s", err, lastLine(string(text)))
	}
	return nil
}
