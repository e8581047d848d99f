package sched

import (
	"cmp"
	"slices"
	"time"
)

const (
	// SlotsRegular peers are served for what they give in return (BEP 3).
	SlotsRegular = 7
	// SlotsOptimistic more are served in turn, so that newcomers can begin.
	SlotsOptimistic = 1

	rechokeEvery    = 10 * time.Second
	optimisticEvery = 30 * time.Second
)

// Interest is one peer that asks for leaves, by a number of the caller's.
type Interest struct {
	ID     uint64
	Member bool    // of our pool: served first
	Gave   float64 // bytes/s it sent us lately
	Took   float64 // bytes/s it took of us lately
}

// Choker decides who is served. The zero value is ready. One goroutine owns it.
type Choker struct {
	regular    map[uint64]bool
	optimistic map[uint64]bool
	served     map[uint64]time.Time // when a waiting peer was last let in
	rechoke    time.Time
	rotate     time.Time
	seen       []uint64
}

// Choice is the choker's answer.
type Choice struct {
	Serve map[uint64]bool // who is unchoked; all others are choked
	Wake  time.Time       // when to ask again
}

// Step chooses among those who ask now. While there are slots for all of them,
// all are served. Otherwise members come first, then those who give most, then
// (for one who only seeds) those who were served longest ago.
func (c *Choker) Step(now time.Time, asking []Interest) Choice {
	if c.served == nil {
		c.served = map[uint64]time.Time{}
	}
	same, newMember := c.compare(asking)
	if len(asking) <= SlotsRegular+SlotsOptimistic {
		c.regular, c.optimistic = ids(asking), nil
		c.note(now, asking)
		return Choice{Serve: c.regular, Wake: now.Add(rechokeEvery)}
	}
	// Those who come and go between two turns take and leave free slots only:
	// each change of hands costs what is under way.
	if due := newMember || !now.Before(c.rechoke); due || !same {
		c.chooseRegular(now, asking, !due)
	}
	if due := !now.Before(c.rotate); due || !same {
		c.chooseOptimistic(now, asking, !due)
	}
	serve := map[uint64]bool{}
	for _, set := range []map[uint64]bool{c.regular, c.optimistic} {
		for id := range set {
			serve[id] = true
		}
	}
	c.note(now, asking)
	return Choice{Serve: serve, Wake: earlierOf(c.rechoke, c.rotate)}
}

// compare reports whether the same ask as before, and whether a member is new
// among them.
func (c *Choker) compare(asking []Interest) (same, newMember bool) {
	now := make([]uint64, len(asking))
	for i, a := range asking {
		now[i] = a.ID
		if _, old := slices.BinarySearch(c.seen, a.ID); a.Member && !old {
			newMember = true
		}
	}
	slices.Sort(now)
	same = slices.Equal(now, c.seen)
	c.seen = now
	return same, newMember
}

// first puts those who are in the set before others, if keep says so.
func first(set map[uint64]bool, keep bool, a, b Interest) int {
	if !keep || set[a.ID] == set[b.ID] {
		return 0
	}
	if set[a.ID] {
		return -1
	}
	return 1
}

func (c *Choker) chooseRegular(now time.Time, asking []Interest, keep bool) {
	order := slices.Clone(asking)
	slices.SortFunc(order, func(a, b Interest) int {
		if n := first(c.regular, keep, a, b); n != 0 {
			return n
		}
		if a.Member != b.Member {
			if a.Member {
				return -1
			}
			return 1
		}
		if n := cmp.Compare(b.Gave, a.Gave); n != 0 {
			return n
		}
		if n := c.served[a.ID].Compare(c.served[b.ID]); n != 0 {
			return n
		}
		return cmp.Compare(a.ID, b.ID)
	})
	c.regular = ids(order[:SlotsRegular])
	if !keep {
		c.rechoke = now.Add(rechokeEvery)
	}
}

func (c *Choker) chooseOptimistic(now time.Time, asking []Interest, keep bool) {
	var waiting []Interest
	for _, a := range asking {
		if !c.regular[a.ID] {
			waiting = append(waiting, a)
		}
	}
	slices.SortFunc(waiting, func(a, b Interest) int {
		if n := first(c.optimistic, keep, a, b); n != 0 {
			return n
		}
		if n := c.served[a.ID].Compare(c.served[b.ID]); n != 0 {
			return n
		}
		return cmp.Compare(a.ID, b.ID)
	})
	c.optimistic = ids(waiting[:min(SlotsOptimistic, len(waiting))])
	if !keep {
		c.rotate = now.Add(optimisticEvery)
	}
}

// note remembers who is served now and forgets who has left.
func (c *Choker) note(now time.Time, asking []Interest) {
	present := ids(asking)
	for id := range c.served {
		if !present[id] {
			delete(c.served, id)
		}
	}
	for id := range present {
		if c.regular[id] || c.optimistic[id] {
			c.served[id] = now
		}
	}
}

func ids(list []Interest) map[uint64]bool {
	out := make(map[uint64]bool, len(list))
	for _, a := range list {
		out[a.ID] = true
	}
	return out
}
