package scale

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/agenda"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	herdMost    = 10_000           // members who all bid for a job of many tasks
	marketWatch = 30 * time.Second // from the submission on
	gossipFan   = 6                // members that one tells: how many hops an announcement takes
	inputHave   = 10               // one worker in so many has the inputs
	gather      = time.Millisecond // in which what comes to a steward gathers
	logTime     = 5 * time.Millisecond
)

// errand is a job of a kind.
type errand struct {
	name  string
	tasks int
	takes time.Duration // one task
}

// markets submits one job to a pool of idle workers, with and without a bound on who bids.
func markets(c Config) (Section, error) {
	var s Section
	for _, e := range []errand{{"one", 1, time.Second}, {"hundred", 100, 2 * time.Second}} {
		t := Table{Name: "market-" + e.name, Columns: []string{"who bids", "announcements heard by each peer", "specs fetched", "bids", "standing at the leader, most",
			"messages at the leader in 30 s", "CPU of the leader's steward", "fit of who ran it, of 1,000", "first task began after", "job over after"}}
		plot := Plot{Name: "bids-" + e.name, Title: fmt.Sprintf("Bids for a job of %d × %v, all peers idle", e.tasks, e.takes), X: "members", Y: "bids a job"}
		load := Plot{Name: "leader-" + e.name, Title: fmt.Sprintf("At the leading steward of a job of %d × %v", e.tasks, e.takes), X: "members", Y: "messages in 30 s"}
		for _, bounded := range []bool{false, true} {
			who := map[bool]string{false: "all that are idle", true: "whom the leader asks"}[bounded]
			bids, heard := Series{Name: who, Basis: OfCode}, Series{Name: who, Basis: OfCode}
			for _, n := range c.Sizes {
				if n > herdMost && !bounded && e.tasks > 1 {
					continue // one such run is enough: it takes minutes, and shows the same
				}
				r, err := c.submit(n, e, bounded)
				if err != nil {
					return s, err
				}
				bids.add(n, float64(r.bids))
				heard.add(n, float64(r.messages))
				t.Rows = append(t.Rows, Row{N: n, Basis: OfCode, Cells: []string{who, count(float64(r.heard) / float64(n)), count(float64(r.looks)), count(float64(r.bids)),
					count(float64(r.most)), count(float64(r.messages)), span(r.cpu), count(r.fit), span(r.begun), r.ended()}})
			}
			plot.Series, load.Series = append(plot.Series, bids), append(load.Series, heard)
		}
		s.Tables, s.Plots = append(s.Tables, t), append(s.Plots, plot)
		if e.tasks == 1 {
			s.Plots = append(s.Plots, load)
		}
	}
	return s, nil
}

// sale is what one job cost.
type sale struct {
	heard, looks, bids int // announcements, specs fetched, streams opened
	most               int // streams to the leader at a time
	messages           int // of streams, to and from the leader
	cpu                time.Duration
	fit                float64
	begun, over        time.Duration
}

func (r sale) ended() string {
	if r.over == 0 {
		return "not within 30 s"
	}
	return span(r.over)
}

// bazaar is one leading steward, the log of one replica, and all workers of a pool. Nothing is lost in it.
type bazaar struct {
	agenda.Agenda
	cpu     func() float64
	rng     *rand.Rand
	bounded bool
	errand  errand
	job     *job.Signed
	result  []byte
	ledger  *market.Ledger
	steward *market.Steward
	index   uint64
	inbox   []market.StewardEvent
	due     bool
	sWake   market.Moment
	stalls  []stall
	here    int
	granted int
	out     sale
}

// stall is one worker.
type stall struct {
	w       *market.Worker
	id      peer.ID
	wake    market.Moment
	streams map[uint64]bool
	fit     uint16
	local   bool
}

const streamsEach = 1 << 20 // numbers of streams of one stall

func (c Config) submit(n int, e errand, bounded bool) (sale, error) {
	rng := c.rng("market/"+e.name, n)
	key, self := keyOf(0)
	signed, err := job.Sign(key, job.Spec{
		Pool: ident.PoolID{1}, Created: today, Nonce: rng.Uint64(), Command: job.Command{Kind: job.Wasm, Module: job.File{Root: chunk.SumRaw([]byte("module")), Size: 6}},
		Split: job.Split{Kind: job.Count, Count: uint32(e.tasks)},
	})
	if err != nil {
		return sale{}, err
	}
	b := &bazaar{cpu: c.CPU, rng: rng, bounded: bounded, errand: e, job: signed}
	if b.result, err = (&job.Result{Stdout: job.Stream{Inline: []byte("out")}}).Encode(); err != nil {
		return sale{}, err
	}
	b.ledger = market.NewLedger(signed.ID, func(a market.Applied) { b.tell(market.StewardEvent{Kind: market.Result, Applied: a}) })
	b.steward = market.NewSteward(signed.ID, self)
	b.Now = time.Second
	if err := b.append([]market.Command{{Kind: market.Submit, By: self, Data: signed.Raw}}); err != nil {
		return sale{}, err
	}
	b.stalls = make([]stall, n)
	for i := range b.stalls {
		b.open(i)
	}
	view, ok := b.ledger.View()
	if !ok {
		return sale{}, fmt.Errorf("market: the job was not taken")
	}
	b.tell(market.StewardEvent{Kind: market.Lead, Term: 1, View: view, Stewards: []peer.ID{self}})
	b.Run(b.Now + marketWatch)
	b.out.begun -= time.Second
	if p := b.ledger.Progress(); !p.Over {
		b.out.over = 0
	}
	b.out.fit /= float64(max(1, b.granted))
	return b.out, nil
}

// open sets up a worker with four cores, as laptops are.
func (b *bazaar) open(i int) {
	x := &b.stalls[i]
	x.id, x.streams = peer.ID(fmt.Sprintf("worker%06d", i)), map[uint64]bool{}
	x.w, x.local = market.NewWorker(x.id), b.rng.IntN(inputHave) == 0
	lends := market.Lends{Cores: 4, Memory: 8 << 30, Mains: b.rng.IntN(2) == 0, Battery: 25 + b.rng.IntN(76), Awake: time.Duration(1+b.rng.IntN(120)) * time.Minute, Wasm: true}
	if b.bounded {
		lends.Peers = len(b.stalls)
	}
	b.work(i, market.WorkerEvent{Kind: market.Changed, Lends: lends})
}

func (b *bazaar) moment() market.Moment { return market.Moment(b.Now) }
func (b *bazaar) latency() time.Duration {
	return 20*time.Millisecond + time.Duration(b.rng.Int64N(40e6))
}

func (b *bazaar) append(commands []market.Command) error {
	data, err := market.EncodeBatch(today, commands)
	if err != nil {
		return err
	}
	b.index++
	b.ledger.Apply(b.index, 1, data)
	if b.ledger.Progress().Over && b.out.over == 0 {
		b.out.over = b.Now - time.Second
	}
	return nil
}

// tell gives the steward an event with all others of the same moment.
func (b *bazaar) tell(ev market.StewardEvent) {
	b.inbox = append(b.inbox, ev)
	if !b.due {
		b.due = true
		b.After(gather, b.lead)
	}
}

func (b *bazaar) lead() {
	b.due = false
	events := b.inbox
	b.inbox = nil
	began := b.cpu()
	out := b.steward.Step(b.moment(), events...)
	b.out.cpu += seconds(b.cpu() - began)
	if len(out.Propose) > 0 {
		commands := append([]market.Command(nil), out.Propose...)
		b.After(logTime, func() {
			if err := b.append(commands); err != nil {
				panic(err) // of our own making
			}
		})
	}
	for _, o := range out.Orders {
		b.out.messages++
		b.send(o)
	}
	if out.Announce != nil {
		b.announce(out.Announce)
	}
	if b.sWake = out.Wake; b.sWake != 0 {
		at := b.sWake
		b.After(time.Duration(at)-b.Now, func() {
			if b.sWake == at && !b.due {
				b.lead()
			}
		})
	}
}

func (b *bazaar) send(o market.Addressed) {
	i, stream := int(o.Stream/streamsEach), o.Stream%streamsEach
	for range o.Order.Grants {
		b.granted++
		b.out.fit += float64(b.stalls[i].fit)
	}
	b.After(b.latency(), func() {
		if b.stalls[i].streams[stream] {
			b.work(i, market.WorkerEvent{Kind: market.Ordered, Job: b.job.ID, Stream: stream, Order: o.Order})
		}
	})
}

// announce brings an announcement to everybody, by as many hops as gossip takes.
func (b *bazaar) announce(ad *market.Ad) {
	copied := *ad
	deep := math.Log(float64(len(b.stalls))) / math.Log(gossipFan)
	for i := range b.stalls {
		hops := 1 + b.rng.IntN(1+int(deep))
		d := time.Duration(0)
		for range hops {
			d += b.latency()
		}
		b.After(d, func() {
			b.out.heard++
			b.work(i, market.WorkerEvent{Kind: market.Announced, Ad: &copied})
		})
	}
}

// work gives a worker an event and carries out what it wants.
func (b *bazaar) work(i int, ev market.WorkerEvent) {
	x := &b.stalls[i]
	out := x.w.Step(b.moment(), ev)
	for _, p := range out.Posts {
		if o := p.Report.Offer; o != nil {
			x.fit = o.Fit
		}
		b.out.messages++
		stream := uint64(i)*streamsEach + p.Stream
		b.After(b.latency(), func() {
			b.tell(market.StewardEvent{Kind: market.Reported, Peer: x.id, Stream: stream, Report: p.Report})
		})
	}
	for _, n := range out.Hangup {
		b.hangup(i, n)
	}
	for _, d := range out.Dials {
		b.dial(i, d.Stream)
	}
	for _, s := range out.Starts {
		if b.out.begun == 0 {
			b.out.begun = b.Now
		}
		end := market.End{Lease: s.Lease, Ran: b.errand.takes, Result: b.result}
		b.After(b.errand.takes, func() { b.work(i, market.WorkerEvent{Kind: market.Ended, Job: s.Job, End: end}) })
	}
	for _, ad := range out.Looks {
		b.out.looks++
		look := market.Look{Total: 1 << 30}
		if x.local {
			look.Local = look.Total
		}
		id := ad.Job
		b.After(2*b.latency(), func() { b.work(i, market.WorkerEvent{Kind: market.Looked, Job: id, Look: look}) })
	}
	if x.wake = out.Wake; x.wake != 0 {
		at := x.wake
		b.After(time.Duration(at)-b.Now, func() {
			if x.wake == at {
				b.work(i, market.WorkerEvent{})
			}
		})
	}
}

func (b *bazaar) dial(i int, n uint64) {
	x := &b.stalls[i]
	x.streams[n] = true
	b.out.bids++
	b.After(b.latency(), func() {
		if !x.streams[n] {
			return
		}
		b.here++
		b.out.most = max(b.out.most, b.here)
		b.tell(market.StewardEvent{Kind: market.Joined, Peer: x.id, Stream: uint64(i)*streamsEach + n})
		b.After(b.latency(), func() {
			if x.streams[n] {
				b.work(i, market.WorkerEvent{Kind: market.Connected, Job: b.job.ID, Stream: n})
			}
		})
	})
}

func (b *bazaar) hangup(i int, n uint64) {
	x := &b.stalls[i]
	delete(x.streams, n)
	b.After(b.latency(), func() {
		b.here--
		b.tell(market.StewardEvent{Kind: market.Left, Peer: x.id, Stream: uint64(i)*streamsEach + n})
	})
}
