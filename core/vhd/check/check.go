package check

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// MaxDepth is how many images a chain may have: one and its 256 parents, as
// package vhd opens them.
const MaxDepth = 257

// ErrNotVHD is what Run returns for a file that holds no VHD structure where
// one must be: neither a footer at its end, nor the copy at its start, nor a
// dynamic header behind that. A file with any of these is an image, and what
// is wrong with it is a finding.
var ErrNotVHD = errors.New("not a VHD image")

// Options say what is checked and how. The zero value checks the structure of
// one image of the operating system, without a lock.
type Options struct {
	FS      storage.FS // nil means storage.OS
	Lock    bool       // take a shared lock, so that nobody writes meanwhile
	Bitmaps bool       // read every sector bitmap, and the data under clear bits
	Parents bool       // check the parents too; else only that the first one fits

	Parent     string          // path of the image's parent, in place of what its locators say
	ParentDirs []string        // directories, besides the child's own tree, in which a parent may lie
	SizeFrom   format.SizeFrom // which of the footer's sizes is the disk's

	IgnoreParentIDs  bool      // accept a parent whose id is not the one the child names
	IgnoreTimestamps bool      // say nothing of times in the future or of a parent changed since
	Now              time.Time // what timestamps are held against; zero means the time of the call
}

// Run checks the image called name. What is wrong with the image is in the
// report, never an error. An error means that the image, or a parent that must
// be looked at, could not be read: fs.ErrNotExist, fs.ErrPermission,
// storage.ErrNotRegular, storage.ErrInUse (with Lock), an I/O error, or
// ErrNotVHD; the report is then nil.
//
// Run is safe for concurrent use. Without Lock, an image that is written to
// meanwhile may be reported as damaged.
func Run(name string, o Options) (*Report, error) {
	if o.FS == nil {
		o.FS = storage.OS
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	report := &Report{}
	c := &chain{opt: o, report: report}
	if err := c.check(name); err != nil {
		return nil, err
	}
	report.Findings = c.found.close(name)
	return report, nil
}

// chain is a check under way: an image and, if asked for, its parents.
type chain struct {
	opt    Options
	report *Report
	found  findings
	seen   []storage.FileID // the images opened so far, leaf first
}

// check opens the image called name and checks it and what it leads to.
func (c *chain) check(name string) error {
	img, err := c.open(source{name: name})
	if err != nil {
		return err
	}
	if img.foot.notVHD() {
		return errors.Join(fmt.Errorf("%s: %w", name, ErrNotVHD), img.close())
	}
	for img != nil {
		parent, err := img.check()
		if err := errors.Join(err, img.close()); err != nil {
			if parent != nil {
				err = errors.Join(err, parent.close())
			}
			return err
		}
		if parent != nil && (!c.opt.Parents || parent.raw) {
			return parent.close()
		}
		img = parent
	}
	return nil
}

// image is one file of a chain while it is checked.
type image struct {
	*chain
	name string
	dir  string // that the file is in, where an image and not the user named it
	file storage.File
	info storage.Info
	leaf bool
	loop bool // the file is in the chain already
	raw  bool // the parent of a child that names no id: any file, no VHD

	foot    footers
	footer  *format.Footer // the one that counts; nil if there is none
	dataEnd int64          // offset in the file where data must end, bytes
	size    int64          // of the disk, bytes

	header    *format.Header // nil for a fixed disk, or if it is damaged
	blocks    int64          // that the disk's size needs
	batmap    format.Bitmap  // nil where there is none that can be read
	encrypted bool           // the data is no plain text
	paths     []parentPath   // where the locators lead
	claimed   []extent       // what the structures have of the file
	leak      leak

	batmapPlace int64 // offset where tapdisk looks for a batmap's header in vain; 0: nowhere
}

// source is where a file of a chain is to be opened.
type source struct {
	name string
	// root is the directory tree that the file must be in, resolved as name is,
	// where an image says the name; empty where the user does.
	root string
}

func (s source) open(fsys storage.FS) (storage.File, error) {
	if s.root == "" {
		return fsys.Open(s.name, 0)
	}
	rel, err := filepath.Rel(s.root, s.name)
	if err != nil {
		return nil, err
	}
	return fsys.OpenBeneath(s.root, rel, 0)
}

// open opens, locks and reads as much of an image as tells what it is.
func (c *chain) open(from source) (*image, error) {
	file, err := from.open(c.opt.FS)
	if err != nil {
		return nil, err
	}
	img := &image{chain: c, name: from.name, file: file, leaf: len(c.seen) == 0}
	if from.root != "" {
		img.dir = filepath.Dir(from.name)
	}
	if err := img.load(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	img.loop = slices.Contains(c.seen, img.info.ID)
	c.seen = append(c.seen, img.info.ID)
	return img, nil
}

func (img *image) close() error { return img.file.Close() }

func (img *image) load() (err error) {
	if img.opt.Lock {
		if err := img.file.Lock(storage.Shared); err != nil {
			return fmt.Errorf("%s: %w", img.name, err)
		}
	}
	if img.info, err = img.file.Stat(); err != nil {
		return err
	}
	if img.foot, err = readFooters(img.file, img.info.Size); err != nil {
		return err
	}
	img.footer, img.dataEnd = img.foot.choose()
	return nil
}

// check walks the image and reports. It returns the open parent of a
// differencing disk, nil where there is none to look at.
func (img *image) check() (parent *image, err error) {
	img.checkFileSize()
	img.checkFooters()
	if img.footer == nil {
		return nil, nil
	}
	img.checkFooter()
	if !img.checkType() || !img.checkSize() {
		return nil, nil
	}
	if img.footer.Type == format.Fixed {
		img.checkFixed()
		return nil, nil
	}
	if err := img.readHeader(); err != nil || img.header == nil {
		return nil, err
	}
	if err := img.checkSpace(); err != nil {
		return nil, err
	}
	if img.footer.Type == format.Dynamic {
		img.checkNoParent()
		return nil, nil
	}
	img.checkTime(headerPlace, "parent's timestamp", img.header.ParentTimestamp)
	return img.findParent()
}
