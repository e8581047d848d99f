package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
	"github.com/shoal-os/shoal/tasks/talk"
)

// KindJob is the kind of the quorum groups of jobs.
const KindJob = "job"

// adsWait is how many announcements wait to be told; more are dropped, as they come again.
const adsWait = 64

// Tasks is one peer's part in the pool's work. All methods are safe for concurrent use.
type Tasks struct {
	cfg  Config
	self peer.ID
	log  *slog.Logger

	ctx     context.Context
	cancel  context.CancelFunc
	closing sync.Mutex // held while something is started, and while closed is set
	closed  bool
	wg      sync.WaitGroup
	once    sync.Once

	streams atomic.Uint64 // numbers of workers' streams
	visits  *wire.Slots   // streams of others
	ads     chan *market.Ad
	hand    *hand
	stops   []func()

	mu    sync.Mutex
	seats map[job.ID]*seat
}

// Open begins to take part. It registers /shoal/market/1 and /shoal/log/1 with cfg.Streams and KindJob with cfg.Quorum, so it is
// called once for each of them. cfg.Dir is emptied.
func Open(cfg Config) (*Tasks, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("tasks: %w", err)
	}
	if err := errors.Join(os.RemoveAll(cfg.Dir), os.MkdirAll(cfg.Dir, 0o700)); err != nil {
		return nil, fmt.Errorf("tasks: %w", err)
	}
	t := &Tasks{cfg: cfg, self: cfg.Self.ID, log: cfg.Log, ads: make(chan *market.Ad, adsWait), seats: map[job.ID]*seat{}}
	t.visits = wire.NewSlots(visitsMax, visitsAll)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.hand = newHand(t)
	cfg.Quorum.Register(KindJob, t.makeMachine)
	t.stops = append(t.stops, cfg.Quorum.WatchGroups(t.groupIs), cfg.Members.OnConnected(t.met))
	for _, run := range []func(){t.hand.run, t.publish, t.listen, t.upkeep} {
		t.start(run)
	}
	cfg.Streams.Handle(talk.Market, t.serveMarket)
	cfg.Streams.Handle(talk.Log, t.serveLog)
	return t, nil
}

// Close gives back what is leased here, ends its guests and all work.
func (t *Tasks) Close() error {
	t.once.Do(func() {
		for _, stop := range t.stops {
			stop()
		}
		t.hand.stop()
		t.closing.Lock()
		t.closed = true
		t.closing.Unlock()
		t.cancel()
		t.wg.Wait()
	})
	return nil
}

// start runs f on a goroutine that Close waits for, unless it has begun.
func (t *Tasks) start(f func()) bool {
	t.closing.Lock()
	defer t.closing.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// second is a clock for rates.
func (t *Tasks) second() int64 { return int64(t.cfg.Boot()/time.Second) + 1 }

// makeMachine makes the ledger of a group, and the seat around it. It may be called before WatchGroups tells of the group, and for
// one that does not come to be.
func (t *Tasks) makeMachine(id quorum.GroupID) quorum.Machine {
	s := t.newSeat(job.ID(id))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seats[s.id] = s
	return machine{s.ledger, s}
}

// groupIs is told of each group that this peer is a member of.
func (t *Tasks) groupIs(g *quorum.Group) {
	if g.Kind() != KindJob {
		return
	}
	t.mu.Lock()
	s := t.seats[job.ID(g.ID())]
	if s != nil {
		s.group = g
	}
	t.mu.Unlock()
	if s != nil {
		s.begin(g)
	}
}

// gone forgets a seat that ended.
func (t *Tasks) gone(s *seat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seats[s.id] == s {
		delete(t.seats, s.id)
	}
}

// seat returns this peer's seat in a job, if it has one that works.
func (t *Tasks) seat(id job.ID) *seat {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.seats[id]; s != nil && s.group != nil {
		return s
	}
	return nil
}

// allSeats returns those that work.
func (t *Tasks) allSeats() (out []*seat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seats {
		if s.group != nil {
			out = append(out, s)
		}
	}
	return out
}

// role is what a member may do, by what is known now.
func (t *Tasks) role(id peer.ID) ident.Role {
	m, ok := t.cfg.Members.Member(id)
	if !ok {
		return ident.RoleNone
	}
	return m.Role
}

// Accept is quorum's Config.Accept for jobs: a peer whose role is to give commands only is nobody's steward, and makes nobody one.
func Accept(self peer.ID, members Members) func(from peer.ID, id quorum.GroupID, kind string) error {
	return func(from peer.ID, _ quorum.GroupID, kind string) error {
		if kind != KindJob {
			return nil
		}
		for _, id := range []peer.ID{self, from} {
			if m, ok := members.Member(id); !ok || m.Role < ident.RoleMember {
				return fmt.Errorf("tasks: %w: a steward must be a member that lends", ErrRole)
			}
		}
		return nil
	}
}

// CheckAd is the check of the topic of announcements: it refuses what is malformed, or not for from to say.
func CheckAd(from peer.ID, data []byte) error {
	ad, err := talk.DecodeAd(data)
	if err == nil && ad.Leader != from {
		err = errors.New("tasks: an announcement in another's name")
	}
	return err
}

// announce tells the pool.
func (t *Tasks) announce(ad *market.Ad) {
	select {
	case t.ads <- ad:
	default:
	}
}

// publish tells the pool.
func (t *Tasks) publish() {
	for {
		select {
		case ad := <-t.ads:
			raw, err := talk.EncodeAd(ad)
			if err == nil {
				err = t.cfg.Ads.Publish(t.ctx, raw)
			}
			if err != nil && t.ctx.Err() == nil {
				t.log.Warn("tasks: an announcement was not sent", "job", ad.Job.Short(), "err", err)
			}
		case <-t.ctx.Done():
			return
		}
	}
}

// listen hears announcements of others.
func (t *Tasks) listen() {
	for {
		from, raw, err := t.cfg.Ads.Next(t.ctx)
		if err != nil {
			if t.ctx.Err() == nil {
				t.log.Warn("tasks: no more announcements are heard", "err", err)
			}
			return
		}
		if ad, err := talk.DecodeAd(raw); err == nil && ad.Leader == from {
			t.hand.announced(ad)
		}
	}
}
