// Package partition reads the partition table of a disk: MBR with logical
// partitions, and GPT, as Linux would read them. Sectors are of 512 bytes.
//
// The tables are decoded by go-diskfs, which reads the four entries of an MBR
// and a GPT with its backup. What it can't do is done here:
//
//   - It knows no logical partitions: the chain of extended boot records is
//     walked here, at most 128 links of it.
//   - It trusts a GPT header with a good checksum, and panics or takes any
//     amount of memory by its entry count; and it doesn't turn to the backup
//     where the primary's entries lie outside the disk. So it gets to see only
//     headers whose numbers were checked, the others as zeros (see view).
//   - It doesn't compare partitions with the disk. Those that reach outside are
//     left out here.
//
// A disk with an entry of type 0xee in its MBR is a GPT disk, whatever else is
// there: the other entries of a hybrid MBR are partitions of the GPT again.
package partition

import (
	"errors"
	"fmt"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	sectorSize = blockdev.SectorSize
	minGPTSize = 3 * sectorSize // an MBR and two headers
)

// ErrDamaged is a disk whose MBR says that it has a GPT, where neither the GPT
// nor its backup can be read.
var ErrDamaged = errors.New("the GPT and its backup are damaged")

// Partition is an entry of a partition table. Its strings are the disk's, and
// may hold anything; the numbers were checked.
type Partition struct {
	// Number is the entry's place in the table, from 1, as in sda1. Logical
	// partitions count from 5. A number may be missing.
	Number int
	// Offset and Length are in bytes, and lie within the device.
	Offset, Length int64
	// Type is "0x83" in an MBR, and a UUID in lower case in a GPT.
	Type string
	// Name is the GPT's; empty in an MBR.
	Name string
	// UUID is what Linux calls PARTUUID: a UUID in lower case, or
	// "0123abcd-05", the disk's identifier and the number, in an MBR. It is
	// empty in an MBR without an identifier.
	UUID string
	// Scheme is "mbr" or "gpt".
	Scheme string
}

// Read reads dev's partition table. A device without one has no partitions and
// is no error. Partitions are in ascending order of Number; those that reach
// outside the device are left out, and an extended partition is not one. The
// error is the device's own or ErrDamaged.
//
// Read keeps nothing: it may be called again after the table was changed, and
// beside writers.
func Read(dev blockdev.Device) ([]Partition, error) {
	v := &view{dev: dev}
	table, err := mbr.Read(v, sectorSize, sectorSize)
	if v.err != nil {
		return nil, fmt.Errorf("partition table: %w", v.err)
	}
	if err != nil { // no signature, or a boot flag that is none: a file system, perhaps
		return nil, nil
	}
	for _, p := range table.Partitions {
		if p.Type == mbr.GPTProtective {
			return readGPT(dev)
		}
	}
	return readMBR(dev, table)
}

// readGPT reads a GPT or its backup.
func readGPT(dev blockdev.Device) ([]Partition, error) {
	if dev.Size() < minGPTSize {
		return nil, fmt.Errorf("partition table: %w: a disk of %d bytes has no room for them", ErrDamaged, dev.Size())
	}
	v := newGPTView(dev)
	table, err := gpt.Read(v, sectorSize, sectorSize)
	if v.err != nil {
		return nil, fmt.Errorf("partition table: %w", v.err)
	}
	if err != nil {
		return nil, fmt.Errorf("partition table: %w: %v%s", ErrDamaged, err, v.refused)
	}
	var parts []Partition
	sectors := uint64(dev.Size() / sectorSize)
	for _, p := range table.Partitions {
		if p.Start > p.End || p.End >= sectors {
			continue
		}
		parts = append(parts, Partition{
			Number: p.Index,
			Offset: int64(p.Start) * sectorSize,
			Length: int64(p.End-p.Start+1) * sectorSize,
			Type:   strings.ToLower(string(p.Type)),
			Name:   p.Name,
			UUID:   strings.ToLower(p.GUID),
			Scheme: "gpt",
		})
	}
	return parts, nil
}
