package fuse

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Open opens the disk, a partition or info.json.
func (f *filesystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.refused(&in.InHeader) {
		return fuse.EACCES
	}
	n := f.node(in.NodeId)
	if n == nil {
		return statusStale
	}
	h := &handle{node: n, pid: in.Pid, write: in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	h.dataAt.Store(-1)
	switch {
	case n.dev != nil && h.write && f.readOnly:
		return fuse.EROFS
	case n.dev != nil:
		out.OpenFlags = fuse.FOPEN_PARALLEL_DIRECT_WRITES
		if f.opened(h) {
			out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		}
		// What was written through a sibling that was closed before this
		// open began must not be read from old pages.
		f.settle()
	case n.id == infoNode && h.write:
		return fuse.EACCES
	case n.id == infoNode:
		// Its size changes from one opening to the next, so the kernel must
		// not cut what is read at the size that it knows.
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
		h.content = f.info()
	default:
		return fuse.EISDIR
	}
	out.Fh = f.addHandle(h)
	return fuse.OK
}

// Release ends an opening, some time after the last close(2) of it.
func (f *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h := f.dropHandle(in.Fh); h != nil && h.node.dev != nil {
		f.closed(h)
	}
}

// Flush is sent at each close(2). As with a block device, close promises
// nothing of stable storage: fsync does. What was written is told to files
// that share the bytes before close returns.
func (f *filesystem) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if n := f.node(in.NodeId); n != nil && n.siblings.Load() != nil {
		f.settle()
	}
	return fuse.OK
}

// Fsync returns once all that was written, through whichever file, is on
// stable storage. Once that failed for good it is EIO for ever.
func (f *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := f.node(in.NodeId)
	if n == nil || n.dev == nil {
		return fuse.OK
	}
	err := f.slow(forDevice, f.dev.Flush)
	if n.siblings.Load() != nil {
		f.settle()
	}
	if err != nil {
		return f.fail(opSyncing, n, 0, 0, err)
	}
	return fuse.OK
}

// OpenDir takes the directory's entries down, so that one listing is of one
// moment.
func (f *filesystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.refused(&in.InHeader) {
		return fuse.EACCES
	}
	if in.NodeId != rootNode || f.single {
		return fuse.ENOTDIR
	}
	f.rereadTable()
	h := &handle{node: f.node(rootNode)}
	h.entries = []fuse.DirEntry{
		{Name: ".", Ino: rootNode, Mode: fuse.S_IFDIR},
		{Name: "..", Mode: fuse.S_IFDIR},
		{Name: diskName, Ino: diskNode, Mode: fuse.S_IFREG},
		{Name: infoName, Ino: infoNode, Mode: fuse.S_IFREG},
	}
	f.mu.Lock()
	for _, n := range f.parts {
		h.entries = append(h.entries, fuse.DirEntry{Name: n.name, Ino: n.id, Mode: fuse.S_IFREG})
	}
	f.mu.Unlock()
	out.Fh = f.addHandle(h)
	return fuse.OK
}

// ReadDir lists from the entry that in.Offset counts to.
func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h := f.handle(in.Fh)
	if h == nil || h.entries == nil {
		return fuse.EBADF
	}
	for i := in.Offset; i < uint64(len(h.entries)); i++ {
		e := h.entries[i]
		e.Off = i + 1
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

// ReleaseDir ends an opening of the directory.
func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) { f.dropHandle(in.Fh) }

// handle is the open file of a number, nil if there is none.
func (f *filesystem) handle(fh uint64) *handle {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.handles[fh]
}

func (f *filesystem) addHandle(h *handle) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextFh++
	f.handles[f.nextFh] = h
	if h.pid != 0 {
		f.opening[h.pid] = h
	}
	return f.nextFh
}

func (f *filesystem) dropHandle(fh uint64) *handle {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.handles[fh]
	delete(f.handles, fh)
	if h != nil && f.opening[h.pid] == h {
		delete(f.opening, h.pid)
	}
	return h
}

// truncating tells whether a SETATTR of n to no size by the thread pid is
// open's O_TRUNC, which changes nothing, and not truncate(2), which is refused.
//
// O_TRUNC arrives as an OPEN without a trace of it, and a SETATTR after it that
// is like truncate's. (The kernel's other way, which passes O_TRUNC to OPEN,
// believes the file to be empty until it asks again.) But truncate checks its
// permission first, for which the kernel asks for the attributes, as it may not
// keep a disk's (see fixedFor); open did that before its OPEN. So what comes
// from a thread right after its OPEN is O_TRUNC, once.
func (f *filesystem) truncating(n *node, pid uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pid == 0 {
		return f.openedOutside(n)
	}
	h := f.opening[pid]
	delete(f.opening, pid)
	return h != nil && h.node == n
}

// openedOutside tells whether a thread that has no number in the mount's PID
// namespace has n open. They can't be told apart, and rather than have an open
// fail for what another does, truncate is answered like O_TRUNC. f.mu is held.
func (f *filesystem) openedOutside(n *node) bool {
	for _, h := range f.handles {
		if h.node == n && h.pid == 0 {
			return true
		}
	}
	return false
}

// hasOpened notes that the thread pid is out of open(2).
func (f *filesystem) hasOpened(pid uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.opening, pid)
}
