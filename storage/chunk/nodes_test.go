package chunk

import (
	"errors"
	"fmt"
	"testing"
)

func TestResolve(t *testing.T) {
	s := newStore()
	tree := newTree()
	tree.set("a/b/c.txt", s.file([]byte("c")))
	tree.set("big", s.file(content("x", 3*LeafSize)))
	for i := range 8000 { // sharded, two levels deep
		tree.set(fmt.Sprintf("many/a long name so that the block is large %d", i), s.file([]byte{byte(i), byte(i >> 8)}))
	}
	root := s.folder(t, tree)
	get := func(c CID) ([]byte, error) {
		data, ok := s.nodes[c]
		if !ok {
			return nil, errors.New("not asked for")
		}
		return data, nil
	}
	trail, steps, err := Resolve(root.CID, "/", get)
	if err != nil || len(trail) != 1 || len(steps) != 1 || steps[0] != root.CID {
		t.Fatal(trail, steps, err)
	}
	trail, steps, err = Resolve(root.CID, "a/b/c.txt", get)
	if err != nil || len(trail) != 4 || len(steps) != 4 || steps[3] != SumRaw([]byte("c")) {
		t.Fatal(trail, steps, err)
	}
	for _, i := range []int{0, 17, 7999} {
		trail, steps, err = Resolve(root.CID, fmt.Sprintf("many/a long name so that the block is large %d", i), get)
		if err != nil || len(steps) != 3 || len(trail) < 4 || steps[2] != SumRaw([]byte{byte(i), byte(i >> 8)}) || trail[len(trail)-1] != steps[2] {
			t.Fatal(len(trail), steps, err)
		}
	}
	for _, path := range []string{"b", "a/b/d", "a/b/c.txt/d", "big/x", "many/x", "a//b"} {
		if _, steps, err := Resolve(root.CID, path, get); !errors.Is(err, ErrNoEntry) {
			t.Errorf("%q leads to %v, %v", path, steps, err)
		}
	}
	n, err := DecodeNode(s.nodes[root.CID])
	if err != nil || n.Kind != Dir || n.Shard || len(n.Edges) != 3 || n.Edges[0].Name != "a" {
		t.Errorf("%+v %v", n, err)
	}
}
