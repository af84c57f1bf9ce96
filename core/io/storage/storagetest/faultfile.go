package storagetest

import (
	"io"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// dropper is a file that can lose what wasn't synced.
type dropper interface{ dropUnsynced() }

// faultFile is an open file of a Fault. Name is the wrapped file's.
type faultFile struct {
	storage.File
	fault *Fault
}

func (f *faultFile) call(op Op, off, n int64) Call {
	return Call{Op: op, Path: f.Name(), Off: off, Len: n}
}

// transfer is a read or write of which a rule may let a part through.
func (f *faultFile) transfer(op Op, p []byte, off int64, do func([]byte, int64) (int, error)) (n int, err error) {
	err = f.fault.part(f.call(op, off, int64(len(p))), func(part int) (err error) {
		if part < 0 {
			part = len(p)
		}
		n, err = do(p[:part], off)
		return err
	})
	return n, err
}

// ReadAt implements storage.File.
func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	return f.transfer(OpRead, p, off, f.File.ReadAt)
}

// ReadAtNowait implements storage.NowaitReaderAt.
func (f *faultFile) ReadAtNowait(p []byte, off int64) (int, error) {
	read := func([]byte, int64) (int, error) { return 0, storage.ErrWouldBlock }
	if r, ok := f.File.(storage.NowaitReaderAt); ok {
		read = r.ReadAtNowait
	}
	return f.transfer(OpReadNowait, p, off, read)
}

// WriteAt implements storage.File.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	return f.transfer(OpWrite, p, off, f.File.WriteAt)
}

// WriteAtNowait implements storage.NowaitWriterAt: what is to fail fails by the
// rules of OpWrite.
func (f *faultFile) WriteAtNowait(p []byte, off int64) (int, error) {
	w, ok := f.File.(storage.NowaitWriterAt)
	if !ok {
		return 0, storage.ErrWouldBlock
	}
	return f.transfer(OpWrite, p, off, w.WriteAtNowait)
}

// Size implements storage.File.
func (f *faultFile) Size() (size int64, err error) {
	err = f.fault.do(f.call(OpSize, 0, 0), func() (err error) {
		size, err = f.File.Size()
		return err
	})
	return size, err
}

// Truncate implements storage.File.
func (f *faultFile) Truncate(size int64) error {
	return f.fault.do(f.call(OpTruncate, size, 0), func() error { return f.File.Truncate(size) })
}

// Sync implements storage.File.
func (f *faultFile) Sync() error {
	reached := false
	err := f.fault.do(f.call(OpSync, 0, 0), func() error {
		reached = true
		return f.File.Sync()
	})
	if !reached {
		f.dropUnsynced()
	}
	return err
}

// dropUnsynced passes on to a file that can.
func (f *faultFile) dropUnsynced() {
	if d, ok := f.File.(dropper); ok {
		d.dropUnsynced()
	}
}

// Allocate implements storage.File.
func (f *faultFile) Allocate(off, n int64) error {
	return f.fault.do(f.call(OpAllocate, off, n), func() error { return f.File.Allocate(off, n) })
}

// PunchHole implements storage.File.
func (f *faultFile) PunchHole(off, n int64) error {
	return f.fault.do(f.call(OpPunchHole, off, n), func() error { return f.File.PunchHole(off, n) })
}

// NextData implements storage.HoleFinder.
func (f *faultFile) NextData(off int64) (start, end int64, err error) {
	err = f.fault.do(f.call(OpNextData, off, 0), func() (err error) {
		start, end, err = nextData(f.File, off)
		return err
	})
	return start, end, err
}

// nextData asks the file or, where it can't tell, says that all is data.
func nextData(f storage.File, off int64) (start, end int64, err error) {
	if h, ok := f.(storage.HoleFinder); ok {
		return h.NextData(off)
	}
	size, err := f.Size()
	if err == nil && off >= size {
		err = io.EOF
	}
	return off, size, err
}

// Lock implements storage.File.
func (f *faultFile) Lock(access storage.Access) error {
	return f.fault.do(f.call(OpLock, 0, 0), func() error { return f.File.Lock(access) })
}

// Stat implements storage.File.
func (f *faultFile) Stat() (info storage.Info, err error) {
	err = f.fault.do(f.call(OpStat, 0, 0), func() (err error) {
		info, err = f.File.Stat()
		return err
	})
	return info, err
}

// Close implements storage.File. A rule that fails it leaves the file open
// below, unless it says After.
func (f *faultFile) Close() error {
	return f.fault.do(f.call(OpClose, 0, 0), f.File.Close)
}
