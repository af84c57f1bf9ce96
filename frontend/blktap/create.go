package blktap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Flags of a device info.
const (
	flagReadOnly = 1 << 0
	flagPhysical = 1 << 1 // the physical sector size is given
	flagFlush    = 1 << 2
	flagTrim     = 1 << 3
	// flagNobody is a flag that no module has. The modules that know what they
	// can write back the flags which they support; XenServer's leaves the
	// flags as it got them, this one among them: then none of the others
	// means anything.
	flagNobody = 1 << 62
)

// The device info of ioctl 208. XenServer's module has the physical sector
// size in what is padding to the others, which have theirs behind the flags,
// where XenServer's has reserved words.
const (
	infoSize            = 56
	infoCapacity        = 0  // u64, sectors
	infoSectorSize      = 8  // u32, bytes
	infoPhysicalXen     = 12 // u32, bytes
	infoFlags           = 16 // unsigned long
	infoPhysical        = 24 // u32, bytes
	infoTrimGranularity = 32 // u32, bytes
)

// The parameters of ioctl 202.
const (
	paramsSize       = 272
	paramsCapacity   = 256 // u64, sectors
	paramsSectorSize = 264 // unsigned long, bytes
)

// enoioctlcmd is how old kernels say ENOTTY.
const enoioctlcmd = unix.Errno(515)

// deviceInfo is the block device to be made.
type deviceInfo struct {
	capacity uint64 // sectors
	physical uint32 // sector size in bytes
	readOnly bool
	trim     bool // wanted
}

// features is what the module made of it.
type features struct {
	flush, trim bool
	// writable is a block device that lets writes through although the disk
	// is read-only: the module could not be told.
	writable bool
}

// createDevice makes the block device and finds out what the ring can, by
// asking for everything.
func createDevice(p Port, d deviceInfo) (features, error) {
	b := d.info()
	err := p.CreateDevice(b)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, enoioctlcmd) {
		if err := p.CreateDeviceCompat(d.params()); err != nil {
			return features{}, fmt.Errorf("create device: %w", err)
		}
		return features{writable: d.readOnly}, nil
	}
	if err != nil {
		return features{}, fmt.Errorf("create device: %w", err)
	}
	flags := binary.NativeEndian.Uint64(b[infoFlags:])
	if flags&flagNobody != 0 {
		return features{}, nil
	}
	return features{
		flush:    flags&flagFlush != 0,
		trim:     flags&flagTrim != 0,
		writable: d.readOnly && flags&flagReadOnly == 0,
	}, nil
}

func (d deviceInfo) info() []byte {
	flags := uint64(flagPhysical | flagFlush | flagNobody)
	if d.readOnly {
		flags |= flagReadOnly
	}
	if d.trim {
		flags |= flagTrim
	}
	b := make([]byte, infoSize)
	binary.NativeEndian.PutUint64(b[infoCapacity:], d.capacity)
	binary.NativeEndian.PutUint32(b[infoSectorSize:], sectorSize)
	binary.NativeEndian.PutUint32(b[infoPhysicalXen:], d.physical)
	binary.NativeEndian.PutUint64(b[infoFlags:], flags)
	binary.NativeEndian.PutUint32(b[infoPhysical:], d.physical)
	binary.NativeEndian.PutUint32(b[infoTrimGranularity:], d.physical)
	return b
}

func (d deviceInfo) params() []byte {
	b := make([]byte, paramsSize)
	binary.NativeEndian.PutUint64(b[paramsCapacity:], d.capacity)
	binary.NativeEndian.PutUint64(b[paramsSectorSize:], sectorSize)
	return b
}
