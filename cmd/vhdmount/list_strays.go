package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/mountinfo"
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/registry"
)

// strays are the mounts of this program and user below the directory world that
// no entry names: their servers are about to enter them, or were killed before
// they could, or have another runtime directory. None of them is touched.
func strays(world string, mounts []mountinfo.Mount, records []registry.Record) []mountinfo.Mount {
	seen := map[string]bool{}
	for _, r := range records {
		seen[r.Entry.Mountpoint] = true
	}
	var out []mountinfo.Mount
	for _, m := range mounts {
		mine := m.Owner < 0 || m.Owner == os.Geteuid()
		if m.Type == mountinfo.Ours && mine && !seen[m.Point] && strings.HasPrefix(m.Point, strings.TrimSuffix(world, "/")+"/") {
			seen[m.Point] = true // once, however many lie there
			out = append(out, m)
		}
	}
	return out
}

// worldOf is where the mounts are that the runtime directory at path is to have
// entries of: everywhere, unless it is another than the user's own, named by the
// environment. That is a world apart, which ends with the directory it lies in.
func worldOf(path string, getenv func(string) string) string {
	own := registry.Locate(func(name string) string {
		if name == registry.Variable {
			return ""
		}
		return getenv(name)
	}, os.Geteuid())
	if path == own {
		return "/"
	}
	world := filepath.Dir(path)
	if resolved, err := filepath.EvalSymlinks(world); err == nil {
		return resolved // as the mount table has it
	}
	return world
}

// deadStrays are listings of those whose servers are dead. They are asked at the
// same time, and none is waited for longer than answerTimeout.
//
// A server that lives had better not be asked: one that is stopped after it read
// the question would keep this process from ending. As a rule the process that
// unmounts for it shows that it lives.
func deadStrays(strays []mountinfo.Mount) []listing {
	dead := make([]bool, len(strays))
	var looks sync.WaitGroup
	for i, m := range strays {
		if !hasUnmounter(m.Point) {
			looks.Go(func() { dead[i], _ = disconnected(m.Point) })
		}
	}
	looks.Wait()
	var out []listing
	for i, m := range strays {
		if dead[i] {
			e := registry.Entry{Image: m.Source, Mountpoint: m.Point, Frontend: frontendFUSE, ReadOnly: m.ReadOnly}
			out = append(out, listing{Entry: e, State: stateDead})
		}
	}
	return out
}

// isMine tells whether a process, by its directory in /proc, is of this user, or
// root's as one seems that has given up rights: any other may call itself what
// it likes.
func isMine(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && (int(st.Uid) == os.Geteuid() || st.Uid == 0)
}

// hasUnmounter tells whether the process runs that ends with the server of the
// mount at point (confineServer), by the title that it has.
func hasUnmounter(point string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && strings.HasSuffix(string(line), "\x00unmounts "+point+"\x00") && isMine(filepath.Dir(file)) {
			return true
		}
	}
	return false
}
