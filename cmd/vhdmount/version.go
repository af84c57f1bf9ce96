package main

import (
	"fmt"
	"runtime/debug"
)

// version and commit name the build where its maker sets them:
//
//	go build -ldflags "-X main.version=1.0.0 -X main.commit=$(git rev-parse HEAD)"
//
// Otherwise they are what the Go tool noted in the binary.
var version, commit string

// versionLine is "vhdmount 1.0.0 (commit abc…)".
func versionLine() string {
	v, c := version, commit
	info, ok := debug.ReadBuildInfo()
	if ok && v == "" {
		v = info.Main.Version
	}
	if ok && c == "" {
		c = revision(info.Settings)
	}
	if v == "" {
		v = "(devel)"
	}
	if c == "" {
		c = "unknown"
	}
	return fmt.Sprintf("vhdmount %s (commit %s)", v, c)
}

// revision is the commit that the settings of a build name, marked where the
// tree had changes beside it.
func revision(settings []debug.BuildSetting) string {
	var commit, modified string
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = ", modified"
			}
		}
	}
	if commit == "" {
		return ""
	}
	return commit + modified
}
