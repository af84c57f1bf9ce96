package storagetest

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// inode is a file in memory, whatever names lead to it.
type inode struct {
	id   uint64
	mode fs.FileMode

	// mu guards what follows. It is a leaf.
	mu      sync.RWMutex
	data    sparse
	size    int64 // bytes
	modTime time.Time
	locks   []heldLock
	known   facts
}

// facts are what is known of a file's bytes until they change.
type facts struct {
	sum       uint64 // of data, where summed
	summed    bool
	allocated int64 // bytes, where measured
	measured  bool
}

// heldLock is a lock of an open file.
type heldLock struct {
	by     *memoryFile
	access storage.Access
}

func (ino *inode) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	ino.mu.RLock()
	defer ino.mu.RUnlock()
	if len(p) == 0 {
		return 0, nil
	}
	n := min(int64(len(p)), max(0, ino.size-off))
	ino.data.readAt(p[:n], off)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (ino *inode) writeAt(p []byte, off int64) error {
	if err := checkRange(off, int64(len(p))); err != nil {
		return err
	}
	ino.mu.Lock()
	defer ino.mu.Unlock()
	if len(p) == 0 {
		return nil
	}
	ino.data.writeAt(p, off)
	ino.size = max(ino.size, off+int64(len(p)))
	ino.changed()
	return nil
}

// changed notes that the bytes or the size are others now. The caller holds mu.
func (ino *inode) changed() { ino.modTime, ino.known = time.Now(), facts{} }

func (ino *inode) truncate(size int64) error {
	if size < 0 {
		return fs.ErrInvalid
	}
	ino.mu.Lock()
	defer ino.mu.Unlock()
	if size < ino.size {
		ino.data.cut(size)
	}
	ino.size = size
	ino.changed()
	return nil
}

func (ino *inode) allocate(off, n int64) error {
	if err := checkRange(off, n); err != nil {
		return err
	}
	ino.mu.Lock()
	defer ino.mu.Unlock()
	if n == 0 {
		return nil
	}
	ino.data.reserve(off, n)
	ino.size = max(ino.size, off+n)
	ino.changed()
	return nil
}

func (ino *inode) punchHole(off, n int64) error {
	if err := checkRange(off, n); err != nil {
		return err
	}
	ino.mu.Lock()
	defer ino.mu.Unlock()
	// To the end of the last sector where the file ends in it: what lies
	// behind the end is zeros already, and the sector's space returns.
	if end := off + n; end >= ino.size {
		n = max(0, roundUp(ino.size)-off)
	}
	ino.data.zero(off, n)
	ino.changed()
	return nil
}

func (ino *inode) nextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	ino.mu.RLock()
	defer ino.mu.RUnlock()
	first, last, ok := ino.data.nextData(off/sectorSize, roundUp(ino.size)/sectorSize)
	if !ok || off >= ino.size {
		return 0, 0, io.EOF
	}
	return max(off, first*sectorSize), min(ino.size, last*sectorSize), nil
}

func (ino *inode) sync() {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	ino.data.sync()
}

func (ino *inode) dropUnsynced() {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	ino.data.dropUnsynced()
	ino.known = facts{}
}

func (ino *inode) info() storage.Info {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	if !ino.known.measured {
		ino.known.allocated, ino.known.measured = ino.data.allocated(), true
	}
	return storage.Info{
		ID:        storage.FileID{Dev: 1, Ino: ino.id},
		Size:      ino.size,
		Allocated: ino.known.allocated,
		Mode:      ino.mode,
		ModTime:   ino.modTime,
	}
}

// lock gives f access unless another open file is in its way.
func (ino *inode) lock(f *memoryFile, access storage.Access) error {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	mine := -1
	for i, held := range ino.locks {
		switch {
		case held.by == f:
			mine = i
		case access == storage.Exclusive || held.access == storage.Exclusive:
			self := storage.Holder{PID: os.Getpid(), Name: filepath.Base(os.Args[0])}
			return &storage.InUseError{Name: f.name, Access: access, Holders: []storage.Holder{self}}
		}
	}
	if mine < 0 {
		ino.locks = append(ino.locks, heldLock{f, access})
	} else {
		ino.locks[mine].access = access
	}
	return nil
}

func (ino *inode) unlock(f *memoryFile) {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	ino.locks = slices.DeleteFunc(ino.locks, func(held heldLock) bool { return held.by == f })
}

// checkRange refuses what no file can have: the kernel says EINVAL and EFBIG.
func checkRange(off, n int64) error {
	switch {
	case off < 0 || n < 0:
		return fs.ErrInvalid
	case off > 1<<63-1-sectorSize-n:
		return storage.ErrNoSpace
	}
	return nil
}

func roundUp(size int64) int64 { return (size + sectorSize - 1) / sectorSize * sectorSize }
