package vhd

import (
	"fmt"
	"path/filepath"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// SnapshotOptions say how a differencing image is made.
type SnapshotOptions struct {
	FS        storage.FS // nil is storage.OS
	Size      int64      // bytes of disk, not below the parent's; 0 is the parent's
	BlockSize int64      // bytes; 0 is the parent's, or DefaultBlockSize
	RawParent bool       // the parent is no VHD: its bytes are the disk's
	// ParentDirs are as in Options: where the parent's own parents may be.
	ParentDirs []string
}

// Snapshot makes child, a differencing image that shows what parent holds and
// takes what is written from now on. The parent is not written to, and must
// not be by anyone as long as the child is of use. The parent's path is kept
// relative to the child, and absolute beside it.
func Snapshot(parent, child string, o SnapshotOptions) error {
	if o.FS == nil {
		o.FS = storage.OS
	}
	base, err := openBase(parent, o)
	if err != nil {
		return err
	}
	defer base.close()
	l := base.layers[0]
	if len(base.layers) > maxParents {
		return l.errorf("", errTooDeep)
	}
	if o.Size == 0 {
		o.Size = l.size
	}
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
		if l.blocks != nil {
			o.BlockSize = l.blocks.blockSize
		}
	}
	if o.Size < l.size {
		return &ImageError{Image: child, Err: fmt.Errorf("a disk of %d bytes is smaller than its parent's %d", o.Size, l.size)}
	}
	if err := checkGeometry(o.Size, o.BlockSize); err != nil {
		return &ImageError{Image: child, Err: err}
	}
	d := newSparse(format.Differencing, o.Size, o.BlockSize)
	if err := d.setParent(o.FS, l, child); err != nil {
		return &ImageError{Image: child, Err: err}
	}
	// What a killed process wrote to them is in the child for good.
	if err := syncAll(base.layers); err != nil {
		return err
	}
	return publish(o.FS, child, d.write)
}

// openBase opens the image to be the parent, shared, with its chain.
func openBase(name string, o SnapshotOptions) (*opener, error) {
	c := &opener{Options: Options{FS: o.FS, ReadOnly: true, ParentDirs: o.ParentDirs}, seen: map[storage.FileID]string{}}
	var err error
	if o.RawParent {
		_, err = c.openFile(source{name: name}, true)
	} else {
		err = c.open(name)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	if l := c.layers[0]; l.footer != nil && l.footer.ID.IsZero() {
		c.close()
		return nil, l.errorf("footer", corrupt("an image without a UUID can't be a parent"))
	}
	return c, nil
}

// setParent notes parent in d, which will be the file child: its UUID and
// time, and where it is, in the places where tapdisk and Windows look.
func (d *sparse) setParent(fsys storage.FS, parent *layer, child string) error {
	h := d.header
	if parent.footer != nil { // else null: the mark of a raw parent
		h.ParentID = parent.footer.ID
	}
	h.ParentTimestamp = format.TimeOf(parent.info.ModTime)
	abs, err := fsys.Resolve(parent.name)
	if err != nil {
		return err
	}
	dir, err := fsys.Resolve(filepath.Dir(child))
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(dir, abs)
	if err != nil {
		return err
	}
	h.ParentName = filepath.Base(abs)
	for i, loc := range []struct {
		code format.LocatorCode
		path string
	}{{format.CodeMacX, rel}, {format.CodeW2ku, abs}, {format.CodeW2ru, rel}} {
		data, err := format.EncodeLocatorPath(loc.code, loc.path)
		if err != nil {
			return err
		}
		h.Locators[i].Code = loc.code
		d.locators[i] = data
	}
	return nil
}
