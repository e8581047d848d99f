package dht

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// provideParallel bounds the announcements under way. Each asks about k+9 peers (29 of a large table).
	provideParallel = 4
	// provideWait bounds one announcement.
	provideWait = time.Minute
	// tableSmall is up to which size of the table a new peer is worth announcing everything again: while there are no
	// more peers than hold each record, the new one is among the closest to every key.
	tableSmall = 20
	// tableSettle is how long the table must be quiet before that, with so much more per key that the rounds of a peer
	// with many shares stay apart. tableSettleMax is how long a table that is never quiet may put it off.
	tableSettle       = time.Second
	tableSettlePerKey = 20 * time.Millisecond
	tableSettleMax    = 5 * time.Minute
)

// errClosed is what the calls of a closed DHT return.
var errClosed = errors.New("dht: closed")

// Seed has k announced from now on, in the background: as soon as there are peers to announce it to, again soon after
// new ones enter a small table, and every 25 minutes. Seeding twice is seeding once.
func (d *DHT) Seed(k Key) { d.seeder.add(k) }

// Unseed ends the announcing of k. What others hold fades within RecordLife: a hint cannot be taken back.
func (d *DHT) Unseed(k Key) { d.seeder.remove(k) }

// Provided returns when k was last announced to the peers closest to it, or the zero time.
func (d *DHT) Provided(k Key) time.Time { return d.seeder.provided(k) }

// provide announces one key to the peers closest to it.
func (d *DHT) provide(ctx context.Context, k Key) error {
	if d.Table() == 0 {
		return ErrNoPeers
	}
	return d.kad.Provide(ctx, k.cid(), true)
}

// seeder is the shell of schedule: it owns the clock and the announcements under way.
type seeder struct {
	announce func(context.Context, Key) error
	size     func() int // the routing table's; not to be asked from tableGrew, where the table is locked

	mu     sync.Mutex
	plan   *schedule
	flying int
	grown  time.Time // the first growth of the table not yet acted upon; zero for none
	settle time.Time // when to act on it

	poke chan struct{} // capacity 1: something changed, look again
	wg   sync.WaitGroup
}

func newSeeder(announce func(context.Context, Key) error, size func() int) *seeder {
	return &seeder{announce: announce, size: size, plan: newSchedule(), poke: make(chan struct{}, 1)}
}

func (s *seeder) add(k Key) {
	s.mu.Lock()
	s.plan.add(k, time.Now())
	s.mu.Unlock()
	s.wakeUp()
}

func (s *seeder) remove(k Key) {
	s.mu.Lock()
	s.plan.remove(k)
	s.mu.Unlock()
}

func (s *seeder) provided(k Key) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.provided(k)
}

// tableGrew is called when a peer entered the routing table. The first opens the schedule; each later one has everything
// announced again once no more came for a moment, if the table is small then. It must not block.
func (s *seeder) tableGrew() {
	now := time.Now()
	s.mu.Lock()
	if s.plan.open {
		if s.grown.IsZero() {
			s.grown = now
		}
		wait := min(tableSettle+time.Duration(len(s.plan.items))*tableSettlePerKey, tableSettleMax)
		s.settle = now.Add(wait)
		if latest := s.grown.Add(tableSettleMax); s.settle.After(latest) {
			s.settle = latest
		}
	}
	s.plan.setOpen(true)
	s.mu.Unlock()
	s.wakeUp()
}

func (s *seeder) wakeUp() {
	select {
	case s.poke <- struct{}{}:
	default: // it will look anyway
	}
}

// run announces what is due until ctx ends, and returns when nothing is under way any more.
func (s *seeder) run(ctx context.Context) {
	defer s.wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		wake, ok := s.launch(ctx, now)
		if ok {
			timer.Reset(wake.Sub(now))
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-s.poke:
		case <-ctx.Done():
			return
		}
	}
}

// launch starts what is due, as far as there is room, and returns when to look again, if not only on a poke.
func (s *seeder) launch(ctx context.Context, now time.Time) (time.Time, bool) {
	size := s.size() // before the lock: who holds the table's may be waiting for this one, in tableGrew
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settle.IsZero() && !now.Before(s.settle) {
		s.grown, s.settle = time.Time{}, time.Time{}
		if size <= tableSmall {
			s.plan.again(now)
		}
	}
	for s.flying < provideParallel {
		k, ok := s.plan.next(now)
		if !ok {
			break
		}
		s.flying++
		s.wg.Go(func() { s.fly(ctx, k) })
	}
	wake, ok := s.plan.wake()
	if s.flying >= provideParallel {
		ok = false // a landing pokes
	}
	if !s.settle.IsZero() && (!ok || s.settle.Before(wake)) {
		return s.settle, true
	}
	return wake, ok
}

// fly makes one announcement and reports how it went.
func (s *seeder) fly(ctx context.Context, k Key) {
	ctx, cancel := context.WithTimeout(ctx, provideWait)
	defer cancel()
	err := s.announce(ctx, k)
	s.mu.Lock()
	s.flying--
	s.plan.done(k, err == nil, time.Now())
	s.mu.Unlock()
	s.wakeUp()
}
