package vhd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// publish makes a new file at name: written by write under a temporary name
// beside it, synced, and only then given its name. An existing name is
// fs.ErrExist; on any failure nothing is left behind.
func publish(fsys storage.FS, name string, write func(f storage.File) error) (err error) {
	wrap := func(err error) error { return &ImageError{Image: name, Err: translate(err)} }
	if _, err := fsys.Stat(name); err == nil {
		return wrap(fmt.Errorf("%w: remove it first, or choose another name", fs.ErrExist))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return wrap(err)
	}
	dir := filepath.Dir(name)
	temp := filepath.Join(dir, "."+filepath.Base(name)+"."+rand.Text()[:8]+".tmp")
	f, err := fsys.Create(temp, 0o666)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) { // it may be there all the same
			fsys.Remove(temp)
		}
		return wrap(err)
	}
	defer func() {
		if f != nil {
			f.Close()
		}
		if err != nil {
			fsys.Remove(temp)
		}
	}()
	if err := write(f); err != nil {
		var image *ImageError
		if errors.As(err, &image) {
			return err
		}
		return wrap(err)
	}
	if err := f.Sync(); err != nil {
		return wrap(err)
	}
	err, f = f.Close(), nil
	if err != nil {
		return wrap(err)
	}
	if err := giveName(fsys, temp, name); err != nil {
		return wrap(err)
	}
	if err := fsys.SyncDir(dir); err != nil {
		fsys.Remove(name)
		return wrap(err)
	}
	return nil
}

// giveName moves temp to name unless that is taken. A link tells without a
// race; a file system that has no links is asked first.
func giveName(fsys storage.FS, temp, name string) error {
	err := fsys.Link(temp, name)
	if err == nil {
		if err = fsys.Remove(temp); err != nil {
			fsys.Remove(name)
		}
		return err
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := fsys.Stat(name); err == nil {
		return fs.ErrExist
	}
	return fsys.Rename(temp, name)
}
