// Package tidy owns the rules that keep this repository as its design draws it: which folder may import
// which, that every package says what it is for, that no file grows past reading. Each rule is a pure
// function from a file tree to findings, so that a test can hand it a small broken tree and see it complain,
// and the same function then judges the repository itself.
//
// A finding always carries the rule's reason: a rule whose reason nobody remembers is one people work around.
// The package judges files as they stand on disk for every operating system at once (build tags are ignored)
// and imports nothing of ours; it neither builds code nor fetches anything.
package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"sort"
	"strconv"
	"strings"
)

// Module is the import path of the repository's root.
const Module = "github.com/shoal-os/shoal"

// Finding is one place that breaks one rule.
type Finding struct {
	Path string // slash-separated, relative to the root
	Line int    // 1-based; 0 when the finding is about the file or folder as a whole
	What string // what is wrong here
}

// Rule is one thing that must hold of the whole repository.
type Rule struct {
	Name  string // short, for the test's name
	Why   string // the reason, printed with every failure
	Check func(*Tree) []Finding
}

// Rules returns every rule, in the order in which they are checked.
func Rules() []Rule {
	return []Rule{
		{"layers", "the tree of folders is the architecture: a folder imports only floors below its own, and inside a floor " +
			"only packages earlier in its list (DESIGN.md, layers; the list is testnet/tidy/layers.go)", layers},
		{"modules", "each third-party module stays behind the packages that own its subject, so that it can be replaced " +
			"there; a new one is entered with its owners in testnet/tidy/layers.go, deliberately", modules},
		{"package comment", "a reader meets a package by its comment: what it owns and what it refuses to do", packageComments},
		{"file length", "a file past 800 lines is two files whose seam nobody has looked for", fileLengths},
		{"package name", "util, common, helper, manager and models say nothing of what is inside, so everything ends up inside", packageNames},
		{"sleep in tests", "a sleep as synchronisation is slow when it works and flaky when it does not: wait for the condition, " +
			"or use testing/synctest's virtual time", sleeps},
		{"top-level folders", "the root shows the floors and nothing else", topFolders},
		{"gofmt", "layout is not a matter of discussion: run gofmt -w on the file", gofmt},
		{"init functions", "an init hides who starts what; assembly is one readable function, and a table can be a variable", inits},
		{"machine paths", "a path of the author's machine is wrong on every other one", machinePaths},
	}
}

// Tree is a repository read once: the rules share it.
type Tree struct {
	Files []File
	Dirs  []string // top-level folders, dotfolders excluded
}

// File is one file of the tree.
type File struct {
	Path string
	Data []byte
	Go   bool // a Go file outside testdata, parsed below
	Test bool // its name ends in _test.go
	Gen  bool // generated: exempt from rules about style

	Fset *token.FileSet
	AST  *ast.File // package clause, imports and comments; nil if it does not parse
}

// textMax is the size above which a file is taken for data rather than prose or code.
const textMax = 2 << 20

// Read reads the tree below root. Dotfolders other than .ci and .github are skipped, as are vendored trees and
// files over textMax. It returns an error only if the tree cannot be read; broken Go files are findings.
func Read(root fs.FS) (*Tree, error) {
	t := &Tree{}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == ".":
			return nil
		case d.IsDir():
			return t.enter(p, d.Name())
		case !d.Type().IsRegular(), p == ".git": // which is a file in a second working tree of a repository
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > textMax {
			return err
		}
		data, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		t.Files = append(t.Files, newFile(p, data))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tidy: read tree: %w", err)
	}
	return t, nil
}

func (t *Tree) enter(p, name string) error {
	if strings.HasPrefix(name, ".") {
		if name == ".ci" || name == ".github" {
			return nil
		}
		return fs.SkipDir
	}
	if name == "vendor" {
		return fs.SkipDir
	}
	if !strings.Contains(p, "/") {
		t.Dirs = append(t.Dirs, p)
	}
	return nil
}

func newFile(p string, data []byte) File {
	f := File{Path: p, Data: data}
	f.Go = strings.HasSuffix(p, ".go") && !inTestdata(p)
	f.Test = strings.HasSuffix(p, "_test.go")
	if !f.Go {
		return f
	}
	f.Fset = token.NewFileSet()
	// A file that does not parse keeps whatever the parser made of it; the gofmt rule reports it.
	f.AST, _ = parser.ParseFile(f.Fset, p, data, parser.ImportsOnly|parser.ParseComments)
	f.Gen = f.AST != nil && ast.IsGenerated(f.AST)
	return f
}

// inTestdata tells whether the go command would ignore the file.
func inTestdata(p string) bool {
	for _, e := range strings.Split(path.Dir(p), "/") {
		if e == "testdata" || strings.HasPrefix(e, "_") {
			return true
		}
	}
	return false
}

// goFiles calls f for every Go file that parsed far enough to have a package clause.
func (t *Tree) goFiles(f func(*File)) {
	for i := range t.Files {
		if t.Files[i].Go && t.Files[i].AST != nil {
			f(&t.Files[i])
		}
	}
}

// imports calls f with each import of the file and its line.
func (f *File) imports(do func(importPath string, line int)) {
	for _, s := range f.AST.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil {
			do(p, f.Fset.Position(s.Pos()).Line)
		}
	}
}

// body parses the whole file; nil if it is broken, which the gofmt rule reports.
func (f *File) body() (*token.FileSet, *ast.File) {
	fset := token.NewFileSet()
	a, err := parser.ParseFile(fset, f.Path, f.Data, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil
	}
	return fset, a
}

func sortFindings(out []Finding) []Finding {
	sort.Slice(out, func(i, j int) bool {
		if out[i].Path != out[j].Path {
			return out[i].Path < out[j].Path
		}
		return out[i].Line < out[j].Line
	})
	return out
}

func lineOf(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }
