package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"

	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/storage/quorum/wal"
)

// Group is this peer's part in one group. All methods are safe for concurrent use.
type Group struct {
	e     *Engine
	id    GroupID
	kind  string
	self  uint64 // the replica's number
	began time.Time

	inbox    inbox
	requests requests
	applier  applier

	stepMu sync.Mutex // held while the replica takes a step
	rep    *replica.Replica
	over   bool
	failed bool
	broken error // the machine's

	wake, alarm time.Duration // the timers'

	status    statusBoard
	finishing atomic.Bool
	dissolved atomic.Bool
}

func newGroup(e *Engine, id GroupID, st *replica.State, m Machine) (*Group, error) {
	g := &Group{e: e, id: id, kind: st.Kind, self: st.Self, began: time.Now()}
	g.requests.init()
	g.applier.init(m)
	g.status.init()
	if !st.Snapshot.Fresh {
		data, err := e.readSnapshot(id, st.Snapshot.Index)
		if err == nil {
			err = m.Restore(data)
		}
		if err != nil {
			return nil, fmt.Errorf("quorum: group %v: %w", id, err)
		}
	}
	var err error
	g.rep, err = replica.New(replica.Config{Seed: randomNumber(), Timing: e.cfg.Timing}, st, e.now())
	if err != nil {
		return nil, fmt.Errorf("quorum: group %v: %w", id, err)
	}
	g.status.set(g.describe())
	return g, nil
}

// ID is the group's.
func (g *Group) ID() GroupID { return g.id }

// Kind is what it was created as.
func (g *Group) Kind() string { return g.kind }

// Propose has a command agreed on and applied, and returns what this peer's own machine returned for it. It may be called on
// any member; the leader is found. It is applied once or not at all: while the outcome is certain Propose tries again by itself,
// under new leaders too, until ctx ends. Then it returns ErrNoQuorum (it was not applied and will not be) or ErrMaybe, joined with
// the context's error. data must not be changed afterwards.
func (g *Group) Propose(ctx context.Context, data []byte) (result []byte, err error) {
	results, err := g.ProposeBatch(ctx, data)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// ProposeBatch proposes commands in order, in as few steps as possible. It returns the results of all, or the first error; then
// any of the others may have been applied or not.
func (g *Group) ProposeBatch(ctx context.Context, data ...[]byte) (results [][]byte, err error) {
	events := make([]replica.Event, 0, len(data))
	size := int64(0)
	for _, d := range data {
		if len(d) > CommandMax {
			return nil, fmt.Errorf("quorum: propose %d bytes: %w", len(d), ErrTooLarge)
		}
		size += int64(len(d)) + commandCost
		events = append(events, replica.Propose{ID: g.e.request(), Data: d})
	}
	size = min(size, requestBytes)
	if err := g.requests.room.Acquire(ctx, size); err != nil {
		return nil, fmt.Errorf("quorum: propose: %w", errors.Join(ErrNoQuorum, err))
	}
	defer g.requests.room.Release(size)
	outcomes, err := g.ask(ctx, events...)
	if err != nil {
		return nil, fmt.Errorf("quorum: propose: %w", err)
	}
	for _, o := range outcomes {
		results = append(results, o.result)
	}
	return results, nil
}

// Read returns once this peer's machine has applied every command that was acknowledged, anywhere, before Read was called. On an
// error, ErrNoQuorum among them, it may be older.
func (g *Group) Read(ctx context.Context) error {
	if _, err := g.ask(ctx, replica.Read{ID: g.e.request()}); err != nil {
		return fmt.Errorf("quorum: read: %w", err)
	}
	return nil
}

// View calls f while the machine stands still. f must not block.
func (g *Group) View(f func(Machine)) {
	g.applier.machineMu.Lock()
	defer g.applier.machineMu.Unlock()
	f(g.applier.machine)
}

// Dissolve ends the group on all its members and deletes what they hold of it. Members that are away learn of it when they come back.
func (g *Group) Dissolve(ctx context.Context) error {
	_, err := g.ask(ctx, replica.Dissolve{ID: g.e.request()})
	if err == nil || errors.Is(err, ErrDissolved) {
		return nil
	}
	return fmt.Errorf("quorum: dissolve: %w", err)
}

const (
	// requestBytes bounds what is proposed on one group by this peer and not applied; who proposes more waits.
	requestBytes = 32 << 20
	// commandCost is what a command counts for beside its bytes.
	commandCost = 256
)

// outcome is how a request ended.
type outcome struct {
	reason replica.Reason
	result []byte
}

// ask gives the replica requests and waits for the end of all of them.
func (g *Group) ask(ctx context.Context, events ...replica.Event) ([]outcome, error) {
	return g.askAfter(ctx, nil, events...)
}

// askAfter is ask with an event before them, in the same step; nil: none.
func (g *Group) askAfter(ctx context.Context, before replica.Event, events ...replica.Event) ([]outcome, error) {
	ends := make([]chan outcome, len(events))
	for i, ev := range events {
		var ok bool
		if ends[i], ok = g.requests.begin(requestID(ev)); !ok {
			return nil, g.reason(replica.Ended)
		}
	}
	if before != nil {
		g.post(append([]replica.Event{before}, events...)...)
	} else {
		g.post(events...)
	}
	outcomes := make([]outcome, len(events))
	var first error
	for i, ev := range events {
		var gaveUp error
		outcomes[i], gaveUp = g.wait(ctx, requestID(ev), ends[i])
		if err := g.reason(outcomes[i].reason); err != nil && first == nil {
			first = errors.Join(err, gaveUp)
		}
	}
	return outcomes, first
}

// wait waits for the end of a request. When ctx ends the replica is asked how far it had come, which it answers at once.
func (g *Group) wait(ctx context.Context, id uint64, end chan outcome) (outcome, error) {
	select {
	case o := <-end:
		return o, nil
	case <-ctx.Done():
		g.post(replica.Cancel{ID: id})
		return <-end, ctx.Err()
	}
}

func requestID(ev replica.Event) uint64 {
	switch ev := ev.(type) {
	case replica.Propose:
		return ev.ID
	case replica.Dissolve:
		return ev.ID
	case replica.Read:
		return ev.ID
	case replica.Change:
		return ev.ID
	}
	panic("quorum: an event that nobody waits for")
}

// reason is a request's end as an error.
func (g *Group) reason(why replica.Reason) error {
	switch why {
	case replica.OK:
		return nil
	case replica.Maybe:
		if g.e.ctx.Err() != nil {
			return errors.Join(ErrMaybe, ErrClosed)
		}
		return ErrMaybe
	case replica.Busy:
		return ErrBusy
	case replica.NotLeader:
		return errNotLeader
	case replica.Ended:
		return g.ending()
	}
	return ErrNoQuorum
}

// ending says why the group takes no requests any more.
func (g *Group) ending() error {
	st := g.Status()
	switch {
	case g.e.ctx.Err() != nil:
		return ErrClosed
	case st.Err != nil:
		return st.Err
	case g.dissolved.Load():
		return ErrDissolved
	}
	return ErrNotVoter
}

// finish ends the group here, for good: it was dissolved, or this peer removed, or the replica dropped.
func (g *Group) finish(dissolved bool) {
	if !g.finishing.CompareAndSwap(false, true) {
		return
	}
	if dissolved {
		g.dissolved.Store(true)
	}
	g.stop() // first: nothing of it may come after the record that it is gone
	records := []wal.Record{{Group: g.id, Kind: wal.Gone}}
	if dissolved {
		records = append(records, g.e.ended.add(g.id))
	}
	done := make(chan struct{})
	if g.e.wal.Append(records, true, func() { close(done) }) == nil {
		select {
		case <-done:
		case <-g.e.ctx.Done():
			return // it is found again, and finished then
		}
	}
	g.e.mu.Lock()
	delete(g.e.groups, g.id)
	g.e.mu.Unlock()
	g.e.removeSnapshots(g.id, ^uint64(0))
}

// stop lets the replica take no more steps, and ends what waits.
func (g *Group) stop() {
	g.stepMu.Lock()
	g.over = true
	g.changed()
	g.stepMu.Unlock()
	g.inbox.mu.Lock()
	g.inbox.ended = true
	g.inbox.events = nil
	g.inbox.mu.Unlock()
	g.requests.close()
	g.applier.stop()
}

// requests are those that wait for their end.
type requests struct {
	mu      sync.Mutex
	waiting map[uint64]chan outcome
	closed  bool
	room    *semaphore.Weighted
}

func (r *requests) init() {
	r.waiting = make(map[uint64]chan outcome)
	r.room = semaphore.NewWeighted(requestBytes)
}

func (r *requests) begin(id uint64) (chan outcome, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, false
	}
	end := make(chan outcome, 1)
	r.waiting[id] = end
	return end, true
}

// end ends a request, unless it has ended.
func (r *requests) end(id uint64, o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end := r.waiting[id]; end != nil {
		delete(r.waiting, id)
		end <- o
	}
}

// close ends all requests; how they ended is not known.
func (r *requests) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for id, end := range r.waiting {
		delete(r.waiting, id)
		end <- outcome{reason: replica.Maybe}
	}
}

// Leader returns the leader as far as this peer knows, and the term. ok is false when there is none.
func (g *Group) Leader() (leader peer.ID, term uint64, ok bool) {
	st := g.status.get()
	return st.Leader, st.Term, st.Leader != ""
}

// Status describes the group as it is now.
func (g *Group) Status() Status {
	if g.stepMu.TryLock() {
		st := g.describe()
		g.stepMu.Unlock()
		return st
	}
	return g.status.get()
}

// describe makes the status; the step's lock is held, or nobody else has the group yet.
func (g *Group) describe() Status {
	st := g.rep.Status()
	out := Status{
		ID: g.id, Kind: g.kind, Term: st.Term, Leading: st.Leading && !g.over, Voter: st.Voter && !g.over, Quiet: st.Quiet,
		Dissolved: st.Removed || g.finishing.Load(), Commands: st.Commands, Index: st.Applied, LogBytes: st.LogBytes, Err: st.Err,
	}
	if out.Err == nil {
		out.Err = g.broken
	}
	at := make(map[uint64]replica.Progress)
	g.rep.Progress(func(id uint64, p replica.Progress) { at[id] = p })
	for _, m := range st.Book.Members {
		out.Members = append(out.Members, Member{
			Peer: m.Peer, Learner: m.Learner, Self: m.ID == g.self, Match: at[m.ID].Match, Lost: at[m.ID].Lost,
			Present: m.ID == g.self || g.rep.Present(m.Peer),
		})
		if m.ID == st.Leader && !g.over && !out.Dissolved && out.Err == nil {
			out.Leader = m.Peer
		}
	}
	slices.SortFunc(out.Members, func(a, b Member) int { return slices.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return out
}

// changed publishes the status; the step's lock is held.
func (g *Group) changed() { g.status.set(g.describe()) }
