package quorum

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/quorum/replica"
	"github.com/shoal-os/shoal/storage/quorum/wal"
)

const (
	// workers is how many groups take a step at the same time.
	workers = 2
	// handOver bounds how long Close waits for others to take the lead.
	handOver = 500 * time.Millisecond
	// blankAfter is how long a replica is kept that was offered and did not come to know the group since. It may have voted
	// already; what matters is that it never does again.
	blankAfter = time.Hour
	// cleanEvery is how often such ones are looked for.
	cleanEvery = 10 * time.Minute
	// lookEvery is how often the clocks are looked at. When the one that counts sleep has gained sleptAfter on the process's own
	// since the last look, the machine slept.
	lookEvery  = 2 * time.Second
	sleptAfter = time.Second
)

// Engine runs the groups of one peer. All methods are safe for concurrent use.
type Engine struct {
	cfg  Config
	log  *slog.Logger
	fs   folder.FS
	wal  *wal.Log
	boot time.Time

	nextID atomic.Uint64 // of requests
	sent   atomic.Int64  // messages to other peers

	mu       sync.Mutex
	kinds    map[string]func(GroupID) Machine
	groups   map[GroupID]*Group
	reserved map[GroupID]bool           // being created or offered
	dormant  map[GroupID]*replica.State // found on disk, of kinds that nobody registered yet
	watchers map[int]func(*Group)
	watchSeq int

	files     *semaphore.Weighted // one at a time writes or deletes snapshots; no mutex, for a disk may take long and time must go on in tests
	snapshots *semaphore.Weighted

	ended  endings
	sched  scheduler
	timers timers
	links  links

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	leave  func()
	once   sync.Once
	closed error
}

func (c *Config) check() error {
	switch {
	case c.Dir == "" && c.FS == nil:
		return errors.New("no folder was given")
	case c.Self == "":
		return errors.New("no identity was given")
	case c.Streams == nil || c.Presence == nil:
		return errors.New("a part of the pool is missing")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return nil
}

// Open opens the groups in cfg.Dir. Those of kinds that are registered afterwards begin to run then. Files that lack what was
// promised are wal.ErrDamaged: the folder must be put aside then, and the groups go on without this peer's replicas.
func Open(cfg Config) (*Engine, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log, fs: cfg.FS, boot: time.Now(), kinds: make(map[string]func(GroupID) Machine),
		groups: make(map[GroupID]*Group), reserved: make(map[GroupID]bool),
		dormant: make(map[GroupID]*replica.State), watchers: make(map[int]func(*Group)),
	}
	if e.fs == nil {
		var err error
		if e.fs, err = folder.Dir(cfg.Dir); err != nil {
			return nil, fmt.Errorf("quorum: %w", err)
		}
	}
	e.nextID.Store(randomNumber())
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.files, e.snapshots = semaphore.NewWeighted(1), semaphore.NewWeighted(snapshotsOut)
	e.links.init()
	e.sched.init()
	e.timers.init()
	if err := e.load(); err != nil {
		e.cancel()
		return nil, fmt.Errorf("quorum: %w", err)
	}
	for range workers {
		e.wg.Go(e.work)
	}
	e.wg.Go(e.runTimers)
	e.wg.Go(e.keepClean)
	if cfg.Clock != nil {
		e.wg.Go(e.noticeSleep)
	}
	cfg.Streams.Handle(Protocol, e.serve)
	e.leave = cfg.Presence.OnPresence(e.presence)
	return e, nil
}

// load reads the log and looks after the snapshots.
func (e *Engine) load() error {
	var err error
	e.wal, _, err = wal.Open(e.fs, func(r wal.Record) error {
		if r.Group == (GroupID{}) {
			return e.ended.load(r.Data)
		}
		if r.Kind == wal.Gone {
			delete(e.dormant, r.Group)
			return nil
		}
		st := e.dormant[r.Group]
		if st == nil {
			st = new(replica.State)
			e.dormant[r.Group] = st
		}
		return st.Load(r.Data)
	}, e.checkpoint)
	if err != nil {
		return err
	}
	if err := e.tidySnapshots(); err != nil {
		return errors.Join(err, e.wal.Close())
	}
	return nil
}

// Register says how machines of a kind are made, for groups found on disk, created here, or offered by others. It panics when the
// kind is registered already.
func (e *Engine) Register(kind string, make func(GroupID) Machine) {
	if kind == "" || len(kind) > KindMax || make == nil {
		panic("quorum: a kind without a name or machines")
	}
	e.mu.Lock()
	if e.kinds[kind] != nil {
		e.mu.Unlock()
		panic(fmt.Sprintf("quorum: the kind %q is registered twice", kind))
	}
	e.kinds[kind] = make
	var found []GroupID
	for id, st := range e.dormant {
		if st.Kind == kind {
			found = append(found, id)
		}
	}
	e.mu.Unlock()
	slices.SortFunc(found, compareIDs)
	for _, id := range found {
		if _, err := e.start(id, nil); err != nil {
			e.log.Error("quorum: a group from disk does not start", "group", id, "err", err)
		}
	}
}

func compareIDs(a, b GroupID) int { return slices.Compare(a[:], b[:]) }

// start makes a group run: st is its state, durable already; nil: the one from disk. first are its first events.
func (e *Engine) start(id GroupID, st *replica.State, first ...replica.Event) (*Group, error) {
	e.mu.Lock()
	if st == nil {
		st = e.dormant[id]
	}
	if st == nil || e.kinds[st.Kind] == nil {
		e.mu.Unlock()
		return nil, ErrKind
	}
	machine := e.kinds[st.Kind]
	e.mu.Unlock()
	g, err := newGroup(e, id, st, machine(id))
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	delete(e.dormant, id)
	delete(e.reserved, id)
	e.groups[id] = g
	var tell []func(*Group)
	for _, f := range e.watchers {
		tell = append(tell, f)
	}
	e.mu.Unlock()
	for _, f := range tell {
		f(g)
	}
	for _, m := range g.Status().Members {
		if !m.Self && !e.reachable(m.Peer) {
			first = append(first, replica.Presence{Peer: m.Peer})
		}
	}
	g.post(first...)
	return g, nil
}

// Group returns the group of an id, if this peer is a member of it.
func (e *Engine) Group(id GroupID) (*Group, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, ok := e.groups[id]
	return g, ok
}

// Groups returns all groups that this peer is a member of, in the order of their ids.
func (e *Engine) Groups() []*Group {
	e.mu.Lock()
	out := make([]*Group, 0, len(e.groups))
	for _, g := range e.groups {
		out = append(out, g)
	}
	e.mu.Unlock()
	slices.SortFunc(out, func(a, b *Group) int { return compareIDs(a.id, b.id) })
	return out
}

// WatchGroups has f called for each group that there is and each that this peer becomes a member of later, until stop is
// called. f must not block.
func (e *Engine) WatchGroups(f func(*Group)) (stop func()) {
	e.mu.Lock()
	e.watchSeq++
	key := e.watchSeq
	e.watchers[key] = f
	there := make([]*Group, 0, len(e.groups))
	for _, g := range e.groups {
		there = append(there, g)
	}
	e.mu.Unlock()
	for _, g := range there {
		f(g)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, key)
	}
}

// Problem is the disk's last error while it has not recovered from it: until then nothing is agreed on here.
func (e *Engine) Problem() error { return e.wal.Problem() }

// now is the time of the replicas.
func (e *Engine) now() time.Duration {
	if e.cfg.Clock != nil {
		return e.cfg.Clock()
	}
	return time.Since(e.boot)
}

// request numbers a request.
func (e *Engine) request() uint64 { return e.nextID.Add(1) }

func randomNumber() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return max(binary.BigEndian.Uint64(b[:])>>2, 1)
}

// checkpoint is what the log asks when an old segment hangs on a group.
func (e *Engine) checkpoint(id [32]byte) {
	if id == (GroupID{}) {
		_ = e.wal.Append([]wal.Record{e.ended.record()}, false, nil)
		return
	}
	e.mu.Lock()
	g, st := e.groups[id], e.dormant[id]
	e.mu.Unlock()
	switch {
	case g != nil:
		g.post(replica.Checkpoint{})
		go g.checkpointStopped()
	case st != nil:
		_ = e.wal.Append([]wal.Record{{Group: id, Kind: wal.Whole, Data: st.Record()}}, false, nil)
	}
}

// checkpointStopped answers the log for a replica that takes no steps any more.
func (g *Group) checkpointStopped() {
	g.stepMu.Lock()
	defer g.stepMu.Unlock()
	if (g.over || g.failed) && !g.finishing.Load() {
		_ = g.e.wal.Append([]wal.Record{{Group: g.id, Kind: wal.Whole, Data: g.rep.Record()}}, false, nil)
	}
}

// keepClean forgets replicas that nobody wanted after all.
func (e *Engine) keepClean() {
	ticker := time.NewTicker(cleanEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-e.ctx.Done():
			return
		}
		for _, g := range e.Groups() {
			if st := g.Status(); st.Index <= replica.FoundedIndex && st.Leader == "" && time.Since(g.began) > blankAfter {
				_ = e.Drop(g.id)
			}
		}
	}
}

// noticeSleep tells the groups when the machine has slept.
func (e *Engine) noticeSleep() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	gap := e.cfg.Clock() - time.Since(e.boot)
	for {
		select {
		case <-ticker.C:
		case <-e.ctx.Done():
			return
		}
		was := gap
		if gap = e.cfg.Clock() - time.Since(e.boot); gap-was > sleptAfter {
			e.Woke()
		}
	}
}

// Woke tells the groups that the machine has slept: where this peer leads it is not Leading again until a majority has said so.
// The engine notices by itself within two seconds when it was given a clock that counts sleep.
func (e *Engine) Woke() {
	for _, g := range e.Groups() {
		g.post(replica.Woke{})
	}
}

// Drop deletes this peer's replica of a group without asking the group, for one that can have no majority any more. The peer will
// not vote in it again.
func (e *Engine) Drop(id GroupID) error {
	g, ok := e.Group(id)
	if !ok {
		return fmt.Errorf("quorum: drop %v: %w", id, ErrNotVoter)
	}
	g.finish(false)
	return nil
}

// Close stops all groups and makes everything durable. Where this peer leads and another voter is in step, it is handed over first.
func (e *Engine) Close() error {
	e.once.Do(func() {
		e.leave()
		e.resign()
		e.closed = e.halt()
	})
	return e.closed
}

// halt stops everything at once.
func (e *Engine) halt() error {
	e.cancel()
	e.sched.stop()
	e.links.stop()
	err := e.wal.Close() // before the workers are waited for: they may be waiting for a disk that fails
	e.wg.Wait()
	for _, g := range e.Groups() {
		g.stop()
		g.applier.wait()
	}
	return err
}

// resign hands over all groups that this peer leads.
func (e *Engine) resign() {
	var led []*Group
	for _, g := range e.Groups() {
		st := g.Status()
		if st.Leader != e.cfg.Self {
			continue
		}
		var best Member
		for _, m := range st.Members {
			if !m.Self && !m.Learner && !m.Lost && m.Present && cmp.Compare(m.Match, best.Match) >= 0 {
				best = m
			}
		}
		if best.Peer != "" { // its own group of one stays
			g.transfer(best.Peer)
			led = append(led, g)
		}
	}
	end := time.Now().Add(handOver)
	for _, g := range led {
		ctx, cancel := context.WithDeadline(e.ctx, end)
		_ = g.until(ctx, func(st Status) bool { return st.Leader != e.cfg.Self && st.Leader != "" })
		cancel()
	}
}
