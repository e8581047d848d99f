package placement

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	manyPieces  = 100_000
	manyMembers = 64
)

// bigPool is a planner of one of 64 members that hold 100,000 pieces, three each.
func bigPool() (*Planner, Moment) {
	now := Moment{Wall: epoch}
	var list []Peer
	var members []Member
	for i := range manyMembers {
		m := Member{ID: peer.ID(fmt.Sprintf("peer%02d", i)), Space: 1 << 40, Uptime: 50, Owner: fmt.Sprint(i / 2)}
		members = append(members, m)
		list = append(list, Peer{Member: m, State: roster.Online, Free: 1 << 39})
	}
	p := New(Config{Self: members[0].ID})
	p.Step(now, Members{list})
	f := newField(members)
	holds := make([]Holds, manyMembers)
	for k := range manyPieces {
		pc := Piece{ID: chunk.SumRaw(fmt.Append(nil, k)), Size: 1 << 20, Copies: 3}
		p.Step(now, Pieces{Changed: []Piece{pc}})
		for _, i := range f.choose(fold(pc.ID.Sum[:]), nil, eligible(members), 3) {
			holds[i].Added = append(holds[i].Added, pc.ID)
		}
	}
	for i := range holds {
		holds[i].Peer = members[i].ID
		p.Step(now, holds[i])
	}
	return p, now
}

func pass(m *Moment, d time.Duration) { m.Boot, m.Wall = m.Boot+d, m.Wall.Add(d) }

func inUse() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// TestMemory: a piece costs at most 200 bytes.
func TestMemory(t *testing.T) {
	before := inUse()
	p, _ := bigPool()
	each := (inUse() - before) / manyPieces
	t.Logf("%d bytes a piece", each)
	if each > 200 {
		t.Errorf("%d bytes a piece", each)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

func BenchmarkTick(b *testing.B) {
	p, now := bigPool()
	pass(&now, time.Hour)
	for b.Loop() {
		pass(&now, time.Second)
		p.Step(now, Tick{})
	}
}

func BenchmarkPresence(b *testing.B) {
	p, now := bigPool()
	pass(&now, time.Hour)
	state := roster.Away
	for b.Loop() {
		pass(&now, time.Second)
		p.Step(now, Presence{Peer: "peer07", State: state, Seen: now.Wall})
		state = roster.Away + roster.Online - state
	}
}

func BenchmarkHolds(b *testing.B) {
	p, now := bigPool()
	pass(&now, time.Hour)
	k := 0
	for b.Loop() {
		k++
		id := p.pieces[k%manyPieces].id
		p.Step(now, Holds{Peer: "peer07", Added: []chunk.CID{id}})
	}
}

func BenchmarkTotals(b *testing.B) {
	p, _ := bigPool()
	for b.Loop() {
		p.Totals()
	}
}

func BenchmarkFill(b *testing.B) {
	p, now := bigPool()
	for b.Loop() {
		p.Step(now, Fill{})
	}
}
