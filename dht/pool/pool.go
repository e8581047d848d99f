package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
)

const (
	// callsMax bounds what waits for the pool's goroutine.
	callsMax = 256
	// watchersMax bounds the listeners of each kind.
	watchersMax = 64
	// placesEvery is how often the addresses and times of members are written down when nothing else is.
	placesEvery = 10 * time.Minute
)

// ErrClosed is what the methods of a closed pool return.
var ErrClosed = errors.New("pool: closed")

// Pool is this peer's membership while it runs. All methods are safe for concurrent use. Close ends it.
//
// One goroutine owns the roster, the links and the file; everybody else reads the immutable view that it publishes, or
// hands it something to do.
type Pool struct {
	cfg   Config
	id    ident.PoolID
	clock clock
	gate  gate

	current atomic.Pointer[roster.View]
	secrets atomic.Pointer[[]secret] // the newest first
	saying  atomic.Pointer[saying]
	retired atomic.Bool // this peer left the pool, or joined another

	gossip *gossip.Gossip
	door   *door

	calls     chan func()
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error

	listeners listeners

	// What follows belongs to the pool's goroutine.
	roster   *roster.Roster
	state    *state
	links    map[peer.ID]*link
	names    Records
	unname   func()
	unsaved  bool
	problem  error
	watch    sleepWatch
	asleep   bool // this machine is about to sleep, see Sleep
	due      dueTimes
	relaying relaying
	resyncs  resyncs
	asked    map[peer.ID]time.Duration // strangers that were greeted, and when on the boot-time clock
}

// dueTimes says when things that are done now and then are due, on the boot-time clock.
type dueTimes struct{ places, lends, names, renew time.Duration }

// Open makes this peer a member of the pool in its home, or of a new one of its own when there is none. A file that
// cannot be read yields a *StateError.
func Open(cfg Config) (*Pool, error) { return openWith(cfg, clockOf(cfg)) }

func openWith(cfg Config, c clock) (*Pool, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	st, err := loadState(cfg.Home)
	if errors.Is(err, fs.ErrNotExist) {
		if st, err = found(cfg.Identity, c.wall()); err == nil {
			err = st.save(cfg.Home)
		}
	}
	if err != nil {
		return nil, err
	}
	p := &Pool{
		cfg: cfg, clock: c, id: st.origin.ID(), state: st,
		gate:  gate{table: make(map[protocol.ID]bool)},
		calls: make(chan func(), callsMax),
		links: make(map[peer.ID]*link),
		asked: make(map[peer.ID]time.Duration),
		names: noRecords{}, unname: func() {},
		relaying: relaying{offers: make(map[peer.ID]bool), reserved: make(map[peer.ID]*reservation)},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.begin()
	if p.gossip, err = gossip.New(cfg.Host, p, p.ownTopic); err != nil {
		p.cancel()
		return nil, err
	}
	p.door = newDoor(p)
	p.serve()
	return p, nil
}

// found makes the state of a new pool of one: this peer is its first admin.
func found(self ident.Identity, now time.Time) (*state, error) {
	origin, err := ident.NewOrigin(self.ID)
	if err != nil {
		return nil, err
	}
	s, err := newSecret(1)
	if err != nil {
		return nil, fmt.Errorf("pool: new secret: %w", err)
	}
	certificate, err := ident.IssueCertificate(self.Key, newCertificate(origin.ID(), self.ID, self.Name, ident.RoleAdmin, 1, now))
	if err != nil {
		return nil, err
	}
	notice, err := ident.IssueNotice(self.Key, origin.ID(), s.number, s.key, now)
	if err != nil {
		return nil, err
	}
	return &state{
		origin: origin, records: []ident.Record{certificate, notice}, secrets: []secret{s},
		places: make(map[peer.ID]place),
	}, nil
}

// begin fills the roster from the file.
func (p *Pool) begin() {
	seen := make(map[peer.ID]time.Time)
	for id, pl := range p.state.places {
		seen[id] = pl.seen
	}
	p.roster = roster.New(roster.Config{Origin: p.state.origin, Self: p.cfg.Identity.ID, Seen: seen})
	now := p.clock.moment()
	p.watch.woke(now.Boot, time.Now())
	p.roster.Step(now, roster.Learn{Records: p.state.records})
	p.current.Store(p.roster.View())
	p.publishSecrets()
}

// serve registers the pool's own protocols and starts the work.
func (p *Pool) serve() {
	p.cfg.Host.SetStreamHandler(JoinProtocol, p.door.handle)
	p.cfg.Host.SetStreamHandler(LinkProtocol, p.serveLink)
	p.HandleFor(RenewProtocol, ident.RoleTerminal, p.serveRenew)
	p.cfg.Host.OnFound(p.foundNearby)
	p.wg.Go(p.run)
	p.wg.Go(p.watchReach)
	if p.cfg.Finder != nil {
		p.wg.Go(p.meet)
	}
}

// run is the pool's goroutine.
func (p *Pool) run() {
	p.reconcileLinks()
	p.tick()
	timer := time.NewTimer(roster.BeatEvery)
	defer timer.Stop()
	for {
		select {
		case f := <-p.calls:
			f()
		case <-timer.C:
			p.tick()
			timer.Reset(roster.BeatEvery)
		case <-p.ctx.Done():
			p.stopLinks()
			p.stopRelay()
			return
		}
	}
}

// do runs f on the pool's goroutine and waits for it. It must not be called from there. With an error f was not run, and will not be.
func (p *Pool) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	var taken atomic.Bool // by the pool's goroutine, or by this one, which gives up
	select {
	case p.calls <- func() {
		defer close(done)
		if taken.CompareAndSwap(false, true) {
			f()
		}
	}:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-p.ctx.Done():
		if taken.CompareAndSwap(false, true) {
			return ErrClosed
		}
		<-done // it is under way, and what it uses is the caller's
		return nil
	}
}

// post runs f on the pool's goroutine some time.
func (p *Pool) post(f func()) {
	select {
	case p.calls <- f:
	case <-p.ctx.Done():
	}
}

// tick lets time pass.
func (p *Pool) tick() {
	if p.retired.Load() {
		return
	}
	now := p.clock.moment()
	if p.watch.woke(now.Boot, time.Now()) {
		_, _ = p.apply(roster.Woke{}, "")
		for _, l := range p.links {
			l.pokeNow()
		}
	}
	out, _ := p.apply(roster.Tick{}, "")
	p.tryKeenly(keenEach)
	if now.Boot >= p.due.lends {
		p.due.lends = now.Boot + lendsEvery
		p.reserve()
		p.refreshSaying()
	}
	if p.unsaved || now.Boot >= p.due.places && p.due.places > 0 {
		p.notePlaces()
		_ = p.save()
		p.due.places = now.Boot + placesEvery
	} else if p.due.places == 0 {
		p.due.places = now.Boot + placesEvery
	}
	if now.Boot >= p.due.names {
		p.due.names = now.Boot + namesEvery
		p.reconcileNames()
	}
	if out.Renew && now.Boot >= p.due.renew {
		p.due.renew = now.Boot + renewAgain
		p.renew()
	}
}

// apply takes one event and acts on what follows: saved first, then in force at the gate, then told. from, when not empty,
// is the member that told it, or this peer if its names did, and then it is theirs to tell all and to leave it among the
// names. The error is that of saving; then nothing was told.
func (p *Pool) apply(ev roster.Event, from peer.ID) (roster.Out, error) {
	out := p.roster.Step(p.clock.moment(), ev)
	var err error
	if len(out.Save) > 0 {
		err = p.save()
	}
	if out.Dirty {
		p.current.Store(p.roster.View())
		p.publishSecrets()
	}
	for _, id := range out.Close {
		p.shut(id)
	}
	if len(out.Save) > 0 || len(out.Close) > 0 || len(out.Changes) > 0 {
		p.reconcileLinks()
	}
	if err == nil && len(out.Spread) > 0 {
		p.spread(out.Spread, from)
		if from == "" {
			p.leaveNames(out.Spread)
		}
	}
	p.listeners.changed(out.Changes)
	return out, err
}

// save writes the file. A failure is kept for Problem, and tried again with the next tick.
func (p *Pool) save() error {
	if p.retired.Load() {
		return ErrClosed // the file is another pool's already
	}
	p.state.records = p.roster.View().Records()
	err := p.state.save(p.cfg.Home)
	p.unsaved, p.problem = err != nil, err
	return err
}

// shut ends all connections to a peer that is no longer a member.
func (p *Pool) shut(id peer.ID) {
	p.cfg.Host.ConnManager().Unprotect(id, connTag)
	if id == p.cfg.Identity.ID {
		return
	}
	p.gossip.Remove(id)
	_ = p.cfg.Host.Network().ClosePeer(id)
}

func (p *Pool) view() *roster.View { return p.current.Load() }

// over reports whether the membership ended, by Close, Leave or Join.
func (p *Pool) over() bool { return p.retired.Load() || p.ctx.Err() != nil }

// heed learns from a refusal that carries the proof for it: a peer that was evicted while it was away.
func (p *Pool) heed(err error) {
	var r *Refusal
	if errors.As(err, &r) && r.Remote && r.proof != nil {
		p.post(func() { _, _ = p.apply(roster.Learn{Records: []ident.Record{r.proof}}, "") })
	}
}

// ID returns the pool's id.
func (p *Pool) ID() ident.PoolID { return p.id }

// Self returns this peer's own entry.
func (p *Pool) Self() roster.Member {
	m, _ := p.view().Judge(p.cfg.Identity.ID, p.clock.wall())
	return m
}

// Standing says whether this peer is a member in force itself: roster.OK, or why not. An evicted peer learns of it from
// the first member that refuses it.
func (p *Pool) Standing() roster.Reason { return p.Self().Standing }

// Members returns the members in force, this peer included, ordered by name.
func (p *Pool) Members() []roster.Member { return p.view().Members() }

// Former returns the peers that are no longer members: evicted, gone, or run out.
func (p *Pool) Former() []roster.Member { return p.view().Former() }

// Member returns one peer's entry, and whether it is a member in force.
func (p *Pool) Member(id peer.ID) (roster.Member, bool) {
	m, reason := p.view().Judge(id, p.clock.wall())
	return m, reason == roster.OK
}

// IsMember reports whether a peer is a member in force.
func (p *Pool) IsMember(id peer.ID) bool {
	_, ok := p.Member(id)
	return ok
}

// Wrote reports whether a record that a peer signed at a time counts: it has been a member, and had not been evicted nor
// left by then. It is a *Refusal if not. A certificate that ran out since is no reason: what was written stays.
func (p *Pool) Wrote(id peer.ID, at time.Time) error {
	m, reason := p.view().Judge(id, p.clock.wall())
	switch reason {
	case roster.OK, roster.Lapsed, roster.Early:
		return nil
	case roster.Evicted, roster.Left:
		if at.Before(m.Ends) {
			return nil
		}
	}
	return p.explain(m, reason)
}

// Grace reports that this machine has just started or woken up, so that what it has not heard yet means nothing.
func (p *Pool) Grace() bool { return p.view().Grace() }

// Problem returns why the pool's file could not be written lately, or nil.
func (p *Pool) Problem() (err error) {
	_ = p.do(p.ctx, func() { err = p.problem })
	return err
}

// Topic returns the full name of one of the pool's topics.
func (p *Pool) Topic(name string) string { return shoalPrefix + p.id.String() + "/" + name }

// topics are those that a pool has.
var topics = []string{"news", "jobs"}

func (p *Pool) ownTopic(full string) bool {
	return slices.ContainsFunc(topics, func(t string) bool { return p.Topic(t) == full })
}

// Gossip returns the pool's gossip, for gossip.Join with the name that Topic returns.
func (p *Pool) Gossip() *gossip.Gossip { return p.gossip }

// JoinTopic joins one of the pool's topics ("news" or "jobs") with messages of bytes. check, which may be nil, refuses
// messages.
func (p *Pool) JoinTopic(name string, check func(from peer.ID, data []byte) error) (*gossip.Topic[[]byte], error) {
	return gossip.Join(p.gossip, p.Topic(name), gossip.Bytes(check), gossip.Limits{})
}

// Close tells the members that this peer goes away, ends the links and takes the pool's protocols off the host. The host
// stays open. It may be called more than once.
func (p *Pool) Close() error {
	p.closeOnce.Do(func() {
		var err error
		_ = p.do(context.Background(), func() {
			p.unname()
			p.notePlaces()
			if err = p.save(); errors.Is(err, ErrClosed) {
				err = nil
			}
		})
		p.cancel()
		p.unregister()
		p.cfg.Host.RemoveStreamHandler(JoinProtocol)
		p.cfg.Host.RemoveStreamHandler(LinkProtocol)
		p.wg.Wait()
		p.closeErr = errors.Join(err, p.gossip.Close())
	})
	return p.closeErr
}
