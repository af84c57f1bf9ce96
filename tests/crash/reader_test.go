package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Offsets and numbers of the format, here once more: this reader shares
// nothing with the engine. Microsoft VHD specification 1.0.
const (
	footerSize        = 512
	footerDataOffset  = 16 // of the dynamic header
	footerCurrentSize = 48
	footerDiskType    = 60
	fixedDisk         = 2

	headerTableOffset = 16
	headerMaxEntries  = 28
	headerBlockSize   = 32

	unallocated = 0xffffffff
)

var errNoFooter = errors.New("no footer, neither at the end nor at the start")

// readImages is the disk that an image and its parents, nearest first, show to
// one who knows nothing but footers, BATs and sector bitmaps.
func readImages(names ...string) (disk []byte, err error) {
	for i := len(names) - 1; i >= 0; i-- {
		file, err := os.ReadFile(names[i])
		if err == nil {
			disk, err = overlay(disk, file)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", names[i], err)
		}
	}
	return disk, nil
}

// overlay is parent's disk, nil for none, with what an image has over it.
func overlay(parent, file []byte) ([]byte, error) {
	footer, err := findFooter(file)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint64(footer[footerCurrentSize:])
	if binary.BigEndian.Uint32(footer[footerDiskType:]) == fixedDisk {
		return file[:size], nil
	}
	disk := make([]byte, size)
	copy(disk, parent)
	header := file[binary.BigEndian.Uint64(footer[footerDataOffset:]):]
	blockSize := int(binary.BigEndian.Uint32(header[headerBlockSize:]))
	bat := file[binary.BigEndian.Uint64(header[headerTableOffset:]):]
	for b := range int(binary.BigEndian.Uint32(header[headerMaxEntries:])) {
		if sector := binary.BigEndian.Uint32(bat[4*b:]); sector != unallocated {
			overlayBlock(disk[min(b*blockSize, len(disk)):], file[int(sector)*sectorSize:], blockSize)
		}
	}
	return disk, nil
}

// overlayBlock copies the sectors whose bits are set to the disk. A block is its bitmap, in
// whole sectors, and its data.
func overlayBlock(disk, block []byte, blockSize int) {
	sectors := blockSize / sectorSize
	data := block[(sectors/8+sectorSize-1)/sectorSize*sectorSize:]
	for s := range min(sectors, len(disk)/sectorSize) {
		if block[s/8]&(0x80>>(s%8)) != 0 {
			copy(disk[s*sectorSize:][:sectorSize], data[s*sectorSize:])
		}
	}
}

func findFooter(file []byte) ([]byte, error) {
	if len(file) >= footerSize {
		for _, footer := range [][]byte{file[len(file)-footerSize:], file[:footerSize]} {
			if string(footer[:8]) == "conectix" {
				return footer, nil
			}
		}
	}
	return nil, errNoFooter
}
