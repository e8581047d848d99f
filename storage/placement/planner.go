package placement

import (
	"cmp"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	patienceStd  = 72 * time.Hour
	urgentStd    = 15 * time.Minute
	windowStd    = time.Hour
	graceStd     = 10 * time.Minute
	leaseStd     = 10 * time.Minute
	leaseMin     = 5 * time.Second // of a lease that is not set: bytes that stutter are no reason to begin anew
	jitterStd    = 30 * time.Minute
	freezeStd    = 0.25
	seeStd       = 0.5
	largeStd     = 2
	smallStd     = 64
	reserveShare = 20 // of its Space, what a peer wants free

	// vanishMin is the fewest members that can vanish at once: one lid that closes is no disaster, however small the pool.
	vanishMin = 2

	// MembersMax is how many members are known at a time, takingsMax how many pieces one of them may be taking, and wishesMax
	// how many nudges wait here.
	MembersMax = 1024
	// PiecesMax is from how many pieces on what members hold beyond the live ones is not remembered.
	PiecesMax  = 1 << 22
	takingsMax = 256
	wishesMax  = 4096

	// freshAfter is for how long after waking this peer cannot be sure that those it takes to be online are.
	freshAfter = time.Minute
	// hearsayStep is by how much later than known another must have seen a member to count.
	hearsayStep = time.Minute

	smallSize = 1 << 20 // bytes: pieces of at most this are small
	never     = time.Duration(math.MaxInt64)
)

// withDefaults fills in what is left out.
func (c Config) withDefaults() Config {
	c.Patience = cmp.Or(c.Patience, patienceStd)
	quarter := c.Patience / 4
	c.settle = min(max(c.Urgent, 0), quarter)
	c.settle = cmp.Or(c.settle, min(urgentStd, quarter))
	c.Urgent = cmp.Or(c.Urgent, c.settle)
	c.FreezeShare = cmp.Or(c.FreezeShare, freezeStd)
	c.FreezeWindow = cmp.Or(c.FreezeWindow, min(windowStd, c.Patience/2))
	c.SeeShare = cmp.Or(c.SeeShare, seeStd)
	c.WakeGrace = max(0, cmp.Or(c.WakeGrace, min(graceStd, quarter)))
	c.Lease = cmp.Or(c.Lease, min(leaseStd, max(quarter, leaseMin)))
	c.Jitter = min(max(0, cmp.Or(c.Jitter, jitterStd)), quarter)
	c.Large = cmp.Or(c.Large, largeStd)
	c.Small = cmp.Or(c.Small, smallStd)
	return c
}

// Planner is the machine. Only one goroutine may call its methods.
type Planner struct {
	cfg Config
	out Out

	now     time.Duration // Boot of this step
	started bool
	begun   time.Duration // Boot of the first step
	woke    time.Duration // Boot of it, or of the last Woke
	grace   time.Duration // Boot until which nothing is begun
	brake   Brake
	lifted  time.Duration // Boot when it was last let go

	pool   pool
	pieces []piece
	index  map[chunk.CID]int32
	spare  []int32  // pieces not in use
	bits   []uint64 // holders of pieces[i]: pool.words words from i*pool.words

	open    queue // by when they are to be judged
	ready   [2]queue
	waiting []int32 // open ones of which others have the first turn
	starved bool    // something was passed over because there is no room here

	flights []flight
	takings map[int32][]taking // of others
	retries map[int32]retry
	wishes  map[int32]bool
	buf     []int         // see takers
	sweep   time.Duration // when takings, promises and retries are next looked through

	filling filler
	trim    trimmer
}

// New returns a planner that knows nothing yet.
func New(cfg Config) *Planner {
	return &Planner{
		cfg:     cfg.withDefaults(),
		pool:    pool{slots: make(map[peer.ID]int), self: -1, crossing: never},
		index:   make(map[chunk.CID]int32),
		takings: make(map[int32][]taking),
		retries: make(map[int32]retry),
		wishes:  make(map[int32]bool),
		sweep:   never,
		filling: filler{until: never},
		trim:    trimmer{promised: make(map[int32]time.Duration), next: never},
	}
}

// Step takes one event. now must not go back on Boot.
func (p *Planner) Step(now Moment, ev Event) Out {
	p.advance(now)
	p.out = Out{}
	p.apply(now, ev)
	p.settle()
	return p.out
}

func (p *Planner) advance(now Moment) {
	if p.started && now.Boot < p.now {
		panic("placement: boot time went back")
	}
	p.now = now.Boot
	if !p.started {
		p.started, p.begun, p.woke = true, now.Boot, now.Boot
		p.grace = now.Boot + p.cfg.WakeGrace
		p.brake = JustWoke
	}
}

func (p *Planner) apply(now Moment, ev Event) {
	switch ev := ev.(type) {
	case Members:
		p.members(now, ev.List)
	case Presence:
		p.presence(now, ev)
	case Room:
		p.room(ev)
	case Hearsay:
		p.hearsay(now, ev.Seen)
	case Pieces:
		p.live(ev)
	case Holds:
		p.holds(ev)
	case Taking:
		p.taken(ev)
	case Nudge:
		p.nudge(ev)
	case Moving:
		p.moving(ev.Piece)
	case Taken:
		p.ended(ev.Piece, true)
	case Failed:
		p.ended(ev.Piece, false)
	case Kept:
		p.kept(ev.Piece)
	case Need:
		p.need(ev.Bytes)
	case Fill:
		p.fill()
	case Woke:
		p.woke = now.Boot
		p.grace = max(p.grace, now.Boot+p.cfg.WakeGrace)
	case Tick:
	default:
		panic("placement: unknown event")
	}
}

// settle draws the conclusions of whatever has changed.
func (p *Planner) settle() {
	if p.now >= p.pool.crossing {
		p.refresh()
	}
	p.judgeBrake()
	p.renew()
	p.mark()
	p.scan()
	p.sweepUp()
	p.mature()
	p.begin()
	p.let()
	p.out.Filled = p.filled()
	p.out.Brake = p.brake
	p.out.Wake = p.wake()
}

// wake is when time alone will next change something.
func (p *Planner) wake() time.Duration {
	due := p.open.first()
	if p.brake != Free { // there is no hurry: hardly anything of it may be begun
		due = max(due, p.now+p.cfg.Lease/2)
	}
	at := min(due, p.pool.crossing, p.sweep, p.trim.next, p.brakeEnds(), p.filling.until)
	for _, f := range p.flights {
		at = min(at, f.renewAt)
	}
	if at == never {
		return 0
	}
	return max(at, p.now+1)
}
