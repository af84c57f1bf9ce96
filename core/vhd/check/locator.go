package check

import (
	"path"
	"strconv"
	"strings"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// parentPath is where something in the image says that its parent is.
type parentPath struct {
	place string // what says so
	format.ParentPath
}

// checkLocators judges the locators of a differencing disk and gathers where
// they lead. In a disk without a parent there are none to judge.
func (img *image) checkLocators() error {
	if img.footer.Type != format.Differencing {
		return nil
	}
	slots := make(map[format.LocatorCode]int)
	for i, l := range img.header.Locators {
		at := img.at("locator " + strconv.Itoa(i))
		if l.Code == format.CodeNone {
			if l != (format.Locator{}) {
				at.damage("is unused, but its fields are not zero — copy the disk to a new image")
			}
			continue
		}
		if first, taken := slots[l.Code]; taken {
			at.damage("has the code of locator %d, %v — copy the disk to a new image", first, l.Code)
		} else {
			slots[l.Code] = i
		}
		if !img.checkLocator(at, l) {
			continue
		}
		img.claim(locatorExtent(at.place, l))
		if err := img.checkLocatorPath(at, l); err != nil {
			return err
		}
	}
	img.checkLocated()
	return nil
}

// checkLocator judges a locator's entry. It is false where its data can't be
// read.
func (img *image) checkLocator(at spot, l format.Locator) bool {
	if l.Reserved != 0 {
		at.damage("reserved bytes are not zero — copy the disk to a new image")
	}
	if err := l.Validate(); err != nil {
		at.damage("%s — copy the disk to a new image", detail(err))
		return false
	}
	if e := locatorExtent(at.place, l); e.end > img.dataEnd {
		at.damage("data at %#x to %#x runs past the end of the data (%#x) — copy the disk to a new image", e.start, e.end-1, img.dataEnd)
		return false
	}
	return true
}

// locatorExtent is the space of a valid locator's data.
func locatorExtent(place string, l format.Locator) extent {
	space, _ := l.SpaceBytes() // Validate has asked before
	start := int64(l.DataOffset)
	return extent{start: start, end: start + space, name: "data of " + place}
}

// checkLocatorPath reads the parent's path and holds its name against the one
// in the header.
func (img *image) checkLocatorPath(at spot, l format.Locator) error {
	if l.Code == format.CodeMac {
		return nil // a blob that nobody but old Mac OS reads
	}
	data := make([]byte, l.DataLength) // at most 64 KiB, Validate has seen to it
	if err := readFull(img.file, data, int64(l.DataOffset)); err != nil {
		return err
	}
	p, err := format.DecodeLocatorPath(l.Code, data)
	switch {
	case err != nil && p.Path != "":
		at.note("leads to another host, %s, and is not followed", p.Path)
		return nil
	case err != nil:
		at.damage("%s — copy the disk to a new image", detail(err))
		return nil
	}
	img.paths = append(img.paths, parentPath{at.place, p})
	if p.Literal != "" {
		img.paths = append(img.paths, parentPath{at.place, format.ParentPath{Path: p.Literal, Absolute: p.Absolute}})
	}
	name := baseName(img.header.ParentName)
	if name != "" && !sameName(name, p.Path) && !sameName(name, p.Literal) {
		at.damage("names %q, but the header names %q — copy the disk to a new image", path.Base(p.Path), name)
	}
	return nil
}

// sameName compares a name with a path's last element. Windows, which most
// names come from, sees no difference of case.
func sameName(name, p string) bool { return strings.EqualFold(name, path.Base(p)) }

// baseName is the last element of the header's parent name, which is a whole
// Windows path in some images.
func baseName(name string) string {
	return name[strings.LastIndexAny(name, `/\`)+1:]
}

// checkLocated: a child must say where its parent is, in a locator or, as a
// last resort, by name.
func (img *image) checkLocated() {
	name := baseName(img.header.ParentName)
	switch {
	case name == "" && len(img.paths) == 0:
		img.at(headerPlace).damage("neither a locator nor a name leads to the parent — open it with --parent")
	case name == "":
		img.at(headerPlace).note("parent name is empty; the locators have it")
	case len(img.paths) == 0:
		img.at(headerPlace).warn("no locator leads to the parent, only its name, %q; tapdisk refuses the image — open it with --parent", name)
	}
	if name != "" && name != "." && name != ".." {
		img.paths = append(img.paths, parentPath{headerPlace, format.ParentPath{Path: name}})
	}
}

// checkNoParent: a disk that isn't differencing has no parent's fields.
func (img *image) checkNoParent() {
	h, at := img.header, img.at(headerPlace)
	const advice = "of a disk without a parent — copy the disk to a new image"
	if !h.ParentID.IsZero() {
		at.damage("has a parent's id, %v, "+advice, h.ParentID)
	}
	if h.ParentName != "" {
		at.damage("has a parent's name, %q, "+advice, h.ParentName)
	}
	if h.ParentTimestamp != 0 {
		at.damage("has a parent's timestamp, %v, "+advice, h.ParentTimestamp)
	}
	if h.Locators != [len(h.Locators)]format.Locator{} {
		at.damage("has parent locators " + advice)
	}
}
