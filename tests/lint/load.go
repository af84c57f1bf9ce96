package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// Package is a package of the module as the rules see it.
type Package struct {
	Path        string   // below the module's, "core/vhd"; "." for the root
	Name        string   // as its package clauses say
	Imports     []string // of its own files; those of this module as Path
	TestImports []string // of its tests, in the package and beside it
	Files       []File   // its own, without tests
}

// File is a parsed source file.
type File struct {
	Name  string // below the module's root
	Lines int
	Fset  *token.FileSet
	AST   *ast.File
}

// listed is what `go list -json` says of a package.
type listed struct {
	Dir, ImportPath, Name string
	GoFiles, CgoFiles     []string
	Imports               []string
	TestImports           []string
	XTestImports          []string
	Module                struct{ Path, Dir string }
	Error                 *struct{ Err string }
}

// Load reads all packages of the module that dir belongs to.
func Load(dir string) ([]Package, error) {
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,Name,GoFiles,CgoFiles,Imports,TestImports,XTestImports,Module,Error", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var packages []Package
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := decoder.Decode(&l); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		p, err := l.load()
		if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
}

func (l listed) load() (Package, error) {
	if l.Error != nil && len(l.GoFiles)+len(l.CgoFiles)+len(l.TestImports)+len(l.XTestImports) == 0 {
		return Package{}, fmt.Errorf("go list: %s: %s", l.ImportPath, l.Error.Err)
	}
	p := Package{
		Path:        l.relative(l.ImportPath),
		Name:        l.Name,
		Imports:     l.relatives(l.Imports),
		TestImports: append(l.relatives(l.TestImports), l.relatives(l.XTestImports)...),
	}
	for _, name := range append(l.GoFiles, l.CgoFiles...) {
		f, err := parse(l.Module.Dir, filepath.Join(l.Dir, name), nil)
		if err != nil {
			return Package{}, err
		}
		p.Files = append(p.Files, f)
	}
	return p, nil
}

// relative is an import path of this module without the module's.
func (l listed) relative(path string) string {
	if path == l.Module.Path {
		return "."
	}
	return strings.TrimPrefix(path, l.Module.Path+"/")
}

func (l listed) relatives(paths []string) []string {
	out := make([]string, len(paths))
	for i, path := range paths {
		out[i] = l.relative(path)
	}
	return out
}

// parse reads a source file; source, if not nil, is its content.
func parse(root, name string, source any) (File, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return File{}, err
	}
	short, err := filepath.Rel(root, name)
	if err != nil {
		return File{}, err
	}
	return File{Name: short, Lines: fset.File(tree.FileStart).LineCount(), Fset: fset, AST: tree}, nil
}
