package blktap

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// holders are who has a device open, one line each: programs by their
// descriptors, mounts and swap by the tables of the kernel. It sees what
// /proc shows to this user; openers within the kernel (a guest's back end)
// don't show.
func holders(proc string, kind uint32, dev uint64) []string {
	who := mounts(proc, dev)
	who = append(who, swaps(proc, kind, dev)...)
	fds, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	for _, fd := range fds {
		if !isDevice(fd, kind, dev) {
			continue
		}
		if p := program(filepath.Dir(filepath.Dir(fd))); p != "" && !slices.Contains(who, p) {
			who = append(who, p)
		}
	}
	return who
}

// isDevice tells whether name leads to the device. It asks no file system
// about a file that is on a network or in a process: that may be dead.
func isDevice(name string, kind uint32, dev uint64) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && uint32(st.Mode)&unix.S_IFMT == kind && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == dev
}

// program is the process of a directory of /proc, or "" if it has gone.
func program(dir string) string {
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s (pid %s)", strings.TrimSuffix(string(comm), "\n"), filepath.Base(dir))
}

// mounts are the file systems on the device. A line of mountinfo begins
//
//	36 35 98:0 /root/of/mount /mount/point …
func mounts(proc string, dev uint64) []string {
	want := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	var who []string
	for _, w := range table(filepath.Join(proc, "self", "mountinfo")) {
		if len(w) > 4 && w[2] == want {
			who = append(who, "mounted on "+w[4])
		}
	}
	return who
}

// swaps is "swap" if the device is used as that. A line begins with its name.
func swaps(proc string, kind uint32, dev uint64) []string {
	for _, w := range table(filepath.Join(proc, "swaps")) {
		if len(w) > 0 && isDevice(w[0], kind, dev) {
			return []string{"used as swap"}
		}
	}
	return nil
}

// table is the words of each line of a file; none where it can't be read.
func table(name string) [][]string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var lines [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, strings.Fields(s.Text()))
	}
	return lines
}
