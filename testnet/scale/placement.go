package scale

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
)

const (
	copies      = 3
	changeShare = 100       // one member in so many leaves, or joins, at once
	placeWork   = 2_000_000 // members looked at, over all pieces of a run: what bounds its time
	planPieces  = 10_000    // that a planner is given
)

// placements asks the rendezvous of storage/placement who holds a piece, and its planner what it keeps in mind.
func placements(c Config) (Section, error) {
	moves := Table{Name: "placement", Columns: []string{"time of one decision", "most loaded to fair share", "moved when 1 in 100 leaves, to the least possible",
		"the same when they join", "planner's memory of a piece", "planner's step when a member goes away"}}
	decide := Series{Name: "one decision", Basis: OfCode}
	for _, n := range c.Sizes {
		members := laptops(c.rng("placement", n), n)
		pieces := max(200, min(10_000, placeWork/n))
		f := c.place(members, pieces)
		gone := max(1, n/changeShare)
		left := f.moved(c, members[:n-gone], func(held peer.ID) bool { return slices.ContainsFunc(members[n-gone:], named(held)) })
		more := laptops(c.rng("placement/join", n), gone)
		for i := range more {
			more[i].ID = peer.ID(fmt.Sprintf("new%06d", i))
		}
		joined := c.place(append(slices.Clone(members), more...), pieces)
		came := joined.moved(c, members, func(held peer.ID) bool { return slices.ContainsFunc(more, named(held)) })
		row := Row{N: n, Basis: OfCode, Cells: []string{span(f.each), "–", ratio(left), ratio(came)}}
		if pieces*copies/n >= 60 {
			row.Cells[1] = count(f.uneven(members))
		}
		decide.add(n, f.each.Seconds())
		if n > placement.MembersMax {
			row.Cells = append(row.Cells, "excluded", "excluded")
		} else {
			each, step := c.plan(members)
			row.Cells = append(row.Cells, size(each), span(step))
		}
		moves.Rows = append(moves.Rows, row)
	}
	return Section{Tables: []Table{moves}, Plots: []Plot{
		{"placement-time", "Deciding who holds a piece", "members", "seconds a piece", []Series{decide}},
	}}, nil
}

// laptops are members of 50 to 500 GB that are there between a quarter of the time and always.
func laptops(rng *rand.Rand, n int) (out []placement.Member) {
	for i := range n {
		out = append(out, placement.Member{ID: peer.ID(fmt.Sprintf("peer%06d", i)), Space: (50 + rng.Uint64N(450)) << 30, Uptime: uint8(25 + rng.IntN(76))})
	}
	return out
}

func named(id peer.ID) func(placement.Member) bool {
	return func(m placement.Member) bool { return m.ID == id }
}

// field is where pieces are.
type field struct {
	held [][]peer.ID
	each time.Duration // to decide about one
}

func pieceKey(k int) []byte { s := chunk.SumRaw(fmt.Append(nil, k)).Sum; return s[:] }

func (c Config) place(members []placement.Member, pieces int) field {
	f := field{}
	began := c.CPU()
	for k := range pieces {
		var at []peer.ID
		for _, i := range placement.Choose(pieceKey(k), members, copies) {
			at = append(at, members[i].ID)
		}
		f.held = append(f.held, at)
	}
	f.each = seconds((c.CPU() - began) / float64(pieces))
	return f
}

// uneven is what the member holds that has most for its weight, to what all would hold if they held as much.
func (f field) uneven(members []placement.Member) float64 {
	held, weight := map[peer.ID]float64{}, 0.0
	for _, at := range f.held {
		for _, id := range at {
			held[id]++
		}
	}
	for _, m := range members {
		weight += m.Weight()
	}
	most := 0.0
	for _, m := range members {
		most = max(most, held[m.ID]/(m.Weight()/weight*float64(len(f.held)*copies)))
	}
	return most
}

// moved compares f with where the pieces are among others: how many copies are elsewhere, and how many of f are at a
// member that must counts, which must be elsewhere.
func (f field) moved(c Config, others []placement.Member, must func(peer.ID) bool) (out [2]int) {
	then := c.place(others, len(f.held))
	for k, at := range f.held {
		for _, id := range at {
			if must(id) {
				out[1]++
			}
			if !slices.Contains(then.held[k], id) {
				out[0]++
			}
		}
	}
	return out
}

func ratio(v [2]int) string {
	if v[1] == 0 {
		return "–"
	}
	return count(float64(v[0]) / float64(v[1]))
}

// plan has a planner know where pieces are, and one member go away.
func (c Config) plan(members []placement.Member) (each float64, step time.Duration) {
	now := placement.Moment{Wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	var list []placement.Peer
	for _, m := range members {
		list = append(list, placement.Peer{Member: m, State: roster.Online, Free: m.Space / 2})
	}
	f := c.place(members, planPieces)
	holds := map[peer.ID][]chunk.CID{}
	var pieces []placement.Piece
	for k, at := range f.held {
		id := chunk.SumRaw(fmt.Append(nil, k))
		pieces = append(pieces, placement.Piece{ID: id, Size: 1 << 20, Copies: copies})
		for _, p := range at {
			holds[p] = append(holds[p], id)
		}
	}
	before := inUse()
	p := placement.New(placement.Config{Self: members[0].ID})
	p.Step(now, placement.Members{List: list})
	p.Step(now, placement.Pieces{Changed: pieces})
	for _, m := range members {
		p.Step(now, placement.Holds{Peer: m.ID, Added: holds[m.ID]})
	}
	each = float64(inUse()-before) / planPieces
	runtime.KeepAlive(f) // what is kept apart from the planner is there before and after
	runtime.KeepAlive(holds)
	runtime.KeepAlive(pieces)
	state := roster.Away
	step = c.took(100, func() {
		now.Boot, now.Wall = now.Boot+time.Hour, now.Wall.Add(time.Hour)
		p.Step(now, placement.Presence{Peer: members[len(members)/2].ID, State: state, Seen: now.Wall})
		state = roster.Away + roster.Online - state
	})
	return each, step
}
