package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
)

// How long things get, in lines.
const (
	maxFunction = 60
	maxFile     = 500
)

// Layout checks where code lives and what packages are called.
func Layout(packages []Package) []string {
	var findings []string
	for _, p := range packages {
		switch {
		case p.Path == "core/io" && len(p.Files) > 0:
			findings = append(findings, "core/io: has Go files; a package named io would hide the standard one")
		case p.Name == "util" || p.Name == "utils":
			findings = append(findings, p.Path+": is named "+p.Name+", which says nothing; name it by its subject")
		}
	}
	return findings
}

// Lengths checks that functions fit on a screen and files have one subject.
func Lengths(packages []Package) []string {
	var findings []string
	eachFile(packages, func(f File) {
		if f.Lines > maxFile {
			findings = append(findings, fmt.Sprintf("%s: %d lines, at most %d", f.Name, f.Lines, maxFile))
		}
		for _, decl := range f.AST.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > maxFunction {
				findings = append(findings, fmt.Sprintf("%s: %s has %d lines, at most %d", f.at(fn.Pos()), fn.Name.Name, n, maxFunction))
			}
		}
	})
	return findings
}

// Documented checks that each package says what it is for and that what it
// exports has a comment.
func Documented(packages []Package) []string {
	var findings []string
	for _, p := range packages {
		if len(p.Files) > 0 && !hasPackageDoc(p) {
			findings = append(findings, p.Path+": no package comment")
		}
	}
	eachFile(packages, func(f File) {
		for _, decl := range f.AST.Decls {
			for _, id := range undocumented(decl) {
				findings = append(findings, fmt.Sprintf("%s: %s is exported and has no comment", f.at(id.Pos()), id.Name))
			}
		}
	})
	return findings
}

func hasPackageDoc(p Package) bool {
	for _, f := range p.Files {
		if f.AST.Doc != nil {
			return true
		}
	}
	return false
}

// undocumented is the exported names of a declaration that no comment covers.
// One comment above a group of constants or variables covers the group. The
// fields of a struct and the methods of an interface are their type's.
func undocumented(decl ast.Decl) []*ast.Ident {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !obvious(d) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		return undocumentedSpecs(d)
	}
	return nil
}

func undocumentedSpecs(d *ast.GenDecl) []*ast.Ident {
	var ids []*ast.Ident
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
				ids = append(ids, s.Name)
			}
		case *ast.ValueSpec:
			if d.Doc != nil || s.Doc != nil || s.Comment != nil {
				continue
			}
			for _, name := range s.Names {
				if name.IsExported() {
					ids = append(ids, name)
				}
			}
		}
	}
	return ids
}

// exportedReceiver tells whether a function is none of a type that nobody
// outside can name.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch generic := t.(type) {
	case *ast.IndexExpr:
		t = generic.X
	case *ast.IndexListExpr:
		t = generic.X
	}
	id, ok := t.(*ast.Ident)
	return !ok || id.IsExported()
}

// obvious is a method whose contract is the standard library's.
func obvious(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	switch d.Name.Name {
	case "Error", "Unwrap", "String", "Is":
		return true
	}
	return false
}

func eachFile(packages []Package, visit func(File)) {
	for _, p := range packages {
		for _, f := range p.Files {
			if !ast.IsGenerated(f.AST) {
				visit(f)
			}
		}
	}
}

func (f File) line(pos token.Pos) int { return f.Fset.Position(pos).Line }

// at is a place in the file as editors take it, name:line.
func (f File) at(pos token.Pos) string {
	return strings.Join([]string{f.Name, fmt.Sprint(f.line(pos))}, ":")
}
