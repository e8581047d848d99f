package tasks

import (
	"sync"

	"github.com/shoal-os/shoal/tasks/market"
)

// tally counts what a leader does, for people.
type tally struct {
	attempts, retries uint64
	granted           []uint64 // a bit for each task
}

func (c *tally) begin(all int) { *c = tally{granted: make([]uint64, (all+63)/64)} }

func (c *tally) orders(a market.Addressed) {
	for _, g := range a.Order.Grants {
		c.attempts++
		if w := int(g.Task / 64); w < len(c.granted) {
			if c.granted[w]&(1<<(g.Task%64)) != 0 {
				c.retries++
			}
			c.granted[w] |= 1 << (g.Task % 64)
		}
	}
}

// rate is tasks a second over the last few seconds. It is safe for concurrent use.
type rate struct {
	mu    sync.Mutex
	slots [rateSlots]int
	at    int64 // the slot, in seconds since some start, that was counted into last
	since int64
}

// rateSlots is over how many seconds a rate is taken.
const rateSlots = 8

func (r *rate) turn(now int64) {
	if r.since == 0 {
		r.since, r.at = now, now
	}
	for ; r.at < now; r.at++ {
		if now-r.at > rateSlots {
			r.at = now - rateSlots
		}
		r.slots[(r.at+1)%rateSlots] = 0
	}
}

func (r *rate) add(now int64, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	r.slots[now%rateSlots] += n
}

func (r *rate) get(now int64) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == 0 {
		return 0
	}
	r.turn(now)
	sum := 0
	for _, n := range r.slots {
		sum += n
	}
	return float64(sum) / float64(min(now-r.since+1, rateSlots))
}
