package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

// OpenFiles are the regular files that a process has open, and whether for
// writing too.
type OpenFiles map[storage.FileID]bool

// ServerFiles are the files that the server has open, as the kernel tells. What
// a server says of itself may be said by whoever took it over; but a confined one
// can open no other file than its own. The error is that of /proc, where this
// process may not look at the server's, or doesn't see it.
func (c *Conversation) ServerFiles() (OpenFiles, error) {
	server, err := peer(c.conn)
	if err == nil && server.Pid == 0 {
		err = errors.New("control socket: the server is a process of another namespace")
	}
	if err != nil {
		return nil, err
	}
	dir := filepath.Join("/proc", strconv.Itoa(int(server.Pid)))
	entries, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return nil, fmt.Errorf("files of the server: %w", err)
	}
	files := OpenFiles{}
	for _, entry := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "fd", entry.Name()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue // closed since, or none
		}
		id := storage.FileID{Dev: uint64(st.Dev), Ino: st.Ino}
		files[id] = files[id] || writable(filepath.Join(dir, "fdinfo", entry.Name()))
	}
	return files, nil
}

// writable tells whether a descriptor is open for writing, by its fdinfo.
func writable(path string) bool {
	info, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(info)) {
		if octal, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}
