package vhd

import (
	"errors"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// WriteAtNowait is WriteAt where the file takes the bytes into memory, in a
// block that is there and whose map is known, and nobody has to be waited for;
// else blockdev.ErrWouldBlock. A write-through image always blocks.
func (m *Image) WriteAtNowait(p []byte, off int64) (int, error) {
	if m.durability == Writethrough || m.bitmaps != nil && m.bitmaps.crowded() {
		return 0, blockdev.ErrWouldBlock
	}
	if err := m.enterWriteNow(off, int64(len(p)), true); err != nil {
		return 0, err
	}
	defer m.leave()
	if err := m.writeNow(p, off); err != nil {
		return 0, err
	}
	m.commits.unsynced.Store(true) // see leaveWrite
	return len(p), nil
}

// writeNow is writeDisk without waiting.
func (m *Image) writeNow(p []byte, off int64) error {
	blocks := m.leaf.blocks
	switch {
	case len(p) == 0: // at the end of the disk there is no block
		return nil
	case blocks == nil:
		return m.writeFileNow(p, off)
	}
	b, in := off/blocks.blockSize, off%blocks.blockSize
	if in+int64(len(p)) > blocks.blockSize {
		return blockdev.ErrWouldBlock // in two blocks: nothing may be written, or all
	}
	sector := blocks.entry(b)
	if sector == format.UnallocatedBlock {
		return blockdev.ErrWouldBlock
	}
	if blocks.full.has(b) {
		return m.writeFileNow(p, blocks.dataOffset(sector)+in)
	}
	if !aligned(in, int64(len(p))) || !m.stripe[b%stripes].TryRLock() {
		return blockdev.ErrWouldBlock
	}
	defer m.stripe[b%stripes].RUnlock()
	if sector = blocks.entry(b); sector == format.UnallocatedBlock {
		return blockdev.ErrWouldBlock
	}
	s := m.bitmaps.pin(b, sector)
	if s == nil {
		return blockdev.ErrWouldBlock
	}
	return m.changePinned(s, in, int64(len(p)), func(data int64) error { return m.writeFileNow(p, data+in) })
}

// writeFileNow is writeFile without waiting.
func (m *Image) writeFileNow(p []byte, off int64) error {
	f, ok := m.leaf.file.(storage.NowaitWriterAt)
	if !ok {
		return blockdev.ErrWouldBlock
	}
	_, err := f.WriteAtNowait(p, off)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrWouldBlock):
		return blockdev.ErrWouldBlock
	default:
		return m.ioError("", err)
	}
}
