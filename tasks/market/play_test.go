package market

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/tasks/job"
)

// testKey is a key that is the same in every run.
func testKey() crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	if err != nil {
		panic(err)
	}
	return key
}

// testJob signs a job of some tasks.
func testJob(t testing.TB, change func(*job.Spec)) *job.Signed {
	t.Helper()
	s := job.Spec{
		Pool: ident.PoolID{1}, Created: time.UnixMilli(1_000_000), Nonce: 1,
		Command: job.Command{Kind: job.Wasm, Module: job.File{Root: chunk.SumRaw([]byte("module")), Size: 6}},
		Split:   job.Split{Kind: job.Count, Count: 3},
	}
	change(&s)
	signed, err := job.Sign(testKey(), s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// good and bad are results.
func testResult(t testing.TB, reason string) []byte {
	t.Helper()
	raw, err := (&job.Result{Reason: reason, Stdout: job.Stream{Inline: []byte("out")}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// play is a market in which messages take no time, are delivered in order and none is lost, so that a transcript of it
// can be read. The log is one for all; who leads is said by the script.
type play struct {
	t     *testing.T
	out   *bytes.Buffer
	now   Moment
	shown time.Duration // the time that the reader knows
	job   *job.Signed
	log   [][]byte
	terms []uint64
	stuck bool // the log takes nothing

	stewards map[peer.ID]*playSteward
	workers  map[peer.ID]*playWorker
	names    []peer.ID // of all, in the order in which they came
	cut      map[[2]peer.ID]bool
	queue    []func()
}

type playSteward struct {
	id    peer.ID
	s     *Steward
	l     *Ledger
	read  int // entries applied
	wake  Moment
	dead  bool
	term  uint64
	to    map[peer.ID]uint64 // streams
	heard []Applied
}

type playWorker struct {
	id    peer.ID
	w     *Worker
	wake  Moment
	dead  bool
	slept bool
	to    map[uint64]peer.ID // open streams
	next  uint64             // lives: stream numbers of the shell
	lends Lends
	runs  map[uint32]job.Token
}

func newPlay(t *testing.T, out *bytes.Buffer, signed *job.Signed) *play {
	return &play{t: t, out: out, now: 1, job: signed, stewards: map[peer.ID]*playSteward{}, workers: map[peer.ID]*playWorker{},
		cut: map[[2]peer.ID]bool{}}
}

func (p *play) say(format string, args ...any) {
	for i, a := range args {
		if id, ok := a.(peer.ID); ok {
			args[i] = string(id) // which is a name here
		}
	}
	if at := time.Duration(p.now - 1); at != p.shown {
		p.shown = at
		fmt.Fprintf(p.out, "\t(%v)\n", at)
	}
	fmt.Fprintf(p.out, "\t"+format+"\n", args...)
}

func (p *play) addSteward(id peer.ID) {
	x := &playSteward{id: id, to: map[peer.ID]uint64{}}
	x.l = NewLedger(p.job.ID, func(a Applied) { x.heard = append(x.heard, a) })
	x.s = NewSteward(p.job.ID, id)
	p.stewards[id] = x
	p.names = append(p.names, id)
}

func (p *play) addWorker(id peer.ID, lends Lends) {
	x := &playWorker{id: id, lends: lends}
	p.workers[id] = x
	p.names = append(p.names, id)
	p.startWorker(x)
}

func (p *play) startWorker(x *playWorker) {
	x.w, x.dead, x.to, x.runs = NewWorker(x.id), false, map[uint64]peer.ID{}, map[uint32]job.Token{}
	x.next += 1000
	p.stepWorker(x, WorkerEvent{Kind: Changed, Lends: x.lends})
}

// steward and worker ids in a fixed order.
func (p *play) stewardIDs() (out []peer.ID) {
	for _, n := range p.names {
		if p.stewards[n] != nil {
			out = append(out, n)
		}
	}
	return out
}

// until lets time pass, wake by wake.
func (p *play) until(end Moment) {
	for {
		p.settle()
		at := end
		for _, x := range p.stewards {
			if x.wake != 0 && !x.dead {
				at = min(at, max(x.wake, p.now))
			}
		}
		for _, x := range p.workers {
			if x.wake != 0 && !x.dead && !x.slept {
				at = min(at, max(x.wake, p.now))
			}
		}
		if at >= end {
			p.now = end
			return
		}
		p.now = at
		for _, n := range p.names {
			if x := p.stewards[n]; x != nil && !x.dead && x.wake != 0 && x.wake <= p.now {
				p.stepSteward(x, StewardEvent{})
			}
			if x := p.workers[n]; x != nil && !x.dead && !x.slept && x.wake != 0 && x.wake <= p.now {
				p.stepWorker(x, WorkerEvent{})
			}
		}
	}
}

func (p *play) settle() {
	for n := 0; len(p.queue) > 0; n++ {
		if n > 100_000 {
			p.t.Fatal("the market does not come to rest")
		}
		f := p.queue[0]
		p.queue = p.queue[1:]
		f()
	}
}

func (p *play) later(f func()) { p.queue = append(p.queue, f) }

func (p *play) stepSteward(x *playSteward, ev StewardEvent) {
	out := x.s.Step(p.now, ev)
	if err := x.s.Check(); err != nil {
		p.t.Fatalf("at %v: %s: %v", time.Duration(p.now), x.id, err)
	}
	x.wake = out.Wake
	if len(out.Propose) > 0 {
		cmds := slices.Clone(out.Propose)
		p.later(func() { p.propose(x, cmds) })
	}
	for _, a := range slices.Clone(out.Orders) {
		p.order(x, a)
	}
	if out.Announce != nil {
		p.announce(x, out.Announce)
	}
	if out.Confirm {
		at, term := p.now, x.term
		p.later(func() {
			if !p.stuck {
				p.stepSteward(x, StewardEvent{Kind: Confirmed, Term: term, At: at})
			}
		})
	}
}

func (p *play) propose(x *playSteward, cmds []Command) {
	if p.stuck || x.dead {
		if !x.dead {
			p.stepSteward(x, StewardEvent{Kind: Refused, Commands: cmds})
		}
		return
	}
	data, err := EncodeBatch(time.UnixMilli(2_000_000), cmds)
	if err != nil {
		p.t.Fatal(err)
	}
	p.append(x.term, data)
}

func (p *play) append(term uint64, data []byte) {
	p.log, p.terms = append(p.log, data), append(p.terms, term)
	told := false
	for _, n := range p.stewardIDs() {
		x := p.stewards[n]
		p.catchUp(x, !told)
		told = told || !x.dead
	}
}

// catchUp applies what a steward's ledger lacks.
func (p *play) catchUp(x *playSteward, tell bool) {
	for !x.dead && x.read < len(p.log) {
		x.read++
		x.l.Apply(uint64(x.read), p.terms[x.read-1], p.log[x.read-1])
		for _, a := range x.heard {
			p.later(func() { p.stepSteward(x, StewardEvent{Kind: Result, Applied: a}) })
			for _, o := range a.Outcomes {
				if tell {
					p.say("log: %s %s by %s: %s", [...]string{"", "submit", "finish", "fail", "cancel"}[o.Kind], show(o.Lease), o.By, o.Status)
				}
			}
		}
		x.heard = nil
	}
}

func (p *play) lead(id peer.ID, term uint64) {
	for _, n := range p.stewardIDs() {
		x := p.stewards[n]
		if x.dead || n == id || p.cut[[2]peer.ID{id, n}] {
			continue
		}
		x.term = term
		p.stepSteward(x, StewardEvent{Kind: Follow, Term: term, Peer: id})
	}
	x := p.stewards[id]
	x.term = term
	p.catchUp(x, false)
	if len(p.log) == 0 {
		data, err := EncodeBatch(time.UnixMilli(2_000_000), []Command{{Kind: Submit, By: id, Data: p.job.Raw}})
		if err != nil {
			p.t.Fatal(err)
		}
		p.append(term, data)
	}
	v, ok := x.l.View()
	if !ok {
		p.t.Fatal("the job was not taken")
	}
	p.stepSteward(x, StewardEvent{Kind: Lead, Term: term, View: v, Stewards: p.stewardIDs()})
	p.settle()
}

func (p *play) announce(x *playSteward, ad *Ad) {
	p.say("%s announces %d open", x.id, ad.Open)
	copied := *ad
	for _, n := range p.names {
		if w := p.workers[n]; w != nil && !p.apart(x.id, n) {
			p.later(func() {
				if !w.dead && !w.slept {
					p.stepWorker(w, WorkerEvent{Kind: Announced, Ad: &copied})
				}
			})
		}
	}
}

func (p *play) apart(a, b peer.ID) bool {
	return p.cut[[2]peer.ID{a, b}] || p.cut[[2]peer.ID{b, a}]
}

// order brings an order to its worker.
func (p *play) order(x *playSteward, a Addressed) {
	w := p.workers[a.To]
	stream := a.Stream - w.next
	if text := showOrder(a.Order); text != "" {
		p.say("%s to %s: %s", x.id, a.To, text)
	}
	p.later(func() {
		if !w.dead && !w.slept && w.to[stream] == x.id && !p.apart(x.id, w.id) {
			p.stepWorker(w, WorkerEvent{Kind: Ordered, Job: p.job.ID, Stream: stream, Order: a.Order})
		}
	})
}

func (p *play) stepWorker(x *playWorker, ev WorkerEvent) {
	out := x.w.Step(p.now, ev)
	if err := x.w.Check(); err != nil {
		p.t.Fatalf("at %v: %s: %v", time.Duration(p.now), x.id, err)
	}
	x.wake = out.Wake
	for _, a := range out.Freeze {
		p.say("%s freezes %s", x.id, show(a.Lease))
	}
	for _, a := range out.Thaw {
		p.say("%s thaws %s", x.id, show(a.Lease))
	}
	for _, a := range out.Kill {
		p.say("%s kills %s", x.id, show(a.Lease))
		delete(x.runs, a.Task)
	}
	for _, r := range slices.Clone(out.Posts) {
		p.report(x, r)
	}
	for _, s := range out.Hangup {
		p.hangup(x, s)
	}
	for _, d := range slices.Clone(out.Dials) {
		p.later(func() { p.dialed(x, d) })
	}
	for _, s := range out.Starts {
		p.say("%s starts %s, until %v", x.id, show(s.Lease), time.Duration(s.Until-1))
		x.runs[s.Task] = s.Token
	}
	for _, ad := range slices.Clone(out.Looks) {
		p.later(func() { p.stepWorker(x, WorkerEvent{Kind: Looked, Job: ad.Job}) })
	}
}

// hangup ends a stream from the worker's side.
func (p *play) hangup(x *playWorker, stream uint64) {
	to, ok := x.to[stream]
	delete(x.to, stream)
	if s := p.stewards[to]; ok && s != nil && !s.dead && !p.apart(to, x.id) {
		p.later(func() { p.stepSteward(s, StewardEvent{Kind: Left, Peer: x.id, Stream: x.next + stream}) })
	}
}

func (p *play) dialed(x *playWorker, d Dial) {
	s := p.stewards[d.Peer]
	switch {
	case x.dead || x.slept:
	case s == nil || s.dead || p.apart(d.Peer, x.id):
		p.stepWorker(x, WorkerEvent{Kind: Hungup, Job: d.Job, Stream: d.Stream})
	default:
		x.to[d.Stream] = d.Peer
		p.stepSteward(s, StewardEvent{Kind: Joined, Peer: x.id, Stream: x.next + d.Stream})
		p.stepWorker(x, WorkerEvent{Kind: Connected, Job: d.Job, Stream: d.Stream})
	}
}

// report brings a report to its steward.
func (p *play) report(x *playWorker, r Post) {
	to, ok := x.to[r.Stream]
	if !ok {
		return
	}
	if text := showReport(r.Report); text != "" {
		p.say("%s to %s: %s", x.id, to, text)
	}
	s := p.stewards[to]
	next := x.next
	p.later(func() {
		if !s.dead && !p.apart(to, x.id) {
			p.stepSteward(s, StewardEvent{Kind: Reported, Peer: x.id, Stream: next + r.Stream, Report: r.Report})
		}
	})
}

// kill ends a peer, with all its streams.
func (p *play) kill(id peer.ID) {
	if x := p.workers[id]; x != nil {
		x.dead, x.wake = true, 0
		p.dropStreams(x, "")
	}
	if s := p.stewards[id]; s != nil {
		s.dead, s.wake = true, 0
		for _, n := range p.names {
			if x := p.workers[n]; x != nil && !x.dead {
				p.dropStreams(x, id)
			}
		}
	}
}

// dropStreams breaks a worker's streams, to one steward or to all.
func (p *play) dropStreams(x *playWorker, to peer.ID) {
	var broken []uint64
	for n, s := range x.to {
		if to == "" || s == to {
			broken = append(broken, n)
		}
	}
	slices.Sort(broken)
	for _, n := range broken {
		s := p.stewards[x.to[n]]
		delete(x.to, n)
		stream := x.next + n
		if !s.dead {
			p.later(func() { p.stepSteward(s, StewardEvent{Kind: Left, Peer: x.id, Stream: stream}) })
		}
		if !x.dead && !x.slept {
			p.later(func() { p.stepWorker(x, WorkerEvent{Kind: Hungup, Job: p.job.ID, Stream: n}) })
		}
	}
}

// end ends an attempt on a worker.
func (p *play) end(x *playWorker, task uint32, e End) {
	token, ok := x.runs[task]
	if !ok {
		p.t.Fatalf("%s does not run %d; so far:\n%s", string(x.id), task, p.out)
	}
	delete(x.runs, task)
	e.Lease = Lease{task, token}
	p.stepWorker(x, WorkerEvent{Kind: Ended, Job: p.job.ID, End: e})
}

func show(l Lease) string { return fmt.Sprintf("%d=%s", l.Task, l.Token) }

func shows(list []Lease) string {
	var out []string
	for _, l := range list {
		out = append(out, show(l))
	}
	return strings.Join(out, " ")
}

// showOrder says what an order has besides a renewal.
func showOrder(o *Order) string {
	var parts []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(o.Welcome, "welcome")
	add(o.NotLeader, "not the leader (%s)", string(o.Leader))
	for _, v := range o.Verdicts {
		add(true, "%s %s", show(v.Lease), v.Status)
	}
	add(len(o.Revoked) > 0, "revoke %s", shows(o.Revoked))
	add(len(o.Grants) > 0, "grant %s", shows(o.Grants))
	add(o.Over, "over")
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, ", ")
}

// showReport says what a report has besides a renewal.
func showReport(r *Report) string {
	var parts []string
	for _, h := range r.Held {
		if h.Phase == Running && h.Live {
			continue
		}
		text := "holds " + show(h.Lease) + [...]string{"", " ready", " running", " frozen", " done"}[h.Phase]
		if !h.Live {
			text += ", lapsed"
		}
		parts = append(parts, text)
	}
	for _, c := range r.Commits {
		parts = append(parts, "commit "+show(c.Lease))
	}
	for _, f := range r.Failures {
		parts = append(parts, "failed "+show(f.Lease))
	}
	if len(r.Released) > 0 {
		parts = append(parts, fmt.Sprintf("give back %s: %s", shows(r.Released), r.Why))
	}
	if o := r.Offer; o != nil {
		text := fmt.Sprintf("offer %d", o.Slots)
		if o.Ahead > 0 {
			text += fmt.Sprintf("+%d", o.Ahead)
		}
		if r.Seq == 1 || len(parts) > 0 || !r.Full {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ", ")
}
