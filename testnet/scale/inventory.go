package scale

import (
	"fmt"
	"runtime"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/repair/inventory"
)

const (
	piecesEach = 100 // pieces that each member put into the pool, and of which the pool keeps so many copies
	toldBytes  = 40  // of one piece in a stream of deltas: its name in 33, and framing
)

// inventories fills the product's book of who holds what, which each member keeps of all others.
func inventories(c Config) (Section, error) {
	t := Table{Name: "inventory", Columns: []string{"streams of a peer", "streams of all", "pieces of the pool", "memory of a piece", "memory of all, at each member",
		"a newcomer tells and hears, nothing held", "each peer hears of one new piece"}}
	memory := Series{Name: fmt.Sprintf("%d pieces a member", piecesEach), Basis: OfCode}
	var sums inventory.Sums
	for _, n := range c.Sizes {
		row := Row{N: n, Basis: OfCode, Cells: []string{count(float64(2 * (n - 1))), count(float64(n) * float64(n-1)), count(float64(n * piecesEach))}}
		if n > inventory.MembersMax {
			row.Cells = append(row.Cells, "excluded", "excluded", "excluded", "excluded")
			t.Rows = append(t.Rows, row)
			continue
		}
		each, err := fillBook(c, n)
		if err != nil {
			return Section{}, err
		}
		memory.add(n, each*float64(n*piecesEach))
		c.note("inventory", n, each*float64(n*piecesEach))
		row.Cells = append(row.Cells, size(each), size(each*float64(n*piecesEach)), size(float64(2*(n-1)*len(sums.Marshal()))), size(copies*toldBytes))
		t.Rows = append(t.Rows, row)
	}
	return Section{Tables: []Table{t}, Plots: []Plot{
		{"inventory-memory", "Who holds what, at each member", "members", "bytes of memory", []Series{memory}},
	}}, nil
}

func fillBook(c Config, n int) (each float64, err error) {
	members := laptops(c.rng("inventory", n), n)
	pieces := n * piecesEach
	f := c.place(members, pieces)
	before := inUse()
	b := inventory.New()
	slots := map[peer.ID]inventory.Slot{}
	for _, m := range members {
		if slots[m.ID], err = b.Member(m.ID); err != nil {
			return 0, err
		}
	}
	for k, at := range f.held {
		for _, id := range at {
			if _, err := b.Set(slots[id], chunk.SumRaw(fmt.Append(nil, k)), true); err != nil {
				return 0, err
			}
		}
	}
	each = float64(inUse()-before) / float64(pieces)
	runtime.KeepAlive(f) // it is there before and after
	if b.Pieces() != pieces {
		return 0, fmt.Errorf("inventory: %d pieces of %d", b.Pieces(), pieces)
	}
	return each, nil
}
