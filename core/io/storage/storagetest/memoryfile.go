package storagetest

import (
	"io"
	"sync/atomic"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// memoryFile is an open file of a Memory.
type memoryFile struct {
	ino      *inode
	name     string
	writable bool
	closed   atomic.Bool
}

// begin says whether the file can do op: it is open and, for a change, open
// for writing.
func (f *memoryFile) begin(op string, change bool) error {
	switch {
	case f.closed.Load():
		return pathError(op, f.name, storage.ErrClosed)
	case change && !f.writable:
		return pathError(op, f.name, storage.ErrReadOnly)
	}
	return nil
}

// Name implements storage.File.
func (f *memoryFile) Name() string { return f.name }

// ReadAt implements storage.File.
func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.begin("read", false); err != nil {
		return 0, err
	}
	n, err := f.ino.readAt(p, off)
	if err != nil && err != io.EOF {
		err = pathError("read", f.name, err)
	}
	return n, err
}

// ReadAtNowait implements storage.NowaitReaderAt: all is in memory.
func (f *memoryFile) ReadAtNowait(p []byte, off int64) (int, error) { return f.ReadAt(p, off) }

// WriteAt implements storage.File.
func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.begin("write", true); err != nil {
		return 0, err
	}
	if err := f.ino.writeAt(p, off); err != nil {
		return 0, pathError("write", f.name, err)
	}
	return len(p), nil
}

// WriteAtNowait implements storage.NowaitWriterAt: all is in memory.
func (f *memoryFile) WriteAtNowait(p []byte, off int64) (int, error) { return f.WriteAt(p, off) }

// Size implements storage.File.
func (f *memoryFile) Size() (int64, error) {
	if err := f.begin("stat", false); err != nil {
		return 0, err
	}
	f.ino.mu.RLock()
	defer f.ino.mu.RUnlock()
	return f.ino.size, nil
}

// Truncate implements storage.File.
func (f *memoryFile) Truncate(size int64) error {
	if err := f.begin("truncate", true); err != nil {
		return err
	}
	return pathError("truncate", f.name, f.ino.truncate(size))
}

// Sync implements storage.File.
func (f *memoryFile) Sync() error {
	if err := f.begin("sync", false); err != nil {
		return err
	}
	f.ino.sync()
	return nil
}

// Allocate implements storage.File.
func (f *memoryFile) Allocate(off, n int64) error {
	if err := f.begin("allocate", true); err != nil {
		return err
	}
	return pathError("allocate", f.name, f.ino.allocate(off, n))
}

// PunchHole implements storage.File.
func (f *memoryFile) PunchHole(off, n int64) error {
	if err := f.begin("punch hole", true); err != nil {
		return err
	}
	return pathError("punch hole", f.name, f.ino.punchHole(off, n))
}

// NextData implements storage.HoleFinder.
func (f *memoryFile) NextData(off int64) (start, end int64, err error) {
	if err := f.begin("seek data", false); err != nil {
		return 0, 0, err
	}
	start, end, err = f.ino.nextData(off)
	if err != nil && err != io.EOF {
		err = pathError("seek data", f.name, err)
	}
	return start, end, err
}

// Lock implements storage.File.
func (f *memoryFile) Lock(access storage.Access) error {
	if err := f.begin("lock", false); err != nil {
		return err
	}
	return f.ino.lock(f, access)
}

// Stat implements storage.File.
func (f *memoryFile) Stat() (storage.Info, error) {
	if err := f.begin("stat", false); err != nil {
		return storage.Info{}, err
	}
	return f.ino.info(), nil
}

// Close implements storage.File.
func (f *memoryFile) Close() error {
	if !f.closed.CompareAndSwap(false, true) {
		return pathError("close", f.name, storage.ErrClosed)
	}
	f.ino.unlock(f)
	return nil
}

// dropUnsynced takes back what was written since the last Sync.
func (f *memoryFile) dropUnsynced() { f.ino.dropUnsynced() }
