package market

import (
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// dial opens streams to the stewards of jobs that are worth it.
func (w *Worker) dial() {
	streams := 0
	for _, p := range w.order {
		switch {
		case p.stage == dialing && w.now >= p.dialAt: // no answer
			w.out.Hangup = append(w.out.Hangup, p.stream)
			w.hungup(p)
		case p.stage == standing && p.moveAt != 0 && w.now >= p.moveAt:
			w.move(p, p.next())
		case p.stage == standing && w.now >= p.answered.Add(SafeTTL): // a dead stream that nobody has noticed
			w.out.Hangup = append(w.out.Hangup, p.stream)
			w.hungup(p)
		case p.stage == dialing || p.stage == standing:
			streams++
		}
	}
	for _, p := range w.order {
		if streams >= streamsMax || !w.worth(p) {
			continue
		}
		streams++
		w.stream++
		p.stage, p.stream, p.dialAt = dialing, w.stream, w.now.Add(dialWait)
		w.out.Dials = append(w.out.Dials, Dial{p.id, p.at, p.stream})
	}
}

// worth reports whether a stream for p is to be opened now: for what is held, or for what may be granted.
func (w *Worker) worth(p *pursuit) bool {
	switch {
	case p.stage == waiting:
		return w.now >= p.bidAt && w.cores() > 0
	case p.stage != apart || w.now < p.dialAt:
		return false
	}
	return len(p.held) > 0 || w.cores() > 0 && (p.open > 0 || w.now < p.heard.Add(returnTime))
}

// next is the steward after the one that was tried.
func (p *pursuit) next() peer.ID {
	list := p.ad.Stewards
	if len(list) == 0 {
		return p.ad.Leader
	}
	return list[(slices.Index(list, p.at)+1)%len(list)]
}

// move leaves the present stream for another steward.
func (w *Worker) move(p *pursuit, to peer.ID) {
	w.out.Hangup = append(w.out.Hangup, p.stream)
	p.at = to
	w.part(p)
	p.dialAt = w.now
}

// part forgets the stream. What is held keeps its lease for as long as it lasts.
func (w *Worker) part(p *pursuit) {
	p.stage, p.moveAt, p.released, p.unsent, p.due = apart, 0, nil, nil, false
	for _, a := range p.held {
		a.listed, a.sentAt = 0, 0
	}
}

func (w *Worker) hungup(p *pursuit) {
	p.dead, p.deadAt = p.at, w.now
	p.at = p.next()
	w.part(p)
	p.dialAt = w.now.Add(p.backoff)
	p.backoff = min(max(2*p.backoff, dialFirst), dialMax)
}

// connected opens the talk. Who holds nothing may be granted something with the first answer; else the steward must
// first say that it is ready to hear what is held.
func (w *Worker) connected(p *pursuit) {
	p.stage, p.in, p.seq, p.ready, p.moveAt = standing, 0, 0, 0, w.now.Add(moveWait)
	p.stamps = [stampsMax]Moment{}
	p.believe = Offer{Slots: -1}
	p.due = len(p.held) == 0
	p.renewAt, p.answered = w.now.Add(RenewEvery), w.now
}

// ordered works off what a steward says. One that was overtaken or came twice is ignored: what it revoked is revoked
// again with the next renewal, and what it granted is taken for not received.
func (w *Worker) ordered(p *pursuit, o *Order) {
	if o.Seq <= p.in {
		return
	}
	p.in, p.answered = o.Seq, w.now
	if o.NotLeader || o.Term < p.term {
		w.referred(p, o)
		return
	}
	p.heard, p.open, p.moveAt, p.backoff = w.now, o.Open, 0, 0
	if o.Term > p.term {
		p.term, p.ready = o.Term, 0
	}
	if o.Welcome && p.ready != o.Term {
		p.ready, p.due = o.Term, p.due || len(p.held) > 0
		p.unsent = p.sorted(Done)
	}
	for _, v := range o.Verdicts {
		w.verdict(p, v)
	}
	for _, l := range o.Revoked {
		switch a := p.held[l.Task]; {
		case a == nil || a.Token != l.Token:
		case a.phase == Done:
			a.void = true // it is handed over all the same: it may be salvaged
		default:
			w.kill(a)
		}
	}
	if o.Full > 0 {
		w.renewed(p, o.Full)
	}
	for _, g := range o.Grants {
		w.granted(p, g, o.Ack)
	}
	if o.Over {
		w.forget(p, true)
	}
}

// referred follows a steward's word that another leads. One that was just found dead is waited for here: its successor
// will say so.
func (w *Worker) referred(p *pursuit, o *Order) {
	if to := o.Leader; o.NotLeader && to != "" && to != p.at && !(to == p.dead && w.now < p.deadAt.Add(moveWait)) {
		w.move(p, to)
		return
	}
	if p.moveAt == 0 {
		p.moveAt = w.now.Add(moveWait)
	}
}

// stamp is when a report was sent.
func (p *pursuit) stamp(seq uint64) (Moment, bool) {
	if seq == 0 || seq > p.seq || p.seq-seq >= stampsMax {
		return 0, false
	}
	return p.stamps[seq%stampsMax], true
}

// renewed extends the leases that a Full report listed and its answer did not revoke. They count from when it was sent.
func (w *Worker) renewed(p *pursuit, full uint64) {
	at, ok := p.stamp(full)
	if !ok {
		return
	}
	for _, a := range p.sorted(anyPhase) {
		if a.listed == 0 || a.listed > full || at.Add(SafeTTL) <= a.until {
			continue
		}
		a.until = at.Add(SafeTTL)
		if a.phase == Running {
			w.out.Until = append(w.out.Until, Start{a.Attempt, a.until})
		}
	}
}

// granted takes a new lease, which counts from when the last report that the steward had seen was sent.
func (w *Worker) granted(p *pursuit, l Lease, ack uint64) {
	if old := p.held[l.Task]; old != nil {
		if !old.Token.Less(l.Token) {
			return
		}
		if old.phase == Done && !p.ad.Exclusive { // what is asked for is here already
			p.released = append(p.released, given{l, Busy})
			return
		}
		w.kill(old)
	}
	if p.believe.Slots > 0 {
		p.believe.Slots--
	} else {
		p.believe.Ahead--
	}
	if w.cores() <= 0 || len(p.held) >= HeldMax {
		p.released = append(p.released, given{l, Busy})
		return
	}
	a := &attempt{Attempt: Attempt{p.id, l}, of: p, phase: Queued, since: w.now}
	if at, ok := p.stamp(ack); ok {
		a.until = at.Add(SafeTTL)
	}
	p.held[l.Task] = a
	p.line = append(p.line, a)
	p.n[Queued]++
	p.dueAt = earlier(p.dueAt, a.deadline())
}

func (w *Worker) verdict(p *pursuit, v Verdict) {
	if a := p.held[v.Task]; a != nil && a.Token == v.Token {
		w.kill(a)
	}
}

// forget drops a job and ends what runs of it.
func (w *Worker) forget(p *pursuit, over bool) {
	for _, a := range p.sorted(anyPhase) {
		w.kill(a)
	}
	if p.stage == standing || p.stage == dialing {
		w.out.Hangup = append(w.out.Hangup, p.stream)
	}
	p.stage = refused
	delete(w.jobs, p.id)
	w.order = slices.DeleteFunc(w.order, func(q *pursuit) bool { return q == p })
	if !over {
		return
	}
	if w.gone = append(w.gone, p.id); len(w.gone) > goneMax {
		w.gone = slices.Delete(w.gone, 0, 1)
	}
}

// talk writes the reports.
func (w *Worker) talk() {
	var offers map[*pursuit]Offer
	for _, p := range w.order {
		if p.stage == standing {
			if offers == nil {
				offers = w.offers()
			}
			w.write(p, offers[p])
		}
	}
}

// write makes p's report if there is something to say.
func (w *Worker) write(p *pursuit, offer Offer) {
	w.giveBack(p)
	ready := p.ready == p.term && p.ready != 0
	r := &Report{}
	asks := false // to be welcomed
	switch due := p.due || w.now >= p.renewAt; {
	case due && (ready || len(p.held) == 0):
		w.full(p, r)
	case due:
		p.renewAt, asks = w.now.Add(RenewEvery), true
	}
	if ready {
		if r.Full && p.n[Done] > 0 {
			w.sendAgain(p)
		}
		w.handOver(p, r)
	}
	worse := offer.Slots < p.believe.Slots || offer.Ahead == 0 && p.believe.Ahead > 0 && p.open > 0
	better := offer.Slots > p.believe.Slots || offer.Ahead > 2*p.believe.Ahead
	if r.Full || asks || len(r.Commits)+len(r.Failures) > 0 || worse || better {
		r.Offer, p.believe = &offer, offer
		w.post(p, r)
	}
	for ready && len(p.unsent) > 0 { // what had no room
		r := &Report{}
		w.handOver(p, r)
		w.post(p, r)
	}
}

// post numbers and sends a report.
func (w *Worker) post(p *pursuit, r *Report) {
	p.seq++
	r.Seq, r.Ack, r.Term = p.seq, p.in, p.ready
	p.stamps[p.seq%stampsMax] = w.now
	if r.Full {
		for _, a := range p.held {
			if a.listed == 0 {
				a.listed = p.seq
			}
		}
	}
	w.out.Posts = append(w.out.Posts, Post{p.id, p.stream, r})
}

// giveBack reports released leases, one report for each reason.
func (w *Worker) giveBack(p *pursuit) {
	for len(p.released) > 0 {
		r := &Report{Why: p.released[0].why}
		rest := p.released[:0:0]
		for _, g := range p.released {
			if g.why == r.Why && len(r.Released) < HeldMax {
				r.Released = append(r.Released, g.Lease)
			} else {
				rest = append(rest, g)
			}
		}
		p.released = rest
		w.post(p, r)
	}
}

// full lists what is held.
func (w *Worker) full(p *pursuit, r *Report) {
	r.Full, p.due, p.renewAt = true, false, w.now.Add(RenewEvery)
	for _, a := range p.sorted(anyPhase) {
		r.Held = append(r.Held, Held{a.Lease, a.phase, w.now < a.until && !a.void, a.elapsed(w.now)})
	}
}

// handOver puts results into a report.
func (w *Worker) handOver(p *pursuit, r *Report) {
	for len(p.unsent) > 0 && len(r.Commits)+len(r.Failures) < CommitsMax {
		a := p.unsent[0]
		p.unsent = p.unsent[1:]
		switch a.sentAt = w.now; {
		case a.gone:
		case a.failed:
			r.Failures = append(r.Failures, Failure{a.Lease, a.result})
		default:
			r.Commits = append(r.Commits, Commit{a.Lease, a.took, a.result})
		}
	}
}

// sendAgain queues results that were handed over some time ago and not answered.
func (w *Worker) sendAgain(p *pursuit) {
	for _, a := range p.sorted(Done) {
		if a.sentAt != 0 && w.now >= a.sentAt.Add(RenewEvery) && !slices.Contains(p.unsent, a) {
			p.unsent = append(p.unsent, a)
		}
	}
}

// wake is when something here depends on time next.
func (w *Worker) wake() Moment {
	var at Moment
	next := func(m Moment) {
		if m > w.now && m < math.MaxInt64 {
			at = earlier(at, m)
		}
	}
	for _, p := range w.order {
		switch p.stage {
		case waiting:
			next(p.bidAt)
		case apart, dialing:
			next(p.dialAt)
		case standing:
			next(p.renewAt)
			next(p.moveAt)
			next(p.answered.Add(SafeTTL))
		}
		if p.stage != standing && len(p.held) == 0 {
			next(p.heard.Add(forgetTime))
		}
		next(p.dueAt)
	}
	return at
}
