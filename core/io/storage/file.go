package storage

import (
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// osFile is a file descriptor. The data path makes one system call and
// allocates nothing.
type osFile struct {
	name     string
	writable bool

	// open guards fd: calls hold it for reading, Close for writing, so that
	// none reaches a descriptor that was closed and given to another file.
	// It is the outer one of the two.
	open   sync.RWMutex
	fd     int
	closed bool

	// noNowait is set once the file system has said that it doesn't know
	// RWF_NOWAIT.
	noNowait atomic.Bool

	// reshaping counts the calls under way that change more than bytes: they
	// hold the inode's lock, on which a write waits.
	reshaping atomic.Int32

	// locking guards locked and makes a Lock one step.
	locking sync.Mutex
	locked  byteSet
}

// begin keeps the file open until end, or says that it is closed.
func (f *osFile) begin(op string) error {
	f.open.RLock()
	if f.closed {
		f.open.RUnlock()
		return pathError(op, f.name, ErrClosed)
	}
	return nil
}

func (f *osFile) end() { f.open.RUnlock() }

// beginChange is begin for a call that changes the file. The kernel's own
// refusals differ from call to call (ftruncate says EINVAL).
func (f *osFile) beginChange(op string) error {
	if err := f.begin(op); err != nil {
		return err
	}
	if !f.writable {
		f.end()
		return pathError(op, f.name, ErrReadOnly)
	}
	return nil
}

// Name implements File.
func (f *osFile) Name() string { return f.name }

// ReadAt implements File.
func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.begin("read"); err != nil {
		return 0, err
	}
	defer f.end()
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, pathError("read", f.name, err)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

// WriteAt implements File.
func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.beginChange("write"); err != nil {
		return 0, err
	}
	defer f.end()
	return f.write(p, off)
}

// write stores all of p at off. The caller keeps the file open.
func (f *osFile) write(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, pathError("write", f.name, err)
		case n == 0:
			return done, pathError("write", f.name, io.ErrShortWrite)
		default:
			done += n
		}
	}
	return done, nil
}

// WriteAtNowait implements NowaitWriterAt: the page cache takes it. Two things
// would have it wait: a page that is written in part and not in memory, which the
// kernel reads first, and a call that holds the file's own lock.
func (f *osFile) WriteAtNowait(p []byte, off int64) (int, error) {
	if f.reshaping.Load() > 0 || len(p) > 0 && !(f.pageIsThere(off) && f.pageIsThere(off+int64(len(p)))) {
		return 0, ErrWouldBlock
	}
	return f.WriteAt(p, off)
}

// pageIsThere tells whether the page in which a write begins or ends at off is in
// memory, or is written from its beginning, or to its end.
func (f *osFile) pageIsThere(off int64) bool {
	if off < 0 || off%int64(pageSize) == 0 {
		return true // what is negative WriteAt refuses
	}
	b := probes.Get().(*[1]byte)
	defer probes.Put(b)
	_, err := f.ReadAtNowait(b[:], off)
	return err == nil || err == io.EOF
}

// probes are what is read to see whether it is there.
var probes = sync.Pool{New: func() any { return new([1]byte) }}

// pageSize is the unit of the page cache, in bytes.
var pageSize = os.Getpagesize()

// BeginSync implements EarlyWriter: sync_file_range, where the file system has
// it.
func (f *osFile) BeginSync(off, n int64) {
	if f.beginChange("write") != nil {
		return
	}
	defer f.end()
	_ = unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// ReadAtNowait implements NowaitReaderAt: preadv2 of what is in the page
// cache. On a file system without RWF_NOWAIT every read would wait. The kernel may answer with the part
// that is in memory; the next round tells the end of the file (0 bytes) from
// the end of what is in memory (EAGAIN).
func (f *osFile) ReadAtNowait(p []byte, off int64) (int, error) {
	if f.noNowait.Load() {
		return 0, ErrWouldBlock
	}
	if err := f.begin("read"); err != nil {
		return 0, err
	}
	defer f.end()
	done := 0
	for done < len(p) {
		n, err := unix.Preadv2(f.fd, [][]byte{p[done:]}, off+int64(done), unix.RWF_NOWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, ErrWouldBlock
		case err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			f.noNowait.Store(true)
			return 0, ErrWouldBlock
		case err != nil:
			return done, pathError("read", f.name, err)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

// Size implements File.
func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	return info.Size, err
}

// Stat implements File.
func (f *osFile) Stat() (Info, error) {
	if err := f.begin("stat"); err != nil {
		return Info{}, err
	}
	defer f.end()
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return Info{}, pathError("stat", f.name, err)
	}
	return infoOf(&st), nil
}

// Truncate implements File.
func (f *osFile) Truncate(size int64) error {
	if err := f.beginChange("truncate"); err != nil {
		return err
	}
	defer f.end()
	f.reshaping.Add(1)
	defer f.reshaping.Add(-1)
	return pathError("truncate", f.name, retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

// Sync implements File. fdatasync leaves out only times: a size that data
// depends on is written.
//
// EINVAL is a file system that has no sync (fsync(2)), as those that are only
// read: there is nothing that could be lost.
func (f *osFile) Sync() error {
	if err := f.begin("sync"); err != nil {
		return err
	}
	defer f.end()
	err := retry(func() error { return unix.Fdatasync(f.fd) })
	if err == unix.EINVAL && !f.writable {
		return nil
	}
	return pathError("sync", f.name, err)
}

// Allocate implements File.
func (f *osFile) Allocate(off, n int64) error { return f.fallocate("allocate", 0, off, n) }

// PunchHole implements File.
func (f *osFile) PunchHole(off, n int64) error {
	return f.fallocate("punch hole", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f *osFile) fallocate(op string, mode uint32, off, n int64) error {
	if err := f.beginChange(op); err != nil {
		return err
	}
	defer f.end()
	if off >= 0 && n == 0 {
		return nil // the kernel refuses an empty range
	}
	f.reshaping.Add(1)
	defer f.reshaping.Add(-1)
	return pathError(op, f.name, retry(func() error { return unix.Fallocate(f.fd, mode, off, n) }))
}

// NextData implements HoleFinder. The seeks move the descriptor's own
// position, which nothing else here uses.
func (f *osFile) NextData(off int64) (start, end int64, err error) {
	if err := f.begin("seek data"); err != nil {
		return 0, 0, err
	}
	defer f.end()
	if start, err = f.seek(off, unix.SEEK_DATA); err == nil {
		end, err = f.seek(start, unix.SEEK_HOLE)
	}
	switch {
	case err == unix.ENXIO: // nothing but holes, past the end, or cut meanwhile
		return 0, 0, io.EOF
	case err != nil:
		return 0, 0, pathError("seek data", f.name, err)
	}
	return start, end, nil
}

func (f *osFile) seek(off int64, whence int) (at int64, err error) {
	err = retry(func() error {
		at, err = unix.Seek(f.fd, off, whence)
		return err
	})
	return at, err
}

// Close implements File. It waits for the calls that run.
func (f *osFile) Close() error {
	f.open.Lock()
	defer f.open.Unlock()
	if f.closed {
		return pathError("close", f.name, ErrClosed)
	}
	f.closed = true
	f.unlock()
	// Not repeated on EINTR: Linux has released the descriptor then.
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR {
		return pathError("close", f.name, err)
	}
	return nil
}
