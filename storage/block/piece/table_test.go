package piece

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// TestTableIsAMap compares the table with a map through random changes.
func TestTableIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	table, want := newTable(), map[chunk.CID]loc{}
	name := func() (id chunk.CID) {
		binary.BigEndian.PutUint32(id.Sum[:], uint32(rng.IntN(3000)))
		id.Codec = []chunk.Codec{chunk.Raw, chunk.DagPB}[rng.IntN(2)]
		return id
	}
	for i := range 60_000 {
		id := name()
		if i/10_000%2 == 0 || rng.IntN(3) == 0 { // grows, shrinks, grows
			l := loc{pack.Loc{Pack: rng.Uint32(), Off: rng.Uint32()}, rng.Uint32(), rng.Uint32N(PieceMax + 1)}
			table.put(id, l)
			want[id] = l
		} else {
			table.remove(id)
			delete(want, id)
		}
		id = name()
		got, ok := table.get(id)
		if l, there := want[id]; ok != there || got != l || table.has(id) != ok {
			t.Fatalf("step %d: %v, %v; want %v, %v", i, got, ok, l, there)
		}
		if table.count != len(want) {
			t.Fatalf("step %d: %d names, want %d", i, table.count, len(want))
		}
	}
	if got := maps.Collect(table.all()); !maps.Equal(got, want) {
		t.Fatal("all differs")
	}
	for id := range table.all() { // removing while going over them
		table.remove(id)
	}
	if table.count != 0 || len(maps.Collect(table.all())) != 0 {
		t.Fatal("not empty")
	}
}
