// Package mountinfo reads the process's mount table (proc(5), mountinfo).
package mountinfo

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Ours is the file system type of a FUSE mount of this program.
const Ours = "fuse.vhdmount"

// Mount is an entry of the table.
type Mount struct {
	Point    string // absolute
	Type     string // "ext4", "fuse.vhdmount"
	Source   string
	ReadOnly bool
	Owner    int // the user who made it, as FUSE tells; -1 where the table doesn't
}

// All is the table in its order: a later mount lies over an earlier one at the
// same point. It touches none of them: the server of one may be dead, or
// stopped.
func All() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	defer f.Close()
	return read(f)
}

// At is the mount at exactly point, an absolute path without symbolic links;
// the topmost where several are stacked, false where there is none. Like All it
// does not touch point.
func At(point string) (Mount, bool, error) {
	all, err := All()
	if err != nil {
		return Mount{}, false, err
	}
	found, ok := topmost(all, point)
	return found, ok, nil
}

func topmost(all []Mount, point string) (Mount, bool) {
	for _, m := range slices.Backward(all) {
		if m.Point == point {
			return m, true
		}
	}
	return Mount{}, false
}

func read(r io.Reader) (all []Mount, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // a mount's options may be long
	for lines.Scan() {
		if m, valid := parse(lines.Text()); valid {
			all = append(all, m)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	return all, nil
}

// parse reads a line: six fields, optional ones up to a dash, three more.
func parse(line string) (Mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 6 || len(right) < 2 {
		return Mount{}, false
	}
	m := Mount{Point: unescape(left[4]), Type: unescape(right[0]), Source: unescape(right[1]), Owner: -1}
	options := strings.Split(left[5], ",")
	if len(right) > 2 {
		options = append(options, strings.Split(right[2], ",")...)
	}
	for _, option := range options {
		if uid, ok := strings.CutPrefix(option, "user_id="); ok {
			if n, err := strconv.ParseUint(uid, 10, 31); err == nil {
				m.Owner = int(n)
			}
		}
	}
	m.ReadOnly = slices.Contains(options, "ro")
	return m, true
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
