package tasks

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
	"github.com/shoal-os/shoal/tasks/talk/pb"
)

const (
	// handBox bounds the events that wait for the worker's goroutine before its streams are not read from any more.
	handBox = 4096
	// lendsEvery is how often it is asked what this peer lends.
	lendsEvery = 2 * time.Second
	// awakeEvery is how often the clocks are looked at while guests run: after a sleep those whose lease ran out are frozen
	// within this, if nothing else happens before. (Their children keep the time too.)
	awakeEvery = 500 * time.Millisecond
	// partWait is how long Close waits for what it still has to say.
	partWait = 500 * time.Millisecond
	// looksMax is how many jobs are looked at a time.
	looksMax = 4
	// adsAskWait bounds the question to a member that came, which jobs it leads.
	adsAskWait = 5 * time.Second
)

// hand is this peer as a worker: the shell of market.Worker. run's goroutine owns the worker and the fields below the line.
type hand struct {
	t     *Tasks
	box   *mailbox[handEvent]
	shelf *shelf
	looks chan struct{} // a slot for each look
	over  chan struct{} // closed when run ends

	mu     sync.Mutex
	tries  map[market.Attempt]*try
	briefs map[job.ID]*brief
	heard  map[job.ID]*market.Ad // the last announcement of each of some jobs

	worker  *market.Worker
	timer   *time.Timer
	lines   map[uint64]line
	lends   market.Lends
	mine    bool
	asleep  bool
	stopped bool
	events  []market.WorkerEvent
}

// handEvent is an event of the worker, or something to be done on its goroutine.
type handEvent struct {
	market.WorkerEvent
	do func()
}

func newHand(t *Tasks) *hand {
	return &hand{
		t: t, box: newMailbox[handEvent](handBox), shelf: newShelf(t), looks: make(chan struct{}, looksMax), over: make(chan struct{}),
		tries: map[market.Attempt]*try{}, briefs: map[job.ID]*brief{}, worker: market.NewWorker(t.self), timer: time.NewTimer(time.Hour),
		lines: map[uint64]line{}, heard: map[job.ID]*market.Ad{},
	}
}

// run is the worker's goroutine.
func (h *hand) run() {
	defer close(h.over)
	defer h.timer.Stop()
	lends := time.NewTicker(lendsEvery)
	defer lends.Stop()
	awake := time.NewTicker(awakeEvery)
	defer awake.Stop()
	h.refresh()
	for !h.stopped {
		select {
		case <-h.box.wake:
		case <-h.timer.C:
		case <-awake.C:
			if h.running() == 0 {
				continue
			}
		case <-lends.C:
			h.refresh()
		}
		h.step(h.box.take())
	}
	h.box.close()
}

func (h *hand) running() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tries)
}

// stop gives everything back, says so, and ends run.
func (h *hand) stop() {
	lines := h.tell(context.Background(), market.WorkerEvent{Kind: market.Stopping}, func() { h.stopped = true })
	<-h.over
	ctx, cancel := context.WithTimeout(context.Background(), partWait)
	defer cancel()
	for _, l := range lines {
		l.flush(ctx)
		l.close()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.tries {
		x.kill()
	}
	h.shelf.close()
}

// tell gives the worker an event, waits for the step in which it takes it, and returns the streams on which it may have said
// something then. and is run on the worker's goroutine after that step.
func (h *hand) tell(ctx context.Context, ev market.WorkerEvent, and func()) []line {
	var lines []line
	taken := make(chan struct{})
	h.box.put(handEvent{WorkerEvent: ev}, handEvent{do: func() {
		h.box.put(handEvent{do: func() { // after the step with ev
			and()
			lines = slices.Collect(maps.Values(h.lines))
			close(taken)
		}})
	}})
	select {
	case <-taken:
	case <-h.over:
	case <-ctx.Done():
		return nil
	}
	return lines
}

// refresh asks what this peer lends.
func (h *hand) refresh() {
	l := h.t.cfg.Lends()
	if h.t.role(h.t.self) < ident.RoleMember {
		l.Cores, l.Why = 0, "its role is to give commands only"
	}
	if l.Peers == 0 {
		for _, m := range h.t.cfg.Members.Members() {
			if m.Self || m.State == roster.Online {
				l.Peers++
			}
		}
	}
	if !reflect.DeepEqual(l, h.lends) {
		h.lends = l
		h.events = append(h.events, market.WorkerEvent{Kind: market.Changed, Lends: l})
	}
}

// step gives the worker what gathered, and carries out what it says.
func (h *hand) step(items []handEvent) {
	for i := range items {
		if do := items[i].do; do != nil {
			do()
		} else {
			h.events = append(h.events, items[i].WorkerEvent)
		}
	}
	now := market.Moment(h.t.cfg.Boot())
	out := h.worker.Step(now, h.events...)
	clear(h.events)
	h.events = h.events[:0]
	h.rule(out)
	for _, p := range out.Posts {
		if l := h.lines[p.Stream]; l != nil && !l.post(p.Report) {
			h.hangup(p.Stream)
			h.box.put(handEvent{WorkerEvent: market.WorkerEvent{Kind: market.Hungup, Job: p.Job, Stream: p.Stream}})
		}
	}
	for _, n := range out.Hangup {
		h.hangup(n)
	}
	for _, d := range out.Dials {
		h.dial(d)
	}
	for _, s := range out.Starts {
		h.begin(s)
	}
	for _, ad := range out.Looks {
		h.look(*ad)
	}
	if out.Wake == 0 {
		h.timer.Stop()
	} else {
		h.timer.Reset(max(out.Wake.Sub(now), 0))
	}
}

// rule freezes, thaws and ends what runs.
func (h *hand) rule(out *market.WorkerOut) {
	if len(out.Freeze)+len(out.Until)+len(out.Thaw)+len(out.Kill) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range out.Freeze {
		if x := h.tries[a]; x != nil {
			x.freeze()
		}
	}
	for _, u := range out.Until {
		if x := h.tries[u.Attempt]; x != nil {
			x.mayUntil(u.Until)
		}
	}
	for _, a := range out.Thaw {
		if x := h.tries[a]; x != nil {
			x.thaw()
		}
	}
	for _, a := range out.Kill {
		if x := h.tries[a]; x != nil {
			x.kill()
			delete(h.tries, a)
		}
	}
}

func (h *hand) hangup(stream uint64) {
	if l := h.lines[stream]; l != nil {
		delete(h.lines, stream)
		l.close()
	}
}

// begin starts an attempt.
func (h *hand) begin(s market.Start) {
	x := newTry(h, s)
	h.mu.Lock()
	h.tries[s.Attempt] = x
	h.mu.Unlock()
	if !h.t.start(x.run) {
		h.ended(x, market.End{Why: market.Leaving})
	}
}

// ended tells the worker how an attempt ended, unless it was killed.
func (h *hand) ended(x *try, e market.End) {
	h.mu.Lock()
	mine := h.tries[x.Attempt] == x
	if mine {
		delete(h.tries, x.Attempt)
	}
	h.mu.Unlock()
	if !mine {
		return
	}
	e.Lease = x.Lease
	h.box.put(handEvent{WorkerEvent: market.WorkerEvent{Kind: market.Ended, Job: x.Job, End: e}})
}

// try returns a running attempt at a task: the one with a token, or the newest if that is zero.
func (h *hand) try(id job.ID, task uint32, token job.Token) *try {
	h.mu.Lock()
	defer h.mu.Unlock()
	var best *try
	for a, x := range h.tries {
		if a.Job == id && a.Task == task && (a.Token == token || token == job.Token{} && (best == nil || best.Token.Less(a.Token))) {
			best = x
		}
	}
	return best
}

// announced tells the worker of a job with open tasks.
func (h *hand) announced(ad *market.Ad) {
	said := *ad
	h.mu.Lock()
	if len(h.heard) >= briefsMax && h.heard[ad.Job] == nil {
		for id := range h.heard { // any one
			delete(h.heard, id)
			break
		}
	}
	h.heard[ad.Job] = &said
	h.mu.Unlock()
	h.box.putWait(h.t.ctx, handEvent{WorkerEvent: market.WorkerEvent{Kind: market.Announced, Ad: &said}})
}

// heardOf lists the stewards that a job's last announcement named, its leader first.
func (h *hand) heardOf(id job.ID) []peer.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ad := h.heard[id]; ad != nil {
		return append([]peer.ID{ad.Leader}, ad.Stewards...)
	}
	return nil
}

// met asks a member that came which jobs it leads: announcements may have been made before.
func (t *Tasks) met(id peer.ID) {
	t.start(func() {
		ctx, cancel := context.WithTimeout(t.ctx, adsAskWait)
		defer cancel()
		a, err := t.ask(ctx, id, &pb.Ask{Kind: talk.AskAds})
		if err != nil || len(a.GetAds()) > talk.AdsMax {
			return
		}
		for _, m := range a.GetAds() {
			if ad, err := talk.AdFrom(m); err == nil && ad.Leader == id {
				t.hand.announced(ad)
			}
		}
	})
}

// call runs f on the worker's goroutine and waits for it.
func (h *hand) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	h.box.put(handEvent{do: func() { defer close(done); f() }})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.over:
		return ErrClosed
	}
}

// why says what this peer does about a job.
func (h *hand) why(ctx context.Context, id job.ID) (text string, err error) {
	err = h.call(ctx, func() { text = h.worker.Why(id) })
	return text, err
}

// Mine takes this machine back for its owner, or lends it again: with on, what runs here is frozen at once and given back.
func (t *Tasks) Mine(on bool) {
	t.hand.box.put(handEvent{do: func() { t.hand.mine = on }}, handEvent{WorkerEvent: market.WorkerEvent{Kind: market.Mine, On: on}})
}

// Sleep says that this machine is about to sleep, or with on false that it woke or stays awake after all. Before it sleeps what runs
// here is frozen and given back, so that others go on with it at once and not only when its leases are over; Sleep returns when
// that is on its way to the stewards, or when ctx ends. After Close it does nothing. The same may be said again.
func (t *Tasks) Sleep(ctx context.Context, on bool) {
	h := t.hand
	for _, l := range h.tell(ctx, market.WorkerEvent{Kind: market.Sleeping, On: on}, func() { h.asleep = on }) {
		l.flush(ctx)
	}
}

// Refresh asks Config.Lends now.
func (t *Tasks) Refresh() { t.hand.box.put(handEvent{do: t.hand.refresh}) }

// Status describes this peer's part. After Close it is the zero value.
func (t *Tasks) Status() (out WorkerStatus) {
	h := t.hand
	err := h.call(t.ctx, func() {
		out.Lends, out.Mine, out.Asleep = h.lends, h.mine, h.asleep
		for _, a := range h.worker.Held() {
			out.Held = append(out.Held, Held{Job: a.Job, Lease: leaseOf(a.Standing)})
		}
	})
	if err != nil {
		return WorkerStatus{}
	}
	for i := range out.Held {
		if b := h.briefOf(out.Held[i].Job); b != nil {
			out.Held[i].Name = b.signed.Spec.Name
		}
	}
	for _, s := range t.allSeats() {
		out.Seats++
		if s.leading.Load() {
			out.Leads++
		}
	}
	return out
}

func leaseOf(s market.Standing) Lease {
	return Lease{Task: int(s.Task), Token: s.Token, Worker: s.Worker, Phase: s.Phase, Ran: s.Ran, Copy: s.Copy}
}
