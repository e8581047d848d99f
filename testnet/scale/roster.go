package scale

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
)

// today is when simulated pools live.
var today = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keyOf is the n-th key, always the same one.
func keyOf(n int) (crypto.PrivKey, peer.ID) {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed[:]))
	if err != nil {
		panic(err) // a reader of 32 bytes is what it asks for
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		panic(err)
	}
	return key, id
}

// rosters fills the product's roster.
func rosters(c Config) (Section, error) {
	t := Table{Name: "roster", Columns: []string{"memory of a member", "records to a newcomer", "to take one certificate in", "one heartbeat",
		"one tick", "CPU of all heartbeats, of a core"}}
	memory := Series{Name: "roster", Basis: OfCode}
	sizes := append([]int(nil), c.Sizes...)
	for _, n := range sizes {
		if n >= roster.RecordsMax {
			t.Rows = append(t.Rows, Row{N: n, Basis: OfCode, Cells: []string{"excluded", "excluded", "excluded", "excluded", "excluded", "excluded"}})
			continue
		}
		m, err := c.fillRoster(n)
		if err != nil {
			return Section{}, err
		}
		every, _ := roster.Pace(n)
		share := float64(n-1) / every.Seconds() * m.beat.Seconds()
		t.Rows = append(t.Rows, Row{N: n, Basis: OfCode, Cells: []string{size(m.memory), size(m.bytes), span(m.learn), span(m.beat), span(m.tick), percent(share)}})
		memory.add(n, m.memory*float64(n))
		c.note("roster", n, m.memory*float64(n))
	}
	return Section{Tables: []Table{t}, Plots: []Plot{
		{"roster-memory", "The list of members, at each member", "members", "bytes", []Series{memory}},
	}}, nil
}

type rosterCost struct {
	memory, bytes     float64
	learn, beat, tick time.Duration
}

func (c Config) fillRoster(n int) (m rosterCost, err error) {
	admin, first := keyOf(0)
	origin, err := ident.NewOrigin(first)
	if err != nil {
		return m, err
	}
	var recs []ident.Record
	var ids []peer.ID
	for i := range n + 20 {
		_, id := keyOf(i)
		want := ident.Certificate{
			Peer: id, Name: fmt.Sprintf("laptop-%d", i), Role: ident.RoleMember, NotBefore: today.Add(-time.Hour), NotAfter: today.Add(720 * time.Hour), Serial: 1,
		}
		want.Pool = origin.ID()
		if i == 0 {
			want.Role = ident.RoleAdmin
		}
		cert, err := ident.IssueCertificate(admin, want)
		if err != nil {
			return m, err
		}
		recs, ids = append(recs, cert), append(ids, id)
	}
	late := recs[n:]
	recs = recs[:n]
	for _, r := range recs {
		m.bytes += float64(len(r.Raw()) + 4)
	}
	now := roster.Moment{Wall: today}
	before := inUse()
	r := roster.New(roster.Config{Origin: origin, Self: first})
	r.Step(now, roster.Learn{Records: recs[:1]}) // who signs the others counts from the next step on
	r.Step(now, roster.Learn{Records: recs})
	for _, id := range ids[:n] {
		r.Step(now, roster.Beat{Peer: id, Lends: &roster.Lends{Cores: 8, Memory: 16 << 30, Space: 1 << 38, Version: "1.0", System: "linux/amd64"}})
	}
	now = later(now)
	r.Step(now, roster.Tick{})
	m.memory = float64(inUse()-before) / float64(n)
	if got := len(r.View().Members()); got != n {
		return m, fmt.Errorf("%d members of %d", got, n)
	}
	some := ids[1:min(n, 100)]
	m.beat = c.took(1000, func() {
		for _, id := range some {
			r.Step(now, roster.Beat{Peer: id})
		}
	}) / time.Duration(len(some))
	m.tick = c.took(100, func() { now = later(now); r.Step(now, roster.Tick{}) })
	i := 0
	m.learn = c.took(len(late), func() { r.Step(now, roster.Learn{Records: late[i : i+1]}); i++ })
	return m, nil
}

func later(m roster.Moment) roster.Moment {
	return roster.Moment{Boot: m.Boot + time.Second, Wall: m.Wall.Add(time.Second)}
}
