package storagetest

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// Fault passes calls on to another file system, fails those that its rules
// say, and records all. It is safe for concurrent use as far as the other is.
//
// A Sync that a rule fails doesn't reach the other file system. If that is a
// Memory or a Crash (or a Fault over one), what was written since the last
// Sync is taken back, as Linux may drop the pages that it could not write.
//
// Its files forward both optional abilities; over a file without them,
// NextData says that everything is data, and ReadAtNowait is always
// storage.ErrWouldBlock.
type Fault struct {
	fs storage.FS

	// mu guards what follows. It is not held during the call below.
	mu    sync.Mutex
	rules []*armed
	calls []Call
}

// NewFault passes on to fs, but for what the rules fail.
func NewFault(fs storage.FS, rules ...Rule) *Fault {
	f := &Fault{fs: fs}
	for _, r := range rules {
		f.Add(r)
	}
	return f
}

// Add adds a rule, which counts calls from now on. The first rule added that
// is hit decides.
func (f *Fault) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &armed{Rule: r})
}

// Heal drops all rules.
func (f *Fault) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Calls are the calls so far, in the order in which they returned.
func (f *Fault) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Log is the last n calls, a line each, for a test's message.
func (f *Fault) Log(n int) string {
	calls := f.Calls()
	var b strings.Builder
	for _, c := range calls[max(0, len(calls)-n):] {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

// match is the first rule that the call hits; every rule counts it.
func (f *Fault) match(c *Call) *armed {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first *armed
	for _, a := range f.rules {
		if a.hit(c) && first == nil {
			first = a
		}
	}
	return first
}

// do makes the call, or fails it, and records it.
func (f *Fault) do(c Call, call func() error) error {
	return f.part(c, func(int) error { return call() })
}

// part is do for a call that can be done in part: call gets the number of
// bytes to do, -1 for all, and is not called to do none.
func (f *Fault) part(c Call, call func(n int) error) error {
	a := f.match(&c)
	switch {
	case a == nil:
		c.Err = call(-1)
	case a.After:
		if c.Err = call(-1); c.Err == nil {
			c.Injected, c.Err = true, a.failure(&c)
		}
	default:
		c.Injected = true
		if a.Short > 0 && int64(a.Short) < c.Len {
			c.Err = call(a.Short)
		}
		if c.Err == nil {
			c.Err = a.failure(&c)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
	return c.Err
}

// file wraps what open yields.
func (f *Fault) file(c Call, open func() (storage.File, error)) (storage.File, error) {
	var file storage.File
	err := f.do(c, func() (err error) {
		file, err = open()
		return err
	})
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	return &faultFile{File: file, fault: f}, nil
}

// Open implements storage.FS.
func (f *Fault) Open(name string, flag storage.Flag) (storage.File, error) {
	return f.file(Call{Op: OpOpen, Path: name}, func() (storage.File, error) { return f.fs.Open(name, flag) })
}

// OpenBeneath implements storage.FS. To rules it is an OpOpen of the whole name.
func (f *Fault) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	return f.file(Call{Op: OpOpen, Path: filepath.Join(dir, name)}, func() (storage.File, error) { return f.fs.OpenBeneath(dir, name, flag) })
}

// Create implements storage.FS.
func (f *Fault) Create(name string, perm fs.FileMode) (storage.File, error) {
	return f.file(Call{Op: OpCreate, Path: name}, func() (storage.File, error) { return f.fs.Create(name, perm) })
}

// Stat implements storage.FS.
func (f *Fault) Stat(name string) (info storage.Info, err error) {
	err = f.do(Call{Op: OpStat, Path: name}, func() (err error) {
		info, err = f.fs.Stat(name)
		return err
	})
	return info, err
}

// Resolve implements storage.FS.
func (f *Fault) Resolve(name string) (resolved string, err error) {
	err = f.do(Call{Op: OpResolve, Path: name}, func() (err error) {
		resolved, err = f.fs.Resolve(name)
		return err
	})
	return resolved, err
}

// Rename implements storage.FS.
func (f *Fault) Rename(oldname, newname string) error {
	return f.do(Call{Op: OpRename, Path: oldname, NewPath: newname}, func() error { return f.fs.Rename(oldname, newname) })
}

// Link implements storage.FS.
func (f *Fault) Link(oldname, newname string) error {
	return f.do(Call{Op: OpLink, Path: oldname, NewPath: newname}, func() error { return f.fs.Link(oldname, newname) })
}

// Remove implements storage.FS.
func (f *Fault) Remove(name string) error {
	return f.do(Call{Op: OpRemove, Path: name}, func() error { return f.fs.Remove(name) })
}

// SyncDir implements storage.FS.
func (f *Fault) SyncDir(dir string) error {
	return f.do(Call{Op: OpSyncDir, Path: dir}, func() error { return f.fs.SyncDir(dir) })
}
