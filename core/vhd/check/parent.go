package check

import (
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
	name, info, err := img.locateParent()
	if err != nil || name == "" {
		return nil, err
	}
	if slices.Contains(img.seen, info.ID) {
		img.at(parentPlace).damage("%s is the image itself or one of its children: a loop — name the right parent by rebase", name)
		return nil, nil
	}
	if len(img.seen) >= MaxDepth {
		img.at(parentPlace).damage("%s would be more than %d images deep — coalesce the chain", name, MaxDepth)
		return nil, nil
	}
	flag := storage.NoFollow
	if img.named() {
		flag = 0
	}
	parent, err := img.open(name, flag)
	if errors.Is(err, storage.ErrNotRegular) && !img.named() {
		img.at(parentPlace).damage("%s — name the right parent by rebase", reason(name, err))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parent.raw = img.header.ParentID.IsZero()
	if !img.accepts(parent) {
		return nil, parent.close()
	}
	return parent, nil
}

// named tells whether the user says what the parent is.
func (img *image) named() bool { return img.leaf && img.opt.Parent != "" }

// locateParent is the file that the image's parent is, as tapdisk finds it:
// the first path, in the order of the slots, that leads to a file. It is empty
// where none does.
func (img *image) locateParent() (name string, info storage.Info, err error) {
	if img.named() {
		info, err = img.opt.FS.Stat(img.opt.Parent)
		return img.opt.Parent, info, err
	}
	self, err := img.opt.FS.Resolve(img.name)
	if err != nil {
		return "", storage.Info{}, err
	}
	search := parentSearch{img: img, dir: filepath.Dir(self)}
	for _, p := range img.paths {
		search.try(p)
	}
	search.report()
	return search.found.name, search.found.info, nil
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
	name  string
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
	name, info, err := s.settle(name)
	c := candidate{name, info, p.place}
	switch {
	case err != nil:
		if text := reason(name, err); !slices.Contains(s.missing, text) {
			s.missing = append(s.missing, text)
		}
	case !s.allowed(name):
		s.outside = append(s.outside, c)
	case s.found.name == "":
		s.found = c
	default:
		s.others = append(s.others, c)
	}
}

// settle is name with its directory free of symbolic links, and what is there.
// The last component is left: opening refuses a link.
func (s *parentSearch) settle(name string) (string, storage.Info, error) {
	dir, err := s.img.opt.FS.Resolve(filepath.Dir(name))
	if err != nil {
		return name, storage.Info{}, err
	}
	name = filepath.Join(dir, filepath.Base(name))
	info, err := s.img.opt.FS.Stat(name)
	if err == nil && !info.Mode.IsRegular() {
		err = storage.ErrNotRegular
	}
	return name, info, err
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

// allowed tells whether a parent may lie at a resolved path: below the child's
// directory or one that the caller named.
func (s *parentSearch) allowed(resolved string) bool {
	if below(s.dir, resolved) {
		return true
	}
	for _, dir := range s.img.opt.ParentDirs {
		if abs, err := s.img.opt.FS.Resolve(dir); err == nil && below(abs, resolved) {
			return true
		}
	}
	return false
}

// below tells whether name lies in dir or in a directory of it.
func below(dir, name string) bool {
	return strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// report says why no parent was found or, if one was, where else the image's
// locators lead.
func (s *parentSearch) report() {
	at := s.img.at(parentPlace)
	switch {
	case s.found.name != "":
		for _, c := range slices.Concat(s.others, s.outside) {
			if c.info.ID != s.found.info.ID && c.place != headerPlace {
				s.img.at(c.place).warn("leads to %s, but %s to %s: programs differ in which they follow — have them written again by rebase", c.name, s.found.place, s.found.name)
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
			at.damage("%s has %d bytes, less than a sector — name the right parent by rebase", parent.name, parent.info.Size)
		}
		img.checkParentMtime(parent)
		return true
	}
	if parent.foot.notVHD() {
		at.damage("%s is not a VHD image — name the right parent by rebase", parent.name)
		return false
	}
	img.checkParentMtime(parent)
	if parent.footer == nil {
		at.damage("%s has no valid footer — check it by itself", parent.name)
		return true
	}
	if parent.footer.ID != img.header.ParentID && !img.opt.IgnoreParentIDs {
		at.damage("%s has the id %v, the image was made for %v — name the right parent by rebase", parent.name, parent.footer.ID, img.header.ParentID)
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
