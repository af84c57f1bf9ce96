package storage

import "golang.org/x/sys/unix"

// The byte ranges of QEMU's block/file-posix.c, so that either program
// refuses an image that the other has open. A permission held is a shared
// lock on permBase plus its bit; a permission denied to others is one on
// deniedBase plus its bit; and each side looks, after it has taken its own,
// for a lock of another that contradicts them. Shared locks throughout: they
// work on a descriptor without write access.
const (
	permBase   = 100 // RAW_LOCK_PERM_BASE
	deniedBase = 200 // RAW_LOCK_SHARED_BASE

	permRead   = 0 // BLK_PERM_CONSISTENT_READ
	permWrite  = 1 // BLK_PERM_WRITE
	permResize = 3 // BLK_PERM_RESIZE

)

// byteSet is a set of offsets to lock, few and in no order.
type byteSet []int64

func (s byteSet) has(b int64) bool {
	for _, x := range s {
		if x == b {
			return true
		}
	}
	return false
}

// lockBytes are the bytes to lock for access, and those that nobody else may
// have locked meanwhile. Exclusive denies reading too: qemu opens a file as
// raw, to copy it for one, without asking that nobody writes.
func lockBytes(access Access) (take, conflict byteSet) {
	held, denied := []int64{permRead}, []int64{permWrite, permResize}
	if access == Exclusive {
		held, denied = []int64{permRead, permWrite, permResize}, []int64{permRead, permWrite, permResize}
	}
	for _, p := range held {
		take, conflict = append(take, permBase+p), append(conflict, deniedBase+p)
	}
	for _, p := range denied {
		take, conflict = append(take, deniedBase+p), append(conflict, permBase+p)
	}
	return take, conflict
}

// Lock implements File. The locks belong to the open file description, so
// that two opens in one process exclude each other too. A file system without
// locks gives them to everyone.
func (f *osFile) Lock(access Access) error {
	if err := f.begin("lock"); err != nil {
		return err
	}
	defer f.end()
	f.locking.Lock()
	defer f.locking.Unlock()

	take, conflict := lockBytes(access)
	taken, refused, err := f.takeBytes(take)
	if err == nil && !refused {
		refused, err = f.anyLocked(conflict)
	}
	if err == nil && !refused {
		f.release(f.locked, take)
		f.locked = take
		return nil
	}
	f.release(taken, nil)
	switch {
	case lockless(err):
		return nil
	case err != nil:
		return pathError("lock", f.name, err)
	}
	return &InUseError{Name: f.name, Access: access, Holders: f.holders(conflict)}
}

// takeBytes locks those bytes that the file doesn't have yet, and returns
// them. It is refused where another program has one of them for itself.
func (f *osFile) takeBytes(want byteSet) (taken byteSet, refused bool, err error) {
	for _, b := range want {
		if f.locked.has(b) {
			continue
		}
		lk := unix.Flock_t{Type: unix.F_RDLCK, Start: b, Len: 1}
		switch err := f.fcntl(unix.F_OFD_SETLK, &lk); err {
		case nil:
			taken = append(taken, b)
		case unix.EAGAIN, unix.EACCES:
			return taken, true, nil
		default:
			return taken, false, err
		}
	}
	return taken, false, nil
}

// anyLocked tells whether another open file has one of the bytes locked.
func (f *osFile) anyLocked(bytes byteSet) (bool, error) {
	for _, b := range bytes {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Start: b, Len: 1}
		if err := f.fcntl(unix.F_OFD_GETLK, &lk); err != nil {
			return false, err
		}
		if lk.Type != unix.F_UNLCK {
			return true, nil
		}
	}
	return false, nil
}

// release unlocks those of bytes that are not to be kept. Failing to is no
// error of the caller's: the lock goes with the descriptor.
func (f *osFile) release(bytes, keep byteSet) {
	for _, b := range bytes {
		if !keep.has(b) {
			lk := unix.Flock_t{Type: unix.F_UNLCK, Start: b, Len: 1}
			_ = f.fcntl(unix.F_OFD_SETLK, &lk)
		}
	}
}

// unlock gives everything back. Closing the descriptor does too, but not
// before a child of this process, forked and not yet executed, has gone
// through its exec.
func (f *osFile) unlock() {
	f.locking.Lock()
	defer f.locking.Unlock()
	f.release(f.locked, nil)
	f.locked = nil
}

func (f *osFile) fcntl(cmd int, lk *unix.Flock_t) error {
	return retry(func() error { return unix.FcntlFlock(uintptr(f.fd), cmd, lk) })
}

// lockless is the answer of a file system, or a kernel, that has no locks.
func lockless(err error) bool {
	switch err {
	case unix.ENOLCK, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP:
		return true
	}
	return false
}
