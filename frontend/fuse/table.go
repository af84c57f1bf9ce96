package fuse

import (
	"fmt"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
)

// rereadTable brings the directory up to date with the partition table, if
// anything was written since it was read: which sectors tables and their
// extensions live in is the reader's knowledge, and it reads few of them. A
// table that can't be read leaves the partitions as they were.
func (f *filesystem) rereadTable() {
	if !f.tableDirty.Load() {
		return
	}
	err := f.slow(forDevice, f.readTable)
	if err != nil {
		f.errors.failed(opPartitions, diskName, 0, 0, err)
	}
}

func (f *filesystem) readTable() error {
	f.tableMu.Lock()
	defer f.tableMu.Unlock()
	if !f.tableDirty.Swap(false) {
		return nil // another request was first
	}
	parts, err := f.partitions(f.dev)
	if err != nil {
		f.tableDirty.Store(true)
		return err
	}
	f.setPartitions(parts)
	return nil
}

// setPartitions makes the directory show parts. A partition that is where it
// was stays the same file; one that moved or went is no longer found, and who
// has it open goes on with the bytes that it was.
func (f *filesystem) setPartitions(parts []partition.Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.parts
	f.parts = nil
	for _, p := range parts {
		if n := f.partitionNode(old, p); n != nil {
			f.parts = append(f.parts, n)
		}
	}
	for _, n := range old {
		if f.named(n.name) != n {
			n.gone = true
			f.dropNode(n)
		}
	}
}

// partitionNode is the node for p: one of old, or a new one; nil where p is no
// range of the disk. f.mu is held.
func (f *filesystem) partitionNode(old []*node, p partition.Partition) *node {
	name := fmt.Sprintf("p%d.raw", p.Number)
	for _, n := range old {
		if n.name == name && n.off == p.Offset && n.size == p.Length {
			return n
		}
	}
	section, err := blockdev.NewSection(f.dev, p.Offset, p.Length)
	if err != nil {
		f.log.Warn("fuse: partition left out", "number", p.Number, "error", err)
		return nil
	}
	n := &node{id: f.nextNode, name: name, dev: section, off: p.Offset, size: p.Length}
	f.nextNode++
	f.setNode(n)
	return n
}
