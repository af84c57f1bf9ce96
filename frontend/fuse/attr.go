package fuse

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

const (
	// fixedFor is how long the kernel may believe what can't change: the
	// names that are always there, and the directory's attributes. What
	// changes under it (a file's blocks and times, the partitions' names) it
	// asks for each time, which no read or write does. (truncating needs it to
	// ask for a disk's attributes.)
	fixedFor = time.Hour

	blockSize = 4096 // st_blksize, bytes
	statUnit  = 512  // unit of st_blocks and of statfs here, bytes
)

// Lookup finds a name in the directory.
func (f *filesystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if f.refused(h) {
		return fuse.EACCES
	}
	if h.NodeId != rootNode || f.single {
		return fuse.ENOTDIR
	}
	f.rereadTable()
	f.mu.Lock()
	n := f.named(name)
	if n == nil {
		f.mu.Unlock()
		return fuse.ENOENT
	}
	n.lookups++
	f.mu.Unlock()
	out.NodeId = n.id
	if n.fixed {
		out.SetEntryTimeout(fixedFor)
	}
	f.attr(n, &out.Attr)
	return fuse.OK
}

// named is the node of a name in the directory. f.mu is held.
func (f *filesystem) named(name string) *node {
	switch name {
	case diskName:
		return f.disk
	case infoName:
		return f.node(infoNode)
	}
	for _, n := range f.parts {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Forget gives back references that Lookup gave out.
func (f *filesystem) Forget(id, count uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.node(id)
	if n == nil {
		return
	}
	n.lookups -= min(n.lookups, count)
	f.dropNode(n)
}

// GetAttr describes a node.
func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.refused(&in.InHeader) {
		return fuse.EACCES
	}
	n := f.node(in.NodeId)
	if n == nil {
		return statusStale
	}
	f.hasOpened(in.Pid)
	f.attr(n, &out.Attr)
	switch {
	case n.id == infoNode && in.Flags()&fuse.FUSE_GETATTR_FH != 0:
		if h := f.handle(in.Fh()); h != nil {
			out.Size = uint64(len(h.content))
		}
	case n.id == rootNode && !f.single && !f.deny: // else the kernel would tell what it knows to those who are refused
		out.SetTimeout(fixedFor)
	}
	return fuse.OK
}

// attr describes n as it is now.
func (f *filesystem) attr(n *node, a *fuse.Attr) {
	*a = fuse.Attr{Ino: n.id, Nlink: 1, Owner: fuse.Owner{Uid: f.uid, Gid: f.gid}, Blksize: blockSize}
	t := f.modified.Load()
	a.Mtime, a.Mtimensec = uint64(t/1e9), uint32(t%1e9)
	a.Atime, a.Atimensec, a.Ctime, a.Ctimensec = a.Mtime, a.Mtimensec, a.Mtime, a.Mtimensec
	switch {
	case n.dev != nil:
		a.Mode = fuse.S_IFREG | f.fileMode
		a.Size = uint64(n.size)
		a.Blocks = uint64(blockdev.Allocated(n.dev)+statUnit-1) / statUnit
	case n.id == infoNode:
		a.Mode = fuse.S_IFREG | f.fileMode&^0o222
		a.Size = uint64(len(f.info()))
	default:
		a.Mode = fuse.S_IFDIR | f.dirMode
		a.Nlink = 2
	}
}

// SetAttr refuses to change what stands for a disk. Setting to what is there
// already is fine, and so are times, which are the disk's and stay as they
// are: programs copy them along.
func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.refused(&in.InHeader) {
		return fuse.EACCES
	}
	n := f.node(in.NodeId)
	if n == nil {
		return statusStale
	}
	f.attr(n, &out.Attr)
	if m, ok := in.GetMode(); ok && m != out.Mode&0o7777 {
		return fuse.EPERM
	}
	if uid, ok := in.GetUID(); ok && uid != f.uid {
		return fuse.EPERM
	}
	if gid, ok := in.GetGID(); ok && gid != f.gid {
		return fuse.EPERM
	}
	if size, ok := in.GetSize(); ok {
		return f.truncate(n, in, size)
	}
	return fuse.OK
}

// truncate allows what leaves the size as it is, and open's O_TRUNC.
func (f *filesystem) truncate(n *node, in *fuse.SetAttrIn, size uint64) fuse.Status {
	switch _, ftruncate := in.GetFh(); {
	case n.dev == nil:
		return fuse.EPERM
	case f.readOnly:
		return fuse.EROFS
	case size == uint64(n.size):
		return fuse.OK
	case size == 0 && !ftruncate && f.truncating(n, in.Pid):
		return fuse.OK
	}
	return fuse.EPERM
}

// StatFs tells the disk's size and how much of it is not backed yet.
func (f *filesystem) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if f.refused(h) {
		return fuse.EACCES
	}
	size := f.dev.Size()
	free := uint64(size-blockdev.Allocated(f.dev)) / statUnit
	f.mu.Lock()
	defer f.mu.Unlock()
	*out = fuse.StatfsOut{
		Blocks: uint64(size) / statUnit, Bfree: free, Bavail: free,
		Files: uint64(len(*f.nodes.Load())), Bsize: statUnit, Frsize: statUnit, NameLen: 255,
	}
	return fuse.OK
}
