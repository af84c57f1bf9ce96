package storagetest

import "hash/maphash"

// sumSeed makes sums differ from one process to the next.
var sumSeed = maphash.MakeSeed()

// Sum is a hash of the size and the bytes of the file called name: equal files
// have equal sums, whatever their names, and different ones others but for one
// chance in 2^64. A state of a Cut has it at hand as long as it isn't changed.
// Sums of different processes have nothing in common.
func (m *Memory) Sum(name string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.regular(name)
	if err != nil {
		return 0, pathError("sum", name, err)
	}
	return ino.sumNow(), nil
}

func (ino *inode) sumNow() uint64 {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	if !ino.known.summed {
		ino.known.sum, ino.known.summed = ino.data.sum(), true
	}
	return scatter(ino.known.sum + uint64(ino.size))
}

// sum is that of the sectors' sums.
func (s *sparse) sum() uint64 {
	var sum uint64
	for i, p := range s.all {
		sum += sumSector(i, p)
	}
	return sum
}

// sumSector is a hash of a sector and its place; that of zeros is 0, as that
// of a hole.
func sumSector(i int64, p *sector) uint64 {
	if p == nil || *p == *zeroSector {
		return 0
	}
	return scatter(maphash.Bytes(sumSeed, p[:]) + uint64(i)*0x9e3779b97f4a7c15)
}

// scatter makes of a number another one, in which each bit depends on all of
// its bits.
func scatter(n uint64) uint64 {
	n = (n ^ n>>33) * 0xff51afd7ed558ccd
	n = (n ^ n>>33) * 0xc4ceb9fe1a85ec53
	return n ^ n>>33
}
