package storage

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holders are the processes that have f's file locked at one of the bytes or,
// where none shows, open for writing; this process is among them if another
// open file of its own is why. It sees what /proc shows to this user.
func (f *osFile) holders(conflict byteSet) []Holder {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return nil
	}
	var lockers, writers []Holder
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	for _, path := range infos {
		d, ok := readDescriptor(path)
		if !ok || d.pid == os.Getpid() && d.fd == f.fd {
			continue
		}
		locks, writes := d.locks(conflict), d.writes()
		if !locks && !writes || !d.isFile(&st) {
			continue
		}
		if locks {
			lockers = appendHolder(lockers, d.pid)
		} else {
			writers = appendHolder(writers, d.pid)
		}
	}
	if len(lockers) > 0 {
		return lockers
	}
	return writers
}

// appendHolder adds the process pid, once.
func appendHolder(to []Holder, pid int) []Holder {
	if slices.ContainsFunc(to, func(h Holder) bool { return h.PID == pid }) {
		return to
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return to // it has gone, and its locks with it
	}
	return append(to, Holder{PID: pid, Name: strings.TrimSuffix(string(comm), "\n")})
}

// descriptor is an open file of some process, as its fdinfo tells.
type descriptor struct {
	pid, fd int
	info    []byte
}

func readDescriptor(path string) (descriptor, bool) {
	parts := strings.Split(path, "/") // "", proc, PID, fdinfo, FD
	pid, err := strconv.Atoi(parts[2])
	if err != nil {
		return descriptor{}, false
	}
	fd, err := strconv.Atoi(parts[4])
	if err != nil {
		return descriptor{}, false
	}
	info, err := os.ReadFile(path)
	return descriptor{pid, fd, info}, err == nil
}

// fields yields the words after each "key:" line.
func (d descriptor) fields(key string) [][]string {
	var all [][]string
	for line := range bytes.Lines(d.info) {
		if rest, ok := strings.CutPrefix(string(line), key+":"); ok {
			all = append(all, strings.Fields(rest))
		}
	}
	return all
}

// locks tells whether the open file has a lock on one of the bytes. A line:
//
//	lock:	1: OFDLCK ADVISORY  READ -1 08:01:1234 100 100
func (d descriptor) locks(conflict byteSet) bool {
	for _, w := range d.fields("lock") {
		if len(w) < 8 || w[1] != "OFDLCK" && w[1] != "POSIX" {
			continue
		}
		first, err := strconv.ParseInt(w[6], 10, 64)
		if err != nil {
			continue
		}
		last, err := strconv.ParseInt(w[7], 10, 64)
		toEnd := err != nil // "EOF"
		for _, b := range conflict {
			if first <= b && (toEnd || b <= last) {
				return true
			}
		}
	}
	return false
}

// writes tells whether the descriptor is open for writing.
func (d descriptor) writes() bool {
	for _, w := range d.fields("flags") {
		if len(w) == 1 {
			flags, err := strconv.ParseInt(w[0], 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}

// isFile tells whether the descriptor is open on st's file. The inode number
// in fdinfo (since Linux 5.14) is asked first: a stat goes to the file's own
// file system, which may be a dead server.
func (d descriptor) isFile(st *unix.Stat_t) bool {
	for _, w := range d.fields("ino") {
		if len(w) == 1 && w[0] != strconv.FormatUint(st.Ino, 10) {
			return false
		}
	}
	var other unix.Stat_t
	name := "/proc/" + strconv.Itoa(d.pid) + "/fd/" + strconv.Itoa(d.fd)
	err := retry(func() error { return unix.Stat(name, &other) })
	return err == nil && idOf(&other) == idOf(st)
}
