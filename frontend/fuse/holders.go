package fuse

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holders says who keeps a mount busy: programs with a file of it open, mapped
// or as their directory, loop devices on it, and mounts in it. It finds what
// the user may see, and asks nothing of the mount, whose server may be dead.
func holders(e mountEntry) []string {
	var who []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	slices.SortFunc(procs, func(a, b string) int { return pidOf(a) - pidOf(b) })
	for _, proc := range procs {
		if opens(proc, e) || standsIn(proc, e) || mapped(proc, e) {
			who = append(who, processName(proc))
		}
	}
	who = append(who, loops(e)...)
	return append(who, mountsIn(e)...)
}

// usesOutOfSight says who uses a mount that is no longer in this process's mount
// table: programs that have a file of it open, or else those in whose mount
// namespace a copy of it is, one for each namespace.
func usesOutOfSight(e mountEntry) string {
	var who, elsewhere []string
	seen := map[string]bool{"": true} // the namespace of a process that may not be looked at
	procs, _ := filepath.Glob("/proc/[0-9]*")
	slices.SortFunc(procs, func(a, b string) int { return pidOf(a) - pidOf(b) })
	for _, proc := range procs {
		if opens(proc, e) || mapped(proc, e) {
			who = append(who, processName(proc))
		}
		namespace, _ := os.Readlink(proc + "/ns/mnt")
		if !seen[namespace] && mountedFor(proc, e) {
			seen[namespace] = true
			elsewhere = append(elsewhere, processName(proc))
		}
	}
	switch {
	case len(who) > 0:
		return "still open in " + strings.Join(who, ", ")
	case len(elsewhere) > 0:
		return "another mount namespace still has it mounted: that of " + strings.Join(elsewhere, ", ")
	}
	return "another mount namespace still has it mounted"
}

// mountedFor tells whether a process sees the file system of e mounted.
func mountedFor(proc string, e mountEntry) bool {
	return hasLine(proc+"/mountinfo", func(l string) bool {
		m, ok := parseMount(l)
		return ok && m.device == e.device && m.fsType == e.fsType
	})
}

// processName is a process's program and number.
func processName(proc string) string {
	return fmt.Sprintf("%s (pid %d)", firstLine(proc+"/comm"), pidOf(proc))
}

func pidOf(proc string) int {
	pid, _ := strconv.Atoi(filepath.Base(proc))
	return pid
}

// opens tells whether a process has a descriptor of the mount.
func opens(proc string, e mountEntry) bool {
	infos, _ := filepath.Glob(proc + "/fdinfo/*")
	for _, info := range infos {
		if hasLine(info, func(l string) bool {
			id, ok := strings.CutPrefix(l, "mnt_id:")
			return ok && strings.TrimSpace(id) == e.id
		}) {
			return true
		}
	}
	return false
}

// standsIn tells whether a process's working directory or root is in the mount.
func standsIn(proc string, e mountEntry) bool {
	for _, link := range []string{"/cwd", "/root"} {
		if at, err := os.Readlink(proc + link); err == nil && within(at, e.point) {
			return true
		}
	}
	return false
}

// mapped tells whether a process has a file of the mount mapped.
func mapped(proc string, e mountEntry) bool {
	return hasLine(proc+"/maps", func(l string) bool {
		f := strings.Fields(l) // address, permissions, offset, device in hexadecimal, inode, path
		return len(f) > 3 && sameDevice(f[3], e.device)
	})
}

// sameDevice compares MAJOR:MINOR in hexadecimal with one in decimal.
func sameDevice(hex, decimal string) bool {
	a, b, _ := strings.Cut(hex, ":")
	major, err1 := strconv.ParseUint(a, 16, 32)
	minor, err2 := strconv.ParseUint(b, 16, 32)
	return err1 == nil && err2 == nil && fmt.Sprintf("%d:%d", major, minor) == decimal
}

// loops are the loop devices on files of the mount.
func loops(e mountEntry) []string {
	var who []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if within(firstLine(f), e.point) {
			dev := strings.Split(f, "/")[3]
			who = append(who, fmt.Sprintf("/dev/%s (losetup -d /dev/%s)", dev, dev))
		}
	}
	return who
}

// mountsIn are the mounts on files of the mount.
func mountsIn(e mountEntry) []string {
	var who []string
	all, _ := mounts()
	for _, m := range all {
		if m.point != e.point && within(m.point, e.point) || m.device == e.device && m.id != e.id && m.point != e.point {
			who = append(who, "the mount at "+m.point)
		}
	}
	return who
}

// within tells whether path is dir or in it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func firstLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func hasLine(file string, match func(string) bool) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if match(s.Text()) {
			return true
		}
	}
	return false
}
