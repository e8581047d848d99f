package scale

import (
	"fmt"
	"math"
	"sort"
)

// What each member of the pool that is summed up does in an hour, beside being there.
const (
	namesHour  = 10.0 // names written
	jobsHour   = 1.0  // jobs submitted, each announced so many times:
	adsOfJob   = 3.0
	piecesHour = 10.0 // pieces put
	hour       = 3600.0

	idleCPU    = 0.01 // of a core: what an idle peer may use
	idleMemory = 60e6 // bytes: the same
	idleBytes  = 125e3
)

// load is what one protocol costs each peer.
type load struct {
	name                         string
	bytes, messages, cpu, memory float64 // sent, a second; of a core; bytes
	excluded                     bool    // the product's own bounds do not allow a pool of the size
}

// summary adds up what all protocols cost each peer, by what was measured and simulated before.
func summary(c Config) (Section, error) {
	e, ok := c.Measured.perLink()
	if !ok {
		return Section{}, nil
	}
	columns := []string{"protocol", "bytes sent", "messages sent", "CPU, of a core", "memory"}
	t := Table{Name: "summary", Columns: columns}
	total := map[string]*Series{}
	var bytesPlot, memoryPlot []Series
	add := func(plot *[]Series, at map[string]*Series, name string, n int, v float64) {
		if v <= 0 {
			return
		}
		if at[name] == nil {
			*plot = append(*plot, Series{})
			at[name] = &Series{Name: name, Basis: OfModel}
		}
		at[name].add(n, v)
	}
	memories := map[string]*Series{}
	for _, n := range c.Sizes {
		sum := load{name: "**all**"}
		for _, l := range c.loads(e, n) {
			t.Rows = append(t.Rows, l.row(n))
			sum.bytes, sum.messages, sum.cpu, sum.memory = sum.bytes+l.bytes, sum.messages+l.messages, sum.cpu+l.cpu, sum.memory+l.memory
			sum.excluded = sum.excluded || l.excluded
			add(&bytesPlot, total, l.name, n, l.bytes)
			add(&memoryPlot, memories, l.name, n, l.memory)
		}
		sum.excluded = false
		t.Rows = append(t.Rows, sum.row(n))
	}
	limits := Table{Name: "limits", Plain: true, Columns: []string{"an idle peer's bound", "what it is spent on", "passed at about"}}
	for i, how := range paces() {
		for _, x := range []struct {
			bound string
			of    func(load) float64
			most  float64
		}{
			{percent(idleCPU) + " of a core", func(l load) float64 { return l.cpu }, idleCPU},
			{size(idleMemory), func(l load) float64 { return l.memory }, idleMemory},
			{"1 Mbit/s", func(l load) float64 { return l.bytes }, idleBytes},
		} {
			if i == 0 && x.most == idleMemory {
				continue // as with all linked today
			}
			limits.Rows = append(limits.Rows, crossing(how, e, x.bound, x.of, x.most))
		}
	}
	return Section{Tables: []Table{t, limits}, Plots: []Plot{
		{"summary-bytes", "What a member of a working pool sends", "members", "bytes a second", order(c, e, total, func(l load) string { return l.name })},
		{"summary-memory", "What a member keeps in memory", "members", "bytes", order(c, e, memories, func(l load) string { return l.name })},
	}}, nil
}

// sizeMost is up to what size a bound is looked for.
const sizeMost = 1_000_000

// crossing finds the size from which links cost more than a bound.
func crossing(how paced, e linkCost, bound string, of func(load) float64, most float64) Row {
	n := sort.Search(sizeMost, func(n int) bool { return of(how.cost(e, n+2)) > most }) + 2
	at := "about " + count(roundTo2(n)) + " members"
	if n >= sizeMost {
		at = "not within a million"
	}
	return Row{Cells: []string{bound, "links: " + how.name, at}}
}

// roundTo2 keeps two digits: more would claim too much.
func roundTo2(n int) float64 {
	unit := math.Pow10(max(0, int(math.Log10(float64(n)))-1))
	return math.Round(float64(n)/unit) * unit
}

// order lists series as the loads are listed.
func order(c Config, e linkCost, by map[string]*Series, name func(load) string) (out []Series) {
	for _, l := range c.loads(e, c.Sizes[0]) {
		if s := by[name(l)]; s != nil {
			out = append(out, *s)
		}
	}
	return out
}

func (l load) row(n int) Row {
	cells := []string{l.name, "–", "–", "–", "–"}
	for i, v := range []float64{l.bytes, l.messages, l.cpu, l.memory} {
		if v > 0 {
			cells[1+i] = []string{size(v) + "/s", count(v) + "/s", percent(v), size(v)}[i]
		}
	}
	if l.excluded {
		cells[4] = "excluded"
	}
	return Row{N: n, Basis: OfModel, Cells: cells}
}

// loads is what each protocol costs a peer of a pool of n.
func (c Config) loads(e linkCost, n int) []load {
	links, all := float64(n-1), float64(n)
	big := c.Measured.largest()
	copies := c.found["copies"][n]
	beats := paces()[1].cost(e, n)
	beats.name = "links, and names compared (dht/pool, storage/directory)"
	names := all * namesHour / hour
	ads := all * jobsHour * adsOfJob / hour
	news := load{name: fmt.Sprintf("names, %.0f written an hour by each", namesHour), bytes: names * big.Records.Bytes, messages: names * copies, cpu: names * big.Records.CPU}
	news.memory, news.excluded = c.memoryOf("names", n)
	jobs := load{name: fmt.Sprintf("announcements, %.0f job an hour by each", jobsHour), bytes: ads * copies * adBytes, messages: ads * copies, cpu: ads * big.Gossip.CPU}
	who := load{name: "list of members (dht/roster)"}
	who.memory, who.excluded = c.memoryOf("roster", n)
	kept := load{name: fmt.Sprintf("inventories, %.0f pieces put an hour by each (storage/repair)", piecesHour), bytes: copies3 * toldBytes * piecesHour / hour * links, messages: copies3 * piecesHour / hour * links}
	kept.memory, kept.excluded = c.memoryOf("inventory", n)
	table := load{name: "look-ups (dht)", bytes: c.found["lookup"][n], messages: c.found["lookup/messages"][n]}
	return []load{beats, news, jobs, who, kept, table}
}

// copies3 is how many copies of a piece a member makes for each that it puts, on average over the pool.
const copies3 = copies

func (c Config) memoryOf(name string, n int) (memory float64, excluded bool) {
	v, ok := c.found[name][n]
	return v, !ok
}
