package chunk

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// bigFolder builds a folder that must be sharded.
func (s *store) bigFolder(tb testing.TB, n int) (Child, []Child) {
	tb.Helper()
	children := make([]Child, n)
	for i := range children {
		data := fmt.Appendf(nil, "%d", i)
		children[i] = Child{Name: fmt.Sprintf("entry %06d", i), CID: SumRaw(data), Tsize: uint64(len(data))}
	}
	root, nodes, err := DirDAG(children)
	if err != nil {
		tb.Fatal(err)
	}
	s.put(nodes...)
	return root, children
}

// naive expands a tree the plain way: recursion, every occurrence read again.
func (s *store) naive(root CID) *Tree {
	t := &Tree{Root: root}
	seen := map[CID]bool{}
	var parts func(n *node, offset int64)
	var entries func(dir string, n *node)
	get := func(c CID) *node {
		n, err := decodeNode(s.nodes[c])
		if err != nil {
			panic(err)
		}
		if !seen[c] {
			seen[c] = true
			t.NodeBytes += int64(len(s.nodes[c]))
		}
		return n
	}
	leafOf := func(c CID, size, offset int64) {
		t.Leaves = append(t.Leaves, Leaf{c, int32(len(t.Entries) - 1), int32(size), offset})
		t.Entries[len(t.Entries)-1].Count++
		t.Size += size
	}
	parts = func(n *node, offset int64) {
		for _, l := range n.links {
			if l.cid.IsRaw() {
				leafOf(l.cid, l.size, offset)
			} else {
				parts(get(l.cid), offset)
			}
			offset += l.size
		}
	}
	entry := func(path string, n *node) {
		e := Entry{Path: path, First: len(t.Leaves), Size: n.size, Target: n.target}
		e.Kind = map[nodeKind]Kind{fileKind: File, dirKind: Dir, shardKind: Dir, symlinkKind: Symlink}[n.kind]
		t.Entries = append(t.Entries, e)
		switch e.Kind {
		case File:
			t.Files++
			parts(n, 0)
		case Dir:
			t.Dirs++
			entries(path, n)
		default:
			t.Symlinks++
		}
	}
	entries = func(dir string, n *node) {
		for _, l := range n.links {
			name := n.entryName(&l)
			path := strings.TrimPrefix(dir+"/"+name, "/")
			switch {
			case name == "":
				entries(dir, get(l.cid))
			case l.cid.IsRaw():
				t.Entries = append(t.Entries, Entry{Path: path, First: len(t.Leaves), Size: l.size})
				t.Files++
				if l.size > 0 {
					leafOf(l.cid, l.size, 0)
				}
			default:
				entry(path, get(l.cid))
			}
		}
	}
	entry("", get(root))
	return t
}

func sameTree(t interface{ Fatalf(string, ...any) }, got, want *Tree) {
	if !slices.Equal(got.Entries, want.Entries) {
		t.Fatalf("entries %+v\nwant %+v", got.Entries, want.Entries)
	}
	if !slices.Equal(got.Leaves, want.Leaves) {
		t.Fatalf("leaves %+v\nwant %+v", got.Leaves, want.Leaves)
	}
	g, w := *got, *want
	g.Entries, g.Leaves, w.Entries, w.Leaves = nil, nil, nil, nil
	if fmt.Sprint(g) != fmt.Sprint(w) {
		t.Fatalf("tree %+v\nwant %+v", g, w)
	}
}

// drawChild draws a file, symbolic link or folder. Few names and seeds, so that
// subtrees repeat; files are described by their leaves alone, so that they can be large.
func (s *store) drawChild(t *rapid.T, depth int) Child {
	kind := rapid.IntRange(0, 9).Draw(t, "kind")
	switch {
	case kind < 4 || depth == 0 && kind < 8:
		return s.drawFile(t)
	case kind < 5 || depth == 0:
		root, node := SymlinkDAG(rapid.SampledFrom([]string{"x", "../../etc/passwd", "/", "❄"}).Draw(t, "target"))
		s.put(node)
		return root
	}
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-cä❄]{1,3}`), 0, 5, rapid.ID).Draw(t, "names")
	children := make([]Child, len(names))
	for i, name := range names {
		children[i] = s.drawChild(t, depth-1)
		children[i].Name = name
	}
	root, nodes, err := DirDAG(children)
	if err != nil {
		t.Fatal(err)
	}
	s.put(nodes...)
	return root
}

func (s *store) drawFile(t *rapid.T) Child {
	leaves := make([]CID, rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3, 1024, 1025, 2049}).Draw(t, "leaves"))
	if len(leaves) == 0 {
		return s.file(nil)
	}
	seed := byte(rapid.IntRange(0, 2).Draw(t, "seed"))
	for i := range leaves {
		leaves[i] = SumRaw([]byte{seed, byte(i % 7)})
	}
	last := rapid.SampledFrom([]int64{1, 1000, LeafSize}).Draw(t, "last")
	root, nodes := FileDAG(leaves, int64(len(leaves)-1)*LeafSize+last)
	s.put(nodes...)
	return root
}

// TestWalkIsPlainRecursion: whatever is remembered and counted on the way, a walk ends
// in the tree that reading everything again gives, having asked for each node once.
func TestWalkIsPlainRecursion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStore()
		root := s.drawChild(t, 4)
		if root.CID.IsRaw() {
			t.Skip("no nodes")
		}
		w := NewWalker(root.CID, Limits{})
		asked := map[CID]bool{}
		for c, ok := w.Next(); ok; c, ok = w.Next() {
			if asked[c] {
				t.Fatalf("node %v is due twice", c)
			}
			asked[c] = true
			if err := w.Add(s.nodes[c]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := w.Tree()
		if err != nil {
			t.Fatal(err)
		}
		sameTree(t, got, s.naive(root.CID))
		atLimits(t, s, got)
	})
}

// atLimits: a tree is accepted by limits that are exactly its own, and not by less.
func atLimits(t *rapid.T, s *store, tree *Tree) {
	exact := Limits{Entries: len(tree.Entries), Leaves: max(1, len(tree.Leaves)), PathBytes: 1}
	for _, e := range tree.Entries {
		exact.PathBytes += int64(len(e.Path))
		if e.Kind == Dir {
			exact.Depth = max(exact.Depth, strings.Count(e.Path, "/")+2)
		}
	}
	exact.PathBytes = max(1, exact.PathBytes-1)
	if _, err := s.walk(tree.Root, exact); err != nil {
		t.Fatalf("limits %+v: %v", exact, err)
	}
	for name, cut := range map[string]func(l *Limits) bool{
		"entries": func(l *Limits) bool { l.Entries--; return l.Entries > 0 },
		"leaves":  func(l *Limits) bool { l.Leaves--; return l.Leaves > 0 && len(tree.Leaves) > 1 },
		"paths":   func(l *Limits) bool { l.PathBytes--; return l.PathBytes > 0 },
	} {
		if l := exact; cut(&l) {
			if _, err := s.walk(tree.Root, l); err == nil {
				t.Fatalf("one less of %s is accepted", name)
			}
		}
	}
}

func TestShardedFolder(t *testing.T) {
	s := newStore()
	big, children := s.bigFolder(t, 20_000)
	big.Name = "big"
	again := big
	again.Name = "again" // every shard a second time, from memory
	root, nodes, err := DirDAG([]Child{big, again})
	if err != nil {
		t.Fatal(err)
	}
	s.put(nodes...)
	tree, err := s.walk(root.CID, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, tree, s.naive(root.CID))
	if want := 2*len(children) + 3; len(tree.Entries) != want {
		t.Errorf("%d entries, want %d", len(tree.Entries), want)
	}
	if _, err := s.walk(big.CID, Limits{}); err != nil {
		t.Error("sharded root:", err)
	}
}

func TestTsize(t *testing.T) {
	s := newStore()
	sub := newTree()
	sub.set("a/b", s.file(content("x", 3*LeafSize+1)))
	sub.set("a/c", s.file(content("y", 5)))
	sub.set("d", s.spec(fileSpec{Target: "a/b"}))
	root := s.folder(t, sub)
	want := uint64(0)
	for _, data := range s.nodes {
		want += uint64(len(data))
	}
	for _, n := range s.leaves {
		want += uint64(n)
	}
	if root.Tsize != want {
		t.Errorf("Tsize %d, want %d", root.Tsize, want)
	}
	big, children := newStore(), []Child(nil)
	top, children := big.bigFolder(t, 8000)
	want = 0
	for _, c := range children {
		want += c.Tsize
	}
	for _, data := range big.nodes {
		want += uint64(len(data))
	}
	if top.Tsize != want {
		t.Errorf("sharded: Tsize %d, want %d", top.Tsize, want)
	}
}

func TestRawRoots(t *testing.T) {
	w := NewWalker(leaf, Limits{})
	if c, ok := w.Next(); ok {
		t.Errorf("a raw root asks for %v", c)
	}
	tree, err := w.Tree()
	if err != nil || tree.Size != -1 || len(tree.Leaves) != 1 || tree.Leaves[0] != (Leaf{CID: leaf, Size: -1}) ||
		!slices.Equal(tree.Entries, []Entry{{Kind: File, Size: -1, Count: 1}}) {
		t.Errorf("tree %+v, error %v", tree, err)
	}
	tree, err = NewWalker(emptyLeaf, Limits{}).Tree()
	if err != nil || tree.Size != 0 || len(tree.Leaves) != 0 || !slices.Equal(tree.Entries, []Entry{{Kind: File}}) {
		t.Errorf("empty file: tree %+v, error %v", tree, err)
	}
}

// TestForeignForms are things that other tools write and this one does not.
func TestForeignForms(t *testing.T) {
	s := newStore()
	small := SumRaw(make([]byte, 256<<10))
	var links []byte
	for range 3 { // leaves of 256 KiB, and links without names
		inner := appendVarintField(appendBytesField(nil, tagLinkHash, small.Bytes()), tagLinkTsize, 256<<10)
		links = appendBytesField(links, tagNodeLink, inner)
	}
	file := s.add(forge(links, append(fileHeader(768<<10, 256<<10, 256<<10, 256<<10), tagMode, 0xa4, 3)))
	v0 := append([]byte{hashSHA256, hashLen}, file.Sum[:]...)
	inner := append(appendBytesField(nil, tagLinkHash, v0), tagLinkName, 1, 'f', tagLinkTsize, 9)
	sym := s.add(forge(nil, []byte{tagType, typeSymlink, tagData, 1, 'f', tagFileSize, 1}))
	links = cat(appendBytesField(nil, tagNodeLink, inner), to(sym, "s", 5))
	stat := append(bytes.Clone(dirBytes), tagMode, 0xed, 3, tagMtime, 2, 8, 5)
	tree, err := s.walk(s.add(forge(links, stat)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if tree.Files != 1 || tree.Symlinks != 1 || tree.Size != 768<<10 || len(tree.Leaves) != 3 {
		t.Errorf("tree %+v", tree)
	}
}

func TestDirDAGErrors(t *testing.T) {
	for name, children := range map[string][]Child{
		"name .. ":        {{Name: "..", CID: leaf}},
		"name twice":      {{Name: "b", CID: leaf}, {Name: "a", CID: leaf}, {Name: "b", CID: leaf}},
		"twice in a row":  {{Name: "a", CID: leaf}, {Name: "a", CID: leaf}},
		"no CID":          {{Name: "a"}},
		"slash in a name": {{Name: "a/b", CID: leaf}},
	} {
		if _, _, err := DirDAG(children); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestThreshold: a folder's block may have exactly ShardThreshold bytes.
func TestThreshold(t *testing.T) {
	var children []Child
	rest := ShardThreshold - len(dirHeader)
	grow := func(nameLen int) {
		name := fmt.Sprintf("%06d", len(children)) + strings.Repeat("n", nameLen-6)
		children = append(children, Child{Name: name, CID: leaf, Tsize: 4})
		_, wrapped := linkLen(nameLen, 4)
		rest -= wrapped
	}
	wrapped := func(nameLen int) int { _, n := linkLen(nameLen, 4); return n }
	for rest >= 3*wrapped(100) {
		grow(100)
	}
	for a := 6; a < 100 && rest > 0; a++ {
		for b := 6; b < NameMax && rest > 0; b++ {
			if wrapped(a)+wrapped(b) == rest {
				grow(a)
				grow(b)
			}
		}
	}
	if rest != 0 {
		t.Fatalf("%d bytes are left", rest)
	}
	_, nodes, err := DirDAG(children)
	if err != nil || len(nodes) != 1 || len(nodes[0].Data) != ShardThreshold {
		t.Fatalf("%d nodes, error %v", len(nodes), err)
	}
	children[0].Name += "n"
	if _, nodes, err = DirDAG(children); err != nil || len(nodes) < 2 {
		t.Fatalf("one byte more: %d nodes, error %v", len(nodes), err)
	}
}

func TestSizesOfTypes(t *testing.T) {
	if got := unsafe.Sizeof(Leaf{}); got != 56 {
		t.Errorf("a Leaf has %d bytes", got)
	}
	if got := unsafe.Sizeof(Entry{}); got != 64 {
		t.Errorf("an Entry has %d bytes", got)
	}
}

func TestFileDAGPanics(t *testing.T) {
	for _, c := range []struct{ leaves, size int64 }{{0, 1}, {1, LeafSize + 1}, {2, LeafSize}, {2, 0}, {0, -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d leaves of %d bytes: no panic", c.leaves, c.size)
				}
			}()
			FileDAG(make([]CID, c.leaves), c.size)
		}()
	}
	if root, _ := FileDAG([]CID{emptyLeaf}, 0); root.CID != emptyLeaf {
		t.Error("an empty file given with its leaf")
	}
}
