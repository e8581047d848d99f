package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/placement"
)

// laptop is one peer: a planner and the shell around it.
type laptop struct {
	index       uint8
	id          peer.ID
	owner, site string
	member      placement.Member // without an id: not a member any more
	habit       habit
	p           *placement.Planner
	alive       bool
	online      bool
	woke        time.Duration // when it last woke
	slept       time.Duration // when it last fell asleep
	wakings     int32
	tick        time.Duration // when its next tick comes; 0: none

	count  int     // pieces it holds
	log    []delta // what it gained and dropped
	read   []int   // by laptop: how much of its log is known here
	sees   held    // whom it takes to be online
	seen   []time.Duration
	met    held // whose inventory it has
	news   int  // how much of the directory's news it knows
	roster int  // which list of members it knows
	joined int  // which list of members was the first that has it

	pending held // from whom it will hear soon
	jobs    []job
	parts   map[int32]int64 // bytes of what it began and did not end
	asks    []ask
	serial  int32

	filling bool
	limit   float64 // pieces that are its share
	shares  int     // pieces that it took as its share
}

// delta is a piece that was gained or dropped.
type delta struct {
	n     int32
	added bool
}

// job is a fetch under way.
type job struct {
	serial int32
	n      int32
	why    placement.Why
	from   *laptop // nil: nobody has it
	begun  time.Duration
	done   int64
	since  time.Duration
}

// ask is a trim under way.
type ask struct {
	serial int32
	n      int32
	trim   placement.Trim
	got    int
}

func (w *world) newLaptop(owner, site string) *laptop {
	i := len(w.all)
	l := &laptop{
		index: uint8(i), id: peer.ID(fmt.Sprintf("laptop%03d", i)), owner: owner, site: site, alive: true,
		habit: newHabit(w.rng, w.cfg.Trips), parts: map[int32]int64{},
		read: make([]int, laptopsMax), seen: make([]time.Duration, laptopsMax), roster: -1,
	}
	if w.now > 0 {
		l.joined = w.roster + 1
	}
	l.member = placement.Member{ID: l.id, Space: uint64(w.cfg.Space), Uptime: 50, Owner: owner, Site: site}
	cfg := w.cfg.planner()
	cfg.Self = l.id
	l.p = placement.New(cfg)
	w.all = append(w.all, l)
	w.byID[l.id] = l
	return l
}

func (w *world) free(l *laptop) uint64 { return uint64(max(0, w.cfg.Space-int64(l.count)*w.cfg.Bytes)) }

// open starts a laptop for the first time: with everything that was agreed at the start, or as a newcomer that knows the
// directory and whoever is awake.
func (w *world) open(l *laptop, fresh bool) error {
	l.online, l.woke, l.filling = true, w.now, fresh
	w.online.add(int(l.index))
	for _, o := range w.all {
		if !fresh || o.online {
			l.sees.add(int(o.index))
			l.seen[o.index] = w.now
		}
	}
	if fresh {
		w.greet(l)
	}
	var live placement.Pieces
	for _, n := range w.live {
		live.Changed = append(live.Changed, w.piece(n))
	}
	l.news = len(w.news)
	if err := w.step(l, w.members(l)); err != nil {
		return err
	}
	if err := w.step(l, live); err != nil {
		return err
	}
	if !fresh {
		return w.openOld(l)
	}
	w.tell(l)
	l.limit = w.share(l)
	return w.step(l, placement.Fill{})
}

// share is how many pieces a laptop should hold among those that are not absent.
func (w *world) share(l *laptop) (n float64) {
	var members []placement.Member
	self := 0
	for _, o := range w.all {
		if o == l {
			self = len(members)
		}
		if o.online || o.member.ID != "" && w.now-o.slept < patience {
			members = append(members, o.member)
		}
	}
	for _, f := range w.live {
		id := w.files[f].id
		if slices.Contains(placement.Choose(id.Sum[:], members, w.cfg.Copies), self) {
			n++
		}
	}
	return n
}

// openOld tells what everybody holds at the start.
func (w *world) openOld(l *laptop) error {
	for _, o := range w.all {
		h := placement.Holds{Peer: o.id, Reset: true}
		for n := range w.files {
			if w.files[n].held.has(int(o.index)) {
				h.Added = append(h.Added, w.files[n].id)
			}
		}
		l.read[o.index] = len(o.log)
		if err := w.step(l, h); err != nil {
			return err
		}
	}
	return nil
}

// members is the list of members as a laptop sees them.
func (w *world) members(l *laptop) placement.Members {
	l.roster = w.roster
	var ev placement.Members
	for _, o := range w.all {
		if o.member.ID == "" {
			continue
		}
		m := placement.Peer{Member: o.member, State: roster.Away, Free: w.free(o)}
		if l.seen[o.index] > 0 {
			m.Seen = epoch.Add(l.seen[o.index])
		}
		if l.sees.has(int(o.index)) {
			m.State = roster.Online
		}
		ev.List = append(ev.List, m)
	}
	return ev
}

func (w *world) wakes(l *laptop) error {
	if !l.alive {
		return nil
	}
	l.online, l.woke, l.pending = true, w.now, held{}
	w.online.add(int(l.index))
	w.at(l.habit.until(w.rng, w.now), event{kind: sleeps, a: l.index})
	w.greet(l)
	for _, o := range w.all {
		if !o.online && l.sees.has(int(o.index)) {
			l.pending.add(int(o.index))
			w.at(w.now+between(w.rng, strangerMin, strangerMax), event{kind: meets, a: l.index, b: o.index})
		}
	}
	w.tell(l)
	w.soon(event{kind: names, a: l.index})
	l.wakings++
	w.at(w.now+retellAfter, event{kind: retells, a: l.index, n: l.wakings})
	var first placement.Event = placement.Woke{}
	if w.cfg.fault == drowsy {
		first = placement.Tick{}
	}
	if err := w.step(l, first); err != nil {
		return err
	}
	for _, j := range slices.Clone(l.jobs) { // what was under way when it fell asleep, and was not given up since
		w.end(l, j.n)
		if err := w.step(l, placement.Failed{Piece: w.files[j.n].id}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) sleeps(l *laptop) error {
	if !l.online {
		return nil
	}
	l.online, l.slept, l.tick = false, w.now, 0
	w.online.clear(int(l.index))
	w.at(l.habit.from(w.rng, w.now), event{kind: wakes, a: l.index})
	for k := range l.jobs {
		w.progress(l, &l.jobs[k])
		l.jobs[k].from = nil
		l.jobs[k].serial = -1
	}
	for _, o := range w.all {
		if o.online && o.sees.has(int(l.index)) {
			o.pending.add(int(l.index))
			w.at(w.now+between(w.rng, silentMin, silentMax), event{kind: meets, a: o.index, b: l.index})
		}
		for k := range o.jobs {
			if o.jobs[k].from == l {
				w.progress(o, &o.jobs[k])
				w.source(o, &o.jobs[k])
			}
		}
	}
	return nil
}

func (w *world) ticks(l *laptop, at time.Duration) error {
	if !l.online || l.tick != at {
		return nil
	}
	l.tick = 0
	for _, j := range slices.Clone(l.jobs) {
		if j.from != nil {
			if err := w.step(l, placement.Moving{Piece: w.files[j.n].id}); err != nil {
				return err
			}
		}
	}
	return w.step(l, placement.Tick{})
}

func (w *world) moment() placement.Moment {
	return placement.Moment{Boot: w.now, Wall: epoch.Add(w.now)}
}

// step gives an event to a laptop's planner and does what follows.
func (w *world) step(l *laptop, ev placement.Event) error {
	out := l.p.Step(w.moment(), ev)
	w.res.Steps++
	if err := w.audit(l, out); err != nil {
		return err
	}
	for _, id := range out.Stop {
		w.end(l, w.number[id])
	}
	for _, a := range out.Announce {
		for _, o := range w.all {
			if o.online && o != l {
				w.soon(event{kind: hears, a: o.index, b: l.index, n: w.number[a.Piece]})
			}
		}
	}
	for _, f := range out.Fetch {
		w.fetch(l, f)
	}
	for _, t := range out.Trim {
		w.propose(l, t)
	}
	l.filling = l.filling && !out.Filled
	if out.Wake > 0 && out.Wake != l.tick {
		l.tick = out.Wake
		w.at(out.Wake, event{kind: ticks, a: l.index})
	}
	return nil
}
