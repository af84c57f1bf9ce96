package vhd

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// maxParents bounds the depth of a chain.
const maxParents = 256

var errTooDeep = &kindError{ErrTooDeep, fmt.Sprintf("a chain of more than %d parents", maxParents)}

// Open opens the image at name with its chain of parents, checks what it
// reads, and takes the locks: the image for this process alone unless
// o.ReadOnly, its parents shared.
//
// Errors say the image, the place and the number, and wrap a sentinel of this
// package, of format or of storage. Nothing is written by Open.
func Open(name string, o Options) (*Image, error) {
	if o.FS == nil {
		o.FS = storage.OS
	}
	if o.NoLock && !o.ReadOnly {
		return nil, &ImageError{Image: name, Err: errors.New("an image is opened for writing only with its lock")}
	}
	c := &opener{Options: o, seen: map[storage.FileID]string{}}
	if err := c.open(name); err != nil {
		c.close()
		return nil, err
	}
	return newImage(c), nil
}

// opener collects the layers of a chain, leaf first.
type opener struct {
	Options
	layers  []*layer
	parents []string // parents[i] is the path of layers[i]'s parent, if any
	seen    map[storage.FileID]string
	entries int // of all BATs
}

func (c *opener) close() {
	for _, l := range c.layers {
		l.file.Close()
	}
}

func (c *opener) open(name string) error {
	leaf, err := c.openFile(source{name: name, flag: c.leafFlag()}, false)
	if err != nil {
		return err
	}
	if err := leaf.load(); err != nil {
		return err
	}
	if !c.ReadOnly {
		if err := leaf.checkWritable(); err != nil {
			return err
		}
	}
	if c.Parent != "" && leaf.kind != KindDifferencing {
		return leaf.errorf("", fmt.Errorf("a %v disk has no parent: leave %s out", leaf.kind, c.Parent))
	}
	for l := leaf; l.kind == KindDifferencing; {
		if len(c.layers) > maxParents {
			return leaf.errorf("", errTooDeep)
		}
		if l, err = c.openParent(l); err != nil {
			return err
		}
	}
	return c.loadParents()
}

// loadParents reads what takes memory, once the whole chain is known to be
// good for it.
func (c *opener) loadParents() error {
	for i, l := range c.layers[1:] {
		if err := l.load(); err != nil {
			return c.parentError(c.layers[i], c.parents[i], err)
		}
	}
	return nil
}

func (c *opener) leafFlag() storage.Flag {
	if c.ReadOnly {
		return 0
	}
	return storage.ReadWrite
}

// source is where a file of a chain is to be opened.
type source struct {
	name string
	flag storage.Flag
	// root is the directory tree that the file must be in, resolved as name
	// is, where an image says the name; empty where the user does.
	root string
}

func (s source) open(fsys storage.FS) (storage.File, error) {
	if s.root == "" {
		return fsys.Open(s.name, s.flag)
	}
	rel, err := filepath.Rel(s.root, s.name)
	if err != nil {
		return nil, err
	}
	return fsys.OpenBeneath(s.root, rel, s.flag)
}

// openFile opens one file of the chain and adds it as a layer.
func (c *opener) openFile(from source, raw bool) (l *layer, err error) {
	name, flag := from.name, from.flag
	f, err := from.open(c.FS)
	if err != nil {
		return nil, &ImageError{Image: name, Err: translate(err)}
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, &ImageError{Image: name, Err: err}
	}
	if child, ok := c.seen[info.ID]; ok {
		return nil, &ImageError{Image: name, Err: &kindError{ErrParentLoop, fmt.Sprintf("loop: it is already in the chain, as %s", child)}}
	}
	if err := c.lock(f, flag); err != nil {
		return nil, &ImageError{Image: name, Err: err}
	}
	if info, err = f.Stat(); err != nil { // a writer may just have let go of it
		return nil, &ImageError{Image: name, Err: err}
	}
	if raw {
		l, err = openRaw(f, info)
	} else {
		l, err = openLayer(f, info, c.SizeFrom)
	}
	if err != nil {
		return nil, err
	}
	if l.blocks != nil {
		if c.entries += int(l.header.MaxTableEntries); c.entries > maxChainEntries {
			return nil, l.errorf("BAT", &kindError{ErrTooLarge, fmt.Sprintf("with it the chain has more than the %d entries that are supported", maxChainEntries)})
		}
	}
	if from.root != "" {
		l.dir = filepath.Dir(name)
	}
	c.seen[info.ID] = name
	c.layers = append(c.layers, l)
	c.parents = append(c.parents, "")
	return l, nil
}

// lock takes the file for what it was opened for.
func (c *opener) lock(f storage.File, flag storage.Flag) error {
	switch {
	case c.NoLock:
		return nil
	case flag&storage.ReadWrite != 0:
		return f.Lock(storage.Exclusive)
	default:
		return f.Lock(storage.Shared)
	}
}

// checkWritable refuses what may be read but must not be written to.
func (l *layer) checkWritable() error {
	switch {
	case l.footer.Poisoned:
		return l.errorf("footer", fmt.Errorf("%w (cookie v_poison): open it read-only, or finish what was interrupted", ErrPoisoned))
	case l.conflict != nil:
		return l.conflict
	case l.blocks == nil:
		return nil
	case l.footer.LittleEndianBitmaps():
		return l.errorf("footer", corrupt("written by tapdisk 0.1, whose sector bitmaps are little-endian: open it read-only"))
	}
	if err := l.checkMetadata(); err != nil {
		return err
	}
	if err := l.checkBatmap(); err != nil {
		return err
	}
	return l.checkBAT()
}

// checkMetadata refuses structures that lie over one another or out of the
// file: what is written to one would destroy the other.
func (l *layer) checkMetadata() error {
	for i, loc := range l.header.Locators {
		if _, err := l.locatorSpace(i, loc); err != nil {
			return err
		}
	}
	spans := l.metadata()
	for i, a := range spans {
		for _, b := range spans[:i] {
			if a.start < b.end && b.start < a.end {
				return l.errorf("", corrupt("%s (bytes %d to %d) overlaps %s (bytes %d to %d)", a.what, a.start, a.end, b.what, b.start, b.end))
			}
		}
	}
	return nil
}

// dirOf is the directory in which l's file is. For one that the user named it
// is looked for now that the file is open, and must lead to that file still:
// whoever can replace a directory on the way could have the parents looked for
// anywhere else.
func (c *opener) dirOf(l *layer) (string, error) {
	if l.dir != "" {
		return l.dir, nil
	}
	path, err := c.FS.Resolve(l.name)
	if err != nil {
		return "", err
	}
	info, err := c.FS.Stat(path)
	if err == nil && info.ID != l.info.ID {
		err = errReplaced
	}
	return filepath.Dir(path), err
}

var errReplaced = errors.New("the name leads to another file since it was opened: open it again")
