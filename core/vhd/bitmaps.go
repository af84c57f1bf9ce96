package vhd

import (
	"sync"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

const (
	// maxBitmapBytes bounds the sector bitmaps kept in memory.
	maxBitmapBytes = 8 << 20
	// maxDirtyBytes is how much of that may wait for a commit before a writer
	// is made to do one.
	maxDirtyBytes = 4 << 20
)

// sectorBitmap is the bitmap of one allocated block, as reads see it: a bit is
// set once its sector's data has been handed to the file. What is on disk
// lags behind until the next commit.
type sectorBitmap struct {
	// mu guards bits and version. It is a leaf.
	mu      sync.RWMutex
	bits    format.Bitmap
	version uint64 // grows with each change

	block  int64
	sector uint32 // where the block begins: a block that moved has a new bitmap

	// Guarded by bitmapCache.mu.
	pins    int
	changed bool // since it was read from the file
}

// run is Bitmap.Run under the lock.
func (s *sectorBitmap) run(first, limit int) (int, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bits.Run(first, limit)
}

// set sets n bits from first and tells whether any was clear, and whether all
// of the block's sectors are set now.
func (s *sectorBitmap) set(first, n, sectors int) (changed, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if count, set := s.bits.Run(first, first+n); count == n && set {
		return false, false
	}
	s.bits.Set(first, n)
	s.version++
	return true, s.bits.AllSet(sectors)
}

func (s *sectorBitmap) snapshot() (format.Bitmap, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append(format.Bitmap(nil), s.bits...), s.version
}

func (s *sectorBitmap) versionNow() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version
}

// bitmapCache keeps the bitmaps of the leaf's blocks that are neither full nor
// unallocated, within a bound; those that are dirty or pinned stay.
type bitmapCache struct {
	size int64 // bytes of a bitmap

	// mu guards what follows. It is a leaf.
	mu      sync.RWMutex
	byBlock map[int64]*sectorBitmap
	dirty   map[int64]*sectorBitmap // those of byBlock that differ from the file
	left    uint64                  // how many that were changed have left since
}

func newBitmapCache(size int64) *bitmapCache {
	return &bitmapCache{size: size, byBlock: map[int64]*sectorBitmap{}, dirty: map[int64]*sectorBitmap{}}
}

// peek is the bitmap of block b at sector if it is in memory, else nil.
func (c *bitmapCache) peek(b int64, sector uint32) *sectorBitmap {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.byBlock[b]; s != nil && s.sector == sector {
		return s
	}
	return nil
}

// pin is peek for a writer: the bitmap stays until unpin.
func (c *bitmapCache) pin(b int64, sector uint32) *sectorBitmap {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.byBlock[b]
	if s == nil || s.sector != sector {
		return nil
	}
	s.pins++
	return s
}

// generation is what add wants to be told of the moment before a bitmap was
// read from the file.
func (c *bitmapCache) generation() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.left
}

// add is put for a bitmap that was read from the file. It returns nil where
// that may be older than the file: one that was changed has left the cache
// since the generation.
func (c *bitmapCache) add(b int64, sector uint32, bits format.Bitmap, generation uint64, pin bool) *sectorBitmap {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byBlock[b] == nil && generation != c.left {
		return nil
	}
	return c.putLocked(b, sector, bits, pin)
}

// put puts the bitmap of block b at sector in place, unless another came
// first, and returns the one that is there, pinned if asked. What the cache
// has of a place where the block was before is forgotten.
func (c *bitmapCache) put(b int64, sector uint32, bits format.Bitmap, pin bool) *sectorBitmap {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.putLocked(b, sector, bits, pin)
}

func (c *bitmapCache) putLocked(b int64, sector uint32, bits format.Bitmap, pin bool) *sectorBitmap {
	s := c.byBlock[b]
	if s == nil || s.sector != sector {
		c.forget(b)
		s = &sectorBitmap{bits: bits, block: b, sector: sector}
		c.byBlock[b] = s
	}
	if pin {
		s.pins++
	}
	c.evict(s)
	return s
}

// unpin lets go of a pinned bitmap, and makes it dirty if it was changed.
func (c *bitmapCache) unpin(s *sectorBitmap, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.pins--
	if changed {
		s.changed = true
		c.dirty[s.block] = s
	}
}

// evict drops bitmaps, but for keep, until the cache is within its bound. The
// caller holds mu. Which go is left to the map's order: no worse than the
// oldest under random access, and nothing to keep up on a read.
func (c *bitmapCache) evict(keep *sectorBitmap) {
	if int64(len(c.byBlock))*c.size <= maxBitmapBytes || len(c.byBlock) == len(c.dirty) {
		return
	}
	for b, s := range c.byBlock {
		if s != keep && s.pins == 0 && c.dirty[b] == nil {
			c.forget(b)
			if int64(len(c.byBlock))*c.size <= maxBitmapBytes {
				return
			}
		}
	}
}

// drop forgets block b's bitmap: the block is no longer allocated.
func (c *bitmapCache) drop(b int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(b)
}

// forget takes block b's bitmap out. The caller holds mu.
func (c *bitmapCache) forget(b int64) {
	if s := c.byBlock[b]; s != nil && s.changed {
		c.left++
	}
	delete(c.byBlock, b)
	delete(c.dirty, b)
}

// crowded tells whether the dirty ones have reached their bound.
func (c *bitmapCache) crowded() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return int64(len(c.dirty))*c.size >= maxDirtyBytes
}

// isDirty tells whether a commit has bitmaps to write.
func (c *bitmapCache) isDirty() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.dirty) > 0
}

// pendingBitmap is a dirty bitmap as it was at one moment.
type pendingBitmap struct {
	of      *sectorBitmap
	bits    format.Bitmap
	version uint64
}

// pending copies the dirty bitmaps: every bit in them is of data that the file
// has been handed.
func (c *bitmapCache) pending() []pendingBitmap {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.dirty) == 0 {
		return nil
	}
	list := make([]pendingBitmap, 0, len(c.dirty))
	for _, s := range c.dirty {
		bits, version := s.snapshot()
		list = append(list, pendingBitmap{s, bits, version})
	}
	return list
}

// committed makes those of the list clean that are still as they were copied.
func (c *bitmapCache) committed(list []pendingBitmap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range list {
		if c.dirty[p.of.block] == p.of && p.of.versionNow() == p.version {
			delete(c.dirty, p.of.block)
		}
	}
}
