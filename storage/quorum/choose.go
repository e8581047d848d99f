package quorum

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Candidate is a peer that could be a voter.
type Candidate struct {
	ID     peer.ID
	Self   bool   // the peer that makes the group: it is always chosen
	Owner  string // whose it is; "" : unknown, counts as nobody else's
	Anchor bool   // marked always-on
	Mains  bool   // it does not run on its battery
	// Reachable: it is connected now and not away. Others are not chosen.
	Reachable bool
	Uptime    uint8 // how much of the time it is there, 0..100
}

// uptimeClass is how coarsely uptimes are compared, so that small differences do not put all groups on the same peers.
const uptimeClass = 25

// Choose proposes voters of a group, best first: the peer that makes it, then reachable ones: anchors first, then those on mains, then
// the steadiest, of different owners where that costs nothing of these; which of equals follows from key, so that groups spread. It returns
// n of them or fewer, always an odd number, for an even one survives no more than the odd one below it.
func Choose(key [32]byte, members []Candidate, n int) []peer.ID {
	pool := make([]Candidate, 0, len(members))
	for _, m := range members {
		if m.Self || m.Reachable {
			pool = append(pool, m)
		}
	}
	var out []peer.ID
	owners := make(map[string]int)
	for len(out) < min(n, VotersMax) && len(pool) > 0 {
		best := slices.MinFunc(pool, func(a, b Candidate) int { return compare(key, a, b, owners) })
		pool = slices.DeleteFunc(pool, func(m Candidate) bool { return m.ID == best.ID })
		out = append(out, best.ID)
		owners[best.Owner]++
	}
	if len(out)%2 == 0 && len(out) > 0 {
		out = out[:len(out)-1]
	}
	return out
}

// compare orders candidates, the better one first.
func compare(key [32]byte, a, b Candidate, owners map[string]int) int {
	taken := func(m Candidate) int {
		if m.Owner == "" {
			return 0
		}
		return owners[m.Owner]
	}
	return cmp.Or(
		trueFirst(a.Self, b.Self),
		trueFirst(a.Anchor, b.Anchor),
		trueFirst(a.Mains, b.Mains),
		-cmp.Compare(a.Uptime/uptimeClass, b.Uptime/uptimeClass),
		cmp.Compare(taken(a), taken(b)),
		cmp.Compare(lot(key, a.ID), lot(key, b.ID)),
		cmp.Compare(a.ID, b.ID),
	)
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// lot is a peer's place among equals for one group.
func lot(key [32]byte, id peer.ID) uint64 {
	sum := sha256.Sum256(append(key[:], id...))
	return binary.BigEndian.Uint64(sum[:])
}
