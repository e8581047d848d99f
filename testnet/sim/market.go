package sim

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/tasks/market"
)

func (w *world) stewardIDs() (out []peer.ID) {
	for _, x := range w.nodes[:w.plan.stewards] {
		out = append(out, x.id)
	}
	return out
}

// stepSteward gives the steward events and carries out what it wants.
func (x *node) stepSteward(events ...market.StewardEvent) {
	w := x.w
	out := x.steward.Step(x.boot(), events...)
	w.checkSteward(x, out)
	for _, a := range out.Orders {
		w.note("%s orders %s: %+v", x.id, a.To, *a.Order)
	}
	if len(out.Propose) > 0 {
		commands := slices.Clone(out.Propose)
		x.later(0, func() { x.propose(commands) })
	}
	for _, a := range out.Orders {
		x.order(a)
	}
	if out.Announce != nil {
		x.announce(out.Announce)
	}
	if out.Confirm {
		x.later(0, x.confirm)
	}
	x.sWake = out.Wake
	if at := out.Wake; at != 0 {
		x.later(x.real(at), func() {
			if x.sWake == at {
				x.stepSteward()
			}
		})
	}
}

func (x *node) propose(commands []market.Command) {
	data, err := market.EncodeBatch(time.UnixMilli(x.w.Now.Milliseconds()), commands)
	if err != nil {
		x.w.fail("%s: %v", x.id, err)
		return
	}
	x.ask(func(id uint64) replica.Event { return replica.Propose{ID: id, Data: data} }, x.w.plan.patience, func(why replica.Reason) {
		if why != replica.OK {
			x.stepSteward(market.StewardEvent{Kind: market.Refused, Commands: commands, Never: why != replica.Maybe})
		}
	})
}

// confirm asks the quorum whether this peer still leads.
func (x *node) confirm() {
	at, term := x.boot(), x.lead
	if term == 0 {
		return
	}
	x.ask(func(id uint64) replica.Event { return replica.Read{ID: id} }, x.w.plan.patience, func(why replica.Reason) {
		if st := x.r.Status(); why == replica.OK && st.Leading && st.Term == term {
			x.stepSteward(market.StewardEvent{Kind: market.Confirmed, Term: term, At: at})
		}
	})
}

// announce is gossip: it reaches whom it reaches.
func (x *node) announce(ad *market.Ad) {
	w := x.w
	copied := *ad
	for _, y := range w.nodes {
		if y != x && w.chaos && w.chance(w.plan.loss) {
			continue
		}
		w.After(w.latency(), func() {
			if w.apart(x, y) {
				return
			}
			y.hear(func() { y.stepWorker(market.WorkerEvent{Kind: market.Announced, Ad: &copied}) })
		})
	}
}

// order moves an order along its stream.
func (x *node) order(a market.Addressed) {
	y, st := x.w.byID(a.To), x.w.stream(a.Stream)
	x.w.travel(st, y, func() {
		if !st.fromEnd {
			y.stepWorker(market.WorkerEvent{Kind: market.Ordered, Job: x.w.job.ID, Stream: st.number, Order: a.Order})
		}
	})
}

// travel moves a message along a stream: in order as a rule, but the machines must bear any order, and loss.
func (w *world) travel(st *stream, to *node, f func()) {
	if st == nil {
		return
	}
	copies := 1
	switch {
	case !w.chaos || st.from == st.to:
	case w.chance(w.plan.loss):
		copies = 0
	case w.chance(w.plan.double):
		copies = 2
	}
	life := to.life
	other := st.from
	if to == st.from {
		other = st.to
	}
	for range copies {
		w.After(w.latency(), func() {
			if to.life == life && !w.apart(other, to) {
				to.hear(f)
			}
		})
	}
}

// stepWorker gives the worker events and carries out what it wants, in the order of the fields of its answer.
func (x *node) stepWorker(events ...market.WorkerEvent) {
	w := x.w
	out := x.worker.Step(x.boot(), events...)
	if err := x.worker.Check(); err != nil {
		w.fail("%s: %v", x.id, err)
		return
	}
	for _, p := range out.Posts {
		w.note("%s reports: %+v offer %+v", x.id, *p.Report, p.Report.Offer)
	}
	if len(out.Freeze)+len(out.Thaw)+len(out.Kill)+len(out.Starts)+len(out.Until)+len(out.Dials)+len(out.Hangup) > 0 {
		w.note("%s freezes %v, until %v, thaws %v, kills %v, starts %v, dials %v, hangs up %v", x.id, out.Freeze, out.Until, out.Thaw, out.Kill, out.Starts, out.Dials, out.Hangup)
	}
	for _, a := range out.Freeze {
		x.stopGuest(x.guests[a])
	}
	for _, u := range out.Until {
		if g := x.guests[u.Attempt]; g != nil {
			g.until = u.Until
			x.goOn(g)
		}
	}
	for _, a := range out.Thaw {
		if g := x.guests[a]; g != nil {
			x.resume(g)
		}
	}
	for _, a := range out.Kill {
		x.stopGuest(x.guests[a])
		delete(x.guests, a)
	}
	for _, p := range out.Posts {
		if st := x.streams[p.Stream]; st != nil {
			w.travel(st, st.to, func() {
				if !st.toEnd {
					st.to.stepSteward(market.StewardEvent{Kind: market.Reported, Peer: x.id, Stream: st.id, Report: p.Report})
				}
			})
		}
	}
	for _, n := range out.Hangup {
		x.hangup(n)
	}
	for _, d := range out.Dials {
		x.dial(d)
	}
	for _, s := range out.Starts {
		x.startGuest(s)
	}
	for _, ad := range out.Looks {
		id := ad.Job
		x.later(w.upTo(30*time.Millisecond), func() {
			x.stepWorker(market.WorkerEvent{Kind: market.Looked, Job: id, Look: market.Look{Local: w.rng.Int64N(100_000), Total: 100_000}})
		})
	}
	x.wWake = out.Wake
	if at := out.Wake; at != 0 {
		x.later(x.real(at), func() {
			if x.wWake == at {
				x.stepWorker()
			}
		})
	}
}

// dial opens a stream, if the steward can be reached and its process answers.
func (x *node) dial(d market.Dial) {
	w := x.w
	y := w.byID(d.Peer)
	st := &stream{from: x, to: y, number: d.Stream, fromLife: x.life}
	w.nextStream++
	st.id = w.nextStream
	w.streams = append(w.openStreams(), st)
	x.streams[d.Stream] = st
	refused := func() { w.tellFrom(st) }
	if y == nil || y.group == nil {
		x.later(0, refused)
		return
	}
	life := x.life
	w.After(w.latency(), func() {
		switch {
		case x.life != life || st.fromEnd:
		case w.apart(x, y) || !y.up:
			x.later(w.upTo(2*time.Second), refused)
		case y.idle():
			x.later(w.between(time.Second, 6*time.Second), refused)
		default:
			st.toLife = y.life
			y.stepSteward(market.StewardEvent{Kind: market.Joined, Peer: x.id, Stream: st.id})
			x.later(w.latency(), func() {
				if !st.fromEnd {
					x.stepWorker(market.WorkerEvent{Kind: market.Connected, Job: w.job.ID, Stream: d.Stream})
				}
			})
		}
	})
}

// hangup ends a stream by the worker's will.
func (x *node) hangup(number uint64) {
	w := x.w
	st := x.streams[number]
	if st == nil {
		return
	}
	st.fromEnd = true
	delete(x.streams, number)
	w.After(w.latency(), func() {
		if !w.apart(st.from, st.to) {
			w.tellTo(st)
			return
		}
		w.After(w.between(time.Second, 10*time.Second), func() { w.tellTo(st) })
	})
}

// tellFrom has the worker's side of a stream learn that it ended.
func (w *world) tellFrom(st *stream) {
	x := st.from
	if x.life != st.fromLife {
		return
	}
	x.do(func() {
		if st.fromEnd || x.life != st.fromLife {
			return
		}
		st.fromEnd = true
		delete(x.streams, st.number)
		x.stepWorker(market.WorkerEvent{Kind: market.Hungup, Job: w.job.ID, Stream: st.number})
	})
}

// tellTo has the steward's side of a stream learn that it ended.
func (w *world) tellTo(st *stream) {
	y := st.to
	if y == nil || st.toLife == 0 || y.life != st.toLife {
		return
	}
	y.do(func() {
		if st.toEnd || y.life != st.toLife {
			return
		}
		st.toEnd = true
		y.stepSteward(market.StewardEvent{Kind: market.Left, Peer: st.from.id, Stream: st.id})
	})
}

// startGuest begins a task.
func (x *node) startGuest(s market.Start) {
	w := x.w
	g := &guest{attempt: s.Attempt, until: s.Until, left: w.taskTime(), fails: w.chance(w.plan.fails) || int(s.Task) < w.plan.hopeless}
	x.guests[s.Attempt] = g
	w.res.Starts++
	x.resume(g)
}

// resume lets a guest run on.
func (x *node) resume(g *guest) {
	if g.running || g.over {
		return
	}
	g.running, g.since = true, x.w.Now
	x.w.runs(x, g)
	x.goOn(g)
}

// goOn plans the end of a running guest: its work's, or its lease's, which it keeps to by itself even if the process
// that started it does nothing.
func (x *node) goOn(g *guest) {
	if !g.running {
		return
	}
	w := x.w
	g.turn++
	turn := g.turn
	left := g.left - (w.Now - g.since)
	w.After(min(left, x.real(g.until)-time.Microsecond), func() {
		if g.turn != turn || !g.running {
			return
		}
		x.stopGuest(g)
		if g.left <= 0 {
			g.over = true
			x.endGuest(g)
		}
	})
}

// stopGuest freezes a guest.
func (x *node) stopGuest(g *guest) {
	if g == nil || !g.running {
		return
	}
	g.running = false
	g.turn++
	g.left -= x.w.Now - g.since
	x.w.ran(x, g)
}

// endGuest hands the result to the worker, once its outputs are blocks on two peers.
func (x *node) endGuest(g *guest) {
	w := x.w
	e := market.End{Lease: g.attempt.Lease, Ran: time.Second, Result: w.good, Failed: g.fails}
	if g.fails {
		e.Result = w.bad
		if w.chance(0.2) {
			e.Result, e.Failed, e.Why = nil, false, market.Inputs
		}
	}
	x.later(w.upTo(20*time.Millisecond), func() {
		delete(x.guests, g.attempt)
		x.stepWorker(market.WorkerEvent{Kind: market.Ended, Job: g.attempt.Job, End: e})
	})
}
