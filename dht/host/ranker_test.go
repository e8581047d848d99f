package host

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

func TestRankTCPFirst(t *testing.T) {
	const relay = "/ip4/203.0.113.9/tcp/4001/p2p/12D3KooWLRPJAA5o6dYgwnQqHXZWGaVbKmRnuBTNzNfPAMxhHJQh/p2p-circuit"
	for _, c := range []struct {
		name  string
		addrs []string
		want  []string // "milliseconds address"
	}{
		{"nothing", nil, nil},
		{"loopback",
			[]string{"/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/2"},
			[]string{"0 /ip4/127.0.0.1/tcp/2", "250 /ip4/127.0.0.1/udp/1/quic-v1"}},
		{"private",
			[]string{"/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/2"},
			[]string{"0 /ip4/10.0.0.1/tcp/2", "250 /ip4/10.0.0.1/udp/1/quic-v1"}},
		{"public",
			[]string{"/ip4/203.0.113.1/udp/1/quic-v1", "/ip4/203.0.113.1/tcp/2"},
			[]string{"0 /ip4/203.0.113.1/tcp/2", "250 /ip4/203.0.113.1/udp/1/quic-v1"}},
		{"QUIC alone waits for nothing",
			[]string{"/ip4/203.0.113.1/udp/1/quic-v1"},
			[]string{"0 /ip4/203.0.113.1/udp/1/quic-v1"}},
		{"IPv6 first, then the best IPv4, then the rest",
			[]string{"/ip4/203.0.113.1/tcp/9", "/ip4/203.0.113.1/tcp/2", "/ip6/2001:db8::1/tcp/9", "/ip6/2001:db8::1/tcp/5"},
			[]string{"0 /ip6/2001:db8::1/tcp/5", "250 /ip4/203.0.113.1/tcp/2", "500 /ip6/2001:db8::1/tcp/9",
				"500 /ip4/203.0.113.1/tcp/9"}},
		{"private and public side by side, relays last",
			[]string{relay, "/ip4/203.0.113.1/tcp/2", "/ip4/10.0.0.1/tcp/2"},
			[]string{"0 /ip4/10.0.0.1/tcp/2", "0 /ip4/203.0.113.1/tcp/2", "500 " + relay}},
		{"a relay alone waits for nothing", []string{relay}, []string{"0 " + relay}},
		{"unknown kinds",
			[]string{"/ip4/10.0.0.1/sctp/7", "/ip4/10.0.0.1/tcp/2", "/dns4/peer.example/tcp/1"},
			[]string{"0 /ip4/10.0.0.1/tcp/2", "1250 /ip4/10.0.0.1/sctp/7", "1500 /dns4/peer.example/tcp/1"}},
	} {
		var addrs []ma.Multiaddr
		for _, s := range c.addrs {
			addrs = append(addrs, ma.StringCast(s))
		}
		before := slices.Clone(addrs)
		got := show(rankTCPFirst(addrs))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
		if !slices.EqualFunc(addrs, before, ma.Multiaddr.Equal) {
			t.Errorf("%s: the caller's slice was reordered", c.name)
		}
	}
}

func show(ranked []network.AddrDelay) []string {
	var out []string
	for _, r := range ranked {
		out = append(out, fmt.Sprintf("%d %s", r.Delay/time.Millisecond, r.Addr))
	}
	return out
}

func TestDirectMemoryIsBounded(t *testing.T) {
	var m directMemory
	now := time.Unix(1, 0)
	for range 3 * preferTCPPeers {
		m.failed(identity(t).ID, now)
		now = now.Add(time.Millisecond)
		if len(m.until) > preferTCPPeers {
			t.Fatalf("%d peers remembered", len(m.until))
		}
	}
	p := identity(t).ID
	m.failed(p, now)
	later := now.Add(preferTCPAgain)
	for range preferTCPPeers {
		m.failed(identity(t).ID, later)
	}
	if !m.mayTry(p, later) {
		t.Error("an old failure still counts")
	}
}
