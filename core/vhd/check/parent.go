package check

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// parentPlace is the parent in a child's findings.
const parentPlace = "parent"

// mtimeSlack is how much a file's time may differ from the one noted in its
// child: some file systems keep even seconds only.
const mtimeSlack = 2 * time.Second

// findParent opens the parent and judges whether it fits. It returns nil where
// there is none to go on with; that is a finding then.
func (img *image) findParent() (*image, error) {
	from, err := img.locateParent()
	if err != nil || from.name == "" {
		return nil, err
	}
	if len(img.seen) >= MaxDepth {
		img.at(parentPlace).damage("%s would be more than %d images deep — merge images of it (vhd-util coalesce)", from.name, MaxDepth)
		return nil, nil
	}
	parent, err := img.open(from)
	if err != nil {
		return nil, img.unopened(from, err)
	}
	if parent.loop {
		img.at(parentPlace).damage("%s is the image itself or one of its children: a loop — open it with --parent", from.name)
		return nil, parent.close()
	}
	parent.raw = img.header.ParentID.IsZero()
	if !img.accepts(parent) {
		return nil, parent.close()
	}
	return parent, nil
}

// unopened makes a finding of why the parent that the image names was not
// opened, where that is the image's doing or that of who replaced what was
// there when it was looked for. Else it is the error.
func (img *image) unopened(from source, err error) error {
	at := img.at(parentPlace)
	switch {
	case from.root == "":
		return err
	case errors.Is(err, storage.ErrOutside):
		at.warn("%s was not looked at — check again, or name the parent", reason(from.name, err))
	case errors.Is(err, storage.ErrNotRegular):
		at.damage("%s — open it with --parent", reason(from.name, err))
	case errors.Is(err, fs.ErrNotExist):
		at.damage("not found at %s — put it there, or name it", from.name)
	default:
		return err
	}
	return nil
}

// locateParent is where the image's parent is, as tapdisk finds it: the first
// path, in the order of the slots, that leads to a file. It is empty where none
// does.
func (img *image) locateParent() (source, error) {
	if img.leaf && img.opt.Parent != "" {
		return source{name: img.opt.Parent}, nil
	}
	dir, err := img.directory()
	if err != nil {
		return source{}, err
	}
	search := parentSearch{img: img, dir: dir}
	for _, p := range img.paths {
		search.try(p)
	}
	search.report()
	return search.found.source, nil
}

// directory is the one that the image's file is in. For a file that the user
// named it is looked for now that the file is open, and must lead to that file
// still: whoever can replace a directory on the way could have the parents
// looked for anywhere else.
func (img *image) directory() (string, error) {
	if img.dir != "" {
		return img.dir, nil
	}
	path, err := img.opt.FS.Resolve(img.name)
	if err != nil {
		return "", err
	}
	info, err := img.opt.FS.Stat(path)
	if err == nil && info.ID != img.info.ID {
		err = fmt.Errorf("%s: the name leads to another file since it was opened: check it again", img.name)
	}
	return filepath.Dir(path), err
}

// parentSearch goes through the paths that an image has for its parent.
type parentSearch struct {
	img     *image
	dir     string    // the image's own, resolved
	found   candidate // the first that is there and may be opened
	others  []candidate
	outside []candidate // there, but in no directory that is allowed
	missing []string    // where nothing is, and why
}

// candidate is a file that a path of the image leads to.
type candidate struct {
	source
	info  storage.Info
	place string // of the path
}

// try follows one path. Any bytes can stand in an image for a path: that one
// leads nowhere is no error, but kept for the report with the reason.
func (s *parentSearch) try(p parentPath) {
	name := p.Path
	if !p.Absolute {
		name = filepath.Join(s.dir, name)
	}
	path, info, err := s.settle(name)
	root, allowed := s.rootOf(path)
	c := candidate{source{path, root}, info, p.place}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.miss(cmp.Or(path, name))
	case path != "" && !allowed:
		s.outside = append(s.outside, c)
	case err != nil:
		s.miss(reason(cmp.Or(path, name), err))
	case s.found.name == "":
		s.found = c
	default:
		s.others = append(s.others, c)
	}
}

// miss keeps a path that leads nowhere, with the reason.
func (s *parentSearch) miss(text string) {
	if !slices.Contains(s.missing, text) {
		s.missing = append(s.missing, text)
	}
}

// settle is name with its directory free of symbolic links, and what is there.
// The last component is left: opening refuses a link. The path is empty where
// not even that could be found.
func (s *parentSearch) settle(name string) (string, storage.Info, error) {
	dir, err := s.img.opt.FS.Resolve(filepath.Dir(name))
	if err != nil {
		return "", storage.Info{}, err
	}
	path := filepath.Join(dir, filepath.Base(name))
	info, err := s.img.opt.FS.Stat(path)
	if err == nil && !info.Mode.IsRegular() {
		err = storage.ErrNotRegular
	}
	return path, info, err
}

// reason is a path that leads nowhere, and why; that nothing is there needs no
// word.
func reason(name string, err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return name
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Sprintf("%s (%v)", name, err)
}

// rootOf is the directory that a resolved path lies in the tree of, where a
// parent may be: the child's own or one that the caller named.
func (s *parentSearch) rootOf(path string) (string, bool) {
	if within(s.dir, path) {
		return s.dir, true
	}
	for _, dir := range s.img.opt.ParentDirs {
		if root, err := s.img.opt.FS.Resolve(dir); err == nil && within(root, path) {
			return root, true
		}
	}
	return "", false
}

// within tells whether path is dir or lies in its tree.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// report says why no parent was found or, if one was, where else the image's
// locators lead.
func (s *parentSearch) report() {
	at := s.img.at(parentPlace)
	switch {
	case s.found.name != "":
		for _, c := range slices.Concat(s.others, s.outside) {
			if c.info.ID != s.found.info.ID && c.place != headerPlace {
				s.img.at(c.place).warn("leads to %s, but %s to %s: programs differ in which they follow — open it with --parent", c.name, s.found.place, s.found.name)
			}
		}
	case len(s.outside) > 0:
		at.warn("%s lies outside of the image's directory and was not looked at — allow its directory, or name the parent", s.outside[0].name)
	case len(s.missing) > 0:
		at.damage("not found at %s — put it there, or name it", strings.Join(s.missing, ", "))
	}
}

// accepts judges a parent against what the child says of it. It is false where
// the parent is no image that a chain could go on with.
func (img *image) accepts(parent *image) bool {
	at := img.at(parentPlace)
	if parent.raw {
		if parent.info.Size < format.SectorSize {
			at.damage("%s has %d bytes, less than a sector — open it with --parent", parent.name, parent.info.Size)
		}
		img.checkParentMtime(parent)
		return true
	}
	if parent.foot.notVHD() {
		at.damage("%s is not a VHD image — open it with --parent", parent.name)
		return false
	}
	img.checkParentMtime(parent)
	if parent.footer == nil {
		at.damage("%s has no valid footer — check it by itself", parent.name)
		return true
	}
	if parent.footer.ID != img.header.ParentID && !img.opt.IgnoreParentIDs {
		at.damage("%s has the id %v, the image was made for %v — open it with --parent", parent.name, parent.footer.ID, img.header.ParentID)
	}
	if size := parent.footer.Size(format.SizeAuto); size > img.size {
		at.warn("%s has %d bytes, more than its child's %d; vhd-util refuses that", parent.name, size, img.size)
	}
	return true
}

// checkParentMtime: a parent that was written to since its child was made is
// no longer what the child was made for. But a copy has another time too.
func (img *image) checkParentMtime(parent *image) {
	noted := img.header.ParentTimestamp
	if img.opt.IgnoreTimestamps || noted == 0 {
		return
	}
	is := format.TimeOf(parent.info.ModTime)
	if diff := is.Time().Sub(noted.Time()).Abs(); diff > mtimeSlack {
		img.at(parentPlace).warn("%s was modified at %v, its child was made for the state of %v — if it was written to, and not just copied, the child's data is wrong", parent.name, is, noted)
	}
}
