package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/control"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/exitcode"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/livedisk"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
	"github.com/vhdmount/vhdmount/core/io/storage"
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
	if l.named, err = namedImage(base); err != nil {
		return err
	}
	if l.server, err = control.Dial(c.Context, dir.Socket(record.Name)); err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	defer l.server.Close() // a disk that is paused still goes on as it was
	if l.theirs, err = l.server.ServerFiles(); err != nil {
		return fmt.Errorf("%s: whether its server says the truth can't be seen: %w", base, err)
	}
	return l.make(c.Context)
}

// namedImage is the file that the user named, if it may be an image: the zero one
// for a mount point, a disk, and what isn't there.
func namedImage(name string) (storage.FileID, error) {
	path, disk, err := mountinfo.Resolve(name, mountinfo.Ours)
	if err != nil || disk {
		return storage.FileID{}, err
	}
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case errors.Is(err, unix.ENOENT), err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return storage.FileID{}, nil
	case err != nil:
		return storage.FileID{}, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return storage.FileID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
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

// liveSnapshot is a snapshot under a disk in use. It doesn't take the server's
// word for which image that is: the server reads what others wrote, and who took
// it over would be passed the files of any image that it named.
type liveSnapshot struct {
	server  *control.Conversation
	record  registry.Record   // of the mount
	named   storage.FileID    // the image, if it was named by its file
	theirs  control.OpenFiles // what the server had open before it was asked
	base    string            // the image in use
	child   string            // absolute
	options vhd.SnapshotOptions
}

// make pauses the disk, makes the child, and has the disk go on with it, or as
// it was where any of this fails. ctx ends it as long as the child isn't in use.
func (l *liveSnapshot) make(ctx context.Context) error {
	response, err := l.server.Do(ctx, control.Request{Op: control.Pause})
	if err != nil || response.Error != "" {
		return l.failed("can't be paused", response, err)
	}
	l.base = string(response.Image)
	lock, err := l.lockBase(response.File)
	if err != nil {
		return errors.Join(err, l.goOn())
	}
	if err := vhd.Snapshot(l.base, l.child, l.options); err != nil {
		return errors.Join(err, lock.Close(), l.goOn())
	}
	err = ctx.Err()
	if err == nil {
		err = l.switchOver()
	}
	var undecided *undecidedError
	if err == nil || errors.As(err, &undecided) {
		return errors.Join(err, lock.Close())
	}
	return errors.Join(err, lock.Close(), l.goOn(), os.Remove(l.child))
}

var (
	errMeanwhile = errors.New("was written to or replaced by another program while the disk was paused")
	errNotTheirs = errors.New("the server says that it is of the disk's chain, and did not have it open: not done")
)

// lockBase opens the image, which the server has closed, so that nobody writes
// to it until it is a parent. paused is its file as the server left it.
func (l *liveSnapshot) lockBase(paused control.File) (*vhd.Image, error) {
	if err := l.believe(); err != nil {
		return nil, err
	}
	img, err := vhd.Open(l.base, vhd.Options{ReadOnly: true, ParentDirs: l.options.ParentDirs})
	if err != nil {
		return nil, err
	}
	file, err := control.StatFile(l.base)
	if err == nil && (file != paused || idOf(file) != img.Layers()[0].ID) {
		err = fmt.Errorf("%s: %w", l.base, errMeanwhile)
	}
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return img, nil
}

// believe tells by an error that the image which the server names is not the one
// that it wrote to, or that the user named another.
func (l *liveSnapshot) believe() error {
	file, err := control.StatFile(l.base)
	switch id := idOf(file); {
	case err != nil:
		return err
	case !l.theirs[id]:
		return fmt.Errorf("%s: %w", l.base, errNotTheirs)
	case l.named != storage.FileID{} && l.named != id:
		return fmt.Errorf("%s: the server says that it shows %s, which is another file: not done", l.record.Entry.Image, l.base)
	}
	return nil
}

func idOf(f control.File) storage.FileID { return storage.FileID{Dev: f.Dev, Ino: f.Ino} }

// undecidedError is a server that may have gone on with the child: it must stay.
type undecidedError struct{ err error }

func (e *undecidedError) Error() string {
	return fmt.Sprintf("the server ended, or did not answer: %v; vhdmount list shows which image is in use", e.err)
}

func (e *undecidedError) Unwrap() error { return e.err }

// switchOver has the disk go on with the child.
func (l *liveSnapshot) switchOver() error {
	files, err := l.chainFiles()
	defer closeAll(files)
	if err != nil {
		return err
	}
	response, err := l.server.Do(context.Background(), control.Request{Op: control.Unpause, Image: l.child, Files: files})
	switch {
	case err != nil:
		return &undecidedError{err}
	case string(response.Image) == l.child && response.State != control.Paused:
		return nil
	}
	return l.failed("can't go on with "+l.child, response, nil)
}

// goOn has the disk go on with the image that it had. A server that is spoken to
// no more does so by itself, or did.
func (l *liveSnapshot) goOn() error {
	response, err := l.server.Do(context.Background(), control.Request{Op: control.Unpause})
	if err == nil && response.State == control.Paused {
		return l.failed("stays paused", response, nil)
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

// chainFiles opens the files of the child's chain as the server of the disk
// needs them, for one that may open none: the child for writing. The others are
// files that the server had, whatever the image says by now of its parents.
func (l *liveSnapshot) chainFiles() ([]*os.File, error) {
	img, err := vhd.Open(l.child, vhd.Options{ReadOnly: true, NoLock: true, ParentDirs: l.options.ParentDirs})
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i, layer := range img.Layers() {
		flag := os.O_RDONLY
		if i == 0 {
			flag = os.O_RDWR
		} else if _, had := l.theirs[layer.ID]; !had {
			return files, errors.Join(fmt.Errorf("%s: %w", layer.Name, errNotTheirs), img.Close())
		}
		f, err := livedisk.OpenLayer(layer, flag)
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
