package mountinfo

import (
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symbolic links a path may lead through, as in the
// kernel (path_resolution(7)).
const maxLinks = 40

// Resolve is path made absolute and without symbolic links, as far as that can
// be told without asking a file system of the type avoid: its server may be
// stopped, and who asks one that doesn't answer can't be interrupted. within
// tells whether path leads to or into such a mount; what is below its mount
// point is left as it is, and so is what isn't there.
func Resolve(path, avoid string) (resolved string, within bool, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return "", false, err
	}
	mounts, err := All()
	if err != nil {
		return "", false, err
	}
	opaque := map[string]bool{}
	for _, m := range mounts {
		opaque[m.Point] = m.Type == avoid // the topmost counts
	}
	resolved, within = resolve(path, opaque)
	return resolved, within, nil
}

// resolve is Resolve of an absolute path. Below a mount point nothing is looked at.
func resolve(path string, opaque map[string]bool) (resolved string, within bool) {
	done, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0 && !opaque[done]; {
		next := filepath.Join(done, rest[0]) // ".." too: there are no links in done
		rest = rest[1:]
		target := ""
		if !opaque[next] {
			target, _ = os.Readlink(next)
		}
		if target == "" {
			done = next
			continue
		}
		if links++; links > maxLinks {
			done = next
			break
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return filepath.Join(append([]string{done}, rest...)...), opaque[done]
}
