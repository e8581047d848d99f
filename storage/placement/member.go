package placement

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
)

// Moment is one instant on two clocks, and State how present a member seems; both are the roster's.
type (
	Moment = roster.Moment
	State  = roster.State
)

const (
	// spaceMax bounds what one member may claim to offer, in bytes: 1 PiB.
	spaceMax = 1 << 50
	// uptimeMin is what a member that is hardly ever there counts as, in per cent: LESSONS has classes from a quarter up.
	// It would otherwise hold nothing, and a new member, of whom nothing is known, neither.
	uptimeMin = 25
	uptimeMax = 100
)

// Member is what placement needs to know of a member: what it published in the directory. It is comparable.
type Member struct {
	ID     peer.ID
	Space  uint64 // bytes it offers to the pool
	Uptime uint8  // how reliably it is there, 0 to 100
	Owner  string // "": unknown, counts as its own
	Site   string // "": unknown, counts as its own
	Anchor bool   // always on
}

// Weight is the member's share of the pool's pieces, in kibibytes of space times per cent of uptime. Members are chosen
// in proportion to it; with 0 they never are. It is a whole number.
func (m Member) Weight() float64 { return float64(m.weight()) }

// weight is below 2^47.
func (m Member) weight() uint64 {
	return min(m.Space, spaceMax) >> 10 * uint64(min(max(m.Uptime, uptimeMin), uptimeMax))
}

// Peer is a member as the planner sees it: what it published, and how it is now.
type Peer struct {
	Member
	State State
	// Seen is when this peer last heard of it, by the wall clock. It counts only while the member is not online; zero is
	// taken as the moment when the planner first heard of the member.
	Seen time.Time
	// Free is how many bytes of its space are free. It may leave out what is on its way.
	Free uint64
	// Draining: it is about to leave. Its copies do not count and it gets none, but others may read from it.
	Draining bool
	// Untrusted: its copies neither count nor are read, as after failed audits.
	Untrusted bool
}
