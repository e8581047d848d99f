package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/car"
)

// carOf exports c and reads the file back: its blocks, by name, and their order.
func carOf(t testing.TB, c *Content, opt CarOptions) (order []chunk.CID, blocks map[chunk.CID][]byte) {
	t.Helper()
	var out bytes.Buffer
	if err := c.WriteCAR(testContext(t), &out, opt); err != nil {
		t.Fatalf("%+v: %v", opt, err)
	}
	r, err := car.NewReader(&out)
	if err != nil || len(r.Roots()) != 1 || r.Roots()[0] != c.Root() {
		t.Fatal(r.Roots(), err)
	}
	blocks = map[chunk.CID][]byte{}
	for {
		id, data, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return order, blocks
		}
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, id)
		blocks[id] = bytes.Clone(data)
	}
}

// carFolder has repeated files, an empty one, and a folder that is sharded.
func carFolder() map[string][]byte {
	big := randomBytes(1, 5<<20+3)
	files := map[string][]byte{
		"a/big": big, "a/twin": big, "b/small": []byte("small"), "b/same": []byte("small"), "empty": nil, "void": nil,
		"zeros": make([]byte, 4<<20),
	}
	for i := range 3000 {
		files[fmt.Sprintf("many/%0100d", i)] = []byte{byte(i), byte(i >> 8)}
	}
	return files
}

func TestExportWhole(t *testing.T) {
	_, link, _ := shared(t, carFolder())
	c := newPeer(t).open(t, link) // fetched as it is written
	order, blocks := carOf(t, c, CarOptions{})
	if len(order) != len(blocks) {
		t.Errorf("%d of %d blocks are there twice", len(order)-len(blocks), len(order))
	}
	// A walk over nothing but the file's blocks gives the whole tree again.
	w := chunk.NewWalker(link.Root, chunk.Limits{})
	for id, more := w.Next(); more; id, more = w.Next() {
		if err := w.Add(blocks[id]); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := w.Tree()
	if err != nil || len(tree.Entries) != len(c.Tree().Entries) {
		t.Fatal(err)
	}
	for i := range tree.Leaves {
		if _, ok := blocks[tree.Leaves[i].CID]; !ok {
			t.Fatalf("leaf %d is missing", i)
		}
	}
	if _, ok := blocks[chunk.SumRaw(nil)]; !ok {
		t.Error("the empty file's block is missing")
	}
	// Depth first: the first block is the root, and each node comes before what it links.
	if order[0] != link.Root {
		t.Errorf("it begins with %v", order[0])
	}
	if again, _ := carOf(t, c, CarOptions{}); fmt.Sprint(again) != fmt.Sprint(order) {
		t.Error("the second time it has another order")
	}
	dups, _ := carOf(t, c, CarOptions{Dups: true})
	if want := len(tree.Leaves) + 2; len(dups) <= len(order) || count(dups, true) != want {
		t.Errorf("with duplicates: %d blocks, of them %d leaves, want %d", len(dups), count(dups, true), want)
	}
}

func count(ids []chunk.CID, raw bool) (n int) {
	for _, id := range ids {
		if id.IsRaw() == raw {
			n++
		}
	}
	return n
}

func TestExportScopes(t *testing.T) {
	_, link, _ := shared(t, carFolder())
	c := newPeer(t).open(t, link)
	for _, x := range []struct {
		opt           CarOptions
		nodes, leaves int
	}{
		{CarOptions{Scope: ScopeBlock}, 1, 0},
		{CarOptions{Scope: ScopeEntity}, 1, 0},
		{CarOptions{Path: "a/big", Scope: ScopeBlock}, 3, 0},
		{CarOptions{Path: "a/big", Scope: ScopeEntity}, 3, 6},
		{CarOptions{Path: "a/big"}, 3, 6},
		{CarOptions{Path: "a", Scope: ScopeEntity}, 2, 0},
		{CarOptions{Path: "a"}, 3, 6},
		{CarOptions{Path: "b/small"}, 2, 1},
		{CarOptions{Path: "b/small", Scope: ScopeBlock}, 2, 1},
		{CarOptions{Path: "empty"}, 1, 1},
		{CarOptions{Path: "zeros"}, 2, 1},
		{CarOptions{Path: "a/big", Scope: ScopeEntity, Bytes: &ByteRange{From: 0, To: 0}}, 3, 1},
		{CarOptions{Path: "a/big", Scope: ScopeEntity, Bytes: &ByteRange{From: 1<<20 - 1, To: 1 << 20}}, 3, 2},
		{CarOptions{Path: "a/big", Scope: ScopeEntity, Bytes: &ByteRange{From: -1, ToEnd: true}}, 3, 1},
		{CarOptions{Path: "a/big", Scope: ScopeEntity, Bytes: &ByteRange{From: 2 << 20, ToEnd: true}}, 3, 4},
		{CarOptions{Path: "a/big", Scope: ScopeEntity, Bytes: &ByteRange{From: 2 << 20, To: -(2 << 20)}}, 3, 2},
		{CarOptions{Path: "a/big", Scope: ScopeEntity, Bytes: &ByteRange{From: 9 << 20, To: 10 << 20}}, 3, 0},
		{CarOptions{Path: "a", Scope: ScopeEntity, Bytes: &ByteRange{From: 5, To: 6}}, 2, 0},
	} {
		order, _ := carOf(t, c, x.opt)
		if nodes, leaves := count(order, false), count(order, true); nodes != x.nodes || leaves != x.leaves {
			t.Errorf("%+v %v: %d nodes and %d leaves, want %d and %d", x.opt, x.opt.Bytes, nodes, leaves, x.nodes, x.leaves)
		}
	}
	// All shards, and the way to one entry.
	order, _ := carOf(t, c, CarOptions{Path: "many", Scope: ScopeEntity})
	if nodes := count(order, false); nodes < 100 || count(order, true) > 0 {
		t.Errorf("a sharded folder: %d nodes, %d leaves", nodes, count(order, true))
	}
	order, _ = carOf(t, c, CarOptions{Path: fmt.Sprintf("many/%0100d", 7)})
	if nodes := count(order, false); nodes < 3 || nodes > 5 || count(order, true) != 1 {
		t.Errorf("an entry of a sharded folder: %d nodes, %d leaves", nodes, count(order, true))
	}
	if err := c.WriteCAR(t.Context(), io.Discard, CarOptions{Path: "x"}); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
}

func TestBlocksByName(t *testing.T) {
	data := randomBytes(3, 2<<20)
	_, link, _ := shared(t, map[string][]byte{"f": data, "g": nil})
	c := newPeer(t).open(t, link)
	steps, err := c.Steps("f")
	if err != nil || len(steps) != 2 || steps[0] != link.Root {
		t.Fatal(steps, err)
	}
	for _, id := range []chunk.CID{steps[0], steps[1], chunk.SumRaw(data[1<<20:]), chunk.SumRaw(nil)} {
		b, err := c.Block(t.Context(), id)
		if err != nil || chunk.SumRaw(b).Sum != id.Sum {
			t.Errorf("%v: %d bytes, %v", id, len(b), err)
		}
	}
	if _, err := c.Block(t.Context(), chunk.SumRaw([]byte("other"))); !errors.Is(err, block.ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.Steps("f/x"); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
}
