package quorum

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestChoose(t *testing.T) {
	me := Candidate{ID: "me", Self: true}
	there := func(id peer.ID, f func(*Candidate)) Candidate {
		c := Candidate{ID: id, Reachable: true, Uptime: 60}
		if f != nil {
			f(&c)
		}
		return c
	}
	anchor := func(c *Candidate) { c.Anchor, c.Uptime = true, 10 }
	mains := func(c *Candidate) { c.Mains = true }
	steady := func(c *Candidate) { c.Uptime = 99 }
	away := func(c *Candidate) { c.Reachable, c.Anchor = false, true }
	of := func(owner string) func(*Candidate) { return func(c *Candidate) { c.Owner = owner } }
	for _, c := range []struct {
		name    string
		members []Candidate
		n       int
		want    []peer.ID
	}{
		{"alone", []Candidate{me}, 3, []peer.ID{"me"}},
		{"two are as good as one", []Candidate{me, there("a", nil)}, 3, []peer.ID{"me"}},
		{"anchors, then mains, then steady ones", []Candidate{there("s", steady), there("x", nil), there("m", mains), me, there("a", anchor)}, 5,
			[]peer.ID{"me", "a", "m", "s", "x"}},
		{"no more than asked for", []Candidate{there("s", steady), there("m", mains), me, there("a", anchor)}, 3, []peer.ID{"me", "a", "m"}},
		{"nobody who is away", []Candidate{there("b", away), me, there("s", nil), there("a", away)}, 3, []peer.ID{"me"}},
		{"different owners among equals", []Candidate{me, there("a", of("ann")), there("b", of("ann")), there("c", of("bob"))}, 3, nil},
		{"nothing of nobody", nil, 3, nil},
	} {
		got := Choose([32]byte{1}, c.members, c.n)
		if c.name == "different owners among equals" {
			if len(got) != 3 || got[0] != "me" || !slices.Contains(got, "c") {
				t.Errorf("%s: %q", c.name, got)
			}
			continue
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestChooseSpreads(t *testing.T) {
	members := []Candidate{{ID: "me", Self: true}}
	for i := range 10 {
		members = append(members, Candidate{ID: peer.ID(fmt.Sprint("p", i)), Reachable: true, Uptime: uint8(80 + i)})
	}
	count := map[peer.ID]int{}
	for i := range 1000 {
		key := [32]byte{byte(i), byte(i >> 8)}
		got := Choose(key, members, 3)
		slices.Reverse(members)
		if again := Choose(key, members, 3); !slices.Equal(got, again) {
			t.Fatal("the order of the members counts")
		}
		for _, id := range got {
			count[id]++
		}
	}
	for _, m := range members[:10] {
		if n := count[m.ID]; !m.Self && (n < 120 || n > 280) {
			t.Errorf("%s is chosen %d times of 1,000", m.ID, n)
		}
	}
}
