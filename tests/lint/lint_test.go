package lint

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTree applies every rule to this module.
func TestTree(t *testing.T) {
	packages, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 5 || !slices.ContainsFunc(packages, func(p Package) bool { return p.Path == "core/io/blockdev" }) {
		t.Fatalf("%d packages were read, and core/io/blockdev should be among them", len(packages))
	}
	rules := map[string]func([]Package) []string{
		"imports": Imports, "layout": Layout, "lengths": Lengths, "documented": Documented,
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, finding := range rule(packages) {
				t.Error(finding)
			}
		})
	}
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, c := range []struct {
		path, imported string
		allowed        bool
	}{
		{"cmd/vhdmount", "core/vhd", true},
		{"cmd/vhdmount", "frontend/fuse", true},
		{"cmd/vhdmount/internal/daemon", "frontend", true},
		{"core/vhd", "cmd/vhdmount/internal/daemon", false},
		{"frontend/fuse", "core/io/blockdev", true},
		{"frontend/fuse", "core/vhd", false},
		{"frontend/fuse", "core/vhd/format", false},
		{"frontend/fuse", "os", true},
		{"frontend/fuse", "log/slog", true},
		{"frontend", "core/vhd", false},
		{"core/vhd", "frontend", false},
		{"core/io/blockdev", "frontend/fuse", false},
		{"core/io/blockdev", "core/vhd", false},
		{"core/vhd", "core/vhd/format", true},
		{"core/vhd", "core/io/storage", true},
		{"core/vhd", "os", false},
		{"core/vhd", "os/exec", false},
		{"core/vhd", "log", false},
		{"core/vhd", "log/slog", false},
		{"core/vhd", "io/fs", true},
		{"core/io/storage", "os", true},
		{"core/io/storage/storagetest", "os", true},
		{"core/io/storage", "log/slog", false},
		{"core/io/partition", "os", false},
		{"core/vhd/format", "encoding/binary", true},
		{"core/vhd/format", "crypto/rand", true},
		{"core/vhd/format", "io", false},
		{"core/vhd/format", "io/fs", false},
		{"core/vhd/format", "os", false},
		{"core/vhd/format", "core/io/blockdev", false},
		{"core/vhd/format", "github.com/google/uuid", false},
		{"core/vhd/check", "core/vhd", true},
		{"core/vhd/check", "core/vhd/format", true},
		{"core/vhd/check", "core/vhd/check/internal/walk", true},
		{"core/vhd/repair", "core/vhd/check", false},
		{"core/vhd/check/internal/walk", "core/vhd/repair", false},
		{"core/vhd", "core/vhd/check", false},
		{"core/vhd/vhdtest", "core/vhd/check", true},
		{"core/vhd/check", "core/vhd/vhdtest", true},
		{"core/vhdx", "core/vhd/check", true},
	} {
		t.Run(c.path+"→"+c.imported, func(t *testing.T) {
			found := Imports([]Package{{Path: c.path, Imports: []string{c.imported}}})
			if allowed := len(found) == 0; allowed != c.allowed {
				t.Errorf("allowed = %t, want %t (%q)", allowed, c.allowed, found)
			}
		})
	}
}

func TestImportsOfTestsFollowTheArrowsToo(t *testing.T) {
	for _, c := range []struct {
		path, imported string
		allowed        bool
	}{
		{"frontend/fuse", "core/vhd", false},
		{"core/vhd", "frontend/fuse", false},
		{"core/vhd", "os", true},
		{"core/vhd/format", "io", true},
		{"tests/mount", "core/vhd", true},
	} {
		t.Run(c.path+"→"+c.imported, func(t *testing.T) {
			found := Imports([]Package{{Path: c.path, TestImports: []string{c.imported}}})
			if allowed := len(found) == 0; allowed != c.allowed {
				t.Errorf("allowed = %t, want %t (%q)", allowed, c.allowed, found)
			}
		})
	}
}

func TestLayout(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Package
		want string
	}{
		{"a package in core/io", Package{Path: "core/io", Name: "io", Files: []File{{}}}, "core/io: has Go files"},
		{"util", Package{Path: "core/util", Name: "util"}, "is named util"},
		{"utils", Package{Path: "core/x", Name: "utils"}, "is named utils"},
		{"a good name", Package{Path: "core/io/storage", Name: "storage", Files: []File{{}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { wantFinding(t, Layout([]Package{c.p}), c.want) })
	}
}

func TestLengths(t *testing.T) {
	function := func(lines int) string { return "func f() {\n" + strings.Repeat("\tg()\n", lines-2) + "}\n" }
	for _, c := range []struct {
		name, body, want string
	}{
		{"a function of the most", function(maxFunction), ""},
		{"a function of one more", function(maxFunction + 1), "x.go:3: f has 61 lines"},
		{"a long file", strings.Repeat("\n", maxFile), "x.go: 502 lines"},
	} {
		t.Run(c.name, func(t *testing.T) { wantFinding(t, Lengths(source(t, "package x\n\n"+c.body)), c.want) })
	}
}

func TestDocumented(t *testing.T) {
	const head = "// Package x is for tests.\npackage x\n\n"
	for _, c := range []struct {
		name, source, want string
	}{
		{"no package comment", "package x\n", "no package comment"},
		{"function", head + "func F() {}\n", "x.go:4: F is exported"},
		{"documented function", head + "// F does.\nfunc F() {}\n", ""},
		{"unexported function", head + "func f() {}\n", ""},
		{"method", head + "// T is.\ntype T int\nfunc (t *T) M() {}\n", "M is exported"},
		{"method of a generic type", head + "// T is.\ntype T[A any] struct{}\nfunc (t *T[A]) M() {}\n", "M is exported"},
		{"method of an unexported type", head + "type t int\nfunc (t) M() {}\n", ""},
		{"method of the standard library's contract", head + "// T is.\ntype T int\nfunc (T) Error() string { return \"\" }\n", ""},
		{"function with such a name", head + "func Error() {}\n", "Error is exported"},
		{"type", head + "type T int\n", "T is exported"},
		{"variable", head + "var V, w int\n", "V is exported"},
		{"constant with a comment beside it", head + "const C = 1 // of something\n", ""},
		{"constants under one comment", head + "// Some.\nconst (\n\tC = 1\n\tD = 2\n)\n", ""},
		{"constants without", head + "const (\n\tC = 1\n\tD = 2 // two\n)\n", "C is exported"},
		{"generated file", "// Code generated by x. DO NOT EDIT.\n\n" + head + "func F() {}\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) { wantFinding(t, Documented(source(t, c.source)), c.want) })
	}
}

func TestLoadReadsImportsAndTests(t *testing.T) {
	packages, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(packages, func(p Package) bool { return p.Path == "tests/lint" })
	if i < 0 {
		t.Fatal("tests/lint is not among the packages")
	}
	p := packages[i]
	if !slices.Contains(p.Imports, "go/parser") || slices.Contains(p.Imports, "testing") {
		t.Errorf("imports %q: want go/parser, and nothing of the tests", p.Imports)
	}
	if !slices.Contains(p.TestImports, "testing") {
		t.Errorf("test imports %q: want testing", p.TestImports)
	}
	for _, f := range p.Files {
		if filepath.Dir(f.Name) != "tests/lint" || f.Lines < 2 {
			t.Errorf("file %q of %d lines", f.Name, f.Lines)
		}
	}
}

// source is a module of one package with one file.
func source(t *testing.T, text string) []Package {
	t.Helper()
	f, err := parse("/m", "/m/x.go", text)
	if err != nil {
		t.Fatal(err)
	}
	return []Package{{Path: ".", Name: f.AST.Name.Name, Files: []File{f}}}
}

// wantFinding checks that exactly one finding has want in it; none for "".
func wantFinding(t *testing.T, findings []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(findings) > 0:
		t.Errorf("findings %q, want none", findings)
	case want != "" && (len(findings) != 1 || !strings.Contains(fmt.Sprint(findings), want)):
		t.Errorf("findings %q, want one with %q", findings, want)
	}
}
