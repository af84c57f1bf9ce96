package vhdtest

import (
	"io/fs"
	"path/filepath"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// Call is a call of the storage on its way down.
type Call struct {
	Op      storagetest.Op
	File    storage.File // the file below, of a call on a file
	Name    string       // the file's
	NewName string       // of a rename or a link
	Flag    storage.Flag // of an open
	Off     int64        // bytes; of a truncate, the size
	Len     int64        // bytes
	Data    []byte       // what is written, or where to read to
}

// Changes tells whether the call changes something or makes it stable.
func (c *Call) Changes() bool {
	switch c.Op {
	case storagetest.OpWrite, storagetest.OpTruncate, storagetest.OpPunchHole, storagetest.OpAllocate, storagetest.OpSync,
		storagetest.OpCreate, storagetest.OpRename, storagetest.OpLink, storagetest.OpRemove, storagetest.OpSyncDir:
		return true
	}
	return false
}

// Through is what every call goes through: it makes the call by do, before or
// after others or not at all, and returns what the caller gets.
type Through func(c *Call, do func() error) error

// Intercept is fsys with the calls that open, read and change going through a
// function. Optional abilities of files are hidden, but for that to write
// without waiting. It is as safe for concurrent use as the function is.
func Intercept(fsys storage.FS, through Through) storage.FS {
	return &intercepted{FS: fsys, through: through}
}

type intercepted struct {
	storage.FS
	through Through
}

// Open implements storage.FS.
func (s *intercepted) Open(name string, flag storage.Flag) (storage.File, error) {
	return s.file(&Call{Op: storagetest.OpOpen, Name: name, Flag: flag}, func() (storage.File, error) { return s.FS.Open(name, flag) })
}

// OpenBeneath implements storage.FS.
func (s *intercepted) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	return s.file(&Call{Op: storagetest.OpOpen, Name: filepath.Join(dir, name), Flag: flag}, func() (storage.File, error) { return s.FS.OpenBeneath(dir, name, flag) })
}

// Create implements storage.FS.
func (s *intercepted) Create(name string, perm fs.FileMode) (storage.File, error) {
	return s.file(&Call{Op: storagetest.OpCreate, Name: name}, func() (storage.File, error) { return s.FS.Create(name, perm) })
}

func (s *intercepted) file(c *Call, open func() (storage.File, error)) (storage.File, error) {
	err := s.through(c, func() (err error) {
		c.File, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &interceptedFile{File: c.File, through: s.through}, nil
}

// Rename implements storage.FS.
func (s *intercepted) Rename(oldname, newname string) error {
	return s.through(&Call{Op: storagetest.OpRename, Name: oldname, NewName: newname}, func() error { return s.FS.Rename(oldname, newname) })
}

// Link implements storage.FS.
func (s *intercepted) Link(oldname, newname string) error {
	return s.through(&Call{Op: storagetest.OpLink, Name: oldname, NewName: newname}, func() error { return s.FS.Link(oldname, newname) })
}

// Remove implements storage.FS.
func (s *intercepted) Remove(name string) error {
	return s.through(&Call{Op: storagetest.OpRemove, Name: name}, func() error { return s.FS.Remove(name) })
}

// SyncDir implements storage.FS.
func (s *intercepted) SyncDir(dir string) error {
	return s.through(&Call{Op: storagetest.OpSyncDir, Name: dir}, func() error { return s.FS.SyncDir(dir) })
}

type interceptedFile struct {
	storage.File
	through Through
}

func (f *interceptedFile) call(op storagetest.Op, off, n int64, data []byte) *Call {
	return &Call{Op: op, File: f.File, Name: f.Name(), Off: off, Len: n, Data: data}
}

// ReadAt implements storage.File.
func (f *interceptedFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.through(f.call(storagetest.OpRead, off, int64(len(p)), p), func() (err error) {
		n, err = f.File.ReadAt(p, off)
		return err
	})
	return n, err
}

// WriteAt implements storage.File. What is written is the call's Data, which
// may have been replaced.
func (f *interceptedFile) WriteAt(p []byte, off int64) (int, error) {
	c := f.call(storagetest.OpWrite, off, int64(len(p)), p)
	err := f.through(c, func() error {
		_, err := f.File.WriteAt(c.Data, off)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAtNowait implements storage.NowaitWriterAt: to the function it is a write
// like any other.
func (f *interceptedFile) WriteAtNowait(p []byte, off int64) (int, error) {
	if _, able := f.File.(storage.NowaitWriterAt); !able {
		return 0, storage.ErrWouldBlock
	}
	return f.WriteAt(p, off)
}

// Truncate implements storage.File.
func (f *interceptedFile) Truncate(size int64) error {
	return f.through(f.call(storagetest.OpTruncate, size, 0, nil), func() error { return f.File.Truncate(size) })
}

// Allocate implements storage.File.
func (f *interceptedFile) Allocate(off, n int64) error {
	return f.through(f.call(storagetest.OpAllocate, off, n, nil), func() error { return f.File.Allocate(off, n) })
}

// PunchHole implements storage.File.
func (f *interceptedFile) PunchHole(off, n int64) error {
	return f.through(f.call(storagetest.OpPunchHole, off, n, nil), func() error { return f.File.PunchHole(off, n) })
}

// Sync implements storage.File.
func (f *interceptedFile) Sync() error {
	return f.through(f.call(storagetest.OpSync, 0, 0, nil), f.File.Sync)
}
