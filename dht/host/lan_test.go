package host

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Multicast never runs in a test: what arrives from it is handed in.
func TestDiscoveryTellsEachListener(t *testing.T) {
	var first, late []peer.ID
	d := newDiscovery(nil, false, func(info peer.AddrInfo) { first = append(first, info.ID) })
	if d.running() || d.err != nil {
		t.Fatal("discovery runs without being asked")
	}
	want := make([]peer.ID, foundRecent+3)
	for i := range want {
		want[i] = identity(t).ID
		d.HandlePeerFound(peer.AddrInfo{ID: want[i]})
	}
	d.subscribe(func(info peer.AddrInfo) { late = append(late, info.ID) })
	if !slices.Equal(first, want) {
		t.Error("the first listener missed some")
	}
	if !slices.Equal(late, want[3:]) {
		t.Errorf("the late listener heard of %d peers, want the last %d", len(late), foundRecent)
	}
	last := identity(t).ID
	d.HandlePeerFound(peer.AddrInfo{ID: last})
	if first[len(first)-1] != last || late[len(late)-1] != last {
		t.Error("not all were told of the last")
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}
