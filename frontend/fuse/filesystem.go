package fuse

import (
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
	"github.com/vhdmount/vhdmount/core/io/partition"
)

// filesystem is what the kernel asks: a directory with the disk, its
// partitions and info.json, or the disk alone as the root. It knows the FUSE
// protocol's operations and nothing of how they travel.
type filesystem struct {
	fuse.RawFileSystem // answers ENOSYS to what isn't here

	dev        blockdev.Device
	log        *slog.Logger
	errors     errorLog
	transport  transport
	inval      *invalidator
	info       func() []byte
	partitions func(blockdev.Device) ([]partition.Partition, error)

	single   bool // the disk is the root
	readOnly bool
	uid, gid uint32
	fileMode uint32 // permission bits
	dirMode  uint32
	onlyUID  uint32 // with deny: the one user beside root who may come in
	deny     bool

	disk     *node
	modified atomic.Int64 // when the disk's content last changed here, Unix nanoseconds

	// nodes is every node that the kernel may name, by number. It is replaced
	// under mu, never changed, so that reads and writes take no lock.
	nodes atomic.Pointer[map[uint64]*node]

	// tableDirty says that the disk was written to since its partition table
	// was read.
	tableDirty atomic.Bool
	// tableMu lets one request at a time read the table. It is held over the
	// device's reads, and mu is locked under it.
	tableMu sync.Mutex

	// mu guards the fields below and those of nodes and handles that say so.
	// No I/O is done under it, and only the invalidator's lock is taken.
	mu       sync.Mutex
	parts    []*node // what the table says now, ascending
	nextNode uint64
	handles  map[uint64]*handle
	opening  map[uint32]*handle // what each thread has opened last, while it may still be in open(2)
	nextFh   uint64
}

// Node numbers, which are inode numbers too. A partition's is never used
// again, so that what is open of a partition that moved stays what it was.
const (
	rootNode      = fuse.FUSE_ROOT_ID
	diskNode      = 2
	infoNode      = 3
	firstPartNode = 16
)

// The names in the directory.
const (
	diskName = "disk.raw"
	infoName = "info.json"
)

// node is a file or the directory.
type node struct {
	id        uint64
	name      string
	dev       blockdev.Device // nil for the directory and info.json
	off, size int64           // the bytes of the disk that it is
	fixed     bool            // never forgotten

	// siblings are the open files that share bytes with this one.
	siblings atomic.Pointer[[]*node]

	// The fields below are guarded by filesystem.mu.
	lookups uint64 // references that the kernel holds
	gone    bool   // no longer in the directory
	opens   int
	writers int  // of opens
	stale   bool // the kernel's pages of it may be old
}

// handle is an open file or directory.
type handle struct {
	node    *node
	write   bool
	pid     uint32          // thread that opened it; 0 where the kernel has no number for it here
	content []byte          // info.json, as it was when opened
	entries []fuse.DirEntry // the directory, as it was when opened
	// dataAt is where SEEK_DATA gave up looking and called it data; -1: nowhere.
	dataAt atomic.Int64
}

func newFilesystem(o *Options, dev blockdev.Device, single bool) *filesystem {
	f := &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		dev:           dev,
		log:           o.Log,
		errors:        errorLog{log: o.Log},
		info:          o.Info,
		partitions:    o.Partitions,
		single:        single,
		readOnly:      o.ReadOnly,
		uid:           orOwn(o.UID, os.Geteuid()),
		gid:           orOwn(o.GID, os.Getegid()),
		nextNode:      firstPartNode,
		handles:       make(map[uint64]*handle),
		opening:       make(map[uint32]*handle),
	}
	f.fileMode, f.dirMode = modes(o)
	f.modified.Store(time.Now().UnixNano())
	f.disk = &node{id: diskNode, name: diskName, dev: dev, size: dev.Size(), fixed: true}
	nodes := map[uint64]*node{}
	if single {
		f.disk.id = rootNode
	} else {
		nodes[rootNode] = &node{id: rootNode, fixed: true}
		nodes[infoNode] = &node{id: infoNode, name: infoName, fixed: true}
		f.tableDirty.Store(true)
	}
	nodes[f.disk.id] = f.disk
	f.nodes.Store(&nodes)
	return f
}

// orOwn is the user or group asked for, or the process's own.
func orOwn(asked *uint32, own int) uint32 {
	if asked != nil {
		return *asked
	}
	return uint32(own)
}

// modes are the permission bits of files and of the directory. Who lets others
// in has not said that they may write: a umask must.
func modes(o *Options) (file, dir uint32) {
	var taken fs.FileMode
	switch {
	case o.Umask != nil:
		taken = *o.Umask & fs.ModePerm
	case o.AllowOther:
		taken = 0o022
	default:
		taken = 0o077
	}
	if o.ReadOnly {
		taken |= 0o222
	}
	// Nobody can make or remove a name in the directory, and its bits say so.
	return uint32(0o666 &^ taken), uint32(0o555 &^ taken)
}

// String is the file system's name in go-fuse's messages.
func (f *filesystem) String() string { return "vhdmount" }

// node is the node of a number, nil if there is none.
func (f *filesystem) node(id uint64) *node { return (*f.nodes.Load())[id] }

// setNode adds n to the nodes. f.mu is held.
func (f *filesystem) setNode(n *node) {
	nodes := maps.Clone(*f.nodes.Load())
	nodes[n.id] = n
	f.nodes.Store(&nodes)
}

// dropNode takes n out if nothing needs it any more. f.mu is held.
func (f *filesystem) dropNode(n *node) {
	if n.fixed || !n.gone || n.lookups > 0 || n.opens > 0 {
		return
	}
	nodes := maps.Clone(*f.nodes.Load())
	delete(nodes, n.id)
	f.nodes.Store(&nodes)
}

// slow runs what may take long, while another thread answers.
func (f *filesystem) slow(why reason, op func() error) error {
	if f.transport.handOver(why) {
		defer f.transport.takeBack(why)
	}
	return op()
}

// fail is the status for an error of the device, which it reports.
func (f *filesystem) fail(op operation, n *node, off, length int64, err error) fuse.Status {
	status := toStatus(op, err)
	if status != fuse.EINTR {
		f.errors.failed(op, n.name, off, length, err)
	}
	return status
}

// panicked turns a panic in a handler into that client's EIO.
func (f *filesystem) panicked(v any) fuse.Status {
	f.log.Error("fuse: panic in a request", "panic", v, "stack", string(debug.Stack()))
	return fuse.EIO
}

// refused tells whether a caller may not come in: allow_root is no option of
// the kernel's, which knows everybody or the owner alone.
func (f *filesystem) refused(c *fuse.InHeader) bool {
	return f.deny && c.Uid != f.onlyUID && c.Uid != 0
}
