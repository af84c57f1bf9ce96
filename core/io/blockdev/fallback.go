package blockdev

// zeroChunk is how much WriteZeroes writes at once on a device that has no
// shorter way, in bytes.
const zeroChunk = 64 << 10

var zeros [zeroChunk]byte

// Discard tells dev that [off, off+n) is no longer needed. A device without
// the ability keeps its bytes, and Discard reports false.
func Discard(dev Device, off, n int64) (bool, error) {
	d, ok := dev.(Discarder)
	if !ok {
		return false, CheckRange(dev.Size(), off, n)
	}
	return true, d.Discard(off, n)
}

// WriteZeroes makes [off, off+n) of dev read as zeros, by writing them where
// dev is no ZeroWriter.
func WriteZeroes(dev Device, off, n int64) error {
	if z, ok := dev.(ZeroWriter); ok {
		return z.WriteZeroes(off, n)
	}
	if err := CheckRange(dev.Size(), off, n); err != nil {
		return err
	}
	for n > 0 {
		c := min(n, zeroChunk)
		if _, err := dev.WriteAt(zeros[:c], off); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

// ReadAtNowait is dev's ReadAtNowait; a device without the ability answers
// ErrWouldBlock.
func ReadAtNowait(dev Device, p []byte, off int64) (int, error) {
	if r, ok := dev.(NowaitReader); ok {
		return r.ReadAtNowait(p, off)
	}
	return 0, ErrWouldBlock
}

// WriteAtNowait is dev's WriteAtNowait; a device without the ability answers
// ErrWouldBlock.
func WriteAtNowait(dev Device, p []byte, off int64) (int, error) {
	if w, ok := dev.(NowaitWriter); ok {
		return w.WriteAtNowait(p, off)
	}
	return 0, ErrWouldBlock
}

// Allocated is how many bytes of dev are backed by storage; a device that
// doesn't know counts as full.
func Allocated(dev Device) int64 {
	if u, ok := dev.(Usage); ok {
		return u.Allocated()
	}
	return dev.Size()
}

// maxUsageExtents bounds how many extents AllocatedIn looks at.
const maxUsageExtents = 4096

// AllocatedIn is how many bytes of [off, off+n), a range within dev, are backed
// by storage: what a RangeUsage says, else the extents that aren't holes, and
// never more than Allocated. So that it stays cheap on a large and scattered
// device, what lies behind the first 4096 extents counts as held: then it is an
// upper bound.
func AllocatedIn(dev Device, off, n int64) int64 {
	if u, ok := dev.(RangeUsage); ok {
		return u.AllocatedIn(off, n)
	}
	sum, seen, end := int64(0), 0, off
	for e, err := range Extents(dev, off, n) {
		if err != nil || seen == maxUsageExtents {
			break
		}
		if e.Kind != Hole {
			sum += e.Length
		}
		seen, end = seen+1, e.End()
	}
	return min(sum+off+n-end, Allocated(dev))
}
