package vhd

import (
	"fmt"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// DefaultBlockSize is the block size that every reader knows, in bytes.
	DefaultBlockSize = 2 << 20
	// MaxCreateSize is the largest disk that every reader takes, in bytes:
	// 2040 GiB.
	MaxCreateSize = 2040 << 30
)

// CreateOptions say what image Create makes.
type CreateOptions struct {
	FS        storage.FS      // nil is storage.OS
	Type      format.DiskType // format.Fixed or format.Dynamic
	Size      int64           // bytes of disk: a multiple of 512, at most MaxCreateSize
	BlockSize int64           // bytes: a power of two from 512 to 256 MiB; 0 is DefaultBlockSize
}

// Create makes a new image that reads as zeros. It takes its name only when it
// is complete and stable; a name that is taken is fs.ErrExist.
func Create(name string, o CreateOptions) error {
	if o.FS == nil {
		o.FS = storage.OS
	}
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if err := checkGeometry(o.Size, o.BlockSize); err != nil {
		return &ImageError{Image: name, Err: err}
	}
	switch o.Type {
	case format.Fixed:
		return publish(o.FS, name, func(f storage.File) error { return writeFixed(f, o.Size) })
	case format.Dynamic:
		d := newSparse(format.Dynamic, o.Size, o.BlockSize)
		return publish(o.FS, name, d.write)
	}
	return &ImageError{Image: name, Err: fmt.Errorf("a new image is fixed or dynamic, not %v", o.Type)}
}

// checkGeometry refuses a size or a block size that no image can have.
func checkGeometry(size, block int64) error {
	switch {
	case size < format.SectorSize || size%format.SectorSize != 0:
		return fmt.Errorf("a disk of %d bytes: the size must be a multiple of 512", size)
	case size > MaxCreateSize:
		return fmt.Errorf("%w: a disk of %d bytes: the format's limit is 2040 GiB", ErrTooLarge, size)
	case block < format.SectorSize || block > 256<<20 || block&(block-1) != 0:
		return fmt.Errorf("a block size of %d bytes: it must be a power of two from 512 to 256 MiB", block)
	case (size+block-1)/block > maxBATEntries:
		return fmt.Errorf("%w: %d blocks of %d bytes: choose larger blocks", ErrTooLarge, (size+block-1)/block, block)
	}
	return nil
}

func writeFixed(f storage.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	var b [format.FooterSize]byte
	format.NewFooter(size, format.Fixed, time.Now()).Encode(b[:])
	_, err := f.WriteAt(b[:], size)
	return err
}

// sparse is a dynamic or differencing image without blocks, to be written:
// footer, header, BAT, locators, footer.
type sparse struct {
	footer   *format.Footer
	header   *format.Header
	locators [8][]byte // data of the parent locators
}

func newSparse(t format.DiskType, size, block int64) *sparse {
	f := format.NewFooter(size, t, time.Now())
	return &sparse{footer: f, header: format.NewHeader(size, block)}
}

// batEnd is where the BAT ends, in bytes of the file.
func (d *sparse) batEnd() int64 {
	return roundUp(int64(d.header.TableOffset)+4*int64(d.header.MaxTableEntries), format.SectorSize)
}

func (d *sparse) write(f storage.File) error {
	end := d.batEnd()
	for i, data := range d.locators {
		if len(data) == 0 {
			continue
		}
		loc := &d.header.Locators[i]
		loc.DataOffset = uint64(end)
		loc.DataLength = uint32(len(data))
		loc.DataSpace = uint32(roundUp(int64(len(data)), format.SectorSize))
		if _, err := f.WriteAt(data, end); err != nil {
			return err
		}
		end += int64(loc.DataSpace)
	}
	if err := d.writeEmptyBAT(f); err != nil {
		return err
	}
	var footer [format.FooterSize]byte
	var header [format.HeaderSize]byte
	d.footer.Encode(footer[:])
	d.header.Encode(header[:])
	for _, w := range []struct {
		b   []byte
		off int64
	}{{footer[:], 0}, {header[:], int64(d.footer.DataOffset)}, {footer[:], end}} {
		if _, err := f.WriteAt(w.b, w.off); err != nil {
			return err
		}
	}
	return nil
}

func (d *sparse) writeEmptyBAT(f storage.File) error {
	chunk := make([]byte, 64<<10)
	for i := range chunk {
		chunk[i] = 0xff
	}
	end := d.batEnd()
	for off := int64(d.header.TableOffset); off < end; {
		n := min(end-off, int64(len(chunk)))
		if _, err := f.WriteAt(chunk[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}
