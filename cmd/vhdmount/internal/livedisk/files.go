package livedisk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd"
)

// errReplaced is a name that leads to another file than the one that is open.
var errReplaced = errors.New("the file was moved, removed or replaced")

// files are open files of a chain, for a process that may not open them again
// when it wants to. They hold no lock of their own.
type files struct {
	// passed came from others with an Unpause, and no name leads to them for
	// this process. They stay until others come.
	passed []*os.File
	// kept were opened before a pause, by name, and stay until it ends.
	kept []*os.File
}

// rehearse makes sure that each file of a chain can be opened again after a
// pause, and is the same one, before anything is closed.
func (f *files) rehearse(layers []vhd.Layer, readOnly bool) error {
	for i, layer := range layers {
		flag := os.O_RDWR
		if i > 0 || readOnly {
			flag = os.O_RDONLY
		}
		if err := f.keep(layer, flag); err != nil {
			f.forgetKept()
			return err
		}
	}
	return nil
}

// keep opens a layer's file by its name, if it wasn't passed.
func (f *files) keep(layer vhd.Layer, flag int) error {
	var st unix.Stat_t
	if err := unix.Stat(layer.Name, &st); err != nil {
		return &os.PathError{Op: "stat", Path: layer.Name, Err: err}
	}
	if id(&st) != layer.ID {
		return fmt.Errorf("%s: %w", layer.Name, errReplaced)
	}
	for _, passed := range f.passed {
		if unix.Fstat(int(passed.Fd()), &st) == nil && id(&st) == layer.ID {
			return nil
		}
	}
	file, err := OpenLayer(layer, flag)
	if err == nil {
		f.kept = append(f.kept, file)
	}
	return err
}

// OpenLayer opens the file of a layer once more, by its name. One that is
// another file by now is an error.
func OpenLayer(layer vhd.Layer, flag int) (*os.File, error) {
	file, err := os.OpenFile(layer.Name, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || id(&st) != layer.ID {
		return nil, errors.Join(fmt.Errorf("%s: %w", layer.Name, errReplaced), err, file.Close())
	}
	return file, nil
}

func id(st *unix.Stat_t) storage.FileID { return storage.FileID{Dev: st.Dev, Ino: st.Ino} }

// all are the files to open a chain with, those that come now first.
func (f *files) all(passed []*os.File) []*os.File {
	all := append([]*os.File(nil), passed...)
	return append(append(all, f.kept...), f.passed...)
}

// remember keeps duplicates of what was passed, in place of those before. One
// that can't be duplicated is missed before the next pause.
func (f *files) remember(passed []*os.File) {
	if len(passed) == 0 {
		return
	}
	closeAll(f.passed)
	f.passed = nil
	for _, file := range passed {
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f.passed = append(f.passed, os.NewFile(uintptr(fd), file.Name()))
		}
	}
}

func (f *files) forgetKept() {
	closeAll(f.kept)
	f.kept = nil
}

func (f *files) close() {
	f.forgetKept()
	closeAll(f.passed)
	f.passed = nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
