package placement

import (
	"cmp"
	"math/bits"

	"github.com/libp2p/go-libp2p/core/peer"
)

// runner is a member prepared for ranking.
type runner struct {
	id          peer.ID
	seed        uint64 // of its id
	weight      uint64
	owner, site int32 // numbers of the names; unknown ones are negative and differ
	anchor      bool
}

// field is all that run for the pieces. Names are numbered once, so that comparing them is cheap.
type field struct {
	runners []runner
	names   map[string]int32
	scores  []score // of one key, for those that may be picked
}

// set prepares m as runner i.
func (f *field) set(i int, m Member) {
	f.runners[i] = runner{
		id: m.ID, seed: mix(fold([]byte(m.ID))), weight: m.weight(),
		owner: f.number(m.Owner, i), site: f.number(m.Site, i), anchor: m.Anchor,
	}
}

func (f *field) number(name string, i int) int32 {
	if name == "" {
		return int32(-1 - i)
	}
	n, ok := f.names[name]
	if !ok {
		if f.names == nil {
			f.names = make(map[string]int32)
		}
		n = int32(len(f.names))
		f.names[name] = n
	}
	return n
}

// newField prepares a list of members.
func newField(members []Member) *field {
	f := &field{runners: make([]runner, len(members))}
	for i, m := range members {
		f.set(i, m)
	}
	return f
}

// score is what weighted rendezvous hashing compares: -ln(h)/weight, the least first (Schindelhauer and Schomaker 2005;
// Resch 2015, where it is weight/-ln(h), the greatest first). It is kept as a fraction.
type score struct{ cost, weight uint64 }

// score of a runner for the hash of a key.
func (r *runner) score(key uint64) score {
	return score{negLog2(mix(mix(key^r.seed) + r.seed)), r.weight}
}

// compare orders scores, the better first. Costs are below 2^39 and weights below 2^47, so that the products fit.
func (s score) compare(t score) int {
	hi1, lo1 := bits.Mul64(s.cost, t.weight)
	hi2, lo2 := bits.Mul64(t.cost, s.weight)
	if hi1 != hi2 {
		return cmp.Compare(hi1, hi2)
	}
	return cmp.Compare(lo1, lo2)
}

// apart says how far runner i is from all those chosen: 3 another owner and another site, 2 another owner, 1 another site,
// 0 neither.
func (f *field) apart(i int, chosen []int) int {
	owner, site := 2, 1
	for _, c := range chosen {
		if f.runners[c].owner == f.runners[i].owner {
			owner = 0
		}
		if f.runners[c].site == f.runners[i].site {
			site = 0
		}
	}
	return owner + site
}

// anchored reports whether one of the chosen is an anchor.
func (f *field) anchored(chosen []int) bool {
	for _, c := range chosen {
		if f.runners[c].anchor {
			return true
		}
	}
	return false
}

// rate computes the scores of all that may be picked, for next.
func (f *field) rate(key uint64, may set) {
	if len(f.scores) < len(f.runners) {
		f.scores = make([]score, len(f.runners))
	}
	for k, word := range may {
		for ; word != 0; word &= word - 1 {
			i := k*64 + bits.TrailingZeros64(word)
			f.scores[i] = f.runners[i].score(key)
		}
	}
}

// next picks who follows the chosen ones among those that may and are rated: an anchor if there is none yet, then whoever
// is furthest apart, then the best score. It returns -1 if nobody is left. It is what takes the time when much is placed, so
// it walks the set by hand.
func (f *field) next(chosen []int, may set) int {
	best, bestClass := -1, 0
	anchored := f.anchored(chosen)
	for k, word := range may {
		for ; word != 0; word &= word - 1 {
			i := k*64 + bits.TrailingZeros64(word)
			class := f.apart(i, chosen)
			if !anchored && f.runners[i].anchor {
				class += 4
			}
			if best < 0 || class > bestClass || class == bestClass && f.better(i, best) {
				best, bestClass = i, class
			}
		}
	}
	return best
}

// order compares two that are rated, the better first; their ids break a tie.
func (f *field) order(i, j int) int {
	if c := f.scores[i].compare(f.scores[j]); c != 0 {
		return c
	}
	return cmp.Compare(f.runners[i].id, f.runners[j].id)
}

func (f *field) better(i, j int) bool { return f.order(i, j) < 0 }

// choose picks up to n of those that may, in order, to go with the chosen ones, and appends them. It takes them out of may.
func (f *field) choose(key uint64, chosen []int, may set, n int) []int {
	f.rate(key, may)
	for range n {
		i := f.next(chosen, may)
		if i < 0 {
			break
		}
		may.clear(i)
		chosen = append(chosen, i)
	}
	return chosen
}
