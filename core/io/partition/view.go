package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/diskfs/go-diskfs/backend"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	maxEntryBytes = 1 << 20 // of a GPT's entries; 128 entries, as most have, take 16 KiB

	// Where a GPT header has what must be checked before the library sees it.
	headerSelf       = 24 // sector of this header
	headerEntries    = 72 // first sector of the entries
	headerEntryCount = 80
	headerEntrySize  = 84

	gptEntrySize = 128 // the only size that the library, and Linux, read
)

// view is a device as a file that the library can read. It keeps the first
// error of the device, which the library hides among its own.
type view struct {
	dev blockdev.Device
	// headers are the sectors of GPT headers, by their number: as they were
	// when they were checked, however the disk changes, or zeros.
	headers map[int64][]byte
	refused string // why headers are zeros, for an error's text
	err     error
}

var _ backend.File = (*view)(nil)

// newGPTView is dev with its GPT headers checked: one that can't be accepted, or
// read, shows as zeros, so that the library turns to the backup.
func newGPTView(dev blockdev.Device) *view {
	v := &view{dev: dev, headers: make(map[int64][]byte)}
	last := dev.Size()/sectorSize - 1
	for _, sector := range []int64{1, last} {
		b := make([]byte, sectorSize)
		_, err := dev.ReadAt(b, sector*sectorSize)
		if err == nil {
			err = checkHeader(b, sector, dev.Size())
		}
		if err != nil {
			v.refused += fmt.Sprintf("; header in sector %d: %v", sector, err)
			clear(b)
		}
		v.headers[sector] = b
	}
	return v
}

// checkHeader checks the fields of the GPT header in a sector by which the
// library allocates and reads, on a device of size bytes. All else about the
// header is the library's to check.
func checkHeader(b []byte, sector, size int64) error {
	le := binary.LittleEndian
	if self := le.Uint64(b[headerSelf:]); self != uint64(sector) {
		return fmt.Errorf("it says that it is in sector %d", self)
	}
	count, each := int64(le.Uint32(b[headerEntryCount:])), le.Uint32(b[headerEntrySize:])
	if each != gptEntrySize || count > maxEntryBytes/gptEntrySize {
		return fmt.Errorf("%d entries of %d bytes", count, each)
	}
	entries := le.Uint64(b[headerEntries:])
	if entries > uint64(size/sectorSize) {
		return fmt.Errorf("entries in sector %d of %d", entries, size/sectorSize)
	}
	return blockdev.CheckRange(size, int64(entries)*sectorSize, count*gptEntrySize)
}

// ReadAt implements backend.File.
func (v *view) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.dev.ReadAt(p, off)
	if err != nil {
		if v.err == nil {
			v.err = err
		}
		return n, err
	}
	for sector, header := range v.headers {
		if at := sector*sectorSize - off; at >= 0 && at < int64(len(p)) {
			copy(p[at:], header)
		}
	}
	return n, nil
}

// Seek implements backend.File as far as the library goes: it asks for the
// size.
func (v *view) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekEnd {
		return 0, errors.ErrUnsupported
	}
	return v.dev.Size(), nil
}

// Stat implements backend.File. The library never calls it.
func (*view) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

// Read implements backend.File. The library never calls it.
func (*view) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Close implements backend.File. The device stays open.
func (*view) Close() error { return nil }
