package vhd

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// maxLocator bounds a parent locator's data, in bytes.
const maxLocator = 64 << 10

func locatorName(i int) string { return "parent locator " + strconv.Itoa(i) }

// locatorSpace is the bytes that locator i's data may take, 0 for one that is
// not used; damage where they are not in the file.
func (l *layer) locatorSpace(i int, loc format.Locator) (int64, error) {
	if loc.Code == format.CodeNone {
		return 0, nil
	}
	n, err := loc.SpaceBytes()
	if err != nil {
		return 0, l.errorf(locatorName(i), &renamed{ErrCorrupt, err})
	}
	n = max(n, int64(loc.DataLength))
	if loc.DataOffset > uint64(l.info.Size) || n > l.info.Size-int64(loc.DataOffset) {
		return 0, l.errorf(locatorName(i), corrupt("%d bytes at offset %d pass the end of the file (%d bytes)", n, loc.DataOffset, l.info.Size))
	}
	return n, nil
}

// openParent opens the parent of l and checks that it is the one that l was
// made from.
func (c *opener) openParent(l *layer) (*layer, error) {
	raw := l.header.ParentID.IsZero()
	from := source{name: c.Parent}
	if from.name == "" || l != c.layers[0] {
		found, err := c.findParent(l)
		if err != nil {
			return nil, err
		}
		from = found
	}
	path := from.name
	parent, err := c.openFile(from, raw)
	if err != nil {
		return nil, c.parentError(l, path, err)
	}
	c.parents[len(c.layers)-2] = path
	if raw {
		return parent, nil
	}
	if parent.footer.ID != l.header.ParentID {
		text := fmt.Sprintf("parent %s has UUID %v, but the image was made from %v", path, parent.footer.ID, l.header.ParentID)
		if !c.ForceParent {
			return nil, l.errorf("", &kindError{ErrParentMismatch, text + ": name the right one with --parent, or accept this one with --force-parent"})
		}
		l.warnf("%s: accepted by force", text)
	}
	if at := l.header.ParentTimestamp.Time(); !parent.info.ModTime.Truncate(time.Second).Equal(at) {
		l.warnf("parent %s was last changed at %s, but the image notes %s: harmless if it was copied, damage if it was written to",
			path, parent.info.ModTime.UTC().Format(time.DateTime), at.UTC().Format(time.DateTime))
	}
	if l.size < parent.size {
		l.warnf("the disk (%d bytes) is smaller than its parent's (%d bytes)", l.size, parent.size)
	}
	return parent, nil
}

func (c *opener) parentError(l *layer, path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return l.errorf("", &kindError{ErrParentMissing, fmt.Sprintf("parent %s not found: name it with --parent", path)})
	}
	if errors.Is(err, storage.ErrOutside) {
		return l.errorf("", &kindError{ErrParentOutside, fmt.Sprintf("parent %s: %v", path, err)})
	}
	return l.errorf("parent", err)
}

// findParent is the first of l's candidates that exists and may be opened.
func (c *opener) findParent(l *layer) (source, error) {
	names, err := l.parentNames()
	if err != nil {
		return source{}, err
	}
	dir, err := c.dirOf(l)
	if err != nil {
		return source{}, l.errorf("", err)
	}
	var outside, failed error
	for _, name := range names {
		path, err := c.look(dir, name)
		root, allowed := c.rootOf(dir, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case path != "" && !allowed:
			outside = l.errorf("", &kindError{ErrParentOutside, fmt.Sprintf(
				"parent %s lies outside the image's directory: allow it with --parent-dir %s", printable(path), printable(filepath.Dir(path)))})
		case err != nil:
			failed = l.errorf("parent "+printable(name), err)
		default:
			return source{name: path, flag: storage.NoFollow, root: root}, nil
		}
	}
	return source{}, l.noParent(names, outside, failed)
}

// noParent says why none of the names is l's parent: one lies outside, one
// can't be opened, or none is there.
func (l *layer) noParent(names []string, outside, failed error) error {
	switch {
	case outside != nil:
		return outside
	case failed != nil:
		return failed
	case len(names) == 0:
		return l.errorf("dynamic header", &kindError{ErrParentMissing, "a differencing image that names no parent: name it with --parent"})
	}
	shown := make([]string, len(names))
	for i, name := range names {
		shown[i] = printable(name)
	}
	return l.errorf("", &kindError{ErrParentMissing, fmt.Sprintf("parent %s not found: name it with --parent", strings.Join(shown, " or "))})
}

// look is the path of the file called name, seen from dir: its directory free
// of symbolic links, the last component left for NoFollow to judge. With an
// error it is empty where not even that could be found.
func (c *opener) look(dir, name string) (string, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	parent, err := c.FS.Resolve(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	path := filepath.Join(parent, filepath.Base(name))
	info, err := c.FS.Stat(path)
	if err == nil && !info.Mode.IsRegular() {
		err = storage.ErrNotRegular
	}
	return path, err
}

// rootOf is the directory that path lies in the tree of: dir or one of
// ParentDirs, resolved.
func (c *opener) rootOf(dir, path string) (string, bool) {
	if within(dir, path) {
		return dir, true
	}
	for _, d := range c.ParentDirs {
		if resolved, err := c.FS.Resolve(d); err == nil && within(resolved, path) {
			return resolved, true
		}
	}
	return "", false
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// parentNames are the places where l's parent may be, as its locators say in
// their order (tapdisk takes the first that is there), then by its bare name
// beside the image.
func (l *layer) parentNames() ([]string, error) {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for i, loc := range l.header.Locators {
		path, err := l.locatorPath(i, loc)
		var damage *format.Error
		switch {
		case errors.Is(err, ErrCorrupt) || errors.As(err, &damage):
			l.warnings = append(l.warnings, err.Error())
			continue
		case err != nil:
			return nil, err
		}
		add(path.Path)
		add(path.Literal)
	}
	name := l.header.ParentName
	if i := strings.LastIndexAny(name, `\/`); i >= 0 {
		name = name[i+1:]
	}
	if name != "." && name != ".." {
		add(name)
	}
	return names, nil
}

// locatorPath reads the path of locator i; none for one that holds none.
func (l *layer) locatorPath(i int, loc format.Locator) (format.ParentPath, error) {
	if loc.Code == format.CodeNone || loc.Code == format.CodeMac {
		return format.ParentPath{}, nil
	}
	if _, err := l.locatorSpace(i, loc); err != nil {
		return format.ParentPath{}, err
	}
	if loc.DataLength > maxLocator {
		return format.ParentPath{}, l.errorf(locatorName(i), corrupt("%d bytes are no path", loc.DataLength))
	}
	data := make([]byte, loc.DataLength)
	if err := l.read(data, int64(loc.DataOffset), locatorName(i)); err != nil {
		return format.ParentPath{}, err
	}
	p, err := format.DecodeLocatorPath(loc.Code, data)
	if err != nil {
		return format.ParentPath{}, l.errorf(locatorName(i), err)
	}
	return p, nil
}

// printable is a name from an image as part of a message: quoted if it holds
// what a terminal would act on.
func printable(name string) string {
	for _, r := range name {
		if !strconv.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}
