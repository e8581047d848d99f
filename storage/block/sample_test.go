package block

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-os/shoal/storage/chunk"
)

// sample is a tree with its bytes, as a share of it would make it.
type sample struct {
	tree   *chunk.Tree
	nodes  [][]byte
	leaves [][]byte // by number
	files  map[string]string
}

// linkTo and folder are the values of a sample's files that are no bytes.
const (
	linkTo = "\x00link:"
	folder = "\x00folder"
)

// makeSample builds a folder from paths and contents; a single path "" makes a
// single file.
func makeSample(t testing.TB, files map[string]string) sample {
	t.Helper()
	blocks := map[chunk.CID][]byte{}
	leaves := map[chunk.CID][]byte{}
	keep := func(nodes ...chunk.Block) {
		for _, n := range nodes {
			blocks[n.CID] = n.Data
		}
	}
	one := func(content string) chunk.Child {
		if target, ok := strings.CutPrefix(content, linkTo); ok {
			c, n := chunk.SymlinkDAG(target)
			keep(n)
			return c
		}
		var cids []chunk.CID
		for part := range slices.Chunk([]byte(content), chunk.LeafSize) {
			c := chunk.SumRaw(part)
			cids, leaves[c] = append(cids, c), part
		}
		c, nodes := chunk.FileDAG(cids, int64(len(content)))
		keep(nodes...)
		return c
	}
	var dir func(prefix string) chunk.Child
	dir = func(prefix string) chunk.Child {
		var children []chunk.Child
		done := map[string]bool{}
		for path, content := range files {
			rest, ok := strings.CutPrefix(path, prefix)
			if !ok || rest == "" {
				continue
			}
			name, _, deeper := strings.Cut(rest, "/")
			if done[name] {
				continue
			}
			done[name] = true
			var c chunk.Child
			if deeper || content == folder {
				c = dir(prefix + name + "/")
			} else {
				c = one(content)
			}
			c.Name = name
			children = append(children, c)
		}
		c, nodes, err := chunk.DirDAG(children)
		if err != nil {
			t.Fatal(err)
		}
		keep(nodes...)
		return c
	}
	var root chunk.Child
	if content, single := files[""]; single {
		root = one(content)
	} else {
		root = dir("")
	}
	s := sample{files: files}
	w := chunk.NewWalker(root.CID, chunk.Limits{})
	for c, more := w.Next(); more; c, more = w.Next() {
		if err := w.Add(blocks[c]); err != nil {
			t.Fatal(err)
		}
		s.nodes = append(s.nodes, blocks[c])
	}
	var err error
	if s.tree, err = w.Tree(); err != nil {
		t.Fatal(err)
	}
	for _, l := range s.tree.Leaves {
		s.leaves = append(s.leaves, leaves[l.CID])
	}
	return s
}

func noise(seed uint64, n int) string {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(out)
	return string(out)
}

// mixed is a folder with one of each kind of thing, made once.
func mixed(t testing.TB) sample {
	mixedOnce.Do(func() { mixedSample = makeMixed(t) })
	return mixedSample
}

var (
	mixedOnce   sync.Once
	mixedSample sample
)

func makeMixed(t testing.TB) sample {
	return makeSample(t, map[string]string{
		"big": noise(1, 3<<20+5), "small": "tiny", "empty": "", "sub/deeper/file": noise(2, 1000),
		"hollow": folder, "link": linkTo + "big", "dangling": linkTo + "../nowhere",
	})
}

// put writes the sample's files at path, as a user would have them.
func (s sample) put(t testing.TB, path string) {
	t.Helper()
	for rel, content := range s.files {
		p := filepath.Join(path, rel)
		var err error
		if content == folder {
			err = os.MkdirAll(p, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(p), 0o755); err == nil {
			if target, ok := strings.CutPrefix(content, linkTo); ok {
				err = os.Symlink(target, p)
			} else {
				err = os.WriteFile(p, []byte(content), 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// check fails unless path holds the sample.
func (s sample) check(t testing.TB, path string) {
	t.Helper()
	for rel, content := range s.files {
		p := filepath.Join(path, rel)
		if content == folder {
			if fi, err := os.Lstat(p); err != nil || !fi.IsDir() {
				t.Errorf("%s is no folder: %v", rel, err)
			}
			continue
		}
		if target, ok := strings.CutPrefix(content, linkTo); ok {
			if got, err := os.Readlink(p); err != nil || got != target {
				t.Errorf("%s points to %q, %v", rel, got, err)
			}
			continue
		}
		if got, err := os.ReadFile(p); err != nil || string(got) != content {
			t.Errorf("%s: %d bytes, %v", rel, len(got), err)
		}
	}
}

// index is the sample lying at path, ready for AddIndexed.
func (s sample) index(t testing.TB, path string) Index {
	t.Helper()
	x := Index{Root: s.tree.Root, Name: "sample", Path: path, Nodes: s.nodes}
	for _, e := range s.tree.Entries {
		if e.Kind != chunk.File {
			continue
		}
		fi, err := os.Stat(filepath.Join(path, e.Path))
		if err != nil {
			t.Fatal(err)
		}
		x.Mtimes = append(x.Mtimes, fi.ModTime().UnixNano())
		x.Size += fi.Size()
	}
	return x
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// root returns the store's record of the sample.
func (s sample) root(t testing.TB, st *Store) *Root {
	t.Helper()
	r, ok := st.Root(s.tree.Root)
	if !ok {
		t.Fatalf("no record; damaged: %v", st.Damaged())
	}
	return r
}

// begin starts a download of the sample to path.
func (s sample) begin(t testing.TB, st *Store, path string) *Root {
	t.Helper()
	// A copy: trees are shared, and a raw one's size is filled in.
	tree := *s.tree
	tree.Leaves, tree.Entries = slices.Clone(s.tree.Leaves), slices.Clone(s.tree.Entries)
	r, err := st.Begin(&tree, s.nodes, "sample", path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fill writes and marks leaves of r; none named means all.
func (s sample) fill(t testing.TB, r *Root, leaves ...int) {
	t.Helper()
	if len(leaves) == 0 {
		for i := range s.leaves {
			leaves = append(leaves, i)
		}
	}
	w, err := r.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, i := range leaves {
		if s.tree.Leaves[i].Size < 0 {
			if err := r.SetSize(int64(len(s.leaves[i]))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteLeaf(i, s.leaves[i]); err != nil {
			t.Fatal(err)
		}
		if err := r.Mark(i); err != nil {
			t.Fatal(err)
		}
	}
}

// readable fails unless r serves all of the sample's leaves.
func (s sample) readable(t testing.TB, r *Root) {
	t.Helper()
	rd, err := r.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	for i, want := range s.leaves {
		got, err := rd.ReadLeaf(i, []byte("before"))
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("leaf %d: %d bytes, %v", i, len(got), err)
		}
	}
}

// record is the folder of the sample's record in a store's folder.
func (s sample) record(dir string) string { return filepath.Join(dir, s.tree.Root.String()) }
