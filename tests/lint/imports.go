package lint

import (
	"fmt"
	"strings"
)

// Imports checks the architecture's import rules: the picture at the top of
// ARCHITECTURE.md, arrow by arrow. Tests are held to the arrows, but may use
// files and other packages of the standard library as they like.
func Imports(packages []Package) []string {
	var findings []string
	for _, p := range packages {
		for _, path := range p.Imports {
			if why := forbidden(p.Path, path); why != "" {
				findings = append(findings, fmt.Sprintf("%s imports %s: %s", p.Path, path, why))
			}
		}
		for _, path := range p.TestImports {
			if why := forbiddenArrow(p.Path, path); why != "" {
				findings = append(findings, fmt.Sprintf("a test of %s imports %s: %s", p.Path, path, why))
			}
		}
	}
	return findings
}

// forbidden says why the package at path must not import imported; "" where it
// may.
func forbidden(path, imported string) string {
	if why := forbiddenArrow(path, imported); why != "" {
		return why
	}
	switch {
	case within(path, "core/vhd/format"):
		return forbiddenFormat(imported)
	case within(path, "core"):
		return forbiddenCore(path, imported)
	}
	return ""
}

// forbiddenArrow is the part of forbidden that is about the module's own rooms.
func forbiddenArrow(path, imported string) string {
	switch {
	case within(path, "frontend") && within(imported, "core/vhd"):
		return "a frontend knows disks (core/io/blockdev), not engines"
	case within(path, "core") && within(imported, "frontend"):
		return "core knows nothing of how a disk is shown"
	case (within(path, "core") || within(path, "frontend")) && within(imported, "cmd"):
		return "the command is what others are for, not the other way"
	case within(path, "core/io") && within(imported, "core/vhd"):
		return "the waists know no engine"
	}
	return ""
}

// forbiddenFormat holds core/vhd/format to bytes in, structs out.
func forbiddenFormat(imported string) string {
	if !standard(imported) {
		return "format imports the standard library alone"
	}
	switch imported {
	case "os", "os/exec", "io", "io/fs", "bufio", "net", "syscall", "log", "log/slog":
		return "format does no I/O"
	}
	return ""
}

func forbiddenCore(path, imported string) string {
	switch {
	case imported == "log" || imported == "log/slog":
		return "core returns errors and never logs"
	case within(imported, "os") && !within(path, "core/io/storage"):
		return "under core only core/io/storage talks to the operating system"
	case tool(path) && tool(imported) && top(path) != top(imported):
		return "no tool reaches into another: build on core/vhd and format"
	case path == "core/vhd" && tool(imported):
		return "the engine stands without the tools"
	}
	return ""
}

// tool tells whether path is one of the packages for whole images, beside the
// engine.
func tool(path string) bool {
	return within(path, "core/vhd") && path != "core/vhd" && !within(path, "core/vhd/format") && !strings.HasSuffix(path, "test")
}

// top is the folder of a tool: core/vhd/check for core/vhd/check/internal/x.
func top(path string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(path, "core/vhd/"), "/")
	return name
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// standard tells whether path is of the standard library. Paths of this module
// come without the module's, so that the first element tells nothing: its own
// top folders are listed.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	switch first {
	case "core", "frontend", "cmd", "tests":
		return false
	}
	return !strings.Contains(first, ".")
}
