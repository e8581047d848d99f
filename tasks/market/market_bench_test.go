package market

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// BenchmarkNoOps streams tasks that take no time through a ledger, a steward and four workers, without a network or a log:
// what the machines themselves cost a task.
func BenchmarkNoOps(b *testing.B) {
	const n = 100_000
	signed := testJob(b, func(s *job.Spec) { s.Split.Count = n })
	result := testResult(b, "")
	for b.Loop() {
		m := newMill(b, signed, 4)
		m.run(result)
		if p := m.l.Progress(); p.Done != n {
			b.Fatalf("%+v", p)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/task")
}

// mill is a market in one goroutine: each round every machine is given all that has gathered, as the shells do it.
type mill struct {
	tb      testing.TB
	now     Moment
	signed  *job.Signed
	l       *Ledger
	s       *Steward
	index   uint64
	applied []StewardEvent
	workers []*Worker
	inbox   [][]WorkerEvent
	steward []StewardEvent
	rounds  int
}

func newMill(tb testing.TB, signed *job.Signed, workers int) *mill {
	m := &mill{tb: tb, now: 1, signed: signed, inbox: make([][]WorkerEvent, workers)}
	m.l = NewLedger(signed.ID, func(a Applied) { m.applied = append(m.applied, StewardEvent{Kind: Result, Applied: a}) })
	m.s = NewSteward(signed.ID, "s")
	m.propose([]Command{{Kind: Submit, By: "s", Data: signed.Raw}})
	v, _ := m.l.View()
	m.steward = []StewardEvent{{Kind: Lead, Term: 1, View: v, Stewards: []peer.ID{"s"}}}
	for k := range workers {
		m.workers = append(m.workers, NewWorker(peer.ID(fmt.Sprint("w", k))))
		m.inbox[k] = []WorkerEvent{{Kind: Changed, Lends: Lends{Cores: 2, Memory: 1 << 40, Mains: true, Wasm: true}}}
	}
	return m
}

func (m *mill) propose(c []Command) {
	data, err := EncodeBatch(time.UnixMilli(1), c)
	if err != nil {
		m.tb.Fatal(err)
	}
	m.index++
	m.l.Apply(m.index, 1, data)
}

func (m *mill) run(result []byte) {
	for m.rounds = 0; m.rounds < 1_000_000 && !m.l.Progress().Over; m.rounds++ {
		m.turn(result)
	}
}

// turn gives every machine what has gathered.
func (m *mill) turn(result []byte) {
	{
		m.now = m.now.Add(100 * time.Microsecond)
		for k, w := range m.workers {
			events := m.inbox[k]
			m.inbox[k] = nil
			m.worker(k, w.Step(m.now, events...), result)
		}
		events := append(m.steward, m.applied...)
		m.steward, m.applied = nil, nil
		out := m.s.Step(m.now, events...)
		if out.Announce != nil {
			for k := range m.workers {
				m.inbox[k] = append(m.inbox[k], WorkerEvent{Kind: Announced, Ad: out.Announce})
			}
		}
		for _, a := range out.Orders {
			k := int(a.To[1] - '0')
			m.inbox[k] = append(m.inbox[k], WorkerEvent{Kind: Ordered, Job: m.signed.ID, Stream: a.Stream, Order: a.Order})
		}
		for c := out.Propose; len(c) > 0; c = c[min(len(c), BatchMax):] {
			m.propose(c[:min(len(c), BatchMax)])
		}
	}
}

func (m *mill) worker(k int, out *WorkerOut, result []byte) {
	id := m.workers[k].self
	for _, p := range out.Posts {
		m.steward = append(m.steward, StewardEvent{Kind: Reported, Peer: id, Stream: p.Stream, Report: p.Report})
	}
	for _, d := range out.Dials {
		m.steward = append(m.steward, StewardEvent{Kind: Joined, Peer: id, Stream: d.Stream})
		m.inbox[k] = append(m.inbox[k], WorkerEvent{Kind: Connected, Job: d.Job, Stream: d.Stream})
	}
	for _, s := range out.Starts {
		m.inbox[k] = append(m.inbox[k], WorkerEvent{Kind: Ended, Job: s.Job, End: End{Lease: s.Lease, Ran: 100 * time.Microsecond, Result: result}})
	}
	for _, ad := range out.Looks {
		m.inbox[k] = append(m.inbox[k], WorkerEvent{Kind: Looked, Job: ad.Job})
	}
}
