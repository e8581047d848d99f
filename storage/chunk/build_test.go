package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// fileSpec is a file, or a symbolic link, of the vectors' recipe.
type fileSpec struct {
	Path   string
	Seed   string
	Size   int64
	Target string
}

// content gives the bytes of a file by the recipe in testdata/README.md.
func content(seed string, size int64) []byte {
	b := make([]byte, 0, size+sha256.Size)
	for i := uint64(0); int64(len(b)) < size; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(seed), i))
		b = append(b, sum[:]...)
	}
	return b[:size]
}

// store keeps nodes and leaf lengths by CID, and builds trees the way a sharer does.
type store struct {
	nodes  map[CID][]byte
	leaves map[CID]int
}

func newStore() *store { return &store{nodes: map[CID][]byte{}, leaves: map[CID]int{}} }

func (s *store) put(blocks ...Block) {
	for _, b := range blocks {
		s.nodes[b.CID] = b.Data
	}
}

func (s *store) file(data []byte) Child {
	var leaves []CID
	for rest := data; len(rest) > 0; {
		n := min(len(rest), LeafSize)
		leaves = append(leaves, SumRaw(rest[:n]))
		s.leaves[leaves[len(leaves)-1]] = n
		rest = rest[n:]
	}
	root, nodes := FileDAG(leaves, int64(len(data)))
	s.put(nodes...)
	return root
}

// tree is a folder in the making.
type tree struct {
	entries map[string]any // Child or *tree
}

func newTree() *tree { return &tree{map[string]any{}} }

func (t *tree) dir(path string) *tree {
	for _, name := range strings.Split(path, "/") {
		sub, ok := t.entries[name].(*tree)
		if !ok {
			sub = newTree()
			t.entries[name] = sub
		}
		t = sub
	}
	return t
}

func (t *tree) set(path string, c Child) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		t, path = t.dir(path[:i]), path[i+1:]
	}
	t.entries[path] = c
}

func (s *store) folder(tb testing.TB, t *tree) Child {
	tb.Helper()
	children := make([]Child, 0, len(t.entries))
	for name, e := range t.entries {
		c, ok := e.(Child)
		if !ok {
			c = s.folder(tb, e.(*tree))
		}
		c.Name = name
		children = append(children, c)
	}
	root, nodes, err := DirDAG(children)
	if err != nil {
		tb.Fatal(err)
	}
	s.put(nodes...)
	return root
}

func (s *store) spec(f fileSpec) Child {
	if f.Target != "" {
		root, node := SymlinkDAG(f.Target)
		s.put(node)
		return root
	}
	return s.file(content(f.Seed, f.Size))
}

// walk walks root over the store to its end.
func (s *store) walk(root CID, limits Limits) (*Tree, error) {
	w := NewWalker(root, limits)
	for c, ok := w.Next(); ok; c, ok = w.Next() {
		data, known := s.nodes[c]
		if !known {
			return nil, fmt.Errorf("no node %v", c)
		}
		if err := w.Add(data); err != nil {
			return nil, err
		}
	}
	return w.Tree()
}
