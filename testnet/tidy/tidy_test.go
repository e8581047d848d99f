package tidy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// TestRepository holds the repository to every rule.
func TestRepository(t *testing.T) {
	tree, err := Read(os.DirFS(repositoryRoot(t)))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 10 || len(tree.Dirs) == 0 {
		t.Fatalf("only %d files in %d folders found: that is not the repository", len(tree.Files), len(tree.Dirs))
	}
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			for _, f := range r.Check(tree) {
				t.Errorf("%s:%d: %s\n\twhy the rule: %s", f.Path, f.Line, f.What, r.Why)
			}
		})
	}
}

// TestOrderIsSound keeps the lists honest: each package stands in one place, and each owner is on a floor.
func TestOrderIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, floor := range order {
		for _, name := range floor {
			if seen[name] {
				t.Errorf("%s is listed twice", name)
			}
			seen[name] = true
		}
	}
	for _, o := range owners {
		for _, w := range o.who {
			if w != "*" && w != "test" && !seen[strings.TrimSuffix(w, "/...")] {
				t.Errorf("%s is owned by %s, which is not in the order", o.module, w)
			}
		}
	}
}

func repositoryRoot(t *testing.T) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working folder")
		}
		dir = parent
	}
}

// tree makes a tree out of pairs of path and content.
func tree(t *testing.T, pairs ...string) *Tree {
	t.Helper()
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	read, err := Read(m)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// file is a well-formed Go file of a package with the given imports.
func file(pkg string, imports ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "// Package %s is a fake.\npackage %s\n", pkg, pkg)
	for _, i := range imports {
		fmt.Fprintf(&b, "\nimport _ %q\n", i)
	}
	return b.String()
}

const ours = Module + "/"

// slash stands before the name of a folder of the author's machine, so that this file itself is free of such paths.
const slash = "/"

// TestRulesCanFail shows each rule a tree that breaks it and one that is close to breaking it.
func TestRulesCanFail(t *testing.T) {
	long := file("chunk") + strings.Repeat("\n// x\n", linesMax/2)
	cases := []struct {
		rule string
		name string
		tree []string
		want []string // a piece of each finding, in order; none: the tree is clean
	}{
		{"layers", "up a floor", []string{"dht/a.go", file("dht", ours+"storage/chunk")}, []string{"dht imports storage/chunk, a floor above"}},
		{"layers", "up inside a floor", []string{"storage/chunk/a.go", file("chunk", ours+"storage/block")}, []string{"comes after it"}},
		{"layers", "a part imports the whole", []string{"dht/host/a.go", file("host", ours+"dht")}, []string{"dht/host imports dht, which comes after"}},
		{"layers", "a test imports up", []string{"dht/a_test.go", file("dht", ours+"node")}, []string{"a floor above"}},
		{"layers", "other systems' files count", []string{"dht/a_windows.go", file("dht", ours+"cli")}, []string{"a floor above"}},
		{"layers", "a sub-package counts as its parent", []string{"storage/chunk/pb/a.go", file("pb", ours+"storage/block")}, []string{"storage/chunk imports storage/block"}},
		{"layers", "a folder on no floor", []string{"lib/a.go", file("lib")}, []string{"on no floor"}},
		{"layers", "an import on no floor", []string{"cli/a.go", file("cli", ours+"lib")}, []string{"on no floor"}},
		{"layers", "down and along", []string{
			"cli/a.go", file("cli", ours+"node", ours+"testnet", "fmt"),
			"node/a.go", file("node", ours+"tasks", ours+"storage", ours+"node/api"),
			"storage/a.go", file("storage", ours+"storage/chunk", ours+"dht"),
			"storage/exchange/a.go", file("exchange", ours+"storage/exchange/pb"),
			"storage/exchange/pb/a.go", file("pb", ours+"storage/exchange"),
			"dht/testdata/a.go", file("dht", ours+"cli"),
		}, nil},

		{"modules", "libp2p outside its owner", []string{"storage/a.go", file("storage", "github.com/libp2p/go-libp2p")}, []string{"its owners are dht/host"}},
		{"modules", "a prefix of a name is not the module", []string{"dht/host/a.go", file("host", "github.com/libp2p/go-libp2p-kad-dht")}, []string{"owners are dht, testnet/..."}},
		{"modules", "unknown", []string{"cli/a.go", file("cli", "example.org/new")}, []string{"not among the modules"}},
		{"modules", "test module in the program", []string{"cli/a.go", file("cli", "pgregory.net/rapid")}, []string{"owners are test"}},
		{"modules", "at home", []string{
			"dht/host/a.go", file("host", "github.com/libp2p/go-libp2p", "github.com/libp2p/go-libp2p/core/peer", "net"),
			"storage/a_test.go", file("storage", "github.com/libp2p/go-libp2p/p2p/net/mock", "pgregory.net/rapid"),
			"testnet/bench/a.go", file("bench", "github.com/libp2p/go-libp2p"),
			"cli/shoal/a.go", file("shoal", "github.com/spf13/cobra"),
			"dht/wire/pb/a.go", file("pb", "google.golang.org/protobuf/proto"),
		}, nil},

		{"package comment", "none", []string{"dht/a.go", "package dht\n"}, []string{"no comment that begins"}},
		{"package comment", "not its name", []string{"dht/a.go", "// Hello there.\npackage dht\n"}, []string{"no comment that begins"}},
		{"package comment", "only in generated code", []string{"dht/a.go", "// Code generated by x. DO NOT EDIT.\n\n// Package dht is.\npackage dht\n"}, []string{"no comment"}},
		{"package comment", "a separate comment", []string{"dht/a.go", "// Package dht is.\n\npackage dht\n"}, []string{"no comment"}},
		{"package comment", "one file has it", []string{"dht/a.go", file("dht"), "dht/b.go", "package dht\n", "dht/c_test.go", "package dht_test\n",
			"cli/shoal/main.go", "// Shoal is the one program.\npackage main\n"}, nil},

		{"file length", "over", []string{"storage/chunk/a.go", long}, []string{"lines"}},
		{"file length", "generated schema", []string{"storage/chunk/a.pb.go", long, "README.md", long}, nil},

		{"package name", "folder", []string{"dht/util/a.go", file("dht")}, []string{`"util"`}},
		{"package name", "package", []string{"dht/x/a.go", file("models")}, []string{`"models"`}},
		{"package name", "compound", []string{"dht/testutil/a.go", file("testutil")}, []string{`"testutil"`}},
		{"package name", "a subject", []string{"dht/host/a.go", file("host")}, nil},

		{"sleep in tests", "plain", []string{"dht/a_test.go", "package dht\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"}, []string{"time.Sleep"}},
		{"sleep in tests", "renamed", []string{"dht/a_test.go", "package dht\n\nimport clock \"time\"\n\nfunc f() { clock.Sleep(1) }\n"}, []string{"time.Sleep"}},
		{"sleep in tests", "dot", []string{"dht/a_test.go", "package dht\n\nimport . \"time\"\n\nfunc f() { Sleep(1) }\n"}, []string{"time.Sleep"}},
		{"sleep in tests", "disguised", []string{"dht/a_test.go", "package dht\n\nimport \"time\"\n\nfunc f() { <-time.After(1) }\n"}, []string{"which is a sleep"}},
		{"sleep in tests", "waiting with a limit", []string{
			"dht/a_test.go", "package dht\n\nimport \"time\"\n\nfunc f(c chan int) {\n\tselect {\n\tcase <-c:\n\tcase <-time.After(1):\n\t}\n}\n",
			"dht/b_test.go", "package dht\n\nimport (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nvar _ = synctest.Test\n\nfunc f() { <-time.After(1) }\n",
			"dht/a.go", "package dht\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"}, nil},

		{"top-level folders", "another", []string{"pkg/a.txt", "x", "dht/a.go", file("dht")}, []string{"not one of"}},
		{"top-level folders", "those of the design", []string{"dht/a.go", file("dht"), ".ci/run", "x", "testnet/a.go", file("testnet")}, nil},

		{"gofmt", "layout", []string{"dht/a.go", "package dht\nvar  x = 1\n"}, []string{"not as gofmt"}},
		{"gofmt", "broken", []string{"dht/a.go", "package dht\n\nfunc {\n"}, []string{"expected"}},
		{"gofmt", "clean", []string{"dht/a.go", "package dht\n\nvar x = 1\n"}, nil},

		{"init functions", "init", []string{"dht/a.go", "package dht\n\nfunc init() { x() }\n"}, []string{"func init"}},
		{"init functions", "method, generated", []string{
			"dht/a.go", "package dht\n\ntype t int\n\nfunc (t) init() {}\n\nfunc initial() {}\n",
			"dht/a.pb.go", "// Code generated by x. DO NOT EDIT.\n\npackage dht\n\nfunc init() {}\n"}, nil},

		{"machine paths", "in prose", []string{"README.md", "run it in " + slash + "work/main now\n"}, []string{"the path"}},
		{"machine paths", "in code", []string{"dht/a.go", "package dht\n\nconst x = \"" + slash + "tmp/x\"\n"}, []string{"the path"}},
		{"machine paths", "in a script", []string{".ci/run", "cd " + slash + "root\n"}, []string{"the path"}},
		{"machine paths", "not paths of a machine", []string{"README.md", "GET /v1/shares/{root}, dht/root, a/work/b, https://example.org/tmp/x, /docs/work, {x}/root\n"}, nil},
	}
	rules := map[string]Rule{}
	covered := map[string]bool{}
	for _, r := range Rules() {
		rules[r.Name] = r
	}
	for _, c := range cases {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			got := rules[c.rule].Check(tree(t, c.tree...))
			if len(got) != len(c.want) {
				t.Fatalf("findings %+v, want %d", got, len(c.want))
			}
			for i, w := range c.want {
				if !strings.Contains(got[i].What, w) {
					t.Errorf("finding %+v does not say %q", got[i], w)
				}
			}
		})
		covered[c.rule] = covered[c.rule] || len(c.want) > 0
	}
	for name, r := range rules {
		if !covered[name] {
			t.Errorf("no tree shows that %q can fail", name)
		}
		if r.Why == "" {
			t.Errorf("%q has no reason", name)
		}
	}
}
