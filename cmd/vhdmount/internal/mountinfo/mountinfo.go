// Package mountinfo reads the process's mount table (proc(5), mountinfo).
package mountinfo

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Mount is an entry of the table.
type Mount struct {
	Point  string // absolute
	Type   string // "ext4", "fuse.vhdmount"
	Source string
}

// At is the mount at exactly point, an absolute path without symbolic links;
// the topmost where several are stacked, false where there is none. It does
// not touch point, whose server may be dead.
func At(point string) (Mount, bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Mount{}, false, fmt.Errorf("mount table: %w", err)
	}
	defer f.Close()
	return find(f, point)
}

func find(r io.Reader, point string) (found Mount, ok bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // a mount's options may be long
	for lines.Scan() {
		m, valid := parse(lines.Text())
		if valid && m.Point == point {
			found, ok = m, true // later lines are mounted over earlier ones
		}
	}
	if err := lines.Err(); err != nil {
		return Mount{}, false, fmt.Errorf("mount table: %w", err)
	}
	return found, ok, nil
}

// parse reads a line: six fields, optional ones up to a dash, three more.
func parse(line string) (Mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 6 || len(right) < 2 {
		return Mount{}, false
	}
	return Mount{Point: unescape(left[4]), Type: unescape(right[0]), Source: unescape(right[1])}, true
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
