package repair

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// houseEvery is how often repair looks after itself, at most; less when the planner's patience is short.
	houseEvery = time.Minute
	houseMin   = 200 * time.Millisecond
	// sleptAfter is by how much the boot clock must outrun Go's own between two looks to say that the machine slept.
	sleptAfter = time.Second
)

func (r *Repair) memberChanged(roster.Change) { signal(r.members) }
func (r *Repair) lendsChanged(rec *directory.Record) {
	if rec.Key == lendsPrefix+r.cfg.Self.String() && rec.Author != r.cfg.Self {
		r.offers.overwritten.Store(true) // somebody else spoke in our name: say it again
	}
	signal(r.members)
}

// watchMembers keeps the planner's list of members up to date.
func (r *Repair) watchMembers() {
	for {
		select {
		case <-r.members:
			r.learnMembers()
		case <-r.ctx.Done():
			return
		}
	}
}

// learnMembers tells the planner who there is, follows those who are online, and forgets who is no member any more.
func (r *Repair) learnMembers() {
	members := r.cfg.Members.Members()
	lends := r.readOffers()
	gone := r.learnList(members, lends)
	for _, p := range gone {
		r.write(messageEntry(entryHeard, &pb.Heard{Peer: []byte(p), Gone: true}))
	}
	r.owed.membersChanged()
}

func (r *Repair) learnList(members []roster.Member, lends map[peer.ID]placement.Member) (gone []peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := map[peer.ID]bool{r.cfg.Self: true}
	var ev placement.Members
	for _, m := range members {
		in[m.ID] = true
		ev.List = append(ev.List, r.peer(m, lends[m.ID]))
	}
	for s := range inventory.Slot(r.book.Slots()) {
		if id := r.book.ID(s); id != "" && !in[id] {
			gone = append(gone, id)
		}
	}
	for _, id := range gone {
		r.book.Forget(id)
		delete(r.told, id)
		delete(r.doubts.of, id)
	}
	r.tellMembers(ev)
	r.keepFollowing(members)
	return gone
}

// tellMembers tells the planner what differs from what it was told last: of a state, only that.
func (r *Repair) tellMembers(ev placement.Members) {
	now, changed := make(map[peer.ID]placement.Peer, len(ev.List)), []placement.Event{}
	whole := len(ev.List) != len(r.listed)
	for _, p := range ev.List {
		now[p.ID] = p
		was, ok := r.listed[p.ID]
		if p.State != was.State || p.State != roster.Online && p.Seen != was.Seen {
			changed = append(changed, placement.Presence{Peer: p.ID, State: p.State, Seen: p.Seen})
		}
		was.State, was.Seen, was.Free = p.State, p.Seen, p.Free
		whole = whole || !ok || was != p
	}
	if r.listed = now; whole {
		changed = []placement.Event{ev}
	}
	for _, ev := range changed {
		r.step(ev)
	}
}

// peer is a member as the planner sees it.
func (r *Repair) peer(m roster.Member, lends placement.Member) placement.Peer {
	lends.ID = m.ID
	if m.Role < ident.RoleMember {
		lends.Space = 0 // a terminal reads and writes, and holds nothing
	}
	p := placement.Peer{
		Member: lends, State: m.State, Seen: m.Seen, Untrusted: r.doubts.untrusted(m.ID), Free: r.told[m.ID].usage.free,
	}
	if m.ID == r.cfg.Self {
		p.State, p.Free = roster.Online, usageOf(r.store).free
	}
	return p
}

// learnBook tells the planner what is known of others from before.
func (r *Repair) learnBook() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range inventory.Slot(r.book.Slots()) {
		id := r.book.ID(s)
		if id == "" || s == r.self {
			continue
		}
		ev := placement.Holds{Peer: id, Reset: true}
		for i := range inventory.Buckets {
			ev.Added = append(ev.Added, r.book.Bucket(s, i)...)
		}
		r.step(ev)
	}
	r.step(placement.Holds{Peer: r.cfg.Self, Reset: true})
}

// housekeep does what is due by the clock alone: it notices that the machine slept, publishes what this peer lends,
// counts its uptime, syncs its files.
func (r *Repair) housekeep() {
	every := houseEvery
	if p := r.cfg.Timings.Patience; p > 0 {
		every = min(every, max(houseMin, p/20))
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	boot, mono := r.cfg.Boot(), time.Now()
	for n := 0; ; n++ {
		select {
		case <-ticker.C:
		case <-r.ctx.Done():
			return
		}
		now := r.cfg.Boot()
		slept := (now - boot) - time.Since(mono)
		boot, mono = now, time.Now()
		r.look(slept > sleptAfter)
		r.syncKeep()
	}
}

// look takes in what no event told.
func (r *Repair) look(slept bool) {
	r.uptime.count(r.cfg, slept)
	r.publishOffer()
	r.learnMembers()
	r.talks.sweep()
	paused, inStep := r.paused(), r.cfg.InStep()
	r.mu.Lock()
	defer r.mu.Unlock()
	if slept {
		r.wakeAt = 0 // Go's timer stood still: set it anew
	}
	if slept || paused {
		r.step(placement.Woke{}) // on an empty battery nothing is begun either
	}
	if !r.filled && !r.filling && r.names != nil && inStep {
		r.filling = true
		r.step(placement.Fill{})
	}
	r.step(placement.Room{Peer: r.cfg.Self, Free: usageOf(r.store).free})
	r.forgetTakings()
}

// forgetTakings drops what this peer announced and that has run out.
func (r *Repair) forgetTakings() {
	now := r.cfg.Boot()
	for id, until := range r.takings {
		if until <= now {
			delete(r.takings, id)
		}
	}
}

// paused reports that this machine has little charge left and nothing that can wait is done.
func (r *Repair) paused() bool {
	power, charge := r.cfg.Power()
	return power == roster.PowerBattery && charge < LowBattery
}
