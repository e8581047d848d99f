package placement

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/chunk"
)

// chaos draws events without sense, and sees that the planner keeps its invariants and asks for nothing forbidden.
type chaos struct {
	t   *rapid.T
	p   *Planner
	now Moment
}

func (c *chaos) peer() peer.ID {
	return peer.ID(fmt.Sprint("peer", rapid.IntRange(0, 7).Draw(c.t, "peer")))
}

func (c *chaos) id() chunk.CID {
	return chunk.SumRaw([]byte{byte(rapid.IntRange(0, 9).Draw(c.t, "piece"))})
}

func (c *chaos) ids() (ids []chunk.CID) {
	for range rapid.IntRange(0, 3).Draw(c.t, "ids") {
		ids = append(ids, c.id())
	}
	return ids
}

func (c *chaos) size() int64 {
	return rapid.SampledFrom([]int64{0, 1 << 20, 1 << 21, 1 << 30}).Draw(c.t, "size")
}

func (c *chaos) span() time.Duration {
	return time.Duration(rapid.Int64Range(-int64(time.Minute), int64(100*time.Hour)).Draw(c.t, "span"))
}

func (c *chaos) state() State {
	return rapid.SampledFrom([]State{roster.Online, roster.Online, roster.Away, roster.Departed}).Draw(c.t, "state")
}

func (c *chaos) members() Event {
	list := []Peer{{Member: Member{ID: "peer0", Space: 1 << 40, Uptime: 50}, Free: uint64(c.size() * 20)}}
	for i := 1; i < 8; i++ {
		if rapid.IntRange(0, 5).Draw(c.t, "missing") == 0 {
			continue
		}
		list = append(list, Peer{
			Member: Member{ID: peer.ID(fmt.Sprint("peer", i)), Space: uint64(c.size()) << 10, Uptime: uint8(i * 10), Owner: fmt.Sprint(i / 3)},
			State:  c.state(), Seen: c.now.Wall.Add(-c.span()), Free: uint64(c.size()) * 2,
			Draining: i == 7, Untrusted: i == 6 && rapid.Bool().Draw(c.t, "untrusted"),
		})
	}
	return Members{list}
}

func (c *chaos) event() Event {
	switch rapid.IntRange(0, 16).Draw(c.t, "event") {
	case 0:
		return c.members()
	case 1:
		return Presence{c.peer(), c.state(), c.now.Wall.Add(-c.span())}
	case 2:
		return Room{c.peer(), uint64(c.size()) * 2}
	case 3:
		return Hearsay{[]LastSeen{{c.peer(), c.now.Wall.Add(-c.span())}}}
	case 4, 5:
		pc := Piece{ID: c.id(), Size: c.size(), Copies: rapid.IntRange(0, 5).Draw(c.t, "copies"), Pinned: rapid.IntRange(0, 9).Draw(c.t, "pin") == 0}
		return Pieces{Changed: []Piece{pc}, Removed: c.ids()}
	case 6, 7:
		return Holds{Peer: c.peer(), Reset: rapid.Bool().Draw(c.t, "reset"), Added: c.ids(), Removed: c.ids()}
	case 8:
		return Taking{c.peer(), c.id(), c.span()}
	case 9:
		return Nudge{c.id(), c.size(), c.peer()}
	case 10:
		return Moving{c.id()}
	case 11:
		return Taken{c.id()}
	case 12:
		return Failed{c.id()}
	case 13:
		return Kept{c.id()}
	case 14:
		return Need{uint64(c.size()) * 3}
	case 15:
		return rapid.SampledFrom([]Event{Fill{}, Woke{}}).Draw(c.t, "simple")
	default:
		return Tick{}
	}
}

func (c *chaos) step() {
	pass(&c.now, max(0, c.span())/100)
	ev := c.event()
	out := c.p.Step(c.now, ev)
	if err := c.p.Check(); err != nil {
		c.t.Fatalf("after %T%+v: %v", ev, ev, err)
	}
	for _, f := range out.Fetch {
		if len(f.From) == 0 {
			c.t.Fatalf("fetch of %v from nobody", f.Piece)
		}
		if out.Brake != Free && f.Why > ForPin {
			c.t.Fatalf("fetch %v while %v", f.Why, out.Brake)
		}
	}
	for _, tr := range out.Trim {
		if tr.Need < 1 || len(tr.From) < tr.Need {
			c.t.Fatalf("trim with %d proofs of %d", tr.Need, len(tr.From))
		}
	}
	if out.Wake != 0 && out.Wake <= c.now.Boot {
		c.t.Fatal("wake in the past")
	}
}

func TestChaos(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patience := rapid.SampledFrom([]time.Duration{0, 10 * time.Second, time.Hour}).Draw(t, "patience")
		c := &chaos{t: t, p: New(Config{Self: "peer0", Patience: patience}), now: Moment{Wall: epoch}}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			c.step()
		}
		c.p.Assess(c.ids()...)
		c.p.WhatIf(c.peer())
		c.p.Totals()
		c.p.Targets(c.id(), c.size())
		c.p.Promise(c.now, c.id())
	})
}

// TestManyMembers has more members than fit a word of a set, who come after the pieces.
func TestManyMembers(t *testing.T) {
	p, now := New(Config{Self: "peer000"}), Moment{Wall: epoch}
	var list []Peer
	for i := range 200 {
		list = append(list, Peer{Member: Member{ID: peer.ID(fmt.Sprintf("peer%03d", i)), Space: 1 << 40, Uptime: 50}, State: roster.Online, Free: 1 << 40})
	}
	id := chunk.SumRaw(nil)
	p.Step(now, Members{list[:60]})
	p.Step(now, Pieces{Changed: []Piece{{ID: id, Size: 1, Copies: 3}}})
	p.Step(now, Holds{Peer: "peer001", Added: []chunk.CID{id}})
	p.Step(now, Members{list})
	for _, holder := range []peer.ID{"peer070", "peer199"} {
		p.Step(now, Holds{Peer: holder, Added: []chunk.CID{id}})
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if s := p.Assess(id); s.Copies != 3 || s.Online != 3 {
		t.Errorf("%+v", s)
	}
	p.Step(now, Members{list[:100]})
	if s := p.Assess(id); s.Copies != 2 {
		t.Errorf("after one of the holders was dismissed: %+v", s)
	}
}
