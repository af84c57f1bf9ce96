package tapctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// DefaultDir is where tapdisks have their sockets; NewerDir is the same place
// on most systems, by the name that later versions use.
const (
	DefaultDir = "/var/run/blktap-control"
	NewerDir   = "/run/blktap-control"
)

// DirVariable is the environment variable that names another directory.
const DirVariable = "VHDMOUNT_TAP_DIR"

// socketPrefix is what a socket's name has before the process's number.
const socketPrefix = "ctl"

// Dir is the directory in which tapdisks have their sockets.
type Dir struct{ Path string }

// Locate is the directory that the environment names by [DirVariable], or else
// [DefaultDir], or else, if only that is there, [NewerDir].
func Locate(getenv func(string) string) Dir {
	if path := getenv(DirVariable); path != "" {
		return Dir{Path: path}
	}
	if _, err := os.Stat(DefaultDir); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(NewerDir); err == nil {
			return Dir{Path: NewerDir}
		}
	}
	return Dir{Path: DefaultDir}
}

// Socket is the path of a tapdisk's socket. pid is the process as it calls
// itself.
func (d Dir) Socket(pid int) string {
	return filepath.Join(d.Path, socketPrefix+strconv.Itoa(pid))
}

// ParseSocket is the number of the process in a socket's path.
func ParseSocket(path string) (pid int, ok bool) {
	digits, ok := strings.CutPrefix(filepath.Base(path), socketPrefix)
	if !ok {
		return 0, false
	}
	pid, err := strconv.Atoi(digits)
	return pid, err == nil && pid > 0 && strconv.Itoa(pid) == digits
}

// Tapdisks are the processes that answer at their sockets, in order. One that
// died and left its socket behind is skipped, as is one that doesn't answer
// while ctx lasts; the error is that of a directory that can't be read. There
// is none if there is no directory.
func (d Dir) Tapdisks(ctx context.Context) ([]int, error) {
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tapdisks: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, ok := ParseSocket(e.Name())
		if !ok || slices.Contains(pids, pid) {
			continue
		}
		if _, err := d.PID(ctx, pid); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}
