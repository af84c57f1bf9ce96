package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Permission bits, as they are for all others.
const (
	enter        = 0o001
	read         = 0o004
	readAndWrite = 0o006
	removeFrom   = 0o003
)

// keep are the capabilities to keep: those asked for, and root's way past
// permission bits where what is still needed can't be reached otherwise.
func (o *Options) keep() []cap.Value {
	for _, needed := range []struct {
		paths []string
		bits  os.FileMode
	}{{o.RemoveIn, removeFrom}, {o.Read, read}, {o.Write, readAndWrite}} {
		for _, path := range needed.paths {
			if !permitted(path, needed.bits) {
				return append(slices.Clone(o.Keep), cap.DAC_OVERRIDE)
			}
		}
	}
	return o.Keep
}

// permitted tells whether the bits of what path leads to, and of all directories
// on the way, let this user do what it wants: those above a link, and those above
// its target. Groups count for nothing.
func permitted(path string, bits os.FileMode) bool {
	named, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	target, err := filepath.EvalSymlinks(named)
	if err != nil {
		return false
	}
	return reachable(target, bits) && reachable(filepath.Dir(named), enter)
}

// reachable is permitted for an absolute path, whose links are not looked into.
func reachable(path string, bits os.FileMode) bool {
	for {
		info, err := os.Stat(path)
		if err != nil {
			return false
		}
		if int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() {
			bits <<= 6
		}
		if info.Mode()&bits != bits {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
		path, bits = filepath.Dir(path), enter
	}
}

// DropCapabilities takes every capability but those to keep from the process:
// the permitted and the effective ones, and those that a program it runs could
// get, be it by the ambient set, the inheritable, or the bounding. What it
// doesn't have it doesn't get.
func DropCapabilities(keep ...cap.Value) error {
	have := cap.GetProc()
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	if err := dropBounding(have, keep); err != nil {
		return fmt.Errorf("bounding capabilities: %w", err)
	}
	left := cap.NewSet()
	for _, c := range keep {
		permitted, err := have.GetFlag(cap.Permitted, c)
		if err != nil {
			return fmt.Errorf("capability %v: %w", c, err)
		}
		if !permitted {
			continue
		}
		for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
			if err := left.SetFlag(flag, true, c); err != nil {
				return fmt.Errorf("capability %v: %w", c, err)
			}
		}
	}
	if err := left.SetProc(); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// dropBounding needs the capability to do so. A process without has nothing
// that the bounding set would take away, once it gains none by programs.
func dropBounding(have *cap.Set, keep []cap.Value) error {
	if may, err := have.GetFlag(cap.Effective, cap.SETPCAP); err != nil || !may {
		return err
	}
	var drop []cap.Value
	for c := range cap.MaxBits() {
		bounding, err := cap.GetBound(c)
		if err != nil {
			return err
		}
		if bounding && !slices.Contains(keep, c) {
			drop = append(drop, c)
		}
	}
	return cap.DropBound(drop...)
}
