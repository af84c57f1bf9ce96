// Package rawfile is a disk whose bytes are those of a file or of a block
// device: a raw image, as dd and `qemu-img convert -O raw` make one.
//
//	dev, err := rawfile.Open("disk.img", rawfile.Options{})
//	if err != nil {
//		return err
//	}
//	defer dev.Close()
//
// There is no metadata, and so no order to keep between writes: a sector is
// the last bytes that were written to it, and stable after the next Flush.
package rawfile

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
)

// ErrTooSmall is a file that does not hold a sector.
var ErrTooSmall = errors.New("smaller than a sector of 512 bytes")

// Options say how a file is opened.
type Options struct {
	// FS is where the file is; nil: storage.OS.
	FS storage.FS
	// ReadOnly opens without write access, and beside other readers.
	ReadOnly bool
}

// Device is an open file as a disk. It is safe for concurrent use.
//
// It is a Discarder and a ZeroWriter, which punch holes where the file system
// has them; an ExtentMapper, for which holes are blockdev.Hole; a NowaitReader
// and a NowaitWriter as far as the file is one; and knows its Usage from the file system.
type Device struct {
	file     storage.File
	size     int64 // bytes
	readOnly bool

	// failed is the sync that failed: from then on nothing is written.
	failed atomic.Pointer[error]

	// gate keeps the file open: operations hold it to read, Close to write. It
	// guards closed. Nothing is locked under it.
	gate   sync.RWMutex
	closed bool
}

var (
	_ blockdev.Device       = (*Device)(nil)
	_ blockdev.Discarder    = (*Device)(nil)
	_ blockdev.ZeroWriter   = (*Device)(nil)
	_ blockdev.ExtentMapper = (*Device)(nil)
	_ blockdev.NowaitReader = (*Device)(nil)
	_ blockdev.NowaitWriter = (*Device)(nil)
	_ blockdev.Usage        = (*Device)(nil)
)

// Open opens the file or block device of that name, and locks it against other writers: a
// conflict is a *storage.InUseError. Bytes after the last whole sector are not
// part of the disk. The size is the one that the file has now.
func Open(path string, o Options) (*Device, error) {
	if o.FS == nil {
		o.FS = storage.OS
	}
	flag, access := storage.ReadWrite, storage.Exclusive
	if o.ReadOnly {
		flag, access = 0, storage.Shared
	}
	file, err := openFile(o.FS, path, flag)
	if err != nil {
		return nil, err
	}
	d := &Device{file: file, readOnly: o.ReadOnly}
	if err := d.start(access); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return d, nil
}

// openFile opens a file or, where the file system can, a block device.
func openFile(fsys storage.FS, path string, flag storage.Flag) (storage.File, error) {
	file, err := fsys.Open(path, flag)
	if !errors.Is(err, storage.ErrNotRegular) {
		return file, err
	}
	devices, ok := fsys.(storage.DeviceOpener)
	if !ok {
		return nil, err
	}
	device, deviceErr := devices.OpenDevice(path, flag)
	if errors.Is(deviceErr, storage.ErrNotRegular) {
		return nil, err // which says what it is
	}
	return device, deviceErr
}

// start locks the file before it looks at it.
func (d *Device) start(access storage.Access) error {
	if err := d.file.Lock(access); err != nil {
		return d.wrap(err)
	}
	size, err := d.file.Size()
	if err != nil {
		return err
	}
	d.size = size &^ (blockdev.SectorSize - 1)
	if d.size == 0 {
		return d.wrap(fmt.Errorf("%w: %d bytes", ErrTooSmall, size))
	}
	return nil
}

// Size implements blockdev.Device.
func (d *Device) Size() int64 { return d.size }

// Err is the failed sync since which a device that could be written to no
// longer can; else nil.
func (d *Device) Err() error {
	if p := d.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Allocated implements blockdev.Usage: what the file system keeps for the file.
func (d *Device) Allocated() int64 {
	info, err := d.file.Stat()
	if err != nil {
		return d.size
	}
	return min(info.Allocated, d.size)
}

// Flush implements blockdev.Device. The first that fails is the last that
// could have: the kernel may have dropped what it could not write, and no
// later sync can tell.
func (d *Device) Flush() error {
	if err := d.enter(0, 0); err != nil {
		return err
	}
	defer d.gate.RUnlock()
	return d.flush()
}

// flush syncs the file. The gate is held.
func (d *Device) flush() error {
	if d.readOnly {
		return nil
	}
	if err := d.Err(); err != nil {
		return err
	}
	err := d.file.Sync()
	if err == nil {
		// One that failed meanwhile may have been told of our writes.
		return d.Err()
	}
	err = d.wrap(fmt.Errorf("%w since a sync failed, and what was written before it may be lost: %w", blockdev.ErrReadOnly, err))
	d.failed.CompareAndSwap(nil, &err)
	return d.Err()
}

// Close implements blockdev.Device. It waits for what is under way. What could
// not be flushed is its error; the file is closed all the same.
func (d *Device) Close() error {
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return errors.Join(d.flush(), d.file.Close())
}

// enter begins an operation on [off, off+n), which ends by d.gate.RUnlock.
func (d *Device) enter(off, n int64) error {
	d.gate.RLock()
	err := d.check(off, n)
	if err != nil {
		d.gate.RUnlock()
	}
	return err
}

// check is the state and the range that an operation needs. The gate is held.
func (d *Device) check(off, n int64) error {
	if d.closed {
		return d.wrap(blockdev.ErrClosed)
	}
	return blockdev.CheckRange(d.size, off, n)
}

// enterWrite is enter for an operation that changes the disk.
func (d *Device) enterWrite(off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	err := d.Err()
	if d.readOnly {
		err = d.wrap(fmt.Errorf("opened read-only: %w", blockdev.ErrReadOnly))
	}
	if err != nil {
		d.gate.RUnlock()
	}
	return err
}

// wrap names the file, which errors of the file itself do already.
func (d *Device) wrap(err error) error { return fmt.Errorf("%s: %w", d.file.Name(), err) }
