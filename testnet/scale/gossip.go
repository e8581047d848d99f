package scale

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-os/shoal/dht/agenda"
)

// What GossipSub is set to by default, which shoal keeps, and what a message weighs.
const (
	meshDegree = 6
	lazyPeers  = 6           // told each second what is new
	lazyWindow = 3           // seconds of what is told
	lazyID     = 50          // bytes of one name of a message
	lazyEvery  = time.Second //
	adBytes    = 300 + 182   // of one announcement, as it is on a stream
	gossipRuns = 5
)

// overlay is who passes on to whom.
type overlay struct {
	links [][]int32 // to whom a member is connected; nil: to all
	mesh  [][]int32
}

// newOverlay knits a mesh among members each of whom is connected to view others; 0: to all.
func newOverlay(rng *rand.Rand, n, view int) *overlay {
	o := &overlay{mesh: make([][]int32, n)}
	if view > 0 && view < n-1 {
		o.links = make([][]int32, n)
		knit(rng, o.links, view, func(int) int { return rng.IntN(n) })
	}
	knit(rng, o.mesh, min(meshDegree, n-1), func(i int) int {
		if o.links == nil {
			return rng.IntN(n)
		}
		return int(o.links[i][rng.IntN(len(o.links[i]))])
	})
	return o
}

// knit draws edges until each has at least so many, or cannot be given more.
func knit(rng *rand.Rand, graph [][]int32, degree int, other func(int) int) {
	for _, i := range rng.Perm(len(graph)) {
		for tries := 0; len(graph[i]) < degree && tries < 20*degree; tries++ {
			j := other(i)
			if j == i || slices.Contains(graph[i], int32(j)) || len(graph[j]) >= 2*degree {
				continue
			}
			graph[i], graph[j] = append(graph[i], int32(j)), append(graph[j], int32(i))
		}
	}
}

// spread is what one message came to.
type spread struct {
	delivered float64 // share of the others
	copies    float64 // sent to each of them, on average
	publisher float64 // sent by who published it
	most      float64 // sent by any other, at most
	last      time.Duration
}

// publish spreads one message: its publisher sends it to all that it is connected to, others pass it on along the mesh.
func (o *overlay) publish(rng *rand.Rand, self int) (s spread) {
	var c agenda.Agenda
	n := len(o.mesh)
	got := make([]bool, n)
	left := n - 1
	sends := 0
	var receive func(i, from int32)
	send := func(i, to int32) {
		sends++
		c.After(20*time.Millisecond+time.Duration(rng.Int64N(40e6)), func() { receive(to, i) })
	}
	receive = func(i, from int32) {
		if got[i] {
			return
		}
		got[i] = true
		if left--; left == n/100 {
			s.last = c.Now
		}
		mine := 0
		for _, to := range o.mesh[i] {
			if to != from && to != int32(self) {
				send(i, to)
				mine++
			}
		}
		s.most = max(s.most, float64(mine))
	}
	got[self] = true
	if o.links == nil {
		for i := range int32(n) {
			if i != int32(self) {
				send(int32(self), i)
			}
		}
	} else {
		for _, i := range o.links[self] {
			send(int32(self), i)
		}
	}
	s.publisher = float64(sends)
	c.Run(time.Hour)
	s.delivered, s.copies = 1-float64(left)/float64(n-1), float64(sends)/float64(n-1)
	return s
}

// spreads is the mean of some.
func spreads(rng *rand.Rand, n, view int) (s spread) {
	o := newOverlay(rng, n, view)
	for range gossipRuns {
		one := o.publish(rng, rng.IntN(n))
		s.delivered += one.delivered / gossipRuns
		s.copies += one.copies / gossipRuns
		s.publisher += one.publisher / gossipRuns
		s.most = max(s.most, one.most)
		s.last += one.last / gossipRuns
	}
	return s
}

// gossiping compares a model of GossipSub with real pools, and lets it grow: as it is, where each member is connected to all
// and sends its own messages to all, and with partial views.
func gossiping(c Config) (Section, error) {
	t := Table{Name: "gossip", Columns: []string{"connected to", "delivered", "copies to each", "bytes to each of one message", "the publisher sends", "99 in 100 after", "CPU of one message, a peer"}}
	copies := Series{Name: "copies to each", Basis: OfModel}
	real := Series{Name: "copies to each", Basis: OfHosts}
	full, partial := Series{Name: "publisher, connected to all", Basis: OfModel}, Series{Name: fmt.Sprintf("publisher, connected to %d", viewSize), Basis: OfModel}
	for _, p := range c.Measured.Pools {
		g := p.Gossip
		t.Rows = append(t.Rows, Row{N: p.Peers, Basis: OfHosts, Cells: []string{"all", percent(g.Delivered), count(g.Copies), size(g.Copies * adBytes), size(float64(p.Peers-1) * adBytes), span(seconds(g.Last)), span(seconds(g.CPU))}})
		real.add(p.Peers, g.Copies)
	}
	for _, n := range c.with(c.Measured.sizes()) {
		for _, view := range []int{0, viewSize} {
			if view >= n-1 {
				continue
			}
			s := spreads(c.rng("gossip", n+view), n, view)
			if s.delivered < 0.999 {
				return Section{}, fmt.Errorf("gossip: of %d, %.2f %% are reached", n, 100*s.delivered)
			}
			whom := "all"
			if view > 0 {
				whom = count(float64(view))
				partial.add(n, s.publisher*adBytes)
			} else {
				full.add(n, s.publisher*adBytes)
				copies.add(n, s.copies)
				c.note("copies", n, s.copies)
			}
			t.Rows = append(t.Rows, Row{N: n, Basis: OfModel, Cells: []string{whom, percent(s.delivered), count(s.copies), size(s.copies * adBytes), size(s.publisher * adBytes), span(s.last), "–"}})
		}
	}
	return Section{Tables: []Table{t}, Plots: []Plot{
		{"gossip-copies", "Copies of one gossip message", "members", "copies to each member", []Series{real, copies}},
		{"gossip-publisher", "What a message costs its publisher", "members", "bytes", []Series{full, partial}},
	}}, nil
}

func seconds(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }
