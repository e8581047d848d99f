package chunk

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

type vector struct {
	Name    string
	Kind    string
	Seed    string
	Size    int64
	Files   []fileSpec
	Dirs    []string
	Pattern *struct {
		Count      int
		Name, Seed string
		Size       int64
	}
	CID string
}

func (v vector) build(tb testing.TB, s *store) Child {
	switch v.Kind {
	case "file":
		return s.file(content(v.Seed, v.Size))
	case "zeros":
		return s.zeros(v.Size)
	}
	t := newTree()
	for _, d := range v.Dirs {
		t.dir(d)
	}
	for _, f := range v.Files {
		t.set(f.Path, s.spec(f))
	}
	if p := v.Pattern; p != nil {
		for i := range p.Count {
			t.set(fmt.Sprintf(p.Name, i), s.file(content(fmt.Sprintf(p.Seed, i), p.Size)))
		}
	}
	return s.folder(tb, t)
}

// zeros builds a file of zero bytes without having them: its full leaves are all one.
func (s *store) zeros(size int64) Child {
	chunk := make([]byte, LeafSize)
	full, rest := SumRaw(chunk), chunk[:size%LeafSize]
	var leaves []CID
	for range size / LeafSize {
		leaves = append(leaves, full)
	}
	if len(rest) > 0 {
		leaves = append(leaves, SumRaw(rest))
	}
	root, nodes := FileDAG(leaves, size)
	s.put(nodes...)
	return root
}

// TestVectors compares with CIDs that another implementation computed: testdata/README.md.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/cids.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 15 {
		t.Fatalf("%d cases, want 15", len(file.Cases))
	}
	for _, v := range file.Cases {
		t.Run(v.Name, func(t *testing.T) {
			s := newStore()
			root := v.build(t, s)
			if got := root.CID.String(); got != v.CID {
				t.Fatalf("CID %s, want %s", got, v.CID)
			}
			tree, err := s.walk(root.CID, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			v.check(t, tree)
		})
	}
}

// check compares the walk of a vector with its recipe.
func (v vector) check(t *testing.T, tree *Tree) {
	t.Helper()
	if v.Kind != "dir" {
		if tree.Root.IsRaw() && v.Size > 0 {
			if tree.Size != -1 || len(tree.Leaves) != 1 {
				t.Fatalf("raw root: size %d, %d leaves", tree.Size, len(tree.Leaves))
			}
		} else if want := (v.Size + LeafSize - 1) / LeafSize; tree.Size != v.Size || int64(len(tree.Leaves)) != want {
			t.Fatalf("size %d, %d leaves; want %d, %d", tree.Size, len(tree.Leaves), v.Size, want)
		}
		return
	}
	byPath := map[string]Entry{}
	for _, e := range tree.Entries {
		byPath[e.Path] = e
	}
	want := map[string]Entry{}
	for _, f := range v.Files {
		want[f.Path] = Entry{Kind: File, Size: f.Size}
		if f.Target != "" {
			want[f.Path] = Entry{Kind: Symlink, Target: f.Target}
		}
	}
	for _, d := range v.Dirs {
		want[d] = Entry{Kind: Dir}
	}
	if p := v.Pattern; p != nil {
		for i := range p.Count {
			want[fmt.Sprintf(p.Name, i)] = Entry{Kind: File, Size: p.Size}
		}
	}
	for path, e := range want {
		got, ok := byPath[path]
		if !ok || got.Kind != e.Kind || got.Size != e.Size || got.Target != e.Target {
			t.Errorf("entry %q is %+v, want %+v", path, got, e)
		}
	}
	if got := tree.Files + tree.Symlinks; got != len(want)-len(v.Dirs) {
		t.Errorf("%d files and links, want %d", got, len(want)-len(v.Dirs))
	}
}
