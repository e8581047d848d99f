package node

import (
	"cmp"
	"context"
	"os"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
)

// peersShown bounds the connected peers in a status.
const peersShown = 256

// Status describes the peer as it is now.
func (n *Node) Status(context.Context) (client.Status, error) {
	s := client.Status{
		Name:    n.ident.Name,
		ID:      n.ident.ID.String(),
		Version: n.cfg.Version,
		PID:     os.Getpid(),
		Home:    n.cfg.Home,
		API:     n.Endpoint().String(),
		Started: n.started,
		Addrs:   n.addrs(),
		LAN:     n.host.LAN(),
		Table:   n.dht.Table(),
		Peers:   n.peers(),

		Fetching: int(n.fetching.Load()),
	}
	for _, share := range n.storage.Shares() {
		s.Shares++
		s.Shared += max(share.Size, 0)
		s.Uploaded += share.Uploaded
	}
	return s, nil
}

// ID says who the peer is.
func (n *Node) ID(context.Context) (client.Identity, error) {
	return client.Identity{Name: n.ident.Name, ID: n.ident.ID.String(), Addrs: n.addrs()}, nil
}

// Addrs are the addresses at which others can dial the peer, as text.
func (n *Node) addrs() []string {
	addrs := []string{}
	for _, a := range n.host.ShareAddrs() {
		addrs = append(addrs, a.String())
	}
	return addrs
}

// peers describes the connected peers, in the order of their ids.
func (n *Node) peers() []client.Peer {
	ids := n.host.Network().Peers()
	slices.SortFunc(ids, func(a, b peer.ID) int { return cmp.Compare(a, b) })
	peers := []client.Peer{}
	for _, id := range ids[:min(len(ids), peersShown)] {
		p := client.Peer{ID: id.String(), Agent: n.agent(id), Paths: []client.Path{}}
		for _, path := range n.host.Paths(id) {
			p.Paths = append(p.Paths, pathShape(path))
		}
		if len(p.Paths) > 0 { // it may have gone meanwhile
			peers = append(peers, p)
		}
	}
	return peers
}

func (n *Node) agent(id peer.ID) string {
	agent, err := n.host.Peerstore().Get(id, "AgentVersion")
	if s, ok := agent.(string); err == nil && ok {
		return wire.CleanText(s)
	}
	return ""
}

func pathShape(p host.Path) client.Path {
	return client.Path{
		Transport: p.Transport,
		Remote:    p.Remote.String(),
		Scope:     p.Reach,
		RTT:       float64(p.RTT.Microseconds()) / 1000,
		Limited:   p.Limited,
	}
}
