// Package sched decides, for one download, which runs of leaves to ask of
// whom, what to cancel and whom to drop.
//
// It is a pure state machine: Step(now, Event) Out, with no clock, goroutine or
// randomness of its own. A peer is somebody who serves the root; an ask is a
// run of leaves requested of one peer and answered in the order asked. The
// rules are BitTorrent's (BEP 3: rarest first, endgame, snubbing) over windows
// sized in time, as libtorrent sizes them; DESIGN.md has the reasons.
package sched

import (
	"math"
	"time"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

const (
	windowTime = 3 * time.Second // a peer's window is what it delivers in this time …
	windowMin  = 1 << 20         // … between these two, in bytes
	windowMax  = 12 << 20
	windowNew  = 2 << 20 // of a peer whose rate is not known; grows by what arrives

	spareTime  = 5 * time.Second       // seeds are spared what fellows can send within this
	soonTime   = 2 * time.Second       // what a fellow expects from a seed within this counts as its own, if it keeps to it …
	soonGrace  = time.Second           // … or has not been heard of for longer than this
	heardMax   = 64                    // fellows by hearsay
	spareFresh = 50 * time.Millisecond // the judgement holds for so long

	rateInterval = 250 * time.Millisecond // a rate is sampled over at least this
	rateKeep     = 0.6                    // share of the old rate in the new

	snubAfter  = 10 * time.Second // silent with leaves outstanding: its leaves are given to others
	stallAfter = 40 * time.Second // silent this long: dropped

	// queueMax is how many leaves one peer may have outstanding, however small
	// they are: a server refuses 8,192 runs, and each could be a run of its own.
	queueMax = 4096

	extraMax = 2 * windowMax // bytes of leaves that it was never asked for

	cellLeaves = 64 // rarest first in cells of this many leaves, in order inside
	cellsWish  = 64 // smaller cells when the root would have fewer cells than this

	moveGain  = 1.5 // a waiting leaf moves to a peer that would deliver it this much sooner
	dupGain   = 2.0 // one being sent is asked twice only for this gain
	stealGain = 20 * time.Millisecond

	headPatience = 300 * time.Millisecond // a sequential reader waits so long before a leaf is asked for twice

	endgameTick = 50 * time.Millisecond // between two looks at who holds up the end

	// ReadAhead is how far, in bytes, a sequential download runs ahead of the
	// first leaf still missing.
	ReadAhead = 8 << 20
)

// Peer numbers a peer within one download. 0 is nobody.
type Peer uint16

// Kind is what happened.
type Kind uint8

// The kinds of event, with the fields they use.
const (
	Tick     Kind = iota // time passed: call at Out.Wake
	Joined               // Peer, Have (nil: it has everything)
	Has                  // Peer, Run: it has these leaves now
	Soon                 // Peer, Run: it has asked a seed for these
	Left                 // Peer is gone
	Arrived              // Peer, Run, Bytes: leaves came in, to be verified
	Moving               // Peer, Bytes: part of a leaf came in
	Verified             // Run is correct and written
	Corrupt              // Peer, Run: what it sent is not what was asked for
	Refused              // Peer, Run: it will not send these
	Choked               // Peer has put our requests aside
	Unchoked             // Peer takes requests
	Seek                 // Run.First: a reader moved here; from now on leaves come in order
	Heard                // Name: said to be fetching this root too
	Wanted               // Run: these are to be fetched too; none of them is verified
	Unwanted             // Run: these need not be fetched after all
)

// Event is one thing that happened; Kind says which fields count.
type Event struct {
	Kind  Kind
	Peer  Peer
	Run   bitfield.Run
	Have  *bitfield.Bitfield // owned by the scheduler from now on
	Bytes int
	Name  uint64 // of Joined: a hash of who it is, the same on every peer
}

// Ask is a run requested of, or cancelled at, a peer.
type Ask struct {
	Peer Peer
	Run  bitfield.Run
}

// Drop is a peer to disconnect; Ban says not to take it back.
type Drop struct {
	Peer Peer
	Why  string
	Ban  bool
}

// Out is what to do next, in this order. Its slices are valid until the next Step.
type Out struct {
	Drops   []Drop
	Cancels []Ask
	Asks    []Ask
	Done    bool      // every wanted leaf is verified
	Wake    time.Time // when to send a Tick; zero when nothing depends on time
}

// Config describes a download.
type Config struct {
	Leaves     int
	Size       func(leaf int) int // bytes; a leaf of unknown size may be any guess
	Want       *bitfield.Bitfield // leaves to get; nil for all
	Seed       uint64             // where in the root to begin among equally rare cells
	Self       uint64             // a hash of who we are, as Event.Name is of others
	Sequential bool               // lowest leaf first, ReadAhead at most
}

// Scheduler is the state of one download. One goroutine owns it.
type Scheduler struct {
	cfg   Config
	need  *bitfield.Bitfield // wanted and not yet verified
	free  *bitfield.Bitfield // needed, and neither asked of anybody nor arrived
	here  *bitfield.Bitfield // arrived, and neither verified nor found wrong
	first []Peer             // who was asked for a leaf, 0 for nobody
	twice []Peer             // who was asked too, in the endgame

	cell      int                // leaves a cell: a power of two ≤ 64
	spare     *bitfield.Bitfield // what fellows will have sent within spareTime; nil for nothing
	spareAt   time.Time          // when it was made
	spared    *bitfield.Bitfield // spare while picking for a seed
	avail     []int              // per cell, leaf copies among peers that do not have everything
	start     int                // the cell to begin with
	ranks     []uint8            // per cell, our place among the fellows for asking seeds; nil: to be made
	heard     map[uint64]bool    // names of fellows, those without a session yet too
	head      int                // sequential: leaves before this are done or not wanted
	awaited   int                // sequential: the leaf the reader waits for …
	awaitedAt time.Time          // … since when

	peers []*peer // by Peer; nil when gone
	now   time.Time
	out   Out
}

// New returns a scheduler with nobody to ask.
func New(cfg Config) *Scheduler {
	s := &Scheduler{cfg: cfg, heard: map[uint64]bool{}, awaited: -1, first: make([]Peer, cfg.Leaves), twice: make([]Peer, cfg.Leaves)}
	if s.need = cfg.Want; s.need == nil {
		s.need = bitfield.Full(cfg.Leaves)
	}
	s.need = s.need.Clone()
	s.free, s.here = s.need.Clone(), bitfield.New(cfg.Leaves)
	s.cell = cellLeaves
	for s.cell > 1 && cfg.Leaves/s.cell < cellsWish {
		s.cell /= 2
	}
	cells := (cfg.Leaves + s.cell - 1) / s.cell
	s.avail = make([]int, cells)
	if cells > 0 {
		s.start = int(cfg.Seed % uint64(cells))
	}
	return s
}

// Left is how many wanted leaves are not verified yet.
func (s *Scheduler) Left() int { return s.need.Count() }

// Needs reports whether a leaf is wanted and not verified yet.
func (s *Scheduler) Needs(leaf int) bool { return s.need.Has(leaf) }

// Endgame reports that every needed leaf is here or asked of somebody.
func (s *Scheduler) Endgame() bool { return s.free.Count() == 0 }

// Step takes one event in and says what to do. The answer is valid until the
// next Step.
func (s *Scheduler) Step(now time.Time, ev Event) *Out {
	s.now = now
	s.out = Out{Drops: s.out.Drops[:0], Cancels: s.out.Cancels[:0], Asks: s.out.Asks[:0]}
	p := s.peer(ev.Peer)
	if ev.Kind == Joined {
		p = s.join(ev.Peer, ev.Have, ev.Name)
	}
	fill := s.apply(p, ev)
	if snubbed := s.judge(); fill == everyone || snubbed || len(s.out.Drops) > 0 {
		s.fillAll()
	} else if fill == one && p != nil {
		s.fill(p)
	}
	s.out.Done = s.need.Count() == 0
	s.out.Wake = s.wake()
	return &s.out
}

// scope says whose windows an event may have opened.
type scope uint8

const (
	nobody scope = iota
	one
	everyone
)

// apply changes the state by ev. p is the peer it names, nil if unknown.
func (s *Scheduler) apply(p *peer, ev Event) scope {
	switch ev.Kind {
	case Tick:
		return everyone
	case Verified:
		s.verified(ev.Run)
		if s.cfg.Sequential || len(s.out.Cancels) > 0 {
			return everyone // the reader's place moved on, or whoever came second has room
		}
		return nobody
	case Corrupt: // also of one who has left: its leaves are missing again
		if p != nil {
			s.drop(p, "sent bytes that do not match the root", true)
		}
		s.release(ev.Run)
		return everyone
	case Heard:
		if len(s.heard) < heardMax {
			s.heard[ev.Name], s.ranks = true, nil
		}
		return nobody
	case Seek:
		s.cfg.Sequential = true
		s.head = ev.Run.First
		return everyone
	case Wanted:
		s.want(ev.Run)
		return everyone
	case Unwanted:
		s.unwant(ev.Run)
		return everyone
	}
	if p == nil {
		return nobody // news of one who has left
	}
	switch ev.Kind {
	case Joined, Unchoked:
		p.choked = false
		p.last, p.waited = s.now, 0
		return one
	case Has:
		s.has(p, ev.Run)
		return one
	case Soon:
		s.soon(p, ev.Run)
		return nobody
	case Left:
		s.leave(p)
		return everyone
	case Arrived:
		s.arrived(p, ev.Run)
		p.moved(s.now, ev.Bytes)
		return one
	case Moving:
		back := p.snubbed
		p.moved(s.now, ev.Bytes)
		if back { // it owes nothing, so nothing else may ever have it asked again
			return one
		}
		return nobody
	case Refused:
		s.refused(p, ev.Run)
		return everyone
	case Choked:
		p.choked, p.snubbed = true, false // it owes nothing now, which it could show to be back
		s.giveBack(p)
		return everyone
	}
	return nobody
}

func (s *Scheduler) peer(id Peer) *peer {
	if int(id) >= len(s.peers) {
		return nil
	}
	return s.peers[id]
}

func (s *Scheduler) join(id Peer, have *bitfield.Bitfield, name uint64) *peer {
	for len(s.peers) <= int(id) {
		s.peers = append(s.peers, nil)
	}
	p := &peer{id: id, name: name, have: have, fellow: have != nil, asked: bitfield.New(s.cfg.Leaves), last: s.now, mark: s.now, grown: windowNew}
	s.peers[id] = p
	s.ranks = nil
	if have == nil {
		delete(s.heard, name)
	} else {
		s.heard[name] = true
		for i := range s.cfg.Leaves {
			if have.Has(i) {
				s.avail[i/s.cell]++
			}
		}
	}
	return p
}

func (s *Scheduler) has(p *peer, r bitfield.Run) {
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves && p.fellow; i++ {
		if p.have.Set(i) {
			s.avail[i/s.cell]++
			p.soon.keep(i)
			s.yield(p, i)
		}
	}
}

// leave forgets p and gives back what it was asked for.
func (s *Scheduler) leave(p *peer) {
	s.giveBack(p)
	s.peers[p.id] = nil
	if !p.fellow {
		return
	}
	delete(s.heard, p.name)
	s.ranks, s.spareAt = nil, time.Time{}
	for i := range s.cfg.Leaves {
		if p.have.Has(i) {
			s.avail[i/s.cell]--
		}
	}
}

func (s *Scheduler) drop(p *peer, why string, ban bool) {
	s.leave(p)
	s.out.Drops = append(s.out.Drops, Drop{p.id, why, ban})
}

// giveBack frees every leaf that p was asked for.
func (s *Scheduler) giveBack(p *peer) {
	for _, l := range p.queue {
		s.unhold(int(l), p.id)
	}
	p.queue, p.out = p.queue[:0], 0
}

// unhold takes id off the holders of leaf, which becomes free if it was the last.
func (s *Scheduler) unhold(leaf int, id Peer) {
	switch id {
	case s.first[leaf]:
		s.first[leaf], s.twice[leaf] = s.twice[leaf], 0
	case s.twice[leaf]:
		s.twice[leaf] = 0
	default:
		return
	}
	if s.first[leaf] == 0 && s.need.Has(leaf) && !s.here.Has(leaf) {
		s.free.Set(leaf)
	}
}

// release makes leaves that had arrived wanted again.
func (s *Scheduler) release(r bitfield.Run) {
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		s.here.Clear(i)
		if s.need.Has(i) && s.first[i] == 0 {
			s.free.Set(i)
		}
	}
}

// arrived takes leaves off p's queue. They are no longer free even if p was
// not asked for them (any more): they are here, waiting for verification.
func (s *Scheduler) arrived(p *peer, r bitfield.Run) {
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		if s.need.Has(i) {
			s.here.Set(i)
		}
		if p.take(i) {
			p.out -= s.cfg.Size(i)
			s.unhold(i, p.id)
		}
		if !p.asked.Clear(i) {
			p.extra += s.cfg.Size(i)
		}
		s.free.Clear(i)
	}
	// What was cancelled may still come, once for each time it was asked for.
	if p.extra > extraMax {
		s.drop(p, "keeps sending what was not asked for", true)
	}
}

func (s *Scheduler) verified(r bitfield.Run) {
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		s.need.Clear(i)
		s.free.Clear(i)
		s.here.Clear(i)
		s.recall(i)
	}
}

func (s *Scheduler) cancel(id Peer, leaf int) {
	if k := len(s.out.Cancels) - 1; k >= 0 && s.out.Cancels[k].Peer == id {
		if r := &s.out.Cancels[k].Run; r.First+r.Count == leaf {
			r.Count++
			return
		}
	}
	s.out.Cancels = append(s.out.Cancels, Ask{id, bitfield.Run{First: leaf, Count: 1}})
}

func (s *Scheduler) refused(p *peer, r bitfield.Run) {
	if p.have == nil {
		p.have = bitfield.Full(s.cfg.Leaves)
	}
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		if !p.have.Clear(i) {
			continue // nor was it asked for, then
		}
		if p.fellow {
			s.avail[i/s.cell]--
		}
		if p.take(i) {
			p.out -= s.cfg.Size(i)
			s.unhold(i, p.id)
		}
	}
}

// judge finds the silent: first their leaves go to others, then they go. It
// reports whether there are such leaves now.
func (s *Scheduler) judge() (snubbed bool) {
	for _, p := range s.peers {
		if p == nil || p.choked || (len(p.queue) == 0 && !p.snubbed) {
			continue
		}
		switch silent := p.silence(s.now); {
		case silent >= stallAfter:
			s.drop(p, "stopped sending", false)
		case silent >= snubAfter && !p.snubbed:
			p.snubbed, snubbed = true, true
			// The head is not cancelled: its coming shows that the peer is back.
			for _, l := range p.queue[1:] {
				s.cancel(p.id, int(l))
			}
			s.giveBack(p)
		}
	}
	return snubbed
}

// wake is when judge or the endgame may have something new to say.
func (s *Scheduler) wake() time.Time {
	var at time.Time
	for _, p := range s.peers {
		if p == nil || p.choked {
			continue
		}
		if len(p.queue) == 0 && !p.snubbed {
			if s.free.Count() > 0 && !p.fellow { // a seed that is spared: look again soon
				at = earlierOf(at, s.now.Add(rateInterval))
			}
			continue
		}
		next := p.last.Add(snubAfter - p.waited)
		if p.snubbed {
			next = p.last.Add(stallAfter - p.waited)
		}
		if s.free.Count() == 0 || s.cfg.Sequential { // estimates age, a reader waits
			next = s.now.Add(endgameTick)
		}
		at = earlierOf(at, next)
	}
	return at
}

// earlierOf is the earlier of two times, where zero is none.
func earlierOf(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// peer is what is known of one who serves.
type peer struct {
	id     Peer
	name   uint64
	have   *bitfield.Bitfield // nil: everything
	fellow bool               // joined without everything: a downloader like us
	queue  []int32            // leaves asked for and not arrived, in the order asked
	out    int                // their bytes
	asked  *bitfield.Bitfield // leaves asked for that have not come, cancelled or not
	soon   promises           // of a fellow

	rate  float64   // bytes/s, smoothed; 0 unknown
	fresh int       // bytes since mark
	mark  time.Time // when the present sample began
	last  time.Time // when bytes last came, or were first waited for
	// waited is the silence before last, while leaves were outstanding that others
	// then sent: without it, one who never answers would look new with every ask.
	waited time.Duration
	grown  int // window while the rate is unknown
	extra  int // bytes that came unasked

	choked, snubbed bool
}

func (p *peer) word(w int) uint64 {
	if p.have == nil {
		return math.MaxUint64
	}
	return p.have.Word(w)
}

func (p *peer) has(i int) bool { return p.have == nil || p.have.Has(i) }

// take removes a leaf from the queue and says whether it was there.
func (p *peer) take(leaf int) bool {
	for k, l := range p.queue {
		if int(l) != leaf {
			continue
		}
		if k == 0 {
			p.queue = p.queue[1:]
		} else {
			p.queue = append(p.queue[:k], p.queue[k+1:]...)
		}
		return true
	}
	return false
}

// silence is how long p has owed leaves and sent nothing.
func (p *peer) silence(now time.Time) time.Duration {
	if len(p.queue) == 0 && !p.snubbed {
		return p.waited
	}
	return p.waited + now.Sub(p.last)
}

// began starts the clocks of a peer that is asked when it owed nothing.
func (p *peer) began(now time.Time) {
	p.last, p.mark, p.fresh = now, now, 0
}

// ended stops them when it owes nothing any more though it sent nothing.
func (p *peer) ended(now time.Time) {
	if len(p.queue) == 0 && !p.snubbed {
		p.waited += now.Sub(p.last)
		p.last = now
	}
}

// moved accounts bytes that came from p.
func (p *peer) moved(now time.Time, n int) {
	p.last, p.waited, p.snubbed = now, 0, false
	p.fresh += n
	if p.rate == 0 {
		p.grown = min(p.grown+n, windowMax)
	}
	if d := now.Sub(p.mark); d >= rateInterval {
		sample := float64(p.fresh) / d.Seconds()
		if p.rate == 0 {
			p.rate = sample
		} else {
			p.rate = rateKeep*p.rate + (1-rateKeep)*sample
		}
		p.mark, p.fresh = now, 0
	}
}

// window is how many bytes p may have outstanding.
func (p *peer) window() int {
	switch {
	case p.choked, p.snubbed:
		return 0
	case p.rate == 0:
		return p.grown
	}
	return int(min(max(p.rate*windowTime.Seconds(), windowMin), windowMax))
}

// speed estimates what p delivers now, in bytes/s: a silence counts against it.
func (p *peer) speed(now time.Time, leaf int) float64 {
	rate := p.rate
	if rate == 0 {
		if d := now.Sub(p.mark).Seconds(); p.fresh > 0 && d > 0 {
			rate = float64(p.fresh) / d
		} else {
			rate = windowMax // nothing known: assume well, for as long as the silence allows
		}
	}
	if d := p.silence(now).Seconds(); d > 0 && len(p.queue) > 0 {
		rate = min(rate, 2*float64(leaf)/d)
	}
	return max(rate, 1)
}
