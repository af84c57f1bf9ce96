package storage

import (
	"fmt"
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
// sector reads the rest first, and has the file for itself meanwhile. Memory that
// is given to a write must not change before it returns, or a file system with
// checksums takes it for damaged. Block devices (DeviceOpener) are not opened.
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
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: errNotDirect}
	}
	a, err := setDirect(file.fd)
	if err != nil {
		_ = f.Close()
		return nil, pathError("open", f.Name(), err)
	}
	return &directFile{osFile: file, align: a}, nil
}

// alignment is what the kernel demands of direct reads and writes, in bytes.
type alignment struct {
	sector int64   // of offsets and lengths
	memory uintptr // of addresses
}

// errNotDirect is a file system that has no O_DIRECT. It unwraps to
// ErrNotSupported.
var errNotDirect = fmt.Errorf("its file system has no way past the page cache (O_DIRECT): %w", ErrNotSupported)

// setDirect switches O_DIRECT on.
func setDirect(fd int) (alignment, error) {
	err := switchDirect(fd, true)
	if err == unix.EINVAL {
		return alignment{}, errNotDirect
	}
	if err != nil {
		return alignment{}, err
	}
	return alignmentOf(fd)
}

// switchDirect switches O_DIRECT on or off.
func switchDirect(fd int, on bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return err
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
	buf, n := alignedBuffer(2*maxSector), 0
	for _, sector := range []int64{minSector, maxSector} {
		err = retry(func() (err error) { n, err = unix.Pread(fd, buf[sector:2*sector], 0); return err })
		switch {
		case err == unix.EINVAL:
		case n == 0: // an empty file may answer whatever was asked
			return alignment{maxSector, maxSector}, err
		default:
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

// goesOn tells whether a transfer that stopped short can go on with p at off.
func (f *directFile) goesOn(p []byte, off int64) bool {
	return f.align.whole(len(p), off) && f.align.fits(p)
}

// shortAt is why a read ended within a sector, at off: the end of the file, or an
// error. Whoever took one for the other would put zeros in the place of data.
func (f *directFile) shortAt(off int64) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return pathError("read", f.name, err)
	}
	if off < st.Size {
		return pathError("read", f.name, io.ErrUnexpectedEOF)
	}
	return io.EOF
}

// readSectors fills p from off, both aligned.
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
			if done += n; done < len(p) && !f.goesOn(p[done:], off+int64(done)) {
				return done, f.shortAt(off + int64(done))
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
		return f.write(p, off)
	}
	bounce := bounces.Get().(*[]byte)
	defer bounces.Put(bounce)
	done := 0
	for done < len(p) {
		n, err := f.write((*bounce)[:copy(*bounce, p[done:])], off+int64(done))
		if done += n; err != nil {
			return done, err
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
		c := min(len(p)-done, int(end-at))
		if n < len(buf) {
			err = f.writeLast(p[done:][:c], at)
		} else {
			copy(buf[at-start:], p[done:][:c])
			_, err = f.write(buf, start)
		}
		if err != nil {
			return done, err
		}
		done += c
	}
	return done, nil
}

// writeLast stores p at off where the file ends within the sector: through the
// page cache, since to write all of the sector and cut the file again would leave
// it too long if the process was killed between, and its footer not at its end.
// The next direct access has the kernel write the page first. The caller holds
// partial whole.
func (f *directFile) writeLast(p []byte, off int64) error {
	if err := switchDirect(f.fd, false); err != nil {
		return pathError("write", f.name, err)
	}
	_, err := f.write(p, off)
	if directErr := switchDirect(f.fd, true); err == nil && directErr != nil {
		err = pathError("write", f.name, directErr)
	}
	return err
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
