package storagetest

import (
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// Memory is a file system on the heap. Names are slash-separated; a relative
// one starts at the root; directories are there as soon as a name is below
// them; there are no symbolic links. Files are sparse in units of 512 bytes,
// and have both optional abilities (HoleFinder, NowaitReaderAt). It is safe
// for concurrent use.
//
// Nothing is lost here by not syncing it, but for one case: a Fault that fails
// a Sync of a Memory's file takes back what was written to it since the last
// one.
type Memory struct {
	// mu guards what follows. An inode's is taken under it at times, never
	// the other way round.
	mu     sync.Mutex
	names  map[string]*inode // by absolute name
	lastID uint64
}

// NewMemory is an empty file system.
func NewMemory() *Memory { return &Memory{names: map[string]*inode{}} }

// Open implements storage.FS. NoFollow changes nothing.
func (m *Memory) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := m.open(name, flag)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *Memory) open(name string, flag storage.Flag) (*memoryFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.find(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if ino == nil {
		return nil, pathError("open", name, storage.ErrNotRegular)
	}
	return &memoryFile{ino: ino, name: name, writable: flag&storage.ReadWrite != 0}, nil
}

// OpenBeneath implements storage.FS.
func (m *Memory) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := m.openBeneath(dir, name, flag)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *Memory) openBeneath(dir, name string, flag storage.Flag) (*memoryFile, error) {
	joined := path.Join(dir, name)
	if !filepath.IsLocal(name) {
		return nil, pathError("open", joined, storage.ErrOutside)
	}
	return m.open(joined, flag)
}

// Create implements storage.FS.
func (m *Memory) Create(name string, perm fs.FileMode) (storage.File, error) {
	f, err := m.create(name, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *Memory) create(name string, perm fs.FileMode) (*memoryFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.free(name); err != nil {
		return nil, pathError("create", name, err)
	}
	m.lastID++
	ino := &inode{id: m.lastID, mode: perm.Perm(), modTime: time.Now()}
	m.names[absolute(name)] = ino
	return &memoryFile{ino: ino, name: name, writable: true}, nil
}

// Stat implements storage.FS. A directory has nothing but its mode.
func (m *Memory) Stat(name string) (storage.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.find(name)
	if err != nil {
		return storage.Info{}, pathError("stat", name, err)
	}
	if ino == nil {
		return storage.Info{Mode: fs.ModeDir | 0o755}, nil
	}
	return ino.info(), nil
}

// Resolve implements storage.FS.
func (m *Memory) Resolve(name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err != nil {
		return "", pathError("resolve", name, err)
	}
	return absolute(name), nil
}

// Rename implements storage.FS. As POSIX has it, nothing happens where both
// names are of one file.
func (m *Memory) Rename(oldname, newname string) error {
	_, err := m.rename(oldname, newname)
	return err
}

// rename tells what it renamed; nil where that was nothing.
func (m *Memory) rename(oldname, newname string) (*inode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.regular(oldname)
	if err != nil {
		return nil, pathError("rename", oldname, err)
	}
	switch there, err := m.find(newname); {
	case err == nil && there == nil:
		return nil, pathError("rename", newname, syscall.EISDIR)
	case err == nil && there == ino:
		return nil, nil
	case err != nil:
		if err := m.free(newname); err != nil {
			return nil, pathError("rename", newname, err)
		}
	}
	delete(m.names, absolute(oldname))
	m.names[absolute(newname)] = ino
	return ino, nil
}

// Link implements storage.FS.
func (m *Memory) Link(oldname, newname string) error {
	_, err := m.link(oldname, newname)
	return err
}

func (m *Memory) link(oldname, newname string) (*inode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.regular(oldname)
	if err != nil {
		return nil, pathError("link", oldname, err)
	}
	if err := m.free(newname); err != nil {
		return nil, pathError("link", newname, err)
	}
	m.names[absolute(newname)] = ino
	return ino, nil
}

// Remove implements storage.FS.
func (m *Memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.regular(name); err != nil {
		return pathError("remove", name, err)
	}
	delete(m.names, absolute(name))
	return nil
}

// SyncDir implements storage.FS.
func (m *Memory) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.find(dir)
	if err == nil && ino != nil {
		err = syscall.ENOTDIR
	}
	return pathError("sync", dir, err)
}

// find is the file called name, nil for a directory. The caller holds mu.
func (m *Memory) find(name string) (*inode, error) {
	abs := absolute(name)
	if ino := m.names[abs]; ino != nil {
		return ino, nil
	}
	if abs == "/" {
		return nil, nil
	}
	for have := range m.names {
		if strings.HasPrefix(have, abs+"/") {
			return nil, nil
		}
	}
	return nil, fs.ErrNotExist
}

// regular is find for what must be a file.
func (m *Memory) regular(name string) (*inode, error) {
	ino, err := m.find(name)
	if err == nil && ino == nil {
		err = storage.ErrNotRegular
	}
	return ino, err
}

// free tells whether a file may be given the name. The caller holds mu.
func (m *Memory) free(name string) error {
	if _, err := m.find(name); err == nil {
		return fs.ErrExist
	}
	for dir := path.Dir(absolute(name)); dir != "/"; dir = path.Dir(dir) {
		if m.names[dir] != nil {
			return syscall.ENOTDIR
		}
	}
	return nil
}

// snapshot is what every name leads to now.
func (m *Memory) snapshot() map[string]*inode {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.names)
}

func absolute(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name) // as Join, which would copy it first
	}
	return path.Join("/", name)
}

// pathError says which call failed on which file; nil stays nil.
func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
