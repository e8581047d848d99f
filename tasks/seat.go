package tasks

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	// seatBox bounds the events that wait for a seat's goroutine before its streams are not read from any more.
	seatBox = 4096
	// proposing is how many batches of one seat are on their way into the log at a time; what gathers meanwhile goes together. More
	// than one costs more messages and syncs than it saves waiting: four were a tenth slower with small tasks.
	proposing = 1
	// proposeGap is how long after one batch the next is proposed in a job with many open tasks, whose workers have some ready: each
	// batch is a sync and two messages for each steward, however few tasks it closes.
	proposeGap = 20 * time.Millisecond
	manyOpen   = 64
	// proposeWait bounds how long a batch is tried.
	proposeWait = 10 * time.Second
	// homeFirst is how long the worker beside the leading steward may take tasks before the pool hears of them.
	homeFirst = 5 * time.Millisecond
	// confirmWait bounds the question whether this peer still leads.
	confirmWait = 2 * time.Second
)

// machine is a job's ledger as quorum wants it.
type machine struct {
	*market.Ledger
	seat *seat
}

func (m machine) Apply(e quorum.Entry) []byte {
	reply := m.Ledger.Apply(e.Index, e.Term, e.Data)
	m.seat.clerk.look()
	return reply
}

func (m machine) Restore(snapshot []byte) error {
	if err := m.Ledger.Restore(snapshot); err != nil {
		return err
	}
	m.seat.watchers.resync()
	m.seat.clerk.look()
	m.seat.box.put(seatEvent{do: m.seat.reign})
	return nil
}

// seat is this peer's part as a steward of one job. run's goroutine owns the steward and all fields below the line.
type seat struct {
	t      *Tasks
	id     job.ID
	ledger *market.Ledger
	group  *quorum.Group // set before begin, under t.mu
	box    *mailbox[seatEvent]
	ctx    context.Context // ends with the seat
	cancel context.CancelFunc

	watchers watchers
	clerk    clerk
	ad       atomic.Pointer[market.Ad] // the last announcement of this reign
	leading  atomic.Bool
	rate     rate
	began    atomic.Int64 // when it came to be, in nanoseconds of Config.Boot: the time of day may leap
	keeping  atomic.Bool  // upkeep is at work
	rounds   atomic.Int64 // of upkeep since the job is over

	steward    *market.Steward
	status     quorum.Status
	led        uint64 // the term in which the steward was told that it leads
	followed   follow // what it was told otherwise
	events     []market.StewardEvent
	sinks      map[uint64]*sink
	of         map[peer.ID]uint64 // each worker's stream
	toPropose  []market.Command
	flying     int       // batches
	proposed   time.Time // the last one
	gathering  bool      // until proposeGap is over
	confirming bool
	count      tally
	timer      *time.Timer
}

type follow struct {
	leader peer.ID
	term   uint64
	said   bool
}

// seatEvent is an event of the steward, or something to be done on the seat's goroutine.
type seatEvent struct {
	market.StewardEvent
	do func()
}

// sink takes the orders for one worker's stream.
type sink struct {
	peer  peer.ID
	send  func(*market.Order) bool // false: it has no room
	close func()
}

func (t *Tasks) newSeat(id job.ID) *seat {
	s := &seat{
		t: t, id: id, box: newMailbox[seatEvent](seatBox), steward: market.NewSteward(id, t.self),
		sinks: map[uint64]*sink{}, of: map[peer.ID]uint64{},
	}
	s.began.Store(int64(t.cfg.Boot()))
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	s.ledger = market.NewLedger(id, s.applied)
	s.clerk.init(s)
	return s
}

// applied is called by the ledger for each entry.
func (s *seat) applied(a market.Applied) {
	s.box.put(seatEvent{StewardEvent: market.StewardEvent{Kind: market.Result, Applied: a}})
	s.watchers.applied(a)
	s.clerk.applied(a)
	done := 0
	for i := range a.Outcomes {
		if o := &a.Outcomes[i]; o.Kind == market.Finish && o.Status == market.Committed {
			done++
		}
	}
	if done > 0 {
		s.rate.add(s.t.second(), done)
	}
}

// begin lets the seat work in its group.
func (s *seat) begin(g *quorum.Group) {
	s.timer = time.NewTimer(time.Hour)
	if !s.t.start(s.run) {
		s.cancel()
		return
	}
	stop := g.Watch(func(st quorum.Status) {
		s.box.put(seatEvent{do: func() { s.statusIs(st) }})
	})
	context.AfterFunc(s.ctx, stop)
	s.clerk.begin()
}

// run is the seat's goroutine.
func (s *seat) run() {
	defer s.end()
	for {
		select {
		case <-s.box.wake:
		case <-s.timer.C:
		case <-s.ctx.Done():
			return
		}
		s.step(s.box.take())
	}
}

// end lets go of everything. The group may go on to exist; then the peer is closing.
func (s *seat) end() {
	s.cancel()
	s.box.close()
	s.timer.Stop()
	s.leading.Store(false)
	s.ad.Store(nil)
	for n := range s.sinks {
		s.drop(n)
	}
	s.watchers.close()
	s.clerk.close()
	s.t.gone(s)
}

// step gives the steward what gathered, and carries out what it says.
func (s *seat) step(items []seatEvent) {
	for i := range items {
		if do := items[i].do; do != nil {
			do()
		} else {
			s.events = append(s.events, items[i].StewardEvent)
		}
	}
	if s.status.Leading && s.led != s.status.Term {
		s.reign() // the submission may have come
	}
	now := market.Moment(s.t.cfg.Boot())
	out := s.steward.Step(now, s.events...)
	clear(s.events)
	s.events = s.events[:0]
	if len(out.Propose) > 0 {
		s.toPropose = append(s.toPropose, out.Propose...)
		s.propose()
	}
	for _, a := range out.Orders {
		s.order(a)
	}
	if out.Announce != nil {
		s.announce(out.Announce)
	}
	if out.Confirm && !s.confirming {
		s.confirm(now)
	}
	s.setTimer(now, out.Wake)
}

func (s *seat) setTimer(now, wake market.Moment) {
	if wake == 0 {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(wake.Sub(now), 0))
}

func (s *seat) order(a market.Addressed) {
	s.count.orders(a)
	k := s.sinks[a.Stream]
	if k != nil && !k.send(a.Order) {
		s.left(a.Stream)
	}
}

// propose sends what gathered into the log, without waiting for it.
func (s *seat) propose() {
	if s.flying == 0 && len(s.toPropose) > 0 && s.steward.OpenTasks() >= manyOpen {
		if wait := proposeGap - time.Since(s.proposed); wait > 0 {
			if !s.gathering {
				s.gathering = true
				time.AfterFunc(wait, func() { s.box.put(seatEvent{do: func() { s.gathering = false; s.propose() }}) })
			}
			return
		}
	}
	for s.flying < proposing && len(s.toPropose) > 0 {
		batch := market.Batches(s.toPropose)[0]
		commands := slices.Clone(batch)
		s.toPropose = slices.Delete(s.toPropose, 0, len(batch))
		data, err := market.EncodeBatch(s.t.cfg.Now(), commands)
		if err != nil { // a bound of our own is broken
			s.t.log.Error("tasks: a batch cannot be encoded", "job", s.id.Short(), "err", err)
			s.events = append(s.events, market.StewardEvent{Kind: market.Refused, Commands: commands, Never: true})
			s.box.put() // to be stepped again
			continue
		}
		s.flying++
		s.proposed = time.Now()
		if !s.t.start(func() { s.proposeOne(data, commands) }) {
			return
		}
	}
}

func (s *seat) proposeOne(data []byte, commands []market.Command) {
	ctx, cancel := context.WithTimeout(s.ctx, proposeWait)
	defer cancel()
	_, err := s.group.Propose(ctx, data)
	s.box.put(seatEvent{do: func() {
		s.flying--
		if err != nil {
			never := !errors.Is(err, quorum.ErrMaybe) && !errors.Is(err, quorum.ErrClosed)
			s.events = append(s.events, market.StewardEvent{Kind: market.Refused, Commands: commands, Never: never})
		}
		s.propose()
	}})
}

// confirm asks the quorum whether this peer still leads.
func (s *seat) confirm(at market.Moment) {
	s.confirming = true
	term := s.led
	s.t.start(func() {
		ctx, cancel := context.WithTimeout(s.ctx, confirmWait)
		defer cancel()
		err := s.group.Read(ctx)
		st := s.group.Status()
		ok := err == nil && st.Leading && st.Term == term
		s.box.put(seatEvent{do: func() {
			s.confirming = false
			if ok {
				s.events = append(s.events, market.StewardEvent{Kind: market.Confirmed, Term: term, At: at})
			}
		}})
	})
}

// announce tells this peer's own worker that tasks are open and, if some still are a moment later, the pool: to find out who else
// is there costs several times what a small task does.
func (s *seat) announce(ad *market.Ad) {
	said := *ad
	if voters := votersOf(s.status); len(voters) > 0 {
		said.Stewards = voters
	}
	s.ad.Store(&said)
	s.t.hand.announced(&said)
	time.AfterFunc(homeFirst, func() {
		s.box.put(seatEvent{do: func() {
			if now := s.ad.Load(); now == &said && s.steward.OpenTasks() > 0 {
				s.t.announce(&said)
			}
		}})
	})
}

// votersOf lists the peers that have a vote.
func votersOf(st quorum.Status) (out []peer.ID) {
	for _, m := range st.Members {
		if !m.Learner && !m.Lost {
			out = append(out, m.Peer)
		}
	}
	return out
}

// statusIs takes a new status of the group in.
func (s *seat) statusIs(st quorum.Status) {
	if st.Err != nil && !errors.Is(st.Err, quorum.ErrClosed) {
		s.t.log.Error("tasks: a steward stopped", "job", s.id.Short(), "err", st.Err)
	}
	if st.Dissolved || st.Err != nil {
		s.cancel()
		return
	}
	s.status = st
	s.reign()
}

// reign tells the steward whether it leads.
func (s *seat) reign() {
	st := s.status
	if !st.Leading {
		s.led = 0
		s.leading.Store(false)
		s.ad.Store(nil)
		if f := (follow{st.Leader, st.Term, true}); f != s.followed {
			s.followed = f
			s.events = append(s.events, market.StewardEvent{Kind: market.Follow, Term: st.Term, Peer: st.Leader})
			s.watchers.changed()
		}
		return
	}
	if s.led == st.Term {
		return
	}
	view, ok := s.ledger.View()
	if !ok {
		return // there is no submission yet; its result brings us here again
	}
	s.led, s.followed = st.Term, follow{}
	s.count.begin(int(view.All))
	s.leading.Store(true)
	s.events = append(s.events, market.StewardEvent{Kind: market.Lead, Term: st.Term, View: view, Stewards: votersOf(st)})
	s.clerk.reign()
	s.watchers.changed()
}

// join takes a worker's stream in. It may be called by anybody. The number is for left, and for reported.
func (s *seat) join(k *sink) (number uint64) {
	number = s.t.streams.Add(1)
	s.box.put(seatEvent{do: func() {
		if old, ok := s.of[k.peer]; ok {
			s.drop(old)
		}
		s.sinks[number], s.of[k.peer] = k, number
		s.events = append(s.events, market.StewardEvent{Kind: market.Joined, Peer: k.peer, Stream: number})
	}})
	return number
}

// leave ends a worker's stream. It may be called by anybody.
func (s *seat) leave(number uint64) { s.box.put(seatEvent{do: func() { s.left(number) }}) }

// left is leave on the seat's goroutine.
func (s *seat) left(number uint64) {
	k := s.sinks[number]
	if k == nil {
		return
	}
	s.drop(number)
	s.box.put(seatEvent{StewardEvent: market.StewardEvent{Kind: market.Left, Peer: k.peer, Stream: number}})
}

// drop closes a stream of which the steward need not hear.
func (s *seat) drop(number uint64) {
	k := s.sinks[number]
	if k == nil {
		return
	}
	delete(s.sinks, number)
	if s.of[k.peer] == number {
		delete(s.of, k.peer)
	}
	k.close()
}

// reported is a report on a worker's stream.
func (s *seat) reported(from peer.ID, stream uint64, r *market.Report) seatEvent {
	return seatEvent{StewardEvent: market.StewardEvent{Kind: market.Reported, Peer: from, Stream: stream, Report: r}}
}

// call runs f on the seat's goroutine and waits for it.
func (s *seat) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	s.box.put(seatEvent{do: func() { defer close(done); f() }})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return s.closedOr(ErrNoJob)
	}
}

// closedOr is why a seat that has ended answers no more: err, or that this peer ends, which says nothing of the job.
func (s *seat) closedOr(err error) error {
	if s.t.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}
