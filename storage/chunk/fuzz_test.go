package chunk

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzWalker takes a list of length-prefixed nodes and walks the first over the others:
// links are rewritten so that nodes refer to those after them, which the fuzzer could
// not find hashes for. A walk must end, in a tree that plain recursion agrees with or
// in ErrTree, within its limits.
func FuzzWalker(f *testing.F) {
	s := newStore()
	t := newTree()
	t.set("a/b", s.file(content("x", 3*LeafSize+1)))
	t.set("a/c", s.file(nil))
	t.set("s", s.spec(fileSpec{Target: "a/b"}))
	root := s.folder(f, t)
	var seed []byte
	w := NewWalker(root.CID, Limits{})
	for c, ok := w.Next(); ok; c, ok = w.Next() {
		seed = protowire.AppendBytes(seed, s.nodes[c])
		if err := w.Add(s.nodes[c]); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(seed)
	for _, c := range hostileNodes() {
		if len(c.data) < 10_000 {
			f.Add(protowire.AppendBytes(nil, c.data))
		}
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		s, root := chain(input)
		tree, err := s.walk(root, Limits{Depth: 5, Entries: 1000, Leaves: 1000, NodeBytes: 1 << 20, PathBytes: 10_000})
		switch {
		case err == nil:
			if len(tree.Entries) > 1000 || len(tree.Leaves) > 1000 {
				t.Fatalf("%d entries, %d leaves", len(tree.Entries), len(tree.Leaves))
			}
			sameTree(t, tree, s.naive(root))
		case errors.Is(err, ErrHash):
			t.Fatal(err)
		}
	})
}

// chain stores the nodes of a fuzzer's input, the last first, so that a digest that
// stands for "the node i after me" can be replaced by that node's true one. A digest
// stands for that if its first byte is i and the rest are as the seed had them or not:
// only dag-pb links are rewritten, raw ones name what they like.
func chain(input []byte) (*store, CID) {
	var nodes [][]byte
	for len(input) > 0 && len(nodes) < 64 {
		data, n := protowire.ConsumeBytes(input)
		if n < 0 {
			data, n = input, len(input)
		}
		nodes = append(nodes, bytes.Clone(data))
		input = input[n:]
	}
	s := newStore()
	below := []CID(nil) // nearest first
	root := SumNode(nil)
	mark := []byte{tagLinkHash, cidLen, cidVersion, byte(DagPB), hashSHA256, hashLen}
	for i := len(nodes) - 1; i >= 0; i-- {
		data := nodes[i]
		for at := 0; len(below) > 0; {
			j := bytes.Index(data[at:], mark)
			if j < 0 || at+j+len(mark)+hashLen > len(data) {
				break
			}
			digest := data[at+j+len(mark):][:hashLen]
			target := below[int(digest[0])%len(below)]
			copy(digest, target.Sum[:])
			at += j + len(mark) + hashLen
		}
		root = s.add(data)
		below = append([]CID{root}, below...)
	}
	if len(nodes) == 0 {
		s.add(nil)
	}
	return s, root
}

// FuzzDecodeNode: decoding never panics, and what is accepted is canonical: encoding a
// plain folder again gives the same bytes.
func FuzzDecodeNode(f *testing.F) {
	for _, c := range hostileNodes() {
		if len(c.data) < 10_000 {
			f.Add(c.data)
		}
	}
	f.Add(named("a"))
	f.Add(forge(to(leaf, "", 4), fileHeader(4, 4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decodeNode(data)
		if err != nil || n.kind != dirKind || !bytes.HasSuffix(data, []byte(dirHeader)) || len(data) > ShardThreshold {
			return
		}
		children := make([]Child, len(n.links))
		for i, l := range n.links {
			if l.size < 0 {
				return
			}
			children[i] = Child{l.name, l.cid, uint64(l.size)}
		}
		_, nodes, err := DirDAG(children)
		if err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		if got := nodes[len(nodes)-1].Data; !bytes.Equal(got, data) && !bytes.Contains(data, []byte{tagLinkHash, cidLenV0}) {
			t.Fatalf("%x\nbecomes %x", data, got)
		}
	})
}
