package quorum

import (
	"container/heap"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/storage/quorum/wal"
)

const (
	// inboxMax bounds the messages of others that wait for a group's next step, in number and in bytes. More are dropped:
	// Raft sends again.
	inboxMax   = 4096
	inboxBytes = 16 << 20
	// turns is how many steps a group takes in a row when events keep coming, before others get their turn.
	turns = 8
)

// scheduler holds the groups that have events to look at.
type scheduler struct {
	mu    sync.Mutex
	some  sync.Cond
	queue []*Group
	over  bool
}

func (s *scheduler) init() { s.some.L = &s.mu }

func (s *scheduler) add(g *Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, g)
	s.some.Signal()
}

// next waits for a group; nil: there will be none.
func (s *scheduler) next() *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.over {
		s.some.Wait()
	}
	if s.over {
		return nil
	}
	g := s.queue[0]
	s.queue[0] = nil
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return g
}

func (s *scheduler) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.some.Broadcast()
}

// work lets groups take their steps, until the engine closes.
func (e *Engine) work() {
	for g := e.sched.next(); g != nil; g = e.sched.next() {
		g.process()
	}
}

// inbox holds a group's events until a worker looks at them. A group is in the queue, or with a worker, at most once.
type inbox struct {
	mu     sync.Mutex
	events []replica.Event
	heard  int // messages of others among them
	bytes  int // of those
	queued bool
	ended  bool
}

// post gives the replica events. It never blocks.
func (g *Group) post(events ...replica.Event) {
	g.inbox.mu.Lock()
	g.inbox.events = append(g.inbox.events, events...)
	g.queue()
}

// receive gives the replica a message of another one, unless too many wait.
func (g *Group) receive(ev replica.Receive, size int) {
	g.inbox.mu.Lock()
	if g.inbox.heard >= inboxMax || g.inbox.bytes > inboxBytes {
		g.inbox.mu.Unlock()
		return
	}
	g.inbox.heard++
	g.inbox.bytes += size
	g.inbox.events = append(g.inbox.events, ev)
	g.queue()
}

// queue puts the group into the scheduler's queue, if it is not there, and unlocks the inbox.
func (g *Group) queue() {
	add := !g.inbox.queued && !g.inbox.ended
	if add {
		g.inbox.queued = true
	}
	g.inbox.mu.Unlock()
	if add {
		g.e.sched.add(g)
	}
}

// process lets the replica take a few steps. One worker at a time has the group.
func (g *Group) process() {
	for range turns {
		g.inbox.mu.Lock()
		events := g.inbox.events
		g.inbox.events, g.inbox.heard, g.inbox.bytes = nil, 0, 0
		g.inbox.mu.Unlock()
		g.step(events)
		g.inbox.mu.Lock()
		if len(g.inbox.events) == 0 || g.inbox.ended {
			g.inbox.queued = false
			g.inbox.mu.Unlock()
			return
		}
		g.inbox.mu.Unlock()
	}
	g.e.sched.add(g)
}

// step is one step of the replica, and what follows from it.
func (g *Group) step(events []replica.Event) {
	g.stepMu.Lock()
	defer g.stepMu.Unlock()
	if g.over {
		return
	}
	out := g.rep.Step(g.e.now(), events...)
	g.save(out.Saves)
	g.e.sendAll(g, out.Send)
	g.apply(out.Apply, out.Snapshot)
	st := g.rep.Status()
	if st.Gone && st.Book.Dissolved {
		g.dissolved.Store(true) // so that those who wait are told why
	}
	if out.Changed {
		g.changed() // before the answers: who is told of a change then sees it in the status
	}
	for _, d := range out.Done {
		g.requests.end(d.ID, outcome{reason: d.Reason})
	}
	if !out.Idle {
		g.e.timers.set(g, out.Wake)
	}
	if st.Gone {
		go g.finish(st.Book.Dissolved)
	} else if st.Err != nil && !g.failed {
		g.failed = true
		g.e.log.Error("quorum: a replica stopped", "group", g.id, "kind", g.kind, "err", st.Err)
	}
}

// save hands records to the log.
func (g *Group) save(saves []replica.Save) {
	if len(saves) == 0 {
		return
	}
	records := make([]wal.Record, 0, len(saves))
	sync, whole, last := false, false, uint64(0)
	for _, s := range saves {
		kind := wal.More
		if s.Whole {
			kind, whole = wal.Whole, true
		}
		if s.Sync {
			sync, last = true, s.Seq
		}
		records = append(records, wal.Record{Group: g.id, Kind: kind, Data: s.Record})
	}
	oldest := uint64(0) // snapshots before this one are needless once the records are durable
	if whole && sync {
		oldest = g.rep.SnapshotIndex()
	}
	_ = g.e.wal.Append(records, sync, func() { // a closed log: the engine is closing, and nothing will be said to be saved
		if sync {
			g.post(replica.Saved{Seq: last})
		}
		if oldest > 0 {
			g.wantTidy(oldest)
		}
	})
}

// timers wakes groups when something is due.
type timers struct {
	mu   sync.Mutex
	heap alarmHeap
	kick chan struct{}
}

// alarm is when to look at a group. A group that is to be woken later than its alarm says keeps it, and gets another one then:
// most wishes are put off again before they come true.
type alarm struct {
	at time.Duration
	g  *Group
}

type alarmHeap []alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h alarmHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *alarmHeap) Push(x any)        { *h = append(*h, x.(alarm)) }
func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = alarm{}
	*h = (*h)[:last]
	return x
}

func (t *timers) init() { t.kick = make(chan struct{}, 1) }

// set has a group woken at a time, instead of what was wished for before.
func (t *timers) set(g *Group, at time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g.wake = at
	if g.alarm != 0 && g.alarm <= at {
		return
	}
	g.alarm = max(at, 1)
	heap.Push(&t.heap, alarm{g.alarm, g})
	if t.heap[0].g == g {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// due takes out the groups to wake, and says when the next one is.
func (t *timers) due(now time.Duration) (wake []*Group, next time.Duration, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.heap) > 0 {
		a := t.heap[0]
		if a.at > now {
			return wake, a.at, true
		}
		heap.Pop(&t.heap)
		switch {
		case a.g.alarm != a.at: // an earlier one took its place
		case a.g.wake > now:
			a.g.alarm = a.g.wake
			heap.Push(&t.heap, alarm{a.g.alarm, a.g})
		default:
			a.g.alarm = 0
			wake = append(wake, a.g)
		}
	}
	return wake, 0, false
}

// runTimers wakes groups until the engine closes.
func (e *Engine) runTimers() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := e.now()
		wake, next, more := e.timers.due(now)
		for _, g := range wake {
			g.post()
		}
		if more {
			timer.Reset(next - now)
		}
		select {
		case <-timer.C:
		case <-e.timers.kick:
		case <-e.ctx.Done():
			return
		}
	}
}
