package roster

import (
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
)

// chainMax is the longest chain of appointments from the pool's first admin that counts.
const chainMax = 8

// authority is who may sign what, as it follows from all appointments and revocations.
type authority struct {
	ranked  map[peer.ID]bool               // was admin at some time: by a chain of appointments, whatever was revoked
	admins  map[peer.ID]bool               // is admin now
	evicted map[peer.ID][]ident.Revocation // whose key is revoked, with the revocations that count
}

// judge computes the authority. It depends on the sets only, never on their order.
//
// A revocation counts unless its signer was evicted by a senior: an admin nearer to the first one along the chain of
// appointments. So an evicted admin can undo nothing with a record dated back, as no date is looked at; and two admins of
// the same rank who evict each other are both out. An appointment by an evicted admin counts only if every revocation of
// that admin that counts names the appointed as one to keep.
func judge(genesis peer.ID, appointed map[peer.ID][]peer.ID, revoked map[peer.ID][]ident.Revocation) authority {
	a := authority{evicted: make(map[peer.ID][]ident.Revocation)}
	a.ranked = reach(genesis, appointed, func(peer.ID, peer.ID) bool { return true })
	placed := map[peer.ID]bool{genesis: true}
	for level := []peer.ID{genesis}; len(level) > 0; {
		for _, r := range a.heard(level, revoked) {
			a.evicted[r.Peer] = append(a.evicted[r.Peer], r)
		}
		var next []peer.ID
		for _, by := range level {
			for _, p := range appointed[by] {
				if !placed[p] && a.ranked[p] && a.stands(by, p) {
					placed[p] = true
					next = append(next, p)
				}
			}
		}
		level = next
	}
	a.admins = reach(genesis, appointed, a.stands)
	maps.DeleteFunc(a.admins, func(p peer.ID, _ bool) bool { return len(a.evicted[p]) > 0 })
	return a
}

// heard returns the revocations signed by admins of one level whom no senior evicted. Those that the level itself signs
// against each other count both.
func (a authority) heard(level []peer.ID, revoked map[peer.ID][]ident.Revocation) (out []ident.Revocation) {
	for _, by := range level {
		if len(a.evicted[by]) == 0 {
			out = append(out, revoked[by]...)
		}
	}
	return out
}

// stands reports whether the appointment of p by another counts, as far as revocations are known to count.
func (a authority) stands(by, p peer.ID) bool {
	for _, r := range a.evicted[by] {
		if !slices.Contains(r.Keep, p) {
			return false
		}
	}
	return true
}

// reach walks the appointments from the first admin, along those that pass.
func reach(genesis peer.ID, appointed map[peer.ID][]peer.ID, pass func(by, p peer.ID) bool) map[peer.ID]bool {
	seen := map[peer.ID]bool{genesis: true}
	level := []peer.ID{genesis}
	for range chainMax {
		var next []peer.ID
		for _, by := range level {
			for _, p := range appointed[by] {
				if !seen[p] && pass(by, p) {
					seen[p] = true
					next = append(next, p)
				}
			}
		}
		level = next
	}
	return seen
}
