package testnet

import (
	"errors"
	"net/netip"
	"os/exec"

	"github.com/shoal-os/shoal/testnet/netem"
	"github.com/shoal-os/shoal/testnet/script"
)

// namespaces is each peer on a host of its own of an emulated network.
type namespaces struct {
	net   *netem.Net
	peers int
}

// outside is where hosts of a network with NATs have their addresses. Peers only take addresses that could be on the
// internet for reachable by strangers, so these look as if they were; they are in namespaces without a way out.
var outside = netip.MustParsePrefix("1.77.0.0/24")

var natKinds = map[string]netem.NAT{"cone": netem.NATCone, "port": netem.NATPort, "symmetric": netem.NATSymmetric}

func newNamespaces(plan script.Plan) (*namespaces, error) {
	// One peer too is on a network, and a network has two hosts at least.
	cfg := netem.Config{Hosts: max(plan.Peers, 2), Link: linkOf(plan.Network), Seed: plan.Seed}
	for _, s := range plan.Sites {
		if kind := natKinds[s.NAT]; kind != netem.NATNone {
			cfg.Sites, cfg.Subnet = append(cfg.Sites, netem.Site{NAT: kind, Hosts: s.Peers}), outside
		}
	}
	n, err := netem.New(cfg)
	if err != nil {
		return nil, err
	}
	g := &namespaces{n, plan.Peers}
	for _, s := range plan.Sites {
		if err := g.link(s.Peers, g.outside(s.Peers), s.Link); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return g, nil
}

// outside are all peers but these.
func (g *namespaces) outside(in []int) (out []int) {
	inside := map[int]bool{}
	for _, i := range in {
		inside[i] = true
	}
	for i := range g.peers {
		if !inside[i] {
			out = append(out, i)
		}
	}
	return out
}

func linkOf(l script.Link) netem.Link {
	return netem.Link{Delay: l.Delay, Jitter: l.Jitter, Loss: l.Loss, Rate: l.Rate}
}

func (*namespaces) mode() Ground                { return GroundNamespaces }
func (g *namespaces) addr(i int) (string, bool) { return g.net.Host(i).Addr().String(), true }
func (g *namespaces) close() error              { return g.net.Close() }
func (g *namespaces) heal() error               { g.net.Heal(); return nil }

func (g *namespaces) start(i int, cmd *exec.Cmd) error { return g.net.Host(i).Start(cmd) }

func (g *namespaces) partition(groups [][]int) error { g.net.Partition(groups...); return nil }

func (g *namespaces) link(a, b []int, l script.Link) error {
	for _, i := range a {
		for _, j := range b {
			if i == j {
				continue
			}
			if err := g.net.Set(i, j, linkOf(l)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *namespaces) sent(from int) (total int64, ok bool) {
	for to := range g.peers {
		if to != from {
			total += g.net.Stats(from, to).Bytes
		}
	}
	return total, true
}
