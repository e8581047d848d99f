package sim

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/tasks/market"
)

// fault is a kind of thing that goes wrong.
type fault uint8

const (
	crash  fault = iota // a process or a machine dies, and comes back with what its disk has
	nap                 // a machine is suspended without a word, its guests too
	night               // for hours
	stop                // a process is stopped, while its guests run on
	split               // the network falls into two
	cutoff              // one link is cut
	flap                // streams break and can be opened again at once
	owner               // an owner takes the machine back for a while
	lid                 // a lid closes with a word
	leaderDies
	coup  // the leading steward is cut from the others, not from the workers
	death // a steward dies for good, at most one
	faultKinds
)

// somePlan draws what a schedule is like.
func (w *world) somePlan() {
	r := w.rng
	p := &w.plan
	p.stewards = 3
	p.peers = 3 + r.IntN(3)
	p.tasks = 1 + r.IntN(8)
	if r.IntN(8) == 0 {
		p.stewards = 1
	}
	p.chaos = time.Duration(5+r.IntN(20)) * time.Second
	p.delay = []time.Duration{time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond}[r.IntN(3)]
	if r.IntN(2) == 0 {
		p.loss, p.double = 0.1*r.Float64(), 0.1*r.Float64()
	}
	if r.IntN(3) == 0 {
		p.slow = 0.05
	}
	p.disk = []time.Duration{time.Millisecond, 5 * time.Millisecond, 100 * time.Millisecond}[r.IntN(3)]
	p.patience = []time.Duration{4 * time.Second, time.Minute}[r.IntN(2)]
	p.taskTime = []time.Duration{20 * time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second}[r.IntN(4)]
	if r.IntN(4) == 0 {
		p.fails = 0.3
	}
	if r.IntN(8) == 0 {
		p.hopeless = 1
	}
	p.bulky = r.IntN(8) == 0
	for f := range faultKinds {
		if r.IntN(3) == 0 {
			p.faults = append(p.faults, f)
		}
	}
	p.every = time.Duration(1+r.IntN(6)) * time.Second
}

func (w *world) taskTime() time.Duration {
	return w.plan.taskTime/4 + w.upTo(w.plan.taskTime*3/2)
}

// latency is how long a message takes.
func (w *world) latency() time.Duration {
	if w.chaos && w.chance(w.plan.slow) {
		return w.upTo(time.Second)
	}
	return w.plan.delay/10 + w.upTo(w.plan.delay)
}

// apart reports that nothing gets from one node to another.
func (w *world) apart(a, b *node) bool {
	if a == b {
		return false
	}
	return w.side[a.n] != w.side[b.n] || w.cut[linkOf(a, b)]
}

// guestsOf lists the guests of a node in a fixed order.
func (w *world) guestsOf(x *node) (out []*guest) {
	for _, g := range x.guests {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *guest) int { return compareTokens(a.attempt.Token, b.attempt.Token) })
	return out
}

func (w *world) byID(id peer.ID) *node {
	for _, x := range w.nodes {
		if x.id == id {
			return x
		}
	}
	return nil
}

// openStreams lists the streams of which one side at least does not know that they ended.
func (w *world) openStreams() []*stream {
	w.streams = slices.DeleteFunc(w.streams, func(st *stream) bool {
		return (st.fromEnd || st.from.life != st.fromLife) && (st.toEnd || st.to == nil || st.toLife == 0 || st.to.life != st.toLife)
	})
	return w.streams
}

func (w *world) stream(id uint64) *stream {
	for _, st := range w.streams {
		if st.id == id {
			return st
		}
	}
	return nil
}

// mischief makes one fault now, and plans the next.
func (w *world) mischief() {
	if !w.chaos || len(w.plan.faults) == 0 {
		return
	}
	w.After(w.plan.every/4+w.upTo(w.plan.every*3/2), w.mischief)
	x := w.nodes[w.rng.IntN(len(w.nodes))]
	kind := w.plan.faults[w.rng.IntN(len(w.plan.faults))]
	w.note("fault %d at %s", kind, x.id)
	switch kind {
	case crash:
		w.crash(x, w.between(10*time.Millisecond, 12*time.Second))
	case nap:
		w.sleep(x, w.between(50*time.Millisecond, 25*time.Second))
	case night:
		if w.mayLose(x) && x.up && !x.idle() { // one who is away for good is enough
			w.bereaved, x.away = true, true
			w.sleep(x, 8*time.Hour)
		}
	case stop:
		w.pause(x, w.between(50*time.Millisecond, 15*time.Second))
	case split:
		for i := range w.side {
			w.side[i] = w.rng.IntN(2)
		}
		w.parted()
		w.After(w.between(100*time.Millisecond, 15*time.Second), func() { clear(w.side); w.estranged() })
	case cutoff:
		y := w.nodes[w.rng.IntN(len(w.nodes))]
		w.cutLinks(w.between(100*time.Millisecond, 15*time.Second), linkOf(x, y))
	case flap:
		w.breakStreams(func(st *stream) bool { return st.from == x || st.to == x }, 50*time.Millisecond)
	case owner:
		x.do(func() { x.stepWorker(market.WorkerEvent{Kind: market.Mine, On: true}) })
		x.later(w.between(100*time.Millisecond, 10*time.Second), func() { x.stepWorker(market.WorkerEvent{Kind: market.Mine}) })
	case lid:
		x.do(func() { x.stepWorker(market.WorkerEvent{Kind: market.Sleeping, On: true}) })
		x.later(w.between(100*time.Millisecond, time.Second), func() {
			if w.chaos { // or it woke too late to sleep once more
				w.sleep(x, w.between(100*time.Millisecond, 20*time.Second))
			}
			x.do(func() { x.stepWorker(market.WorkerEvent{Kind: market.Sleeping}) })
		})
	case leaderDies:
		if y := w.leading(); y != nil {
			w.crash(y, w.between(10*time.Millisecond, 12*time.Second))
		}
	case coup:
		w.isolate(w.leading(), w.between(time.Second, 20*time.Second))
	case death:
		if x.group != nil && x.up && w.mayLose(x) {
			w.bereaved = true
			x.dead = true
			w.crash(x, 0)
		}
	}
}

// leading is the steward that leads by its own word, the last of several; nil if none does.
func (w *world) leading() (last *node) {
	for _, y := range w.nodes[:w.plan.stewards] {
		if y.up && y.lead != 0 && (last == nil || y.lead > last.lead) {
			last = y
		}
	}
	return last
}

// isolate cuts a steward from the others for a while. Workers still reach it, and it may not know that it leads nobody.
func (w *world) isolate(x *node, d time.Duration) {
	if x == nil {
		return
	}
	var links [][2]int
	for _, y := range w.nodes[:w.plan.stewards] {
		if y != x {
			links = append(links, linkOf(x, y))
		}
	}
	w.cutLinks(d, links...)
}

func linkOf(a, b *node) [2]int { return [2]int{min(a.n, b.n), max(a.n, b.n)} }

func (w *world) cutLinks(d time.Duration, links ...[2]int) {
	for _, l := range links {
		w.cut[l] = true
	}
	w.parted()
	w.After(d, func() {
		for _, l := range links {
			delete(w.cut, l)
		}
		w.estranged()
	})
}

// mayLose: the job outlives the loss of one peer, once it has been submitted, if that is not its only steward.
func (w *world) mayLose(x *node) bool {
	return !w.bereaved && (x.group == nil || w.plan.stewards == 3) && len(w.facts.entries) > 0
}

// crash kills a process; it comes back after a while, unless it is dead for good.
func (w *world) crash(x *node, back time.Duration) {
	if !x.up {
		return
	}
	for _, g := range w.guestsOf(x) {
		x.stopGuest(g)
	}
	x.up, x.asleep, x.paused, x.held = false, 0, 0, nil
	x.life++
	clear(x.guests)
	clear(x.streams)
	if x.group != nil {
		x.crashGroup()
	}
	w.breakStreams(func(st *stream) bool { return st.from == x || st.to == x }, 20*time.Millisecond)
	w.presence(x, false)
	if x.dead {
		return
	}
	life := x.life
	w.After(back, func() {
		if x.life == life {
			x.start()
		}
	})
}

// presence tells the other replicas who can be reached.
func (w *world) presence(x *node, here bool) {
	for _, y := range w.nodes[:w.plan.stewards] {
		if y != x && x.group != nil {
			y.later(w.upTo(20*time.Millisecond), func() {
				y.stepReplica(replica.Presence{Peer: x.id, Present: here && !w.apart(x, y)})
			})
		}
	}
}

// estranged tells replicas that cannot reach one another so, and once more when they can.
func (w *world) estranged() {
	for _, x := range w.nodes[:w.plan.stewards] {
		w.After(w.between(2*time.Second, 8*time.Second), func() { w.presence(x, x.up && !x.idle()) })
	}
}

// start begins a life of a node.
func (x *node) start() {
	w := x.w
	x.up = true
	x.life++
	x.worker, x.wWake = market.NewWorker(x.id), 0
	x.streams, x.guests = map[uint64]*stream{}, map[market.Attempt]*guest{}
	x.stepWorker(market.WorkerEvent{Kind: market.Changed, Lends: x.lends})
	if x.group != nil {
		x.sWake = 0
		x.startGroup()
	}
	w.presence(x, true)
}

// sleep suspends a machine: its clock goes on, and nothing else. Others find out, or not; what was on its way comes when
// it wakes, or not.
func (w *world) sleep(x *node, d time.Duration) {
	if !x.up || x.idle() {
		return
	}
	stopped := w.guestsOf(x)
	for _, g := range stopped {
		x.stopGuest(g)
	}
	x.asleep = w.Now + d
	w.noticed(x, d)
	w.wakeAfter(x, d, func() {
		x.stepWorker() // before anything else runs
		for _, g := range stopped {
			if a := x.guests[g.attempt]; a == g && x.holdsRunning(g) {
				x.resume(g)
			}
		}
	})
}

// holdsRunning: the worker has not frozen it.
func (x *node) holdsRunning(g *guest) bool {
	for _, h := range x.worker.Held() {
		if h.Lease == g.attempt.Lease {
			return h.Phase == market.Running
		}
	}
	return false
}

// pause stops a process, while its guests run on.
func (w *world) pause(x *node, d time.Duration) {
	if !x.up || x.idle() {
		return
	}
	x.paused = w.Now + d
	w.noticed(x, d)
	w.wakeAfter(x, d, func() { x.stepWorker() })
}

func (w *world) wakeAfter(x *node, d time.Duration, first func()) {
	life := x.life
	w.After(d, func() {
		if x.life != life || x.idle() {
			return
		}
		first()
		held := x.held
		x.held = nil
		for _, f := range held {
			if x.life == life {
				x.do(f)
			}
		}
		if x.life == life && x.group != nil {
			x.stepReplica()
			x.stepSteward()
		}
		x.do(func() { x.stepWorker() })
	})
}

// noticed breaks the streams of a node that does nothing, if that lasts; it learns of it when it goes on.
func (w *world) noticed(x *node, d time.Duration) {
	if t := w.between(2*time.Second, 20*time.Second); t < d {
		w.After(t, func() {
			if x.idle() {
				w.breakStreams(func(st *stream) bool { return st.from == x || st.to == x }, time.Second)
			}
		})
		w.After(t, func() {
			if x.idle() {
				w.presence(x, false)
				w.After(max(x.asleep, x.paused)-w.Now+time.Second, func() { w.presence(x, x.up) })
			}
		})
	}
}

// breakStreams ends streams; each side learns of it by itself.
func (w *world) breakStreams(which func(*stream) bool, within time.Duration) {
	for _, st := range w.openStreams() {
		if which(st) {
			w.After(w.upTo(within), func() { w.tellFrom(st) })
			w.After(w.upTo(within), func() { w.tellTo(st) })
		}
	}
}

// parted breaks the streams that a cut goes through, after a while, unless it heals before.
func (w *world) parted() {
	w.estranged()
	for _, st := range w.openStreams() {
		if !w.apart(st.from, st.to) {
			continue
		}
		w.After(w.between(500*time.Millisecond, 12*time.Second), func() {
			if w.apart(st.from, st.to) {
				w.tellFrom(st)
				w.tellTo(st)
			}
		})
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.chaos = false
	clear(w.side)
	clear(w.cut)
	for _, x := range w.nodes {
		switch {
		case x.dead || x.away:
			continue
		case !x.up:
			x.start()
		case x.idle():
			x.asleep, x.paused = 0, 0
			w.wakeAfter(x, 0, func() {
				x.stepWorker()
				for _, g := range w.guestsOf(x) {
					if x.holdsRunning(g) {
						x.resume(g)
					}
				}
			})
		}
		x.do(func() {
			x.stepWorker(market.WorkerEvent{Kind: market.Mine})
			x.stepWorker(market.WorkerEvent{Kind: market.Sleeping})
		})
	}
	for _, x := range w.nodes {
		w.presence(x, x.up && !x.idle())
	}
}
