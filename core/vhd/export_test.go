package vhd

// What tests of the package's bounds look at.

const (
	MaxBitmapBytes = maxBitmapBytes
	MaxDirtyBytes  = maxDirtyBytes
	MaxRuns        = maxRuns
)

// BitmapMemory is the bytes of sector bitmaps in memory, and of these the ones
// that wait for a commit.
func (m *Image) BitmapMemory() (all, dirty int64) {
	c := m.bitmaps
	c.mu.RLock()
	defer c.mu.RUnlock()
	return int64(len(c.byBlock)) * c.size, int64(len(c.dirty)) * c.size
}

// ChainRuns is how many runs of the parents are in memory, counted.
func (m *Image) ChainRuns() int {
	c := m.under
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := 0
	for _, runs := range c.cache {
		n += len(runs)
	}
	return n
}

// HasBitmap tells whether block b's sector bitmap is in memory.
func (m *Image) HasBitmap(b int64) bool {
	m.bitmaps.mu.RLock()
	defer m.bitmaps.mu.RUnlock()
	return m.bitmaps.byBlock[b] != nil
}
