package chunk

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/spaolacci/murmur3"
)

var (
	// ErrHash says that bytes are not those of the block that was due: whoever sent
	// them is at fault, and another peer may send the right ones.
	ErrHash = errors.New("block is not the one its CID names")
	// ErrTree says that a block is what its CID names and the tree is unacceptable
	// all the same: it is bad whoever sends it.
	ErrTree = errors.New("unacceptable tree")
)

// tally is what lies below a node once it is expanded.
type tally struct {
	entries int64
	leaves  int64
	size    int64 // bytes of files
	paths   int64 // bytes of paths, relative to the folder
	longest int   // of these paths
	depth   int   // of folders in a folder, of nodes in a file
}

// frame is a node whose links are being followed.
type frame struct {
	*node
	next   int // link
	path   int // length of the folder's path
	depth  int // of the folder; in a file, of the node
	parent int // link length in the parent: of its name, 0 for shards and parts of files
}

// Walker turns a root into a Tree, node by node. The sender of a tree walks it over its
// own blocks to learn which to send; the receiver walks it over what arrives, and no
// node goes in that its parent did not name. Nodes are due depth first, parents before
// children, in the order of links; each is due once, however often it occurs.
//
// Nothing is expanded before Tree: until then the walk holds the distinct nodes and
// counts what they would become, so a tree that passes a limit ends with the node that
// takes it there, at the cost of the bytes that were sent.
//
// A Walker is for one goroutine.
type Walker struct {
	root      CID
	limits    Limits
	nodes     map[CID]*node
	stack     []frame
	due       CID // undefined when no node is
	total     tally
	nodeBytes int64
	hashBuf   [NameMax]byte
	err       error
	tree      *Tree
}

// NewWalker starts a walk at root. A raw root is a tree of one leaf, complete at once.
func NewWalker(root CID, limits Limits) *Walker {
	w := &Walker{root: root, limits: limits.withDefaults(), nodes: make(map[CID]*node)}
	switch root.Codec {
	case Raw:
	case DagPB:
		w.due = root
	default:
		w.err = fmt.Errorf("%w: the root is undefined", ErrTree)
	}
	return w
}

// Next gives the node that must be added next, false when there is none: the tree is
// complete, or a node was unacceptable.
func (w *Walker) Next() (CID, bool) { return w.due, w.due.Defined() }

// Add takes the bytes of the node that Next names; it keeps none of them. After ErrHash
// the same node is still due; after ErrTree the walk is over.
func (w *Walker) Add(data []byte) error {
	if w.err != nil {
		return w.err
	}
	if !w.due.Defined() {
		return fmt.Errorf("%w: none is due", ErrHash)
	}
	if sha256.Sum256(data) != w.due.Sum {
		return fmt.Errorf("%w: %v", ErrHash, w.due)
	}
	c := w.due
	w.due = CID{}
	if err := w.accept(c, data); err != nil {
		w.err = fmt.Errorf("%w: node %v: %w", ErrTree, c, err)
		w.nodes, w.stack, w.due = nil, nil, CID{}
	}
	return w.err
}

func (w *Walker) accept(c CID, data []byte) error {
	if len(data) > NodeMax {
		return fmt.Errorf("it has %d bytes, more than %d", len(data), NodeMax)
	}
	w.nodeBytes += int64(len(data))
	if cost := w.nodeBytes + int64(len(w.nodes)+1)*nodeCost; cost > w.limits.NodeBytes {
		return fmt.Errorf("the tree has too many nodes: more than %d bytes", w.limits.NodeBytes)
	}
	n, err := decodeNode(data)
	if err != nil {
		return err
	}
	w.nodes[c] = n
	if len(w.stack) == 0 {
		err = w.enterRoot(n)
	} else {
		err = w.enter(n, true)
	}
	if err != nil {
		return err
	}
	return w.advance()
}

func (w *Walker) enterRoot(n *node) error {
	w.total.entries++
	if n.kind == symlinkKind {
		return nil
	}
	if n.kind == shardKind {
		if err := w.checkHashes(n); err != nil {
			return err
		}
	}
	w.stack = append(w.stack, frame{node: n, depth: 1})
	return nil
}

// advance follows links until a node is missing or none is left.
func (w *Walker) advance() error {
	for len(w.stack) > 0 {
		f := &w.stack[len(w.stack)-1]
		if f.next == len(f.links) {
			w.leave()
			continue
		}
		l := &f.links[f.next]
		if l.cid.IsRaw() {
			if err := w.addLeaf(f, l); err != nil {
				return err
			}
			f.next++
			continue
		}
		n, known := w.nodes[l.cid]
		if !known {
			w.due = l.cid
			return nil
		}
		if err := w.enter(n, false); err != nil {
			return err
		}
	}
	return nil
}

// addLeaf counts a leaf, and the file that it is if the node is a folder.
func (w *Walker) addLeaf(f *frame, l *link) error {
	if f.kind != fileKind {
		if _, err := w.addEntry(f, l); err != nil {
			return err
		}
	}
	if l.size == 0 {
		return nil
	}
	return w.grow(&f.sum, tally{leaves: 1, size: l.size}, 0)
}

// addEntry counts an entry of a folder, and gives the length of its path.
func (w *Walker) addEntry(f *frame, l *link) (path int, err error) {
	name := len(f.entryName(l))
	path = name
	if f.path > 0 {
		path += f.path + 1
	}
	if path > PathMax {
		return 0, fmt.Errorf("the path of %s has %d bytes, more than %d", clip(f.entryName(l)), path, PathMax)
	}
	f.sum.longest = max(f.sum.longest, name)
	f.sum.entries++
	f.sum.paths += int64(name)
	w.total.entries++
	w.total.paths += int64(path)
	return path, w.checkTotal()
}

// entryName gives the name of an entry, "" for a shard or a part of a file.
func (n *node) entryName(l *link) string {
	if n.kind == shardKind {
		return l.name[2:]
	}
	return l.name
}

// grow adds to a node's tally and to the total what becomes visible under it; prefix is
// what its paths lack to be paths from the root.
func (w *Walker) grow(sum *tally, t tally, prefix int) error {
	sum.leaves += t.leaves
	sum.size += t.size
	w.total.entries += t.entries
	w.total.leaves += t.leaves
	w.total.size += t.size
	w.total.paths += t.paths + t.entries*int64(prefix)
	return w.checkTotal()
}

func (w *Walker) checkTotal() error {
	switch {
	case w.total.entries > int64(w.limits.Entries):
		return fmt.Errorf("the tree has more than %d entries", w.limits.Entries)
	case w.total.leaves > int64(w.limits.Leaves):
		return fmt.Errorf("the tree has more than %d leaves", w.limits.Leaves)
	case w.total.paths > w.limits.PathBytes:
		return fmt.Errorf("the paths of the tree have more than %d bytes", w.limits.PathBytes)
	}
	return nil
}

// enter follows the current link of the topmost frame to n. A fresh node gets a frame of
// its own; one that was met before is complete, as no hash chain runs in a circle, and
// only its tally is taken.
func (w *Walker) enter(n *node, fresh bool) error {
	f := &w.stack[len(w.stack)-1]
	l := &f.links[f.next]
	name := f.entryName(l)
	child := frame{node: n, path: f.path, depth: f.depth, parent: len(name)}
	switch {
	case f.kind == fileKind:
		if n.kind != fileKind {
			return fmt.Errorf("a part of a file is a %v", n.kind)
		}
		if n.size != l.size {
			return fmt.Errorf("a part of a file has %d bytes where its parent says %d", n.size, l.size)
		}
		child.depth++
	case name == "":
		if n.kind != shardKind {
			return fmt.Errorf("a shard is a %v", n.kind)
		}
	default:
		path, err := w.addEntry(f, l)
		if err != nil {
			return err
		}
		child.path = path
		child.depth++
		if n.kind == fileKind {
			child.depth = 1
		}
	}
	f.next++
	return w.descend(f, l, child, fresh)
}

// descend checks where the child stands, then gives it a frame or takes its tally.
func (w *Walker) descend(f *frame, l *link, child frame, fresh bool) error {
	n := child.node
	deepest := child.depth
	if !fresh {
		deepest += n.sum.depth
	}
	if n.kind == fileKind && deepest > fileDepthMax {
		return fmt.Errorf("a file is more than %d nodes deep", fileDepthMax)
	}
	if n.kind != fileKind && n.kind != symlinkKind && deepest > w.limits.Depth {
		return fmt.Errorf("folders are nested more than %d deep", w.limits.Depth)
	}
	if n.kind == shardKind {
		if err := w.place(f, l, n, fresh); err != nil {
			return err
		}
	}
	if fresh && n.kind != symlinkKind {
		w.stack = append(w.stack, child)
		return nil
	}
	prefix := child.path
	if prefix > 0 {
		prefix++
	}
	if prefix+n.sum.longest > PathMax {
		return fmt.Errorf("a path has %d bytes, more than %d", prefix+n.sum.longest, PathMax)
	}
	var own tally
	err := w.grow(&own, n.sum, prefix)
	f.sum.merge(f.kind, n, child.parent)
	return err
}

// leave ends the topmost frame and adds what was below it to its parent's tally.
func (w *Walker) leave() {
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	if len(w.stack) > 0 {
		f := &w.stack[len(w.stack)-1]
		f.sum.merge(f.kind, top.node, top.parent)
	}
}

// merge adds what is below child, which is linked under a name of so many bytes, to the
// tally of its parent.
func (t *tally) merge(parent nodeKind, child *node, name int) {
	c := &child.sum
	prefix := name
	if name > 0 {
		prefix++
	}
	t.entries += c.entries
	t.leaves += c.leaves
	t.size += c.size
	t.paths += c.paths + c.entries*int64(prefix)
	if c.entries > 0 {
		t.longest = max(t.longest, prefix+c.longest)
	}
	switch {
	case parent == fileKind, child.kind != fileKind && child.kind != symlinkKind && name > 0:
		t.depth = max(t.depth, c.depth+1)
	case name == 0:
		t.depth = max(t.depth, c.depth)
	}
}

// place checks that a shard stands where the names in it hash to. One that was met
// before was checked for the place it had then; names lead to one place only.
func (w *Walker) place(f *frame, l *link, n *node, fresh bool) error {
	level, prefix := 0, uint64(0)
	if f.entryName(l) == "" {
		index, err := shardIndex(l.name)
		if err != nil {
			return err
		}
		level, prefix = f.level+1, f.prefix<<8|uint64(index)
	}
	if level == hashLevels {
		return errors.New("a folder's shards go deeper than its hash")
	}
	if fresh {
		n.level, n.prefix = level, prefix
		return w.checkHashes(n)
	}
	if n.level != level || n.prefix != prefix {
		return errors.New("one shard stands in two places")
	}
	return nil
}

// checkHashes checks that the names in a shard hash to where they are: a name in
// another place could occur twice, and other tools would not find it.
func (w *Walker) checkHashes(n *node) error {
	for i := range n.links {
		l := &n.links[i]
		name := n.entryName(l)
		if name == "" {
			continue
		}
		index, err := shardIndex(l.name)
		if err != nil {
			return err
		}
		hash := murmur3.Sum64(append(w.hashBuf[:0], name...))
		if hashPrefix(hash, n.level) != n.prefix || hashByte(hash, n.level) != index {
			return fmt.Errorf("name %s is not where its hash says", clip(name))
		}
	}
	return nil
}
