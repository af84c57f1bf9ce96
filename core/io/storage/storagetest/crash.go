package storagetest

import (
	"bytes"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// Crash is a Memory that records every call that changes it and yields every
// file system that a power cut at any point could have left. It is safe for
// concurrent use; the record has the calls in the order in which they took
// effect.
//
//	c := storagetest.NewCrash()
//	// … run a program on c …
//	for point := range c.Points() + 1 {
//		cut := c.Cut(point)
//		for i := range cut.States() { // or Random, where they are too many
//			m := cut.State(storagetest.Nth(i)) // look at m
//		}
//	}
//
// # What a power cut leaves
//
// The disk writes sectors of 512 bytes, each whole or not at all, and what
// wasn't synced in any order. So, after the cut:
//
//   - Each sector of a file, on its own, is as of the file's last Sync or as
//     any write since has left it: a write of two sectors has four outcomes.
//     What one write after another adds to a sector adds up, as it does in the
//     page cache. A hole punched is a write of zeros.
//   - The file's size, on its own, is as of its last Sync or as any call since
//     has left it. Sizes are a journal: one that is kept implies those
//     before it. Data past the size is lost, and what a larger size exposes is
//     zeros where its data wasn't kept; what a kept Truncate has cut off does not
//     come back when a later call extends the file.
//   - Names are a journal too, one for the whole file system: what Create,
//     Rename, Link and Remove did is kept up to some call, and lost from there
//     on. SyncDir makes stable what was done to names in its directory, and so
//     all calls before. A Sync of a file makes none of its names stable; a
//     file whose name was lost is lost.
//   - Sync makes the file's bytes and size stable, at the moment it is called.
//
// After a Sync that a Fault has failed, the file reads as of the Sync before
// (at its present size), while the disk may have any part of what was written.
type Crash struct {
	live *Memory
	base map[string]stable // by name

	// mu guards what follows and makes a call and its record one step. It is
	// outside the locks of live.
	mu     sync.Mutex
	log    []call
	syncs  map[string]int // by the file's name
	replay *replay        // where the last Cut was made
	last   *Cut
}

type callKind int

const (
	callWrite callKind = iota
	callTruncate
	callAllocate
	callPunch
	callSync
	callDrop
	callCreate
	callRename
	callLink
	callRemove
	callSyncDir
)

// ops are the calls of each kind.
var ops = [...]Op{
	callWrite: OpWrite, callTruncate: OpTruncate, callAllocate: OpAllocate, callPunch: OpPunchHole, callSync: OpSync, callDrop: OpSync,
	callCreate: OpCreate, callRename: OpRename, callLink: OpLink, callRemove: OpRemove, callSyncDir: OpSyncDir,
}

// call is one that changed something, or made it stable.
type call struct {
	kind    callKind
	ino     *inode // of the live file system; a name for a file, here
	name    string // the file, or the directory of a callSyncDir
	newname string // of callRename and callLink
	off, n  int64  // bytes; n is the size of a callTruncate
	data    []byte
	at      time.Time
}

// String is the call in a line: "write a.vhd 4096+512".
func (c *call) String() string {
	switch c.kind {
	case callWrite:
		return fmt.Sprintf("write %s %d+%d", c.name, c.off, len(c.data))
	case callTruncate:
		return fmt.Sprintf("truncate %s to %d", c.name, c.n)
	case callAllocate:
		return fmt.Sprintf("allocate %s %d+%d", c.name, c.off, c.n)
	case callPunch:
		return fmt.Sprintf("punch %s %d+%d", c.name, c.off, c.n)
	case callSync:
		return "sync " + c.name
	case callDrop:
		return "sync " + c.name + " (failed)"
	case callCreate:
		return "create " + c.name
	case callRename:
		return "rename " + c.name + " to " + c.newname
	case callLink:
		return "link " + c.name + " as " + c.newname
	case callRemove:
		return "remove " + c.name
	default:
		return "syncdir " + c.name
	}
}

// NewCrash is an empty file system.
func NewCrash() *Crash { return NewCrashFrom(NewMemory()) }

// NewCrashFrom begins with what m holds, all of it stable, and leaves m alone:
// to cut the power again while a state of another Crash recovers.
func NewCrashFrom(m *Memory) *Crash {
	c := &Crash{live: NewMemory(), base: map[string]stable{}, syncs: map[string]int{}}
	files := map[*inode]stable{}
	for name, ino := range m.snapshot() {
		f, ok := files[ino]
		if !ok {
			f = ino.stable()
			files[ino] = f
		}
		c.base[name], c.live.names[name] = f, f.live
		c.live.lastID = max(c.live.lastID, ino.id)
	}
	c.replay = newReplay(c.base)
	return c
}

// stable is a file as it is before the first call.
type stable struct {
	live    *inode  // a copy that begins with these bytes
	data    *sparse // frozen
	size    int64   // bytes
	modTime time.Time
}

func (ino *inode) stable() stable {
	ino.mu.Lock()
	defer ino.mu.Unlock()
	data := ino.data.frozen()
	live := &inode{id: ino.id, mode: ino.mode, data: over(data), size: ino.size, modTime: ino.modTime}
	return stable{live: live, data: data, size: ino.size, modTime: ino.modTime}
}

// Points is the number of calls recorded. The power can be cut at Points()+1
// points: 0 is before the first call.
func (c *Crash) Points() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.log)
}

// Describe is the call that led to the point, in a line, for messages.
func (c *Crash) Describe(point int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if point == 0 {
		return "before the first call"
	}
	return c.log[point-1].String()
}

// Call is the call that led to the point, which is not 0; a Sync that failed is
// an OpSync.
func (c *Crash) Call(point int) Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.log[point-1]
	made := Call{Op: ops[k.kind], Path: k.name, NewPath: k.newname, Off: k.off, Len: k.n}
	switch k.kind {
	case callWrite:
		made.Len = int64(len(k.data))
	case callTruncate:
		made.Off, made.Len = k.n, 0
	}
	return made
}

// Syncs is the number of Sync calls that succeeded of files opened by a name.
func (c *Crash) Syncs(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.syncs[name]
}

// Open implements storage.FS.
func (c *Crash) Open(name string, flag storage.Flag) (storage.File, error) {
	f, err := c.live.open(name, flag)
	if err != nil {
		return nil, err
	}
	return &crashFile{memoryFile: f, crash: c}, nil
}

// OpenBeneath implements storage.FS.
func (c *Crash) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	f, err := c.live.openBeneath(dir, name, flag)
	if err != nil {
		return nil, err
	}
	return &crashFile{memoryFile: f, crash: c}, nil
}

// Create implements storage.FS.
func (c *Crash) Create(name string, perm fs.FileMode) (storage.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.live.create(name, perm)
	if err != nil {
		return nil, err
	}
	c.record(call{kind: callCreate, ino: f.ino, name: name})
	return &crashFile{memoryFile: f, crash: c}, nil
}

// Stat implements storage.FS.
func (c *Crash) Stat(name string) (storage.Info, error) { return c.live.Stat(name) }

// Resolve implements storage.FS.
func (c *Crash) Resolve(name string) (string, error) { return c.live.Resolve(name) }

// Rename implements storage.FS.
func (c *Crash) Rename(oldname, newname string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ino, err := c.live.rename(oldname, newname)
	if err == nil && ino != nil {
		c.record(call{kind: callRename, ino: ino, name: oldname, newname: newname})
	}
	return err
}

// Link implements storage.FS.
func (c *Crash) Link(oldname, newname string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ino, err := c.live.link(oldname, newname)
	if err == nil {
		c.record(call{kind: callLink, ino: ino, name: oldname, newname: newname})
	}
	return err
}

// Remove implements storage.FS.
func (c *Crash) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.live.Remove(name)
	if err == nil {
		c.record(call{kind: callRemove, name: name})
	}
	return err
}

// SyncDir implements storage.FS.
func (c *Crash) SyncDir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.live.SyncDir(dir)
	if err == nil {
		c.record(call{kind: callSyncDir, name: dir})
	}
	return err
}

// record adds a call that took effect. The caller holds mu.
func (c *Crash) record(k call) {
	k.at = time.Now()
	c.log = append(c.log, k)
	if k.kind == callSync {
		c.syncs[k.name]++
	}
}

// crashFile is an open file of a Crash.
type crashFile struct {
	*memoryFile
	crash *Crash
}

// recorded makes the call and, where it succeeds, its record.
func (f *crashFile) recorded(k call, do func() error) error {
	f.crash.mu.Lock()
	defer f.crash.mu.Unlock()
	err := do()
	if err == nil {
		k.ino, k.name = f.ino, f.name
		f.crash.record(k)
	}
	return err
}

// WriteAt implements storage.File.
func (f *crashFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.recorded(call{kind: callWrite, off: off, data: bytes.Clone(p)}, func() error {
		n, err = f.memoryFile.WriteAt(p, off)
		return err
	})
	return n, err
}

// WriteAtNowait implements storage.NowaitWriterAt.
func (f *crashFile) WriteAtNowait(p []byte, off int64) (int, error) { return f.WriteAt(p, off) }

// Truncate implements storage.File.
func (f *crashFile) Truncate(size int64) error {
	return f.recorded(call{kind: callTruncate, n: size}, func() error { return f.memoryFile.Truncate(size) })
}

// Allocate implements storage.File.
func (f *crashFile) Allocate(off, n int64) error {
	return f.recorded(call{kind: callAllocate, off: off, n: n}, func() error { return f.memoryFile.Allocate(off, n) })
}

// PunchHole implements storage.File.
func (f *crashFile) PunchHole(off, n int64) error {
	return f.recorded(call{kind: callPunch, off: off, n: n}, func() error { return f.memoryFile.PunchHole(off, n) })
}

// Sync implements storage.File.
func (f *crashFile) Sync() error {
	return f.recorded(call{kind: callSync}, f.memoryFile.Sync)
}

// dropUnsynced takes back what was written since the last Sync.
func (f *crashFile) dropUnsynced() {
	_ = f.recorded(call{kind: callDrop}, func() error {
		f.memoryFile.dropUnsynced()
		return nil
	})
}
