package chunk

import (
	"errors"
	"fmt"
	"strings"
)

// Tree gives the expanded tree, made at the first call: it takes about 64 bytes and its
// path for each entry, and 56 bytes for each leaf. It errs while a node is still due,
// and with what ended the walk if that was ErrTree. Every call gives the same Tree, to be
// read only; nothing in it refers to the Walker.
func (w *Walker) Tree() (*Tree, error) {
	switch {
	case w.err != nil:
		return nil, w.err
	case w.due.Defined():
		return nil, fmt.Errorf("tree %v is incomplete: node %v is missing", w.root, w.due)
	case w.tree == nil && w.root.IsRaw():
		w.tree = rawTree(w.root)
	case w.tree == nil:
		w.tree = w.expand()
	}
	return w.tree, nil
}

// rawTree is the tree of a root that is a leaf. Nothing says how long it is, unless it is empty.
func rawTree(root CID) *Tree {
	if root == emptyLeaf {
		return &Tree{Root: root, Entries: []Entry{{Kind: File}}, Files: 1}
	}
	return &Tree{
		Root:    root,
		Entries: []Entry{{Kind: File, Size: -1, Count: 1}},
		Leaves:  []Leaf{{CID: root, Size: -1}},
		Size:    -1,
		Files:   1,
	}
}

// expander fills a tree. It recurses no deeper than the limits on folders, shards and
// files allow.
type expander struct {
	nodes map[CID]*node
	tree  *Tree
	paths strings.Builder // all paths in one allocation
}

func (w *Walker) expand() *Tree {
	e := expander{nodes: w.nodes, tree: &Tree{
		Root:      w.root,
		Entries:   make([]Entry, 0, w.total.entries),
		Leaves:    make([]Leaf, 0, w.total.leaves),
		Size:      w.total.size,
		NodeBytes: w.nodeBytes,
	}}
	e.paths.Grow(int(w.total.paths))
	e.entry("", w.nodes[w.root])
	if len(e.tree.Entries) != int(w.total.entries) || len(e.tree.Leaves) != int(w.total.leaves) ||
		e.paths.Len() != int(w.total.paths) {
		panic(errors.New("chunk: a tree differs from its tally"))
	}
	return e.tree
}

// entry adds what a node is, and all below it.
func (e *expander) entry(path string, n *node) {
	t := e.tree
	at := len(t.Entries)
	t.Entries = append(t.Entries, Entry{Path: path, First: len(t.Leaves)})
	entry := &t.Entries[at] // stays: there is room for all entries
	switch n.kind {
	case symlinkKind:
		entry.Kind, entry.Target = Symlink, n.target
		t.Symlinks++
	case fileKind:
		entry.Kind, entry.Size = File, n.size
		t.Files++
		e.parts(n, int32(at), 0)
		entry.Count = len(t.Leaves) - entry.First
	default:
		entry.Kind = Dir
		t.Dirs++
		e.entries(path, n)
	}
}

// entries adds what is in a folder, or in one shard of it.
func (e *expander) entries(dir string, n *node) {
	for i := range n.links {
		l := &n.links[i]
		name := n.entryName(l)
		switch {
		case name == "":
			e.entries(dir, e.nodes[l.cid])
		case l.cid.IsRaw():
			e.leafFile(e.path(dir, name), l)
		default:
			e.entry(e.path(dir, name), e.nodes[l.cid])
		}
	}
}

// leafFile adds a file that is one leaf, or none if it is empty.
func (e *expander) leafFile(path string, l *link) {
	t := e.tree
	entry := Entry{Path: path, Kind: File, Size: l.size, First: len(t.Leaves)}
	if l.size > 0 {
		entry.Count = 1
		t.Leaves = append(t.Leaves, Leaf{CID: l.cid, Entry: int32(len(t.Entries)), Size: int32(l.size)})
	}
	t.Entries = append(t.Entries, entry)
	t.Files++
}

// parts adds the leaves of a file's node, which begins at offset.
func (e *expander) parts(n *node, entry int32, offset int64) {
	for i := range n.links {
		l := &n.links[i]
		if l.cid.IsRaw() {
			e.tree.Leaves = append(e.tree.Leaves, Leaf{CID: l.cid, Entry: entry, Size: int32(l.size), Offset: offset})
		} else {
			e.parts(e.nodes[l.cid], entry, offset)
		}
		offset += l.size
	}
}

func (e *expander) path(dir, name string) string {
	start := e.paths.Len()
	if dir != "" {
		e.paths.WriteString(dir)
		e.paths.WriteByte('/')
	}
	e.paths.WriteString(name)
	return e.paths.String()[start:]
}
