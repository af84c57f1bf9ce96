package vhdtest

import (
	"errors"
	"slices"
	"sync"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

// held is a write that the file below has not seen.
type held struct {
	name string
	off  int64
	data []byte
}

// lateness holds writes back and shows them to readers all the same, as a
// cache would.
type lateness struct {
	fs storage.FS // below

	mu     sync.Mutex
	writes []held // guarded by mu
}

// hold keeps a write for later.
func (l *lateness) hold(c *Call) {
	l.writes = append(l.writes, held{c.Name, c.Off, slices.Clone(c.Data)})
}

// show patches what was read with what is held back.
func (l *lateness) show(c *Call) {
	for _, h := range l.writes {
		if h.name != c.Name {
			continue
		}
		for i, b := range h.data {
			if at := h.off + int64(i) - c.Off; at >= 0 && at < int64(len(c.Data)) {
				c.Data[at] = b
			}
		}
	}
}

// release makes the held writes to a file that p picks. The process that asked
// for them may be gone.
func (l *lateness) release(name string, p func(h held) bool) error {
	f, err := l.fs.Open(name, storage.ReadWrite)
	if err != nil {
		return err
	}
	errs := []error{}
	l.writes = slices.DeleteFunc(l.writes, func(h held) bool {
		if h.name != name || !p(h) {
			return false
		}
		_, err := f.WriteAt(h.data, h.off)
		errs = append(errs, err)
		return true
	})
	return errors.Join(append(errs, f.Close())...)
}

func all(held) bool { return true }

// late holds what p picks back until a sync has passed.
func late(fsys storage.FS, p picks) Through {
	l := &lateness{fs: fsys}
	return func(c *Call, do func() error) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		switch {
		case isWrite(c) && p(c):
			l.hold(c)
			return nil
		case isWrite(c): // what is held of these bytes is older
			over := func(h held) bool { return h.off < c.Off+c.Len && c.Off < h.off+int64(len(h.data)) }
			if err := l.release(c.Name, over); err != nil {
				return err
			}
		}
		return l.pass(c, do)
	}
}

// lastWriteLate lets a sync pass the write before it.
func lastWriteLate(fsys storage.FS) Through {
	l := &lateness{fs: fsys}
	return func(c *Call, do func() error) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.Changes() && !isNew(c) && c.File != nil && !isSync(c) {
			if err := l.release(c.Name, all); err != nil {
				return err
			}
		}
		if isWrite(c) {
			l.hold(c)
			return nil
		}
		return l.pass(c, do)
	}
}

// pass makes the call; a reader sees what is held, a sync comes before it.
func (l *lateness) pass(c *Call, do func() error) error {
	err := do()
	switch {
	case c.Op == storagetest.OpRead:
		l.show(c)
	case isSync(c):
		err = errors.Join(err, l.release(c.Name, all))
	}
	return err
}
