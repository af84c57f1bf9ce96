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

// Allocated is how many bytes of dev are backed by storage; a device that
// doesn't know counts as full.
func Allocated(dev Device) int64 {
	if u, ok := dev.(Usage); ok {
		return u.Allocated()
	}
	return dev.Size()
}
