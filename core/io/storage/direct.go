package storage

import (
	"io"
	"io/fs"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direct returns base with files that are read and written past the page cache
// (O_DIRECT): data is copied once less and no memory is kept for it, and a write
// has reached the device's own cache when it returns, so that none waits for
// memory to become free. Stable it is after Sync, as ever. Everything goes to the
// device: ReadAtNowait and WriteAtNowait are ErrWouldBlock.
//
// A file system that can't is ErrNotSupported, and so is a File that isn't one
// of OS. Any range may be read and written. Whole sectors of the device, to and
// from memory that is aligned like them, go without a copy; a write of part of a
// sector reads the rest first, and has the file for itself meanwhile.
//
// Nothing else may write to the file through the page cache at the same time.
func Direct(base FS) FS { return direct{base} }

type direct struct{ FS }

// Open implements FS.
func (d direct) Open(name string, flag Flag) (File, error) {
	f, err := d.FS.Open(name, flag)
	return bypass(f, err)
}

// OpenBeneath implements FS.
func (d direct) OpenBeneath(dir, name string, flag Flag) (File, error) {
	f, err := d.FS.OpenBeneath(dir, name, flag)
	return bypass(f, err)
}

// Create implements FS. Where the file system can't, an empty file stays.
func (d direct) Create(name string, perm fs.FileMode) (File, error) {
	return bypass(d.FS.Create(name, perm))
}

// bypass makes a direct file of one that was just opened.
func bypass(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	file, ok := f.(*osFile)
	if !ok {
		_ = f.Close()
		return nil, &fs.PathError{Op: "open past the page cache", Path: f.Name(), Err: ErrNotSupported}
	}
	a, err := setDirect(file.fd)
	if err != nil {
		_ = f.Close()
		return nil, pathError("open past the page cache", f.Name(), err)
	}
	return &directFile{osFile: file, align: a}, nil
}

// alignment is what the kernel demands of direct reads and writes, in bytes.
type alignment struct {
	sector int64   // of offsets and lengths
	memory uintptr // of addresses
}

// errNotDirect is a file system that has no O_DIRECT.
var errNotDirect = &sysError{kind: ErrNotSupported, errno: unix.EINVAL}

// setDirect switches O_DIRECT on.
func setDirect(fd int) (alignment, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return alignment{}, err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_DIRECT)
	if err == unix.EINVAL {
		return alignment{}, errNotDirect
	}
	if err != nil {
		return alignment{}, err
	}
	return alignmentOf(fd)
}

// alignmentOf asks the kernel, and tries where it is older than the question
// (Linux 6.1) or the file system does not answer it.
func alignmentOf(fd int) (alignment, error) {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) })
	if err == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		if st.Dio_offset_align == 0 {
			return alignment{}, errNotDirect
		}
		return alignment{int64(st.Dio_offset_align), uintptr(max(st.Dio_mem_align, 1))}, nil
	}
	buf := alignedBuffer(2 * maxSector)
	for _, sector := range []int64{minSector, maxSector} {
		err = retry(func() error { _, err := unix.Pread(fd, buf[sector:2*sector], 0); return err })
		if err != unix.EINVAL {
			return alignment{sector, uintptr(sector)}, err
		}
	}
	return alignment{}, errNotDirect
}

// The sectors that disks have, in bytes.
const (
	minSector = 512
	maxSector = 4096
)

// bounceSize is how much is read or written at a time, in bytes, where it has to
// go through a buffer.
const bounceSize = 256 << 10

// bounces are buffers of bounceSize bytes, aligned to maxSector.
var bounces = sync.Pool{New: func() any { b := alignedBuffer(bounceSize); return &b }}

// alignedBuffer is n bytes that begin at a multiple of maxSector.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+maxSector-1)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (maxSector - 1)
	return b[skip:][:n:n]
}

// directFile is a file that was opened with O_DIRECT.
type directFile struct {
	*osFile
	align alignment

	// partial is held whole by a write of part of a sector, which reads and
	// writes what is around it, and shared by everything else that changes the
	// file. It comes before osFile.open.
	partial sync.RWMutex
}

// whole tells whether a range is made of whole sectors.
func (a alignment) whole(n int, off int64) bool { return (off|int64(n))%a.sector == 0 }

// fits tells whether the kernel takes the memory of p as it is.
func (a alignment) fits(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%a.memory == 0
}

// around is the sectors that [off, off+n) touches, as far as a bounce buffer
// holds them.
func (a alignment) around(n int, off int64) (start, end int64) {
	start = off - off%a.sector
	end = off + int64(n) + a.sector - 1
	return start, min(end-end%a.sector, start+bounceSize)
}

// ReadAt implements File.
func (f *directFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.begin("read"); err != nil {
		return 0, err
	}
	defer f.end()
	if off < 0 {
		return 0, pathError("read", f.name, unix.EINVAL)
	}
	if f.align.whole(len(p), off) && f.align.fits(p) {
		return f.readSectors(p, off)
	}
	bounce := bounces.Get().(*[]byte)
	defer bounces.Put(bounce)
	done := 0
	for done < len(p) {
		at := off + int64(done)
		start, end := f.align.around(len(p)-done, at)
		n, err := f.readSectors((*bounce)[:end-start], start)
		got := (*bounce)[:n]
		if skip := int(at - start); skip < n {
			done += copy(p[done:], got[skip:])
		}
		if err != nil && done < len(p) {
			return done, err
		}
	}
	return done, nil
}

// readSectors fills p from off, both aligned. A read that ends within a sector
// has met the end of the file.
func (f *directFile) readSectors(p []byte, off int64) (int, error) {
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
			if done += n; done < len(p) && int64(n)%f.align.sector != 0 {
				return done, io.EOF
			}
		}
	}
	return done, nil
}

// WriteAt implements File.
func (f *directFile) WriteAt(p []byte, off int64) (int, error) {
	if off >= 0 && !f.align.whole(len(p), off) {
		f.partial.Lock()
		defer f.partial.Unlock()
	} else {
		f.partial.RLock()
		defer f.partial.RUnlock()
	}
	if err := f.beginChange("write"); err != nil {
		return 0, err
	}
	defer f.end()
	switch {
	case off < 0:
		return 0, pathError("write", f.name, unix.EINVAL)
	case !f.align.whole(len(p), off):
		return f.writePartial(p, off)
	case f.align.fits(p):
		return f.writeSectors(p, off)
	}
	bounce := bounces.Get().(*[]byte)
	defer bounces.Put(bounce)
	done := 0
	for done < len(p) {
		n, err := f.writeSectors((*bounce)[:copy(*bounce, p[done:])], off+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// writeSectors stores p at off, both aligned.
func (f *directFile) writeSectors(p []byte, off int64) (int, error) {
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

// writePartial stores p at off, of which one isn't aligned: with the rest of the
// sectors at both ends as it is. The caller holds partial whole.
func (f *directFile) writePartial(p []byte, off int64) (int, error) {
	bounce := bounces.Get().(*[]byte)
	defer bounces.Put(bounce)
	done := 0
	for done < len(p) {
		at := off + int64(done)
		start, end := f.align.around(len(p)-done, at)
		buf := (*bounce)[:end-start]
		n, err := f.readSectors(buf, start)
		if err != nil && err != io.EOF {
			return done, err
		}
		clear(buf[n:]) // past the end of the file
		c := copy(buf[at-start:], p[done:])
		if err := f.writeAround(buf, start, at+int64(c)); err != nil {
			return done, err
		}
		done += c
	}
	return done, nil
}

// writeAround stores whole sectors at start, of which the file gets what lies
// before end, and after it no more than it had.
func (f *directFile) writeAround(buf []byte, start, end int64) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return pathError("write", f.name, err)
	}
	if _, err := f.writeSectors(buf, start); err != nil {
		return err
	}
	size := max(st.Size, end)
	if start+int64(len(buf)) <= size {
		return nil
	}
	return pathError("write", f.name, retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

// Truncate implements File.
func (f *directFile) Truncate(size int64) error {
	f.partial.RLock()
	defer f.partial.RUnlock()
	return f.osFile.Truncate(size)
}

// Allocate implements File.
func (f *directFile) Allocate(off, n int64) error {
	f.partial.RLock()
	defer f.partial.RUnlock()
	return f.osFile.Allocate(off, n)
}

// PunchHole implements File.
func (f *directFile) PunchHole(off, n int64) error {
	f.partial.RLock()
	defer f.partial.RUnlock()
	return f.osFile.PunchHole(off, n)
}

// ReadAtNowait implements NowaitReaderAt: every read waits.
func (f *directFile) ReadAtNowait([]byte, int64) (int, error) {
	if err := f.begin("read"); err != nil {
		return 0, err
	}
	defer f.end()
	return 0, ErrWouldBlock
}

// WriteAtNowait implements NowaitWriterAt: every write waits.
func (f *directFile) WriteAtNowait([]byte, int64) (int, error) {
	if err := f.beginChange("write"); err != nil {
		return 0, err
	}
	defer f.end()
	return 0, ErrWouldBlock
}

// BeginSync implements EarlyWriter: what was written is on its way.
func (f *directFile) BeginSync(int64, int64) {}
