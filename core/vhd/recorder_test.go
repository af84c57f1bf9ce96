package vhd_test

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// call is something asked of a file or a file system.
type call struct {
	op     string // "write", "sync", "truncate", "punch", "read", "create", …
	name   string // the file's
	off, n int64  // bytes, where they apply; of truncate, off is the size
}

// recorder is a file system that notes what is asked of the one below, and
// lets a test fail or hold a call.
type recorder struct {
	storage.FS
	// before is called ahead of each call; an error of its is the call's.
	before func(c call) error
	// read is called after each ReadAt.
	read func(c call)

	mu    sync.Mutex
	calls []call // guarded by mu
}

var _ storage.FS = (*recorder)(nil)

// did notes a call, unless it is to fail.
func (r *recorder) did(op, name string, off, n int64) error {
	c := call{op, name, off, n}
	if r.before != nil {
		if err := r.before(c); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	return nil
}

// take is the calls so far of the given kinds, all if there are none, and
// forgets them.
func (r *recorder) take(ops ...string) []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []call
	for _, c := range r.calls {
		if len(ops) == 0 || slices.Contains(ops, c.op) {
			list = append(list, c)
		}
	}
	r.calls = nil
	return list
}

// changes is take for what changes a file or orders it.
func (r *recorder) changes() []call { return r.take("write", "truncate", "punch", "sync", "allocate") }

// story is what calls do, in a line: "write write sync".
func story(calls []call) string {
	words := make([]string, len(calls))
	for i, c := range calls {
		words[i] = c.op
	}
	return strings.Join(words, " ")
}

func count(calls []call, op string) int {
	n := 0
	for _, c := range calls {
		if c.op == op {
			n++
		}
	}
	return n
}

func (r *recorder) Open(name string, flag storage.Flag) (storage.File, error) {
	if err := r.did("open", name, 0, int64(flag)); err != nil {
		return nil, err
	}
	return r.wrap(r.FS.Open(name, flag))
}

func (r *recorder) OpenBeneath(dir, name string, flag storage.Flag) (storage.File, error) {
	if err := r.did("open", filepath.Join(dir, name), 0, int64(flag)); err != nil {
		return nil, err
	}
	return r.wrap(r.FS.OpenBeneath(dir, name, flag))
}

func (r *recorder) Create(name string, perm fs.FileMode) (storage.File, error) {
	if err := r.did("create", name, 0, 0); err != nil {
		return nil, err
	}
	return r.wrap(r.FS.Create(name, perm))
}

func (r *recorder) wrap(f storage.File, err error) (storage.File, error) {
	if err != nil {
		return nil, err
	}
	return &recordedFile{File: f, r: r}, nil
}

func (r *recorder) Stat(name string) (storage.Info, error) {
	if err := r.did("stat", name, 0, 0); err != nil {
		return storage.Info{}, err
	}
	return r.FS.Stat(name)
}

func (r *recorder) Rename(oldname, newname string) error {
	if err := r.did("rename", oldname, 0, 0); err != nil {
		return err
	}
	return r.FS.Rename(oldname, newname)
}

func (r *recorder) Link(oldname, newname string) error {
	if err := r.did("link", oldname, 0, 0); err != nil {
		return err
	}
	return r.FS.Link(oldname, newname)
}

func (r *recorder) Remove(name string) error {
	if err := r.did("remove", name, 0, 0); err != nil {
		return err
	}
	return r.FS.Remove(name)
}

func (r *recorder) SyncDir(dir string) error {
	if err := r.did("syncdir", dir, 0, 0); err != nil {
		return err
	}
	return r.FS.SyncDir(dir)
}

// recordedFile is a file of a recorder. It forwards what the files of a Memory
// can do beside File.
type recordedFile struct {
	storage.File
	r *recorder
}

func (f *recordedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.r.did("read", f.Name(), off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(p, off)
	if f.r.read != nil {
		f.r.read(call{"read", f.Name(), off, int64(len(p))})
	}
	return n, err
}

func (f *recordedFile) ReadAtNowait(p []byte, off int64) (int, error) {
	if err := f.r.did("nowait", f.Name(), off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.(storage.NowaitReaderAt).ReadAtNowait(p, off)
}

func (f *recordedFile) NextData(off int64) (start, end int64, err error) {
	return f.File.(storage.HoleFinder).NextData(off)
}

func (f *recordedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.r.did("write", f.Name(), off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *recordedFile) WriteAtNowait(p []byte, off int64) (int, error) {
	if err := f.r.did("write now", f.Name(), off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.(storage.NowaitWriterAt).WriteAtNowait(p, off)
}

// BeginSync is no call of the file below: a Memory has no disk to begin with.
func (f *recordedFile) BeginSync(off, n int64) { _ = f.r.did("begin sync", f.Name(), off, n) }

func (f *recordedFile) Truncate(size int64) error {
	if err := f.r.did("truncate", f.Name(), size, 0); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *recordedFile) Allocate(off, n int64) error {
	if err := f.r.did("allocate", f.Name(), off, n); err != nil {
		return err
	}
	return f.File.Allocate(off, n)
}

func (f *recordedFile) PunchHole(off, n int64) error {
	if err := f.r.did("punch", f.Name(), off, n); err != nil {
		return err
	}
	return f.File.PunchHole(off, n)
}

func (f *recordedFile) Sync() error {
	if err := f.r.did("sync", f.Name(), 0, 0); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *recordedFile) Close() error {
	if err := f.r.did("close", f.Name(), 0, 0); err != nil {
		f.File.Close()
		return err
	}
	return f.File.Close()
}

// failNth makes the nth call, from 1 on, that pick chooses fail with err, and
// tells whether it came to that.
func failNth(r *recorder, n int, err error, pick func(c call) bool) (failed func() bool) {
	var mu sync.Mutex
	seen := 0
	r.before = func(c call) error {
		if !pick(c) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
		if seen == n {
			return err
		}
		return nil
	}
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		return seen >= n
	}
}

// opIs picks calls of one kind.
func opIs(op string) func(c call) bool { return func(c call) bool { return c.op == op } }

// everyCall picks all.
func everyCall(call) bool { return true }

func TestRecorderNotesAndFails(t *testing.T) {
	r := &recorder{FS: storagetest.NewMemory()}
	failed := failNth(r, 2, storage.ErrNoSpace, opIs("write"))
	f, err := r.Create("/x", 0o600)
	must(t, err)
	if _, err := f.WriteAt([]byte("a"), 0); err != nil || failed() {
		t.Fatalf("first write: %v", err)
	}
	if _, err := f.WriteAt([]byte("b"), 1); err != storage.ErrNoSpace || !failed() {
		t.Fatalf("second write: %v, want the fault", err)
	}
	must(t, f.Close())
	if got := story(r.take()); got != "create write close" {
		t.Errorf("calls: %s", got)
	}
}
