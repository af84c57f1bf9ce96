package partition

import (
	"encoding/binary"
	"fmt"

	"github.com/diskfs/go-diskfs/partition/mbr"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	maxLinks     = 128 // extended boot records of a disk
	firstLogical = 5   // the number of the first logical partition

	// An extended boot record has four entries like an MBR's, and its
	// signature.
	entriesOffset   = 446
	entrySize       = 16
	entryType       = 4
	entryStart      = 8
	entryCount      = 12
	signatureOffset = 510
)

// run is a range of sectors. It never overflows: what it is made from has 32
// bits, and at most three of those are added.
type run struct{ start, count int64 }

func (r run) end() int64 { return r.start + r.count }

// within tells whether all of r lies in outer.
func (r run) within(outer run) bool { return outer.start <= r.start && r.end() <= outer.end() }

// mbrReader collects the partitions of an MBR.
type mbrReader struct {
	dev      blockdev.Device
	id       string // the disk's identifier
	disk     run
	parts    []Partition
	logicals int            // seen so far
	links    map[int64]bool // sectors of the extended boot records seen so far
}

// readMBR takes the partitions out of table, and the logical ones from dev. As
// to Linux, an entry is used if it has a length.
func readMBR(dev blockdev.Device, table *mbr.Table) ([]Partition, error) {
	r := &mbrReader{dev: dev, disk: run{count: dev.Size() / sectorSize}, links: make(map[int64]bool)}
	if id := table.UUID(); id != "00000000" {
		r.id = id
	}
	for _, p := range table.Partitions {
		if p.Size != 0 && !extended(p.Type) {
			r.add(p.Index, p.Type, run{int64(p.Start), int64(p.Size)})
		}
	}
	for _, p := range table.Partitions {
		if p.Size != 0 && extended(p.Type) {
			if err := r.walk(run{int64(p.Start), int64(p.Size)}); err != nil {
				return nil, err
			}
		}
	}
	return r.parts, nil
}

// extended tells whether a type is a container of logical partitions.
func extended(t mbr.Type) bool {
	return t == mbr.ExtendedCHS || t == mbr.ExtendedLBA || t == mbr.LinuxExtended
}

// add takes a partition that lies within the disk.
func (r *mbrReader) add(number int, t mbr.Type, where run) {
	if !where.within(r.disk) {
		return
	}
	p := Partition{
		Number: number,
		Offset: where.start * sectorSize,
		Length: where.count * sectorSize,
		Type:   fmt.Sprintf("%#02x", byte(t)),
		Scheme: "mbr",
	}
	if r.id != "" {
		p.UUID = fmt.Sprintf("%s-%02x", r.id, number)
	}
	r.parts = append(r.parts, p)
}

// walk follows the chain of extended boot records in an extended partition. A
// link that was met before, that lies outside the disk or has no signature
// ends it, as does an I/O error.
func (r *mbrReader) walk(container run) error {
	for link := container; ; {
		record := run{link.start, 1}
		if !record.within(r.disk) || r.links[link.start] || len(r.links) == maxLinks {
			return nil
		}
		r.links[link.start] = true
		entries, err := r.readRecord(link.start)
		if err != nil || entries == nil {
			return err
		}
		r.addLogicals(entries, link, container)
		next, ok := nextLink(entries, container)
		if !ok {
			return nil
		}
		link = next
	}
}

// entry is one of an extended boot record. Its start counts from the record
// for a partition, and from the extended partition for the next record.
type entry struct {
	kind mbr.Type
	run
}

// readRecord reads the entries of the extended boot record at a sector; none
// if there is no record.
func (r *mbrReader) readRecord(sector int64) ([]entry, error) {
	b := make([]byte, sectorSize)
	if _, err := r.dev.ReadAt(b, sector*sectorSize); err != nil {
		return nil, fmt.Errorf("partition table: extended boot record in sector %d: %w", sector, err)
	}
	if b[signatureOffset] != 0x55 || b[signatureOffset+1] != 0xaa {
		return nil, nil
	}
	var entries []entry
	for at := entriesOffset; at < signatureOffset; at += entrySize {
		e := b[at:][:entrySize]
		entries = append(entries, entry{mbr.Type(e[entryType]), run{
			start: int64(binary.LittleEndian.Uint32(e[entryStart:])),
			count: int64(binary.LittleEndian.Uint32(e[entryCount:])),
		}})
	}
	return entries, nil
}

// addLogicals takes the partitions of the record at the start of link. Most
// records have one, in the first entry; OS/2 uses all four, while others leave
// garbage in the last two, so those must make sense.
func (r *mbrReader) addLogicals(entries []entry, link, container run) {
	for i, e := range entries {
		if e.count == 0 || extended(e.kind) {
			continue
		}
		where := run{link.start + e.start, e.count}
		if i >= 2 && (!where.within(link) || !where.within(container)) {
			continue
		}
		r.add(firstLogical+r.logicals, e.kind, where)
		r.logicals++ // one that is left out keeps its number
	}
}

// nextLink is where the next record is, and what it spans. DR-DOS puts it into
// the first entry, others into the second.
func nextLink(entries []entry, container run) (run, bool) {
	for _, e := range entries {
		if e.count != 0 && extended(e.kind) {
			return run{container.start + e.start, e.count}, true
		}
	}
	return run{}, false
}
