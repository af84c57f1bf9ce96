package blockdev

import (
	"fmt"
	"iter"
	"slices"
	"sync"
)

// pageSize is the unit in which a Memory holds and gives up space, in bytes.
const pageSize = 64 << 10

type page [pageSize]byte

// Memory is a Device in memory. It is sparse: a page of 64 KiB that was never
// written, or was given back whole by Discard or WriteZeroes, takes no space.
// Its contents end with Close.
//
// It has every optional ability: Discarder (each whole sector becomes zeros),
// ZeroWriter, ExtentMapper (a page is Data, what has none is a Hole),
// NowaitReader and NowaitWriter (which always answer) and Usage (whole pages,
// at most Size).
type Memory struct {
	size int64

	// mu guards pages, what they hold, and closed. Nothing is locked under it
	// and no caller's code is run under it.
	mu     sync.RWMutex
	pages  map[int64]*page // by index: offset / pageSize
	closed bool
}

var (
	_ Device       = (*Memory)(nil)
	_ Discarder    = (*Memory)(nil)
	_ ZeroWriter   = (*Memory)(nil)
	_ ExtentMapper = (*Memory)(nil)
	_ NowaitReader = (*Memory)(nil)
	_ NowaitWriter = (*Memory)(nil)
	_ Usage        = (*Memory)(nil)
)

// NewMemory returns a Memory of size bytes that reads as zeros. It panics if
// size is not a positive multiple of SectorSize.
func NewMemory(size int64) *Memory {
	if size <= 0 || size%SectorSize != 0 {
		panic(fmt.Sprintf("blockdev: memory of %d bytes: not a positive multiple of %d", size, SectorSize))
	}
	return &Memory{size: size, pages: make(map[int64]*page)}
}

// ReadAt implements Device.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	for s := range pageSpans(off, int64(len(p))) {
		dst := p[s.start-off:][:s.n]
		if pg := m.pages[s.page]; pg != nil {
			copy(dst, pg[s.inPage():])
		} else {
			clear(dst)
		}
	}
	return len(p), nil
}

// WriteAt implements Device. Its own errors are ErrOutOfRange and ErrClosed,
// after which nothing was written.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	for s := range pageSpans(off, int64(len(p))) {
		pg := m.pages[s.page]
		if pg == nil {
			pg = new(page)
			m.pages[s.page] = pg
		}
		copy(pg[s.inPage():], p[s.start-off:][:s.n])
	}
	return len(p), nil
}

// Size implements Device.
func (m *Memory) Size() int64 { return m.size }

// Flush implements Device. Memory has nothing more stable than itself, so it
// only fails after Close.
func (m *Memory) Flush() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.check(0, 0)
}

// Close implements Device. It lets go of the contents.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.pages = true, nil
	return nil
}

// Discard implements Discarder: whole sectors become zeros, whole pages are
// given back.
func (m *Memory) Discard(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, n); err != nil {
		return err
	}
	first := (off + SectorSize - 1) / SectorSize * SectorSize
	end := (off + n) / SectorSize * SectorSize
	if first < end {
		m.zero(first, end-first)
	}
	return nil
}

// WriteZeroes implements ZeroWriter. Whole pages are given back.
func (m *Memory) WriteZeroes(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, n); err != nil {
		return err
	}
	m.zero(off, n)
	return nil
}

// Extents implements ExtentMapper. All extents were true at the moment at
// which the iteration began.
func (m *Memory) Extents(off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		held, err := m.held(off, n)
		if err != nil {
			yield(Extent{}, err)
			return
		}
		for off, end := off, off+n; off < end; {
			e := memoryExtent(held, off, end)
			if !yield(e, nil) {
				return
			}
			off = e.End()
		}
	}
}

// ReadAtNowait implements NowaitReader. All of a Memory is in memory, so it
// never answers ErrWouldBlock.
func (m *Memory) ReadAtNowait(p []byte, off int64) (int, error) { return m.ReadAt(p, off) }

// WriteAtNowait implements NowaitWriter.
func (m *Memory) WriteAtNowait(p []byte, off int64) (int, error) { return m.WriteAt(p, off) }

// Allocated implements Usage.
func (m *Memory) Allocated() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	sum := int64(len(m.pages)) * pageSize
	if past := m.size % pageSize; past != 0 && m.pages[m.size/pageSize] != nil {
		sum -= pageSize - past // the last page reaches past the end
	}
	return sum
}

// check is the state and the range that every access needs. m.mu is held.
func (m *Memory) check(off, n int64) error {
	if m.closed {
		return ErrClosed
	}
	return CheckRange(m.size, off, n)
}

// zero clears [off, off+n) and drops the pages in it. m.mu is held to write.
func (m *Memory) zero(off, n int64) {
	for _, i := range m.within(off, n) {
		first := max(off-i*pageSize, 0)
		end := min(off+n-i*pageSize, pageSize)
		if first == 0 && (end == pageSize || off+n == m.size) {
			delete(m.pages, i)
		} else {
			clear(m.pages[i][first:end])
		}
	}
}

// held is within, once the range was checked.
func (m *Memory) held(off, n int64) ([]int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(off, n); err != nil {
		return nil, err
	}
	return m.within(off, n), nil
}

// within is the ascending indices of the pages that exist and overlap
// [off, off+n). It takes as long as there are pages, however long the range.
// m.mu is held.
func (m *Memory) within(off, n int64) []int64 {
	if n == 0 {
		return nil
	}
	first, last := off/pageSize, (off+n-1)/pageSize
	var found []int64
	if last-first < int64(len(m.pages)) {
		for i := first; i <= last; i++ {
			if m.pages[i] != nil {
				found = append(found, i)
			}
		}
		return found
	}
	for i := range m.pages {
		if first <= i && i <= last {
			found = append(found, i)
		}
	}
	slices.Sort(found)
	return found
}

// memoryExtent is the longest extent from off, before end, where the pages
// that exist are held, ascending.
func memoryExtent(held []int64, off, end int64) Extent {
	i, found := slices.BinarySearch(held, off/pageSize)
	if !found {
		if i < len(held) {
			end = min(end, held[i]*pageSize)
		}
		return Extent{Offset: off, Length: end - off, Kind: Hole, Depth: -1}
	}
	last := held[i]
	for i++; i < len(held) && held[i] == last+1; i++ {
		last = held[i]
	}
	end = off + min(end-off, last*pageSize-off+pageSize)
	return Extent{Offset: off, Length: end - off, Kind: Data, FileOffset: off}
}

// span is the part of a range that lies in one page.
type span struct {
	page     int64 // index
	start, n int64 // bytes of the device
}

func (s span) inPage() int64 { return s.start - s.page*pageSize }

// pageSpans cuts [off, off+n) at the borders of pages.
func pageSpans(off, n int64) iter.Seq[span] {
	return func(yield func(span) bool) {
		for end := off + n; off < end; {
			c := min(end-off, pageSize-off%pageSize)
			if !yield(span{page: off / pageSize, start: off, n: c}) {
				return
			}
			off += c
		}
	}
}
