package sim

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
)

const (
	rate        = 2 << 20               // bytes a second of one fetch
	delayMin    = 50 * time.Millisecond // of a message
	delayMax    = 5 * time.Second
	silentMin   = time.Second // until somebody who went is missed
	silentMax   = 10 * time.Second
	strangerMin = 15 * time.Second // until one who woke misses those who went meanwhile
	strangerMax = 25 * time.Second
	retellAfter = time.Hour        // what a peer says again of whom it saw last
	decideAfter = 10 * time.Second // when the promises for a trim are counted
	evictAfter  = 30 * day         // of the dead
	replaceMin  = day
	replaceMax  = 14 * day
	laptopsMax  = 128 // with all that are ever replaced

	patience   = 72 * time.Hour   // the planners', when they are not eager
	graceTime  = 10 * time.Minute // likewise
	checkEvery = 5000             // steps
)

// fault is a guard that a run does without, to see that its loss is noticed.
type fault uint8

const (
	sound     fault = iota
	credulous       // promises to keep a copy are given by whoever has one, even while letting it go
	trusting        // copies are let go on the word of inventories, without asking
	deaf            // takings are not heard
	reckless        // planners know no brakes
	lazy            // planners do not mend what they should
	mute            // nobody tells when it last saw the others
	drowsy          // planners are not told that their machine slept
)

var epoch = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// held is a set of laptops.
type held [laptopsMax / 64]uint64

func (h *held) has(i int) bool { return h[i/64]>>(i%64)&1 != 0 }
func (h *held) add(i int)      { h[i/64] |= 1 << (i % 64) }
func (h *held) clear(i int)    { h[i/64] &^= 1 << (i % 64) }
func (h *held) count() int     { return bits.OnesCount64(h[0]) + bits.OnesCount64(h[1]) }
func (h *held) and(o held) held {
	return held{h[0] & o[0], h[1] & o[1]}
}

// file is one file of one piece.
type file struct {
	id     chunk.CID
	live   bool
	said   bool // its writer was told that it is safe: two copies, or it was there at the start
	lost   bool
	made   time.Duration
	held   held    // by living laptops
	deaths []death // of laptops that held it
}

// world is one year.
type world struct {
	cfg    Config
	rng    *rand.Rand
	now    time.Duration
	queue  queue
	files  []file
	number map[chunk.CID]int32
	live   []int32
	all    []*laptop
	byID   map[peer.ID]*laptop
	online held
	roster int     // version of the list of members
	news   []int32 // files written or removed, in order
	res    Result
	sights []sight
	looked [2]int // files looked at, and those that could be read
}

func play(cfg Config, seed uint64) (Result, error) {
	w := newWorld(cfg, seed)
	for {
		e := w.queue.take()
		if e.at > cfg.Time {
			return w.result(), nil
		}
		w.now = e.at
		if err := w.happen(e); err != nil {
			return w.res, fmt.Errorf("at %v: %w", w.now, err)
		}
	}
}

func newWorld(cfg Config, seed uint64) *world {
	w := &world{
		cfg: cfg, rng: rand.New(rand.NewPCG(seed, 0x10c4)), number: map[chunk.CID]int32{}, byID: map[peer.ID]*laptop{},
	}
	w.res.Seeds, w.res.Days = 1, float64(cfg.Time)/float64(day)
	for range cfg.Pieces {
		n := w.newFile()
		w.files[n].said = true
	}
	for i := range cfg.Laptops {
		w.newLaptop(fmt.Sprintf("owner%d", i/2), fmt.Sprintf("site%d", i%6))
	}
	w.place()
	for _, l := range w.all {
		w.open(l, false)
		w.at(l.habit.until(w.rng, 0), event{kind: sleeps, a: l.index})
	}
	w.later(dies, cfg.Deaths/365)
	w.later(writes, cfg.Writes)
	w.at(lookEvery, event{kind: looks})
	return w
}

// later plans the next of what happens so many times a day, at random.
func (w *world) later(k kind, perDay float64) {
	if perDay > 0 {
		w.at(w.now+time.Duration(w.rng.ExpFloat64()/perDay*float64(day)), event{kind: k})
	}
}

func (w *world) at(t time.Duration, e event) {
	e.at = t
	w.queue.put(e)
}

func (w *world) soon(e event) { w.at(w.now+between(w.rng, delayMin, delayMax), e) }

func (w *world) newFile() int32 {
	n := int32(len(w.files))
	seed := binary.LittleEndian.AppendUint64(nil, w.rng.Uint64())
	w.files = append(w.files, file{id: chunk.SumRaw(seed), live: true, made: w.now})
	w.number[w.files[n].id] = n
	w.live = append(w.live, n)
	return n
}

func (w *world) piece(n int32) placement.Piece {
	return placement.Piece{ID: w.files[n].id, Size: w.cfg.Bytes, Copies: w.cfg.Copies}
}

// place puts the first files where they belong.
func (w *world) place() {
	var members []placement.Member
	for _, l := range w.all {
		members = append(members, l.member)
	}
	for n := range w.files {
		f := &w.files[n]
		for _, i := range placement.Choose(f.id.Sum[:], members, w.cfg.Copies) {
			w.gain(w.all[i], int32(n))
		}
	}
}

// gain and drop change what a laptop holds, and what it tells the others.
func (w *world) gain(l *laptop, n int32) {
	f := &w.files[n]
	f.held.add(int(l.index))
	f.said = f.said || f.held.count() > 1
	l.count++
	l.log = append(l.log, delta{n, true})
	w.tell(l)
}

func (w *world) drop(l *laptop, n int32) {
	w.files[n].held.clear(int(l.index))
	l.count--
	l.log = append(l.log, delta{n, false})
	w.tell(l)
}

// tell has all who are awake hear from a laptop soon.
func (w *world) tell(l *laptop) {
	for _, o := range w.all {
		if o.online && o != l && !o.pending.has(int(l.index)) {
			o.pending.add(int(l.index))
			w.soon(event{kind: meets, a: o.index, b: l.index})
		}
	}
}

func (w *world) happen(e event) error {
	a, b := w.all[e.a], w.all[e.b]
	switch e.kind {
	case wakes:
		return w.wakes(a)
	case sleeps:
		return w.sleeps(a)
	case ticks:
		return w.ticks(a, e.at)
	case meets:
		return w.meets(a, b)
	case hears:
		return w.hears(a, b, e.n)
	case retells:
		return w.retells(a, e.n)
	case names:
		return w.learns(a)
	case arrives:
		return w.arrives(a, e.n)
	case proves:
		w.proves(a, b, e.n)
	case trims:
		return w.decide(a, e.n)
	case nudged:
		if a.online {
			return w.step(a, placement.Nudge{Piece: w.files[e.n].id, Size: w.cfg.Bytes, From: b.id})
		}
	case dies:
		return w.dies()
	case evicts:
		w.evict(a)
	case joins:
		return w.joins(b)
	case writes:
		return w.writes()
	case looks:
		w.look()
	}
	return nil
}

// dies has a laptop die, for good and without a word.
func (w *world) dies() error {
	w.later(dies, w.cfg.Deaths/365)
	var living []*laptop
	for _, l := range w.all {
		if l.alive {
			living = append(living, l)
		}
	}
	if len(living) < 2 || len(w.all) == laptopsMax {
		return nil
	}
	l := living[w.rng.IntN(len(living))]
	if err := w.sleeps(l); err != nil {
		return err
	}
	l.alive = false
	w.res.Deaths++
	for n := range w.files {
		if f := &w.files[n]; f.held.has(int(l.index)) {
			f.held.clear(int(l.index))
			f.deaths = append(f.deaths, death{w.now, l.slept, l.index})
			w.mourn(f)
		}
	}
	w.at(w.now+evictAfter, event{kind: evicts, a: l.index})
	w.at(w.now+between(w.rng, replaceMin, replaceMax), event{kind: joins, b: l.index})
	return nil
}

func (w *world) evict(l *laptop) {
	l.member.ID = ""
	w.changed()
}

// changed has all who are awake learn the news of the directory soon.
func (w *world) changed() {
	w.roster++
	for _, o := range w.all {
		if o.online {
			w.soon(event{kind: names, a: o.index})
		}
	}
}

// joins has a new laptop take the place of a dead one.
func (w *world) joins(dead *laptop) error {
	l := w.newLaptop(dead.owner, dead.site)
	w.res.Joins++
	w.changed()
	w.at(l.habit.until(w.rng, w.now), event{kind: sleeps, a: l.index})
	return w.open(l, true)
}

// writes has a laptop write a file and remove the oldest one.
func (w *world) writes() error {
	w.later(writes, w.cfg.Writes)
	var awake []*laptop
	for _, l := range w.all {
		if l.online {
			awake = append(awake, l)
		}
	}
	if len(awake) == 0 || len(w.live) == 0 {
		return nil
	}
	l := awake[w.rng.IntN(len(awake))]
	if w.free(l) < uint64(2*w.cfg.Bytes) {
		return nil
	}
	old := w.live[0]
	w.live = w.live[1:]
	w.files[old].live = false
	n := w.newFile()
	w.gain(l, n)
	w.news = append(w.news, old, n)
	w.changed()
	targets := l.p.Targets(w.files[n].id, w.cfg.Bytes)
	for _, id := range targets[:min(len(targets), w.cfg.Copies-1)] {
		w.soon(event{kind: nudged, a: w.byID[id].index, b: l.index, n: n})
	}
	if err := w.learns(l); err != nil {
		return err
	}
	return w.step(l, placement.Holds{Peer: l.id, Added: []chunk.CID{w.files[n].id}})
}

func (w *world) result() Result {
	r := w.res
	copies := 0
	for _, n := range w.live {
		copies += w.files[n].held.count()
	}
	r.Copies = float64(copies) / float64(max(1, len(w.live)))
	r.Reachable = float64(w.looked[1]) / float64(max(1, w.looked[0]))
	if r.Lost() > 0 {
		r.Losing = 1
	}
	return r
}
