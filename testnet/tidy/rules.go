package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// linesMax is the longest a file may be.
const linesMax = 800

// topLevel are the folders that the root may show; each appears once it has content.
var topLevel = []string{"node", "dht", "tasks", "storage", "cli", "examples", "testnet"}

// vague are words that name no subject.
var vague = []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "model", "models", "misc", "shared"}

func packageComments(t *Tree) (out []Finding) {
	type pkg struct {
		name      string
		commented bool
	}
	dirs := map[string]*pkg{}
	t.goFiles(func(f *File) {
		dir := path.Dir(f.Path)
		p := dirs[dir]
		if p == nil {
			p = &pkg{name: strings.TrimSuffix(f.AST.Name.Name, "_test")}
			dirs[dir] = p
		}
		if f.Gen || f.AST.Doc == nil {
			return
		}
		text := f.AST.Doc.Text()
		if p.name == "main" {
			p.commented = p.commented || len(strings.Fields(text)) > 3
		} else {
			p.commented = p.commented || strings.HasPrefix(text, "Package "+p.name+" ")
		}
	})
	for dir, p := range dirs {
		if !p.commented {
			out = append(out, Finding{dir, 0, fmt.Sprintf("package %s has no comment that begins %q", p.name, "Package "+p.name)})
		}
	}
	return sortFindings(out)
}

func fileLengths(t *Tree) (out []Finding) {
	for _, f := range t.Files {
		if !f.Go || strings.HasSuffix(f.Path, ".pb.go") {
			continue
		}
		if n := bytes.Count(f.Data, []byte("\n")); n > linesMax {
			out = append(out, Finding{f.Path, linesMax + 1, fmt.Sprintf("the file has %d lines", n)})
		}
	}
	return out
}

func packageNames(t *Tree) (out []Finding) {
	seen := map[string]bool{}
	t.goFiles(func(f *File) {
		dir := path.Dir(f.Path)
		for _, word := range append(strings.Split(dir, "/"), strings.TrimSuffix(f.AST.Name.Name, "_test")) {
			if isVague(word) && !seen[dir+word] {
				seen[dir+word] = true
				out = append(out, Finding{f.Path, 0, fmt.Sprintf("%q as the name of a package or folder", word)})
			}
		}
	})
	return sortFindings(out)
}

// isVague also catches compounds: testutil, fsutils, net_helper.
func isVague(word string) bool {
	word = strings.ToLower(word)
	return slices.Contains(vague, word) || strings.HasSuffix(word, "util") || strings.HasSuffix(word, "utils") ||
		strings.HasSuffix(word, "helper") || strings.HasSuffix(word, "helpers")
}

func topFolders(t *Tree) (out []Finding) {
	for _, d := range t.Dirs {
		if !slices.Contains(topLevel, d) {
			out = append(out, Finding{d, 0, "not one of " + strings.Join(topLevel, ", ")})
		}
	}
	return sortFindings(out)
}

func gofmt(t *Tree) (out []Finding) {
	for _, f := range t.Files {
		if !f.Go {
			continue
		}
		want, err := format.Source(f.Data)
		switch {
		case err != nil:
			out = append(out, Finding{f.Path, 0, err.Error()})
		case !bytes.Equal(want, f.Data):
			out = append(out, Finding{f.Path, firstDifference(want, f.Data), "not as gofmt lays it out"})
		}
	}
	return out
}

func firstDifference(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return lineOf(b, n)
}

func inits(t *Tree) (out []Finding) {
	t.goFiles(func(f *File) {
		if f.Gen || !bytes.Contains(f.Data, []byte("func init")) {
			return
		}
		fset, file := f.body()
		if file == nil {
			return
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, Finding{f.Path, fset.Position(fn.Pos()).Line, "func init"})
			}
		}
	})
	return sortFindings(out)
}

// sleeps also finds the sleep in disguise: a bare receive from time.After. Inside a synctest bubble that is the
// way to let virtual time pass, so files that import testing/synctest may have it.
func sleeps(t *Tree) (out []Finding) {
	t.goFiles(func(f *File) {
		if !f.Test || !bytes.Contains(f.Data, []byte("Sleep")) && !bytes.Contains(f.Data, []byte("After")) {
			return
		}
		fset, file := f.body()
		if file == nil {
			return
		}
		name, virtual := timeImport(file)
		if name == "" {
			return
		}
		cases := map[ast.Stmt]bool{} // a receive in a select is a time limit, not a sleep
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CommClause:
				cases[n.Comm] = true
			case *ast.CallExpr:
				if refersTo(n.Fun, name, "Sleep") {
					out = append(out, Finding{f.Path, fset.Position(n.Pos()).Line, "time.Sleep"})
				}
			case *ast.ExprStmt:
				if recv, ok := n.X.(*ast.UnaryExpr); ok && !virtual && !cases[n] {
					if call, ok := recv.X.(*ast.CallExpr); ok && refersTo(call.Fun, name, "After") {
						out = append(out, Finding{f.Path, fset.Position(n.Pos()).Line, "a bare receive from time.After, which is a sleep"})
					}
				}
			}
			return true
		})
	})
	return sortFindings(out)
}

// timeImport returns the name under which the file knows package time ("" if it does not, "." for a dot import),
// and whether it imports testing/synctest.
func timeImport(file *ast.File) (name string, virtual bool) {
	for _, s := range file.Imports {
		switch s.Path.Value {
		case `"time"`:
			name = "time"
			if s.Name != nil {
				name = s.Name.Name
			}
		case `"testing/synctest"`:
			virtual = true
		}
	}
	return name, virtual
}

func refersTo(fun ast.Expr, pkg, name string) bool {
	if id, ok := fun.(*ast.Ident); ok {
		return pkg == "." && id.Name == name
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// machinePath matches an absolute path below a folder that only the author's machine is sure to have. What stands
// before the slash must not make it the middle of something longer, such as a URL's path.
var machinePath = regexp.MustCompile(`(?m)(?:^|[^\w./:}*)\]-])(/(?:work|root|tmp|Users|home)(?:/[\w.-]+)+|/(?:work|root|tmp)(?:[\s"'` + "`" + `,;:)]|$))`)

func machinePaths(t *Tree) (out []Finding) {
	for _, f := range t.Files {
		if f.Gen || !utf8.Valid(f.Data) {
			continue
		}
		for _, m := range machinePath.FindAllSubmatchIndex(f.Data, -1) {
			out = append(out, Finding{f.Path, lineOf(f.Data, m[2]), "the path " + strings.TrimSpace(string(f.Data[m[2]:m[3]]))})
		}
	}
	return out
}
