package scale

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-os/shoal/dht/agenda"
)

// What kad-dht is set to, in shoal as by default.
const (
	kadK     = 20 // peers of a bucket, of an answer, and that a record is put at
	kadAlpha = 10 // requests under way
	kadBeta  = 3  // the closest so many have answered: the lookup is over

	kadRefresh   = 10 * time.Minute // between two refreshes of each bucket
	kadReprovide = 25 * time.Minute // between two announcements of a key
	kadTries     = 200              // lookups simulated
)

// kademlia is a table of peers that all live. Routing tables are made when they are asked: full buckets of random peers, as
// those of peers that have been there for a while.
type kademlia struct {
	ids    []uint64 // sorted; 64 bits tell a hundred thousand apart
	seed   uint64
	tables map[int][]int32
}

func newKademlia(rng *rand.Rand, n int) *kademlia {
	k := &kademlia{seed: rng.Uint64(), tables: map[int][]int32{}}
	for range n {
		k.ids = append(k.ids, rng.Uint64())
	}
	slices.Sort(k.ids)
	return k
}

// table is what a peer knows: of each distance at most kadK peers.
func (k *kademlia) table(i int) []int32 {
	if t, ok := k.tables[i]; ok {
		return t
	}
	rng := rand.New(rand.NewPCG(k.seed, uint64(i)))
	var t []int32
	lo, hi := 0, len(k.ids) // of those that share the bits so far
	for b := 0; hi-lo > 1; b++ {
		bit := uint64(1) << (63 - b)
		middle := lo + bits0(k.ids[lo:hi], bit)
		if k.ids[i]&bit == 0 {
			t = k.bucket(rng, t, middle, hi)
			hi = middle
		} else {
			t = k.bucket(rng, t, lo, middle)
			lo = middle
		}
	}
	k.tables[i] = t
	return t
}

// bits0 is how many of the sorted ids, which are alike before it, have the bit clear.
func bits0(ids []uint64, bit uint64) int {
	n, _ := slices.BinarySearchFunc(ids, bit, func(id, bit uint64) int { return cmp.Compare(id&bit, bit) })
	return n
}

func (k *kademlia) bucket(rng *rand.Rand, t []int32, lo, hi int) []int32 {
	if hi-lo <= kadK {
		for j := lo; j < hi; j++ {
			t = append(t, int32(j))
		}
		return t
	}
	from := len(t)
	for len(t)-from < kadK {
		if j := int32(lo + rng.IntN(hi-lo)); !slices.Contains(t[from:], j) {
			t = append(t, j)
		}
	}
	return t
}

// nearest are the kadK peers nearest to a key that a peer knows.
func (k *kademlia) nearest(i int, key uint64) []int32 {
	t := slices.Clone(k.table(i))
	slices.SortFunc(t, func(a, b int32) int { return cmp.Compare(k.ids[a]^key, k.ids[b]^key) })
	return t[:min(len(t), kadK)]
}

// search is one lookup as kad-dht does it: alpha requests under way, over when the beta nearest have answered; then the
// rest of the nearest kadK are asked too.
type search struct {
	agenda.Agenda
	k      *kademlia
	rng    *rand.Rand
	self   int32
	key    uint64
	heard  map[int32]int // peers, and how many referrals led there
	state  map[int32]int // 0 heard, 1 waiting, 2 answered
	flying int
	over   bool
	asked  int
	deep   int
}

func (s *search) near(n int, states ...int) (out []int32) {
	for p := range s.heard {
		if slices.Contains(states, s.state[p]) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b int32) int { return cmp.Compare(s.k.ids[a]^s.key, s.k.ids[b]^s.key) })
	return out[:min(len(out), n)]
}

func (s *search) hear(peers []int32, deep int) {
	for _, p := range peers {
		if _, ok := s.heard[p]; !ok && p != s.self {
			s.heard[p] = deep
		}
	}
}

// next asks more peers, or finds that the lookup is over.
func (s *search) next() {
	best := s.near(kadBeta, 0, 1, 2)
	if !slices.ContainsFunc(best, func(p int32) bool { return s.state[p] != 2 }) {
		s.over = true
		return
	}
	for _, p := range s.near(kadAlpha-s.flying, 0) {
		s.ask(p)
	}
}

func (s *search) ask(p int32) {
	s.state[p] = 1
	s.flying++
	s.asked++
	s.deep = max(s.deep, s.heard[p])
	s.After(40*time.Millisecond+time.Duration(s.rng.Int64N(80e6)), func() {
		s.flying--
		if s.over {
			return
		}
		s.state[p] = 2
		s.hear(s.k.nearest(int(p), s.key), s.heard[p]+1)
		s.next()
	})
}

// lookup runs a search of a key from a peer, and returns the peers asked, the longest chain of referrals, and whether it
// found the very nearest peer.
func (k *kademlia) lookup(rng *rand.Rand, self int, key uint64) (asked, deep int, right bool) {
	s := &search{k: k, rng: rng, self: int32(self), key: key, heard: map[int32]int{}, state: map[int32]int{}}
	s.hear(k.nearest(self, key), 1)
	if len(s.heard) > 0 {
		s.next()
	}
	s.Run(time.Hour)
	top := s.near(kadK, 0, 1, 2)
	for _, p := range top {
		if s.state[p] == 0 {
			s.asked++
		}
	}
	nearest := slices.MinFunc(k.ids, func(a, b uint64) int { return cmp.Compare(a^key, b^key) })
	right = nearest == k.ids[self] || len(top) > 0 && k.ids[top[0]] == nearest
	return s.asked, s.deep, right
}

// kadCost is the mean of many lookups.
type kadCost struct{ asked, deep, right, table float64 }

func simulateKad(rng *rand.Rand, n int) (c kadCost) {
	k := newKademlia(rng, n)
	for range kadTries {
		self := rng.IntN(n)
		asked, deep, right := k.lookup(rng, self, rng.Uint64())
		c.asked += float64(asked) / kadTries
		c.deep += float64(deep) / kadTries
		c.table += float64(len(k.table(self))) / kadTries
		if right {
			c.right += 1.0 / kadTries
		}
	}
	return c
}

// upkeep is the requests a second by which a peer keeps its table fresh: a lookup of each bucket and of itself.
func (c kadCost) upkeep(n int) float64 {
	buckets := min(15, max(1, bits.Len(uint(n/kadK))))
	return float64(buckets+1) * c.asked / kadRefresh.Seconds()
}

// lookups compares a model of kad-dht with real tables, and lets it grow.
func lookups(c Config) (Section, error) {
	t := Table{Name: "lookup", Columns: []string{"peers in a routing table", "asked to find", "messages to announce", "referrals in a row", "nearest found",
		"bytes of a find", "upkeep of a table", "upkeep with 10 keys announced"}}
	find, provide := Series{Name: "find", Basis: OfModel}, Series{Name: "announce", Basis: OfModel}
	real, realProvide := Series{Name: "find", Basis: OfHosts}, Series{Name: "announce", Basis: OfHosts}
	each := 0.0 // bytes of one request and its answer
	for _, k := range c.Measured.Tables {
		t.Rows = append(t.Rows, Row{N: k.Peers, Basis: OfHosts, Cells: []string{count(k.Table), count(k.Find.Asked), count(k.Provide.Asked), "–", percent(k.Found), size(k.Find.Bytes), "–", "–"}})
		real.add(k.Peers, k.Find.Asked)
		realProvide.add(k.Peers, k.Provide.Asked)
		if k.Find.Asked > 0 {
			each = max(each, k.Find.Bytes/k.Find.Asked)
		}
	}
	for _, n := range c.with(c.Measured.sizes()) {
		m := simulateKad(c.rng("lookup", n), n)
		if m.right < 0.9 {
			return Section{}, fmt.Errorf("lookup: of %d peers the nearest was found in %.0f %% only", n, 100*m.right)
		}
		announce := m.asked + min(kadK, float64(n-1))
		row := Row{N: n, Basis: OfModel, Cells: []string{count(m.table), count(m.asked), count(announce), count(m.deep), percent(m.right), "–", "–", "–"}}
		if each > 0 {
			row.Cells[5] = size(m.asked * each)
			c.note("lookup", n, m.upkeep(n)*each)
			c.note("lookup/messages", n, 2*m.upkeep(n))
			row.Cells[6] = size(m.upkeep(n)*each) + "/s"
			row.Cells[7] = size(m.upkeep(n)*each+10*announce*each/kadReprovide.Seconds()) + "/s"
		}
		t.Rows = append(t.Rows, row)
		find.add(n, m.asked)
		provide.add(n, announce)
	}
	return Section{Tables: []Table{t}, Plots: []Plot{
		{"lookup", "Peers asked by one look-up in the DHT", "peers", "messages", []Series{real, find, realProvide, provide}},
	}}, nil
}

// with is the sizes of the run and some more, in order.
func (c Config) with(more []int) []int {
	all := append(slices.Clone(c.Sizes), more...)
	slices.Sort(all)
	return slices.Compact(all)
}

// sizes of pools and tables that were measured.
func (m Measured) sizes() (out []int) {
	for _, p := range m.Pools {
		out = append(out, p.Peers)
	}
	for _, k := range m.Tables {
		out = append(out, k.Peers)
	}
	return out
}
