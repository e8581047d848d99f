package names

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// AheadMax is how far beyond the pool's time a record may be and still be taken in. It must be well above what
	// clocks that are kept by NTP differ by, and below what anybody would mind waiting for.
	AheadMax = 5 * time.Minute

	// clockTolerance is how far two clocks may differ and still agree. It is below half of AheadMax, so that peers
	// that agree with one clock accept each other's records.
	clockTolerance = time.Minute

	// voiceTTL is how long another peer's clock counts after it was last heard.
	voiceTTL = 24 * time.Hour
	// voicesMax bounds the peers whose clocks are remembered.
	voicesMax = 64
	// weightMax is the most that one peer's word for others' clocks counts. It makes a newcomer with a wrong clock
	// believe the first peer it meets, and is less than any majority heard directly.
	weightMax = 2

	// birth is a time that every right clock has passed, in seconds since 1970: that of this package, 2026-01-01. A
	// clock without a battery starts long before it.
	birth = 1767225600
)

// Reading is what a peer says of the time when it says hello.
type Reading struct {
	Raw    time.Time // its own clock
	Pool   time.Time // what it takes for the pool's time
	Voices int       // how many clocks, its own included, it knows to agree with Pool
}

// voice is one peer's reading, as distances from this peer's own clock, which keeps its meaning as both run on.
type voice struct {
	raw, pool time.Duration
	weight    int
	at        time.Time // own clock
}

// Clock gives hybrid times, in the pool's time rather than this machine's: a laptop whose clock is hours off (an
// empty CMOS battery, a time zone taken for UTC) finds out from the peers that it talks to, and goes by theirs.
//
// The pool's time is what most clocks agree on. With as many voices for one time as for another, as always between
// two peers, the earlier one is it: then it is the peer ahead that steps back and stamps its own records anew, and no
// time beyond a good clock ever enters the pool; unless the earlier one is from before there was shoal. All this
// follows from the clocks alone, so that peers that hear the same clocks come to the same time.
type Clock struct {
	offset time.Duration // the pool's time minus the own clock; 0 while they agree
	last   HLC           // the latest time given or seen
	heard  map[peer.ID]voice
}

// Now returns the pool's time when the own clock says wall.
func (c *Clock) Now(wall time.Time) time.Time { return wall.Add(c.offset) }

// Offset is the pool's time minus this machine's; 0 if they agree.
func (c *Clock) Offset() time.Duration { return c.offset }

// Limit is the greatest time that is accepted when the own clock says wall.
func (c *Clock) Limit(wall time.Time) HLC {
	return At(c.Now(wall).Add(AheadMax)) | (1<<counterBits - 1)
}

// Next gives a time that is later than every one given or seen, and than after. It never passes the limit because of
// what it has seen: after the clock was set back, times begin again at the present one.
func (c *Clock) Next(wall time.Time, after HLC) HLC {
	limit := c.Limit(wall)
	next := At(c.Now(wall))
	for _, h := range []HLC{c.last, after} {
		if h < limit {
			next = max(next, h+1)
		}
	}
	c.last = next
	return next
}

// See notes a time that was accepted.
func (c *Clock) See(h HLC) { c.last = max(c.last, h) }

// Read says what this peer knows of the time.
func (c *Clock) Read(wall time.Time) Reading {
	c.forget(wall)
	return Reading{Raw: wall, Pool: c.Now(wall), Voices: c.agreeing(c.offset)}
}

// Hear takes another peer's reading and decides anew what the pool's time is. It returns by how
// much the pool's time moved; 0 nearly always.
func (c *Clock) Hear(from peer.ID, r Reading, wall time.Time) time.Duration {
	if c.heard == nil {
		c.heard = map[peer.ID]voice{}
	}
	c.forget(wall)
	if _, known := c.heard[from]; !known && len(c.heard) >= voicesMax {
		return 0
	}
	c.heard[from] = voice{
		raw: r.Raw.Sub(wall), pool: r.Pool.Sub(wall), at: wall,
		weight: min(max(r.Voices, 0), weightMax),
	}
	return c.decide(wall)
}

// Confirmed reports whether another peer's clock agrees with what this one takes for the pool's time.
func (c *Clock) Confirmed() bool {
	for _, v := range c.heard {
		if near(v.raw, c.offset) || near(v.pool, c.offset) {
			return true
		}
	}
	return false
}

// Leapt must be called after the machine's clock was set, by so much: others' clocks are away from it by as much more or less, and
// the pool's time has not moved by that. It returns by how much that did move, since the own clock has another say now.
func (c *Clock) Leapt(by time.Duration, wall time.Time) time.Duration {
	for p, v := range c.heard {
		c.heard[p] = voice{raw: v.raw - by, pool: v.pool - by, weight: v.weight, at: v.at.Add(by)}
	}
	c.offset -= by
	c.forget(wall)
	return c.decide(wall)
}

// forget drops voices that were not heard for voiceTTL, or that seem to come from the future, because the own clock
// was set back since.
func (c *Clock) forget(wall time.Time) {
	maps.DeleteFunc(c.heard, func(_ peer.ID, v voice) bool {
		age := wall.Sub(v.at)
		return age > voiceTTL || age < -clockTolerance
	})
}

// decide picks the offset with the most voices; of those with equally many the earliest that is not before birth.
func (c *Clock) decide(wall time.Time) time.Duration {
	candidates := []time.Duration{0}
	for _, v := range c.heard {
		candidates = append(candidates, v.raw)
		if v.weight > 1 {
			candidates = append(candidates, v.pool)
		}
	}
	slices.Sort(candidates)
	best, most := candidates[0], c.weigh(candidates[0])
	for _, d := range candidates[1:] {
		w := c.weigh(d)
		unborn := wall.Add(best).Unix() < birth
		if order := w.compare(most); order > 0 || order == 0 && unborn {
			best, most = d, w
		}
	}
	return c.adopt(best)
}

// adopt moves to an offset, unless the present one agrees with it: then staying avoids a step for nothing.
func (c *Clock) adopt(offset time.Duration) time.Duration {
	if near(offset, 0) {
		offset = 0
	}
	if near(offset, c.offset) && (offset != 0 || c.offset == 0) {
		return 0
	}
	moved := offset - c.offset
	c.offset = offset
	return moved
}

// weight is what speaks for an offset: the clocks that agree, with what others claim to have heard counted in; then
// those heard here alone.
type weight struct{ claimed, direct int }

func (w weight) compare(other weight) int {
	return cmp.Or(cmp.Compare(w.claimed, other.claimed), cmp.Compare(w.direct, other.direct))
}

func (c *Clock) weigh(offset time.Duration) weight {
	direct := c.agreeing(offset)
	w := weight{direct, direct}
	for _, v := range c.heard {
		if near(v.pool, offset) {
			w.claimed = max(w.claimed, v.weight)
		}
	}
	return w
}

// agreeing counts the clocks, the own one included, that agree with an offset.
func (c *Clock) agreeing(offset time.Duration) int {
	n := 0
	if near(0, offset) {
		n++
	}
	for _, v := range c.heard {
		if near(v.raw, offset) {
			n++
		}
	}
	return n
}

func near(a, b time.Duration) bool { return (a - b).Abs() <= clockTolerance }
