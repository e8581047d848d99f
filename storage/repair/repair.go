// Package repair keeps the pool's files on as many members as wanted. It is the shell of package placement: it tells the
// planner what it sees (who is there, who holds what, what is wanted) and does what the planner decides (fetch, announce,
// let go). It speaks /shoal/hold/1, by which members tell each other what they hold, give each other small pieces in
// runs, ask for large ones to be fetched, and examine one another; it reads all that this peer holds again in about a
// month, and collects what no name needs.
//
// It decides nothing about placement, knows no file names, and deletes only what the planner let go and other holders
// have promised anew to keep, or what no name needs.
package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory/disk"
	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/tree"
)

// holdsDir is the folder, below Config.Dir, of what other members hold.
const holdsDir = "holds"

// Repair is one peer's part in keeping the pool's files. All methods are safe for concurrent use.
//
// mu guards the planner and the book, which are changed together. Nothing is waited for while it is held.
type Repair struct {
	cfg   Config
	log   *slog.Logger
	store *piece.Store

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	leave  []func() // ends what others call
	once   sync.Once
	closed error

	mu      sync.Mutex
	planner *placement.Planner
	book    *inventory.Book
	self    inventory.Slot
	own     position // up to which this peer's own store is in the book
	told    map[peer.ID]heard
	follows map[peer.ID]context.CancelFunc
	jobs    map[chunk.CID]*job
	listed  map[peer.ID]placement.Peer  // as the planner was told last
	takings map[chunk.CID]time.Duration // what this peer announced, and until when on the boot clock
	news    chan struct{}               // closed and replaced when any of own, takings changes
	brake   placement.Brake
	names   Names         // nil until Use
	filled  bool          // this peer has taken its share since it joined
	filling bool          // it was told to
	wakeAt  time.Duration // on the boot clock; 0: never
	timer   *time.Timer

	keep    keep
	talks   talks
	served  *wire.Slots // streams of others
	queues  queues
	flight  flight
	owed    owed
	offers  offers
	uptime  uptime
	doubts  doubts
	trims   chan placement.Trim
	rate    *limiter
	slots   slots
	counted counters
	scrubs  scrubState
	members chan struct{} // capacity 1: the list of members may have changed
}

// position is a place in the changes of a piece store.
type position struct {
	epoch [16]byte
	next  uint64
}

// Open begins to keep the pool's files. It registers Protocol with cfg.Streams, so it is called once for each of them.
func Open(cfg Config) (*Repair, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	fs, err := folder.Dir(filepath.Join(cfg.Dir, holdsDir))
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	r := newRepair(cfg)
	if err := r.openKeep(fs); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	if r.self, err = r.book.Member(cfg.Self); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	r.uptime.open(cfg)
	r.scrubs.open(cfg)
	r.begin()
	return r, nil
}

func newRepair(cfg Config) *Repair {
	r := &Repair{
		cfg: cfg, log: cfg.Log, store: cfg.Pieces,
		book:    inventory.New(),
		told:    map[peer.ID]heard{},
		follows: map[peer.ID]context.CancelFunc{},
		jobs:    map[chunk.CID]*job{},
		takings: map[chunk.CID]time.Duration{},
		news:    make(chan struct{}),
		trims:   make(chan placement.Trim, trimsMax),
		members: make(chan struct{}, 1),
		served:  wire.NewSlots(servedEach, servedMax),
		rate:    newLimiter(cfg.Rate, min(rateBurst, cfg.Rate)),
		planner: placement.New(cfg.plan()),
	}
	r.owed.look, r.owed.debts = make(chan struct{}, 1), map[chunk.CID]debt{}
	r.talks.idle = map[peer.ID][]idleTalk{}
	r.slots.init()
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// plan is the planner's part of the configuration.
func (c *Config) plan() placement.Config {
	t := c.Timings
	return placement.Config{
		Self: c.Self, Patience: t.Patience, Urgent: t.Urgent, WakeGrace: t.Grace, Lease: t.Lease, Jitter: t.Jitter,
		Reserve: c.Reserve,
	}
}

// begin tells the planner what there is, and starts the work.
func (r *Repair) begin() {
	r.cfg.Fetch.SetRepairRate(max(0, r.cfg.Rate))
	r.publishOffer()
	r.timer = time.AfterFunc(time.Hour, r.tick) // set for good with the first step
	r.learnMembers()
	r.learnBook()
	r.learnStore()
	for _, run := range []func(){
		r.watchStore, r.watchMembers, r.payDebts, r.trim, r.audits, r.scrub, r.collect, r.housekeep,
	} {
		r.wg.Go(run)
	}
	r.leave = append(r.leave,
		r.cfg.Members.Watch(r.memberChanged),
		r.cfg.Records.Watch(lendsPrefix, r.lendsChanged),
	)
	signal(r.members)
	r.cfg.Streams.Handle(Protocol, r.serve)
}

// Use tells repair the names, once. They need a Repair themselves, so they come after it; until then nothing is mended
// or collected.
func (r *Repair) Use(names Names) {
	stop := names.WatchWants(func(wants []tree.Want) { r.learnWants(wants) })
	r.learnWants(slices.Collect(names.Wants()))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = names
	r.leave = append(r.leave, stop)
}

// learnWants tells the planner which pieces are wanted.
func (r *Repair) learnWants(wants []tree.Want) {
	var ev placement.Pieces
	for _, w := range wants {
		if w.Copies == 0 && !w.Pinned {
			ev.Removed = append(ev.Removed, w.Piece.ID)
			continue
		}
		ev.Changed = append(ev.Changed, placement.Piece{
			ID: w.Piece.ID, Size: w.Piece.Size, Copies: max(1, w.Copies), Pinned: w.Pinned,
		})
	}
	r.does(ev)
}

// Close ends the work. What was acknowledged stays; fetches can be gone on with.
func (r *Repair) Close() error {
	r.once.Do(func() {
		r.mu.Lock()
		leave := r.leave
		r.mu.Unlock()
		for _, f := range leave {
			f()
		}
		r.mu.Lock()
		r.cancel() // under mu: nothing is started after it
		r.timer.Stop()
		r.mu.Unlock()
		r.talks.drop("")
		r.wg.Wait()
		r.uptime.save(r.cfg)
		r.keep.mu.Lock()
		defer r.keep.mu.Unlock()
		if r.keep.behind {
			r.compact()
		}
		if err := r.keep.log.Close(); err != nil {
			r.closed = fmt.Errorf("repair: %w", err)
		}
	})
	return r.closed
}

// ErrClosed is what using a closed Repair returns.
var ErrClosed = errors.New("repair: it is closed")

// start runs f on a goroutine that Close waits for, unless it is closed already.
func (r *Repair) start(f func()) bool {
	if !r.enter() {
		return false
	}
	go func() {
		defer r.wg.Done()
		f()
	}()
	return true
}

// enter makes Close wait for a Done of wg, unless it is closed already.
func (r *Repair) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return false
	}
	r.wg.Add(1)
	return true
}

// now is the planner's moment.
func (r *Repair) now() placement.Moment {
	return placement.Moment{Boot: r.cfg.Boot(), Wall: r.cfg.Now().Round(0)}
}

// step tells the planner of something, and does what follows. mu is held.
func (r *Repair) step(ev placement.Event) {
	if r.ctx.Err() != nil {
		return
	}
	now := r.now()
	out := r.planner.Step(now, ev)
	for _, id := range out.Stop {
		r.stopJob(id)
	}
	for _, a := range out.Announce {
		r.announce(now, a)
	}
	for _, f := range out.Fetch {
		r.startJob(f)
	}
	for _, t := range out.Trim {
		r.startTrim(t)
	}
	if out.Filled && !r.filled {
		r.filled = true
		r.wg.Go(func() { r.write(disk.Entry{Kind: entryFlags, Payload: []byte{flagFilled}}) })
	}
	r.brake = out.Brake
	r.setTimer(now.Boot, out.Wake)
}

// does is step for those who do not hold mu.
func (r *Repair) does(ev placement.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step(ev)
}

// setTimer has tick called at a moment of the boot clock. Go's timers stand still while the machine sleeps; then it
// comes late, and housekeep has noticed the sleep before.
func (r *Repair) setTimer(now, wake time.Duration) {
	if wake == r.wakeAt || r.timer == nil {
		return
	}
	r.wakeAt = wake
	if wake == 0 {
		r.timer.Stop()
		return
	}
	r.timer.Reset(max(wake-now, tickMin))
}

// tickMin keeps a planner that wants to be woken at once, again and again, from taking a processor.
const tickMin = time.Millisecond

func (r *Repair) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeAt = 0
	r.step(placement.Tick{})
}

// announce notes a taking, for the others to be told.
func (r *Repair) announce(now placement.Moment, a placement.Announce) {
	if a.For <= 0 {
		delete(r.takings, a.Piece)
	} else {
		r.takings[a.Piece] = now.Boot + a.For
	}
	r.spread()
}

// spread wakes all who tell other members of what this peer holds. mu is held.
func (r *Repair) spread() {
	close(r.news)
	r.news = make(chan struct{})
}

// signal wakes the one goroutine behind a channel of capacity 1, if it is not awake already.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
