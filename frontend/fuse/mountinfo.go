package fuse

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// fsType is the type in the mount table.
const fsType = "fuse.vhdmount"

// mountEntry is a line of the mount table.
type mountEntry struct {
	id     string
	device string // MAJOR:MINOR
	point  string
	fsType string
	source string
}

// mounts are the mounts that this process sees, in the order of mounting.
func mounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mountEntry
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			return all, s.Err()
		}
		if e, ok := parseMount(s.Text()); ok {
			all = append(all, e)
		}
	}
}

// parseMount reads a line of mountinfo (proc_pid_mountinfo(5)): six fields, of
// which the fifth is the mount point, optional ones up to a hyphen, then type
// and source.
func parseMount(line string) (mountEntry, bool) {
	left, right, ok := strings.Cut(line, " - ")
	before, after := strings.Fields(left), strings.Fields(right)
	if !ok || len(before) < 6 || len(after) < 2 {
		return mountEntry{}, false
	}
	return mountEntry{
		id:     before[0],
		device: before[2],
		point:  unescape(before[4]),
		fsType: after[0],
		source: unescape(after[1]),
	}, true
}

// mountAt is what is mounted at path, the topmost; ok is false if nothing is.
func mountAt(path string) (e mountEntry, ok bool, err error) {
	all, err := mounts()
	if err != nil {
		return mountEntry{}, false, err
	}
	for _, m := range all {
		if m.point == path {
			e, ok = m, true
		}
	}
	return e, ok, nil
}

// unescape undoes the mount table's \ooo for blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
