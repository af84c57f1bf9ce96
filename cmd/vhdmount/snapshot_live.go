package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// snapshotLive makes child of the image of a disk that is mounted, and has the
// disk go on with it.
func snapshotLive(c *cli.Context, base, child string, o vhd.SnapshotOptions) error {
	if o.Size != 0 || o.RawParent {
		return exitcode.Usagef("snapshot: --live takes neither --size nor --raw-parent: the disk is in use, and a VHD")
	}
	dir, err := openRegistry()
	if err != nil {
		return err
	}
	record, err := findMounted(dir, base)
	if err != nil {
		return err
	}
	if child, err = filepath.Abs(child); err != nil {
		return err
	}
	l := liveSnapshot{record: record, child: child, options: o}
	if l.server, err = control.Dial(c.Context, dir.Socket(record.Name)); err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	defer l.server.Close() // a disk that is paused still goes on as it was
	return l.make(c.Context)
}

// findMounted is the one mount that name means, with a server that can write.
func findMounted(dir *registry.Dir, name string) (registry.Record, error) {
	records, err := dir.Records()
	found := registry.Find(records, name)
	switch {
	case len(found) > 1:
		return registry.Record{}, fmt.Errorf("%s: mounted %d times: name one by its mount point", name, len(found))
	case len(found) == 0 && err != nil:
		return registry.Record{}, err
	case len(found) == 0:
		return registry.Record{}, fmt.Errorf("%s: not mounted; a snapshot of an image that isn't in use needs no --live", name)
	case !found[0].Alive:
		return registry.Record{}, fmt.Errorf("%s: its server died; vhdmount unmount clears it", name)
	case found[0].Entry.ReadOnly:
		return registry.Record{}, fmt.Errorf("%s: mounted read-only, and so unchanging: make the snapshot without --live", name)
	}
	return found[0], nil
}

// liveSnapshot is a snapshot under a disk in use.
type liveSnapshot struct {
	server  *control.Conversation
	record  registry.Record // of the mount
	child   string          // absolute
	options vhd.SnapshotOptions
}

// make pauses the disk, makes the child, and has the disk go on with it, or as
// it was where any of this fails.
func (l *liveSnapshot) make(ctx context.Context) error {
	base := l.record.Entry.Image
	if response, err := l.server.Do(ctx, control.Request{Op: control.Pause}); err != nil || response.Error != "" {
		return l.failed("can't be paused", response, err)
	}
	if err := vhd.Snapshot(base, l.child, l.options); err != nil {
		return errors.Join(err, l.goOn(ctx))
	}
	files, err := chainFiles(l.child, l.options.ParentDirs)
	defer closeAll(files)
	if err != nil {
		return errors.Join(err, l.goOn(ctx), os.Remove(l.child))
	}
	response, err := l.server.Do(ctx, control.Request{Op: control.Unpause, Image: l.child, Files: files})
	switch {
	case err != nil:
		// It may have gone on with the child, which must stay for that.
		return fmt.Errorf("%s: the server ended, or was not waited for: %w; vhdmount list shows which image is in use", base, err)
	case response.State == control.Paused:
		failure := l.failed("can't go on with "+l.child, response, nil)
		return errors.Join(failure, l.goOn(ctx), os.Remove(l.child))
	case response.Error != "":
		return l.failed("has gone on with "+l.child, response, nil)
	}
	return nil
}

// goOn has the disk go on with the image that it had.
func (l *liveSnapshot) goOn(ctx context.Context) error {
	response, err := l.server.Do(ctx, control.Request{Op: control.Unpause})
	if err != nil || response.Error != "" {
		return l.failed("stays paused", response, err)
	}
	return nil
}

// failed says what became of a request.
func (l *liveSnapshot) failed(what string, response control.Response, err error) error {
	if err == nil {
		err = errors.New(response.Error)
	}
	return fmt.Errorf("%s: %s: %w%s", l.record.Entry.Image, what, err, seeLog(l.record.Entry))
}

// chainFiles opens the files of an image's chain as the server of its disk
// needs them, for one that may open none: the image for writing.
func chainFiles(image string, parentDirs []string) ([]*os.File, error) {
	img, err := vhd.Open(image, vhd.Options{ReadOnly: true, NoLock: true, ParentDirs: parentDirs})
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i, layer := range img.Layers() {
		flag := os.O_RDONLY
		if i == 0 {
			flag = os.O_RDWR
		}
		f, err := os.OpenFile(layer.Name, flag, 0)
		if err != nil {
			return files, errors.Join(err, img.Close())
		}
		files = append(files, f)
	}
	return files, img.Close()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
