// Package storage is the waist between the engine and what keeps its files:
// File and FS, the real ones of the operating system, and the errors that
// callers branch on. Nothing else under core/ calls package os.
//
// The implementations that tests break (memory, crash, fault) are in
// storagetest. An object behind HTTP will be a File one day: no method here
// assumes a file descriptor.
package storage

import (
	"io"
	"io/fs"
	"time"
)

// File is an open file: bytes at an offset, as large as was written or as
// Truncate says. All methods but Close are safe for concurrent use.
type File interface {
	// ReadAt fills p from off. Past the end of the file it is short, with
	// io.EOF.
	io.ReaderAt
	// WriteAt stores all of p at off, growing the file where that is past the
	// end, or returns an error, after which any part of p may have been
	// stored. A full file system is ErrNoSpace.
	io.WriterAt
	// Size is the length of the file in bytes.
	Size() (int64, error)
	// Truncate cuts the file to size bytes or extends it with a hole.
	Truncate(size int64) error
	// Sync returns once all that was written before the call, and the file's
	// size, is on stable storage. After a failure the system may have dropped
	// what it could not write: a later success says nothing of it. It may be
	// called of a file opened for reading, and covers what others wrote to it.
	Sync() error
	// Allocate makes sure that [off, off+n) has space, reading as zeros where
	// nothing was written; the file's size grows where needed.
	// ErrNotSupported where the file system can't.
	Allocate(off, n int64) error
	// PunchHole makes [off, off+n) read as zeros and gives its space back;
	// the size stays. ErrNotSupported where the file system can't.
	PunchHole(off, n int64) error
	// Lock takes the file for access, against every other opener that asks,
	// in this process or another (qemu included). It never waits: a conflict
	// is an *InUseError. Close gives the lock back. A second call replaces
	// the first.
	Lock(access Access) error
	// Stat describes the open file.
	Stat() (Info, error)
	// Name is the name that the file was opened by.
	Name() string
	// Close releases the file and its lock. It does not sync.
	Close() error
}

// NowaitReaderAt is a File that can tell whether a read would wait.
type NowaitReaderAt interface {
	// ReadAtNowait is ReadAt for what is in memory; otherwise ErrWouldBlock.
	ReadAtNowait(p []byte, off int64) (int, error)
}

// NowaitWriterAt is a File whose writes need not wait for the disk.
type NowaitWriterAt interface {
	// WriteAtNowait is WriteAt into memory, from where the bytes get to the
	// disk later: it waits only where too much of that is under way. Where
	// bytes go to the disk at once it is ErrWouldBlock, and nothing was done.
	WriteAtNowait(p []byte, off int64) (int, error)
}

// EarlyWriter is a File that can be asked to begin early with what a Sync would
// have to wait for.
type EarlyWriter interface {
	// BeginSync has [off, off+n) on its way to the disk, without waiting for
	// it to arrive: a promise of nothing, and so without an error.
	BeginSync(off, n int64)
}

// HoleFinder is a File that knows where it has no data.
type HoleFinder interface {
	// NextData is the offset of the first byte at or after off that may not
	// be zero, and the end of that run; io.EOF where there is none.
	NextData(off int64) (start, end int64, err error)
}

// Access is what a holder of a lock does with a file, and lets others do.
type Access int

const (
	// Shared reads, and lets others read.
	Shared Access = iota
	// Exclusive writes, and lets nobody else in.
	Exclusive
)

// Flag says how a file is opened.
type Flag int

const (
	// ReadWrite opens for writing too.
	ReadWrite Flag = 1 << iota
	// NoFollow refuses a name whose last component is a symbolic link.
	NoFollow
)

// FileID tells files apart whatever their names: the device and the inode.
type FileID struct{ Dev, Ino uint64 }

// Info describes a file.
type Info struct {
	ID        FileID
	Size      int64 // bytes
	Allocated int64 // bytes that the file system keeps for it
	Mode      fs.FileMode
	ModTime   time.Time
}

// FS opens, creates and renames files. Names are paths of the operating
// system, relative ones against the process's working directory.
type FS interface {
	// Open opens a regular file that exists. Anything else (a directory, a
	// device, a FIFO, a socket) is ErrNotRegular, and never waited for.
	Open(name string, flag Flag) (File, error)
	// OpenBeneath opens a file in the tree of dir by a name relative to it, as
	// Open with NoFollow does, and neither follows a symbolic link on the way
	// nor leaves the tree, whatever is renamed meanwhile. dir has no link in
	// it either (Resolve): one that is found was put there since. What leads
	// elsewhere is ErrOutside, a link in the place of the file ErrNotRegular.
	// The File's name is the two joined.
	OpenBeneath(dir, name string, flag Flag) (File, error)
	// Create makes a new empty file for reading and writing; a name that is
	// taken is fs.ErrExist.
	Create(name string, perm fs.FileMode) (File, error)
	// Stat describes the file that name leads to, through symbolic links.
	Stat(name string) (Info, error)
	// Resolve is name as an absolute path without symbolic links.
	Resolve(name string) (string, error)
	// Rename gives oldname's file the name newname, in place of what had it.
	Rename(oldname, newname string) error
	// Link gives oldname's file a second name; one that is taken is
	// fs.ErrExist.
	Link(oldname, newname string) error
	// Remove takes a name away.
	Remove(name string) error
	// SyncDir makes the names created, renamed and removed in dir stable.
	SyncDir(dir string) error
}
