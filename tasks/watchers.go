package tasks

import (
	"context"
	"sync"
	"time"

	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
)

const (
	// watchersMax bounds those who watch one job at a steward.
	watchersMax = 256
	// newsMax bounds the closed tasks that one of them has not been told; beyond, all are looked at again.
	newsMax = 64 << 10
	// newsGap is how close two pieces of news of a job with more than newsSmall tasks follow each other.
	newsGap   = 10 * time.Millisecond
	newsSmall = 16
	// newsEvery is how often who watches hears something though nothing happened, so that a steward that is stopped is noticed:
	// after newsMute.
	newsEvery = 5 * time.Second
	newsMute  = 15 * time.Second
)

// watchers are those who watch a job at this steward.
type watchers struct {
	mu     sync.Mutex
	list   map[*watch]struct{}
	closed bool
}

// watch is one of them.
type watch struct {
	wake  chan struct{} // capacity 1
	end   chan struct{}
	tasks []uint32 // closed, not told; guarded by watchers.mu
	full  bool     // look at all
}

func (w *watchers) add() (*watch, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.list) >= watchersMax {
		return nil, false
	}
	if w.list == nil {
		w.list = map[*watch]struct{}{}
	}
	x := &watch{wake: make(chan struct{}, 1), end: make(chan struct{}), full: true}
	w.list[x] = struct{}{}
	return x, true
}

func (w *watchers) remove(x *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.list, x)
}

// applied notes what an entry closed. It may run within the ledger.
func (w *watchers) applied(a market.Applied) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.list {
		for i := range a.Outcomes {
			switch o := &a.Outcomes[i]; {
			case o.Status != market.Committed && o.Status != market.Poisoned:
			case len(x.tasks) >= newsMax:
				x.full = true
			default:
				x.tasks = append(x.tasks, o.Task)
			}
		}
		kick(x.wake)
	}
}

// resync has everybody look at all again.
func (w *watchers) resync() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.list {
		x.full = true
		kick(x.wake)
	}
}

// changed has everybody look at the progress and the leader again.
func (w *watchers) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.list {
		kick(x.wake)
	}
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for x := range w.list {
		close(x.end)
	}
	w.list = nil
}

// take returns what is to be looked at.
func (w *watchers) take(x *watch) (tasks []uint32, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tasks, full = x.tasks, x.full
	x.tasks, x.full = nil, false
	return tasks, full
}

func kick(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// bits is a set of tasks.
type bits []uint64

func (b *bits) add(t int) (fresh bool) {
	for t/64 >= len(*b) {
		*b = append(*b, 0)
	}
	fresh = (*b)[t/64]&(1<<(t%64)) == 0
	(*b)[t/64] |= 1 << (t % 64)
	return fresh
}

// watch tells emit what is closed, and then what comes to be, until the job is over or the seat ends; last is said with the last.
func (s *seat) watch(ctx context.Context, emit func(n *talk.News, last bool) error) error {
	x, ok := s.watchers.add()
	if !ok {
		return &talk.Refusal{Code: talk.Busy, Text: "too many watch this job here"}
	}
	defer s.watchers.remove(x)
	var told bits
	beat := time.NewTicker(newsEvery)
	defer beat.Stop()
	for {
		if signed := s.ledger.Job(); signed != nil {
			p := s.ledger.Progress()
			tasks, full := s.watchers.take(x)
			spans := s.closed(&signed.Spec, &told, tasks, full || p.Over)
			if err := s.tell(emit, p, spans); err != nil || p.Over {
				return err
			}
			if signed.Spec.All() > newsSmall {
				if err := pause(ctx, newsGap); err != nil {
					return err
				}
			}
		}
		select {
		case <-x.wake:
		case <-beat.C:
		case <-x.end:
			return s.closedOr(&talk.Refusal{Code: talk.NoJob, Text: "this peer is no steward of the job any more"})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// closed lists what is closed and was not told, in runs.
func (s *seat) closed(spec *job.Spec, told *bits, tasks []uint32, full bool) (out []talk.Span) {
	look := func(t int) {
		st := s.ledger.State(t)
		if st != market.Succeeded && st != market.Failed && st != market.Skipped || !told.add(t) {
			return
		}
		if n := len(out); n > 0 && out[n-1].State == st && int(out[n-1].First+out[n-1].Count) == t {
			out[n-1].Count++
			return
		}
		out = append(out, talk.Span{Span: market.Span{First: uint32(t), Count: 1}, State: st})
	}
	if full {
		for t := range spec.All() {
			look(t)
		}
		return out
	}
	for _, t := range tasks {
		look(int(t))
	}
	if spec.Reduce != nil { // which a failure of another closes
		look(spec.Tasks())
	}
	return out
}

func (s *seat) tell(emit func(*talk.News, bool) error, p market.Progress, spans []talk.Span) error {
	leader, _, _ := s.group.Leader()
	for {
		n := min(len(spans), talk.ClosedMax)
		rest := spans[n:]
		if err := emit(&talk.News{Progress: p, Leader: leader, Closed: spans[:n]}, p.Over && len(rest) == 0); err != nil || len(rest) == 0 {
			return err
		}
		spans = rest
	}
}
