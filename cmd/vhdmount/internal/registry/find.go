package registry

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
)

// Find is the records that a person may mean by path: the mount point, the
// disk's path, or the image. Those that match by place come alone; only where
// there is none the image counts, which may be mounted several times.
//
// The path needn't exist or be readable: that of a mount whose server died
// isn't.
func Find(records []Record, path string) []Record {
	names := spellings(path)
	is := func(candidate string) bool { return candidate != "" && slices.Contains(names, candidate) }
	var places, images []Record
	for _, r := range records {
		switch {
		case is(r.Entry.Mountpoint), is(r.Entry.Disk):
			places = append(places, r)
		case is(r.Entry.Image):
			images = append(images, r)
		}
	}
	if len(places) > 0 {
		return places
	}
	return images
}

// spellings is path made absolute, with symbolic links and as far as possible
// without: through the last component, and through its directory alone. No disk
// is asked for them.
func spellings(path string) []string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	names := []string{abs}
	if dir, _, err := mountinfo.Resolve(filepath.Dir(abs), mountinfo.Ours); err == nil {
		names = append(names, filepath.Join(dir, filepath.Base(abs)))
	}
	if whole, _, err := mountinfo.Resolve(abs, mountinfo.Ours); err == nil {
		names = append(names, whole)
	}
	return names
}

func sortBySince(records []Record) {
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(a.Entry.Since.Compare(b.Entry.Since), cmp.Compare(a.Name, b.Name))
	})
}

// escape makes a path match itself alone in filepath.Glob.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
