package scale

import (
	"fmt"
	"math"
	"time"

	"github.com/shoal-os/shoal/dht/roster"
)

// What a pool with partial views would do; see the page.
const (
	viewSize   = 32         // members that each keeps a link to
	statesADay = 20         // times that a laptop comes or goes in a day
	stateBytes = 100 + 182  // of the news that it did, as gossip
	newsCopies = meshDegree // of it to each member
	dayLong    = 24 * hour
)

// linkProtocol is that of heartbeats.
const linkProtocol = "/shoal/pool/1"

// paced is what members did before heartbeats slowed down, what they do, and what they would do with partial views.
type paced struct {
	name  string
	links func(n int) float64 // of a peer
	beats func(n int) float64 // that it sends a second
	news  bool                // of who comes and goes reaches a peer by gossip
}

// every is how long it is from one heartbeat to the next in a pool of n.
func every(n int) float64 {
	beat, _ := roster.Pace(n)
	return beat.Seconds()
}

func paces() []paced {
	all := func(n int) float64 { return float64(n - 1) }
	few := func(n int) float64 { return math.Min(float64(n-1), viewSize) }
	return []paced{
		{"all linked, every 2 s: before", all, func(n int) float64 { return all(n) / roster.BeatEvery.Seconds() }, false},
		{"all linked, slower beyond 64: now", all, func(n int) float64 { return all(n) / every(n) }, false},
		{fmt.Sprintf("%d links each: designed", viewSize), few, func(n int) float64 { return few(n) / roster.BeatEvery.Seconds() }, true},
	}
}

// links reckons what links to other members cost, by what real pools cost.
func links(c Config) (Section, error) {
	t := Table{Name: "links", Columns: []string{"how", "links of a peer", "messages sent", "bytes sent", "CPU, of a core", "memory", "joining, CPU of a peer"}}
	bytes, cpu := []Series{{Name: "now", Basis: OfHosts}}, []Series{{Name: "now", Basis: OfHosts}}
	for _, p := range c.Measured.Pools {
		b, w := p.flow()
		t.Rows = append(t.Rows, Row{N: p.Peers, Basis: OfHosts, Cells: []string{"now", count(float64(p.Peers - 1)), count(w) + "/s", size(b) + "/s", percent(p.IdleCPU), size(p.Memory), span(seconds(p.JoinCPU / float64(p.Peers)))}})
		bytes[0].add(p.Peers, b)
		cpu[0].add(p.Peers, p.IdleCPU)
	}
	e, ok := c.Measured.perLink()
	if !ok {
		return Section{}, nil
	}
	for _, how := range paces() {
		b, u := Series{Name: how.name, Basis: OfModel}, Series{Name: how.name, Basis: OfModel}
		for _, n := range c.Sizes {
			l := how.cost(e, n)
			t.Rows = append(t.Rows, Row{N: n, Basis: OfModel, Cells: []string{how.name, count(how.links(n)), count(l.messages) + "/s", size(l.bytes) + "/s", percent(l.cpu), size(l.memory), span(seconds(how.links(n) * e.join))}})
			b.add(n, l.bytes)
			u.add(n, l.cpu)
		}
		bytes, cpu = append(bytes, b), append(cpu, u)
	}
	known := Table{Name: "views", Columns: []string{"a death is known to 99 in 100 after, all linked", fmt.Sprintf("with %d links each", viewSize), "news of who comes and goes, sent by each"}}
	for _, n := range c.Sizes {
		_, away := roster.Pace(n)
		few := roster.AwayAfter
		if n-1 > viewSize {
			few += spreads(c.rng("views", n), n, viewSize).last
		}
		known.Rows = append(known.Rows, Row{N: n, Basis: OfModel, Cells: []string{span(away), span(few.Round(100 * time.Millisecond)), size(comings(n)*stateBytes) + "/s"}})
	}
	return Section{Tables: []Table{t, known}, Plots: []Plot{
		{"links-bytes", "An idle member's links", "members", "bytes a second sent by each", bytes},
		{"links-cpu", "An idle member's processor", "members", "cores", cpu},
	}}, nil
}

// comings is how many messages a second each member passes on because somebody came or went.
func comings(n int) float64 { return float64(n) * statesADay / dayLong * newsCopies }

// cost is what links cost a peer of a pool of n.
func (how paced) cost(e linkCost, n int) (l load) {
	beats := how.beats(n)
	l.messages, l.bytes = beats*e.perBeat+how.links(n)*e.compared, beats*e.beat+how.links(n)*e.compare
	l.cpu, l.memory = e.base+beats*e.cpu, e.flat+how.links(n)*e.memory
	if how.news && n-1 > viewSize {
		l.messages += comings(n)
		l.bytes += comings(n) * stateBytes
		l.cpu += comings(n) * e.gossip
	}
	return l
}

// flow is what an idle peer sends, in bytes and messages a second.
func (p Pool) flow() (bytes, writes float64) {
	for _, f := range p.Idle {
		bytes += f.Bytes
		writes += f.Writes
	}
	return bytes, writes
}

// linkCost is what a heartbeat, a link and a peer without any cost.
type linkCost struct {
	beat, perBeat     float64 // bytes and messages of one heartbeat
	compare, compared float64 // bytes and messages a second of whatever else a link sends: names compared, mostly
	cpu               float64 // seconds of one heartbeat sent and one heard
	memory, join      float64 // bytes of a link, CPU of making it
	base, flat        float64 // CPU and memory of a peer
	gossip            float64 // CPU of one copy of a message
}

// perLink draws lines through the smallest and the largest pool.
func (m Measured) perLink() (e linkCost, ok bool) {
	if len(m.Pools) < 2 {
		return e, false
	}
	few, many := m.Pools[0], m.largest()
	links := float64(many.Peers - 1)
	beats := links / every(many.Peers)
	for _, f := range many.Idle {
		if f.Protocol == linkProtocol {
			e.beat, e.perBeat = f.Bytes/beats, f.Writes/beats
		} else {
			e.compare, e.compared = e.compare+f.Bytes/links, e.compared+f.Writes/links
		}
	}
	e.join = many.JoinCPU / float64(many.Peers) / links
	e.cpu = max(0, many.IdleCPU-few.IdleCPU) / (beats - float64(few.Peers-1)/every(few.Peers))
	e.memory = max(0, many.Memory-few.Memory) / float64(many.Peers-few.Peers)
	e.base, e.flat = max(0, many.IdleCPU-beats*e.cpu), max(0, many.Memory-links*e.memory)
	if many.Gossip.Copies > 0 {
		e.gossip = many.Gossip.CPU / many.Gossip.Copies
	}
	return e, true
}
