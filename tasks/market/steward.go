package market

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// rejoinWait is how long a new leader holds back tasks that somebody may be running, while workers come to it and
	// say what they hold. Of an exclusive job it waits until every lease of others must have lapsed.
	rejoinWait = 300 * time.Millisecond
	// rejoinSpare is how many open tasks, the lowest, are held back meanwhile; they are granted in ascending order, so
	// those beyond are not likely to be in anybody's hands.
	rejoinSpare = 256

	hearMax     = 4 * time.Second  // a worker silent for longer gets no new lease
	proposeWait = 5 * time.Second  // a proposal that came to nothing is forgotten after this
	avoidTime   = 30 * time.Second // a worker that could not run a task is spared it for so long …
	busyTime    = time.Second      // … or so, if it just had no room
	retryBase   = time.Second      // the only worker that there is gets a task that it failed at again after this, doubling
	retryMax    = time.Minute
	lookAgain   = time.Second // between two looks at what could not be granted, or may be late

	// overslept is by how much a Step must be late for this machine to have slept, or nearly so: then it heard no renewal,
	// and takes nobody's silence for a lapse.
	overslept = time.Second

	workersMax = 1024 // standing workers of one job
	avoidMax   = 1024 // tasks that one worker is spared
	pickTries  = 64   // open tasks looked at for one grant
)

// StewardKind is what happened to a steward.
type StewardKind uint8

// The kinds of event, with the fields they use.
const (
	StewardTick StewardKind = iota // time passed: call at Out.Wake
	Lead                           // Term, View, Stewards: this peer leads the group
	Follow                         // Term, Peer: it does not; Peer leads, if known
	Joined                         // Peer, Stream: it opened a stream, which takes the place of an earlier one
	Reported                       // Peer, Stream, Report
	Left                           // Peer, Stream: it ended
	Result                         // Applied: an entry of the log
	Refused                        // Commands, Never: proposing them failed
	Confirmed                      // Term, At: a quorum followed this peer in that term at At or later
)

// StewardEvent is one thing that happened to a steward; Kind says which fields count.
type StewardEvent struct {
	Kind     StewardKind
	Peer     peer.ID
	Stream   uint64 // a number that the shell gives each stream, never twice
	Term     uint64
	At       Moment
	View     View
	Stewards []peer.ID
	Report   *Report
	Applied  Applied
	Commands []Command
	Never    bool // they will not come to pass either
}

// StewardOut is what a steward has its shell do, in this order. It is valid until the next Step.
type StewardOut struct {
	Propose  []Command // as one batch or several, in order; failures come back as Refused
	Orders   []Addressed
	Announce *Ad    // to gossip; its Stewards are the caller's to complete with addresses
	Confirm  bool   // ask the quorum whether this peer still leads; see Confirmed
	Wake     Moment // when to send a StewardTick; zero when nothing depends on time
}

// Addressed is an order and whom it is for.
type Addressed struct {
	To     peer.ID
	Stream uint64
	Order  *Order // the receiver's to keep
}

// Steward is the soft state of one job's leading steward. One goroutine owns it. All of it may be lost at any time.
type Steward struct {
	self   peer.ID
	id     job.ID
	guards Guards

	leader   peer.ID // while not leading
	leading  bool
	term     uint64
	seq      uint64 // last token's
	led      Moment
	stewards []peer.ID
	view     View
	over     bool

	welcomeAt Moment // before this, of an exclusive job, an earlier leader may still act
	grantFrom Moment // before this tasks that others may hold are held back
	confirmed Moment // a quorum followed at this moment

	taken   taskSet // closed, leased, or on the way to being closed; the reduce until it is ready
	low     uint32  // no open task below
	tasks   map[uint32]*task
	pending map[uint32]proposal // proposed, not applied
	pendDue Moment              // none of them is given up before
	won     winners

	workers map[peer.ID]*worker
	order   []*worker // by id
	skipped bool      // an open task was not granted although there was a slot

	adAt   Moment
	adLast Moment
	adWait time.Duration
	adSeq  uint64
	crowd  uint32 // workers asked by the last announcement
	wasDry bool
	lateAt Moment // when to look for stragglers again

	now Moment
	out StewardOut
}

// NewSteward returns the steward of a job on peer self, which does not lead.
func NewSteward(id job.ID, self peer.ID) *Steward { return NewStewardWith(usualGuards, id, self) }

// NewStewardWith is NewSteward for the simulator: with some guards only.
func NewStewardWith(g Guards, id job.ID, self peer.ID) *Steward {
	s := &Steward{self: self, id: id, guards: g, workers: map[peer.ID]*worker{}}
	s.forget()
	return s
}

// forget drops everything but who has a stream.
func (s *Steward) forget() {
	s.view, s.taken, s.over, s.low = View{}, taskSet{}, false, 0
	s.tasks, s.pending, s.won = map[uint32]*task{}, map[uint32]proposal{}, winners{}
	s.crowd, s.seq, s.adSeq, s.adAt, s.lateAt, s.pendDue, s.confirmed, s.welcomeAt, s.grantFrom = 0, 0, 0, 0, 0, 0, 0, 0, 0
	for id, w := range s.workers {
		if !w.here {
			delete(s.workers, id)
		}
		w.held, w.avoid, w.due, w.flying = map[uint32]*lease{}, map[uint32]Moment{}, 0, nil
		w.greeted, w.ready, w.claimed = false, false, false
	}
	s.order = slices.DeleteFunc(s.order, func(w *worker) bool { return !w.here })
}

// Step takes events in, in their order, and says what to do. Give it all that have gathered: they are answered together.
// The answer is valid until the next Step.
func (s *Steward) Step(now Moment, events ...StewardEvent) *StewardOut {
	late := s.now
	if s.out.Wake != 0 {
		late = s.out.Wake
	}
	s.now = now
	s.out = StewardOut{Propose: s.out.Propose[:0], Orders: s.out.Orders[:0]}
	if s.leading && now.Sub(late) >= overslept {
		s.refresh()
	}
	for i := range events {
		s.apply(&events[i])
	}
	if s.leading {
		s.lapse()
		s.welcome()
		s.fill()
		s.announce()
	}
	s.send()
	s.out.Wake = s.wake()
	return &s.out
}

func (s *Steward) apply(ev *StewardEvent) {
	switch ev.Kind {
	case Lead:
		s.lead(ev)
	case Follow:
		s.follow(ev)
	case Joined:
		s.join(ev.Peer, ev.Stream)
	case Reported:
		if w := s.workers[ev.Peer]; w != nil && w.here && w.stream == ev.Stream {
			s.report(w, ev.Report)
		}
	case Left:
		if w := s.workers[ev.Peer]; w != nil && w.here && w.stream == ev.Stream {
			s.leave(w)
		}
	case Result:
		if s.leading && ev.Applied.Index > s.view.Index {
			s.applied(ev.Applied)
		}
	case Refused:
		for _, c := range ev.Commands {
			if p, ok := s.pending[c.Task]; ok && p.token == c.Token && (ev.Never || s.leading && !s.exclusive()) {
				s.unpend(c.Task)
			}
		}
	case Confirmed:
		if s.leading && ev.Term == s.term && ev.At <= s.now {
			s.confirmed = max(s.confirmed, ev.At)
		}
	}
}

// lead begins a reign.
func (s *Steward) lead(ev *StewardEvent) {
	if ev.Term <= s.term && s.leading {
		return
	}
	s.forget()
	s.leading, s.leader, s.term, s.led, s.stewards = true, s.self, ev.Term, s.now, ev.Stewards
	s.view, s.over = ev.View, ev.View.Over
	s.taken = s.view.closed.clone()
	for t, peers := range s.view.failures {
		s.tasks[t] = &task{failures: peers}
	}
	if s.view.Splits < s.view.All {
		s.taken.add(s.view.Splits)
		s.readyReduce()
	}
	s.adWait, s.adAt = adFirst, s.now
	if s.term == s.view.Born {
		return // nobody was granted anything before
	}
	s.grantFrom = s.now.Add(rejoinWait)
	s.adAt = s.grantFrom
	if s.exclusive() {
		s.welcomeAt = s.now.Add(stretched(authorityTTL))
		s.grantFrom = s.now.Add(stretched(authorityTTL + LeaseTTL))
	}
}

// exclusive: the job's tasks must never run twice at a time.
func (s *Steward) exclusive() bool { return s.view.Spec.Exclusive && s.guards&LeaseGuard != 0 }

// salvages: a late result is as good as any.
func (s *Steward) salvages() bool { return !s.view.Spec.Exclusive || s.guards&TokenGuard == 0 }

// authority: leases may be granted and renewed. A leader of an exclusive job must know that it was one a moment ago.
func (s *Steward) authority() bool {
	if !s.exclusive() {
		return true
	}
	if s.confirmed == 0 || s.now >= s.confirmed.Add(authorityTTL/2) {
		s.out.Confirm = true
	}
	return s.confirmed != 0 && s.now < s.confirmed.Add(authorityTTL)
}

func (s *Steward) follow(ev *StewardEvent) {
	if ev.Term < s.term {
		return
	}
	if s.leading || s.leader != ev.Peer || s.term != ev.Term {
		s.leading, s.leader, s.term = false, ev.Peer, ev.Term
		s.forget()
		for _, w := range s.order {
			s.refer(w)
		}
	}
}

// refer sends a worker to the leader.
func (s *Steward) refer(w *worker) {
	o := s.reply(w)
	o.NotLeader, o.Leader = true, s.leader
}

// open is how many tasks could be granted.
func (s *Steward) open() int { return int(s.view.All) - s.taken.count }

// welcome tells workers that this leader is ready to hear what they hold.
func (s *Steward) welcome() {
	if s.over {
		return
	}
	if s.now < s.welcomeAt || !s.authority() {
		return
	}
	for _, w := range s.order {
		if w.here && !w.ready && (!w.greeted || w.reply != nil) {
			w.greeted = true
			s.reply(w).Welcome = true
		}
	}
}

// reply returns the order that this step makes for w.
func (s *Steward) reply(w *worker) *Order {
	if w.reply == nil {
		w.reply = &Order{}
	}
	return w.reply
}

// send numbers and addresses what was written.
func (s *Steward) send() {
	for _, w := range s.order {
		o := w.reply
		if w.reply = nil; o == nil || !w.here {
			continue
		}
		w.out++
		o.Seq, o.Ack, o.Full, o.Term = w.out, w.in, w.full, s.term
		w.full = 0 // an order that is lost renews nothing, for what it revoked is lost with it
		if s.leading {
			o.Open = uint32(s.open())
			o.Over = s.over
		}
		for _, g := range o.Grants {
			w.held[g.Task].sent = w.out
		}
		if len(o.Grants) > 0 {
			w.flying = append(w.flying, flight{w.out, len(o.Grants)})
		}
		s.out.Orders = append(s.out.Orders, Addressed{w.id, w.stream, o})
	}
}

// wake is when something here depends on time next.
func (s *Steward) wake() Moment {
	if !s.leading || s.over {
		return 0
	}
	var at Moment
	next := func(m Moment) {
		if m > s.now {
			at = earlier(at, m)
		}
	}
	for _, w := range s.order {
		next(w.due)
	}
	if !s.exclusive() {
		next(s.pendDue)
	}
	next(s.welcomeAt)
	next(s.grantFrom)
	next(s.lateAt)
	if s.open() > 0 {
		next(s.adAt)
		if s.skipped {
			next(s.now.Add(lookAgain))
		}
	}
	if s.exclusive() && (s.open() > 0 || len(s.tasks) > 0) {
		next(s.now.Add(authorityTTL / 2))
	}
	return at
}
