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
	same := c.sameAs(asking)
	if len(asking) <= SlotsRegular+SlotsOptimistic {
		c.regular, c.optimistic = ids(asking), nil
		c.note(now, asking)
		return Choice{Serve: c.regular, Wake: now.Add(rechokeEvery)}
	}
	if !same || !now.Before(c.rechoke) {
		c.chooseRegular(now, asking)
	}
	if !same || !now.Before(c.rotate) {
		c.chooseOptimistic(now, asking)
	}
	serve := map[uint64]bool{}
	for _, set := range []map[uint64]bool{c.regular, c.optimistic} {
		for id := range set {
			serve[id] = true
		}
	}
	c.note(now, asking)
	return Choice{Serve: serve, Wake: earlier(c.rechoke, c.rotate)}
}

func (c *Choker) sameAs(asking []Interest) bool {
	now := make([]uint64, len(asking))
	for i, a := range asking {
		now[i] = a.ID
	}
	slices.Sort(now)
	same := slices.Equal(now, c.seen)
	c.seen = now
	return same
}

func (c *Choker) chooseRegular(now time.Time, asking []Interest) {
	order := slices.Clone(asking)
	slices.SortFunc(order, func(a, b Interest) int {
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
	c.rechoke = now.Add(rechokeEvery)
}

func (c *Choker) chooseOptimistic(now time.Time, asking []Interest) {
	var waiting []Interest
	for _, a := range asking {
		if !c.regular[a.ID] {
			waiting = append(waiting, a)
		}
	}
	slices.SortFunc(waiting, func(a, b Interest) int {
		if n := c.served[a.ID].Compare(c.served[b.ID]); n != 0 {
			return n
		}
		return cmp.Compare(a.ID, b.ID)
	})
	c.optimistic = ids(waiting[:min(SlotsOptimistic, len(waiting))])
	c.rotate = now.Add(optimisticEvery)
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

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
