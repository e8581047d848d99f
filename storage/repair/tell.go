package repair

import (
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
	"github.com/shoal-os/shoal/storage/repair/inventory"
	"github.com/shoal-os/shoal/storage/repair/pb"
)

const (
	// tellPart is how many pieces gather into one message of a listing, unless one bucket has more.
	tellPart = 2048
	// usageStep is the share of what a peer may hold, one part in so many, by which its usage must change to be told.
	usageStep = 100
	// seenEvery is how often members tell each other when they last saw the others.
	seenEvery = time.Hour
)

// teller tells one member what this peer holds.
type teller struct {
	*visit
	at      position
	told    usage
	first   bool
	takings map[chunk.CID]time.Duration // that the other side knows of
	seenAt  time.Time
}

// follow answers a Follow until the stream ends.
func (v *visit) follow(f *pb.Follow) error {
	sums, err := inventory.UnmarshalSums(f.GetSums())
	if err != nil || len(f.GetEpoch()) != 0 && len(f.GetEpoch()) != 16 {
		return wire.Errorf(wire.Malformed, "an epoch of %d bytes, %v", len(f.GetEpoch()), err)
	}
	t := &teller{visit: v, first: true, takings: map[chunk.CID]time.Duration{}}
	gone := t.watchEnd()
	if err := t.begin(f, sums); err != nil {
		return err
	}
	hourly := time.NewTicker(seenEvery)
	defer hourly.Stop()
	for {
		v.r.mu.Lock()
		news := v.r.news
		v.r.mu.Unlock()
		if err := t.tell(); err != nil {
			return err
		}
		select {
		case <-news:
		case <-hourly.C:
		case <-gone:
			return nil
		case <-v.r.ctx.Done():
			return wire.Errorf(wire.Closing, "this peer is going away")
		}
	}
}

// watchEnd notices that the other side ends the stream, on which it has nothing more to say.
func (t *teller) watchEnd() <-chan struct{} {
	_ = t.raw.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	go func() { // until the stream ends, which it does with the visit
		defer close(gone)
		var b [1]byte
		_, _ = t.in.Read(b[:])
	}()
	return gone
}

// begin brings the other side to a position from which changes can be told: nothing if it has one, else those buckets in
// which it believes something else.
func (t *teller) begin(f *pb.Follow, sums inventory.Sums) error {
	r := t.r
	if len(f.GetEpoch()) == 16 && [16]byte(f.GetEpoch()) == r.store.Epoch() {
		if _, _, ok := r.store.Changes(f.GetAfter()); ok {
			t.at = position{r.store.Epoch(), f.GetAfter()}
			return nil
		}
	}
	r.mu.Lock()
	t.at = r.own
	own := *r.book.Sums(r.self)
	r.mu.Unlock()
	d, size := &pb.Delta{}, 0
	for i := range inventory.Buckets {
		if own[i] == sums[i] {
			continue
		}
		r.mu.Lock()
		ids := r.book.Bucket(r.self, i)
		r.mu.Unlock()
		for first, part := range chunksOf(ids, bucketPart) {
			if size += len(part); size > tellPart && len(d.Buckets) > 0 {
				if err := t.say(d); err != nil {
					return err
				}
				d, size = &pb.Delta{}, len(part)
			}
			if packed := inventory.Append(nil, part...); first {
				d.Buckets = append(d.Buckets, &pb.Bucket{First: uint32(i), Pieces: packed})
			} else {
				d.Added = append(d.Added, packed...)
			}
		}
	}
	d.Epoch, d.Next = t.at.epoch[:], t.at.next
	return t.say(d)
}

// chunksOf yields the parts of a list, and whether each is the first; of an empty list one empty part.
func chunksOf(ids []chunk.CID, n int) func(func(bool, []chunk.CID) bool) {
	return func(yield func(bool, []chunk.CID) bool) {
		if len(ids) == 0 {
			yield(true, nil)
			return
		}
		first := true
		for part := range slices.Chunk(ids, n) {
			if !yield(first, part) {
				return
			}
			first = false
		}
	}
}

// tell says what changed since the last time.
func (t *teller) tell() error {
	d, err := t.tellChanges()
	if err != nil {
		return err
	}
	t.addTakings(d)
	t.addUsage(d)
	t.addSeen(d)
	if d.Epoch == nil && d.Usage == nil && d.Takings == nil && d.Seen == nil {
		return nil
	}
	return t.say(d)
}

func (t *teller) say(d *pb.Delta) error { return t.send(&pb.Answer{Delta: d}) }

// tellChanges says what the store changed since the last position, and returns what is left to say of it.
func (t *teller) tellChanges() (*pb.Delta, error) {
	for {
		list, next, ok := t.r.store.Changes(t.at.next)
		if !ok || t.r.store.Epoch() != t.at.epoch {
			return nil, wire.Errorf(wire.Changed, "this peer holds other things now, ask again")
		}
		if next == t.at.next {
			return &pb.Delta{}, nil
		}
		d := deltaOf(list)
		t.at.next = next
		d.Epoch, d.Next = t.at.epoch[:], next
		if len(list) < tellPart {
			return d, nil // what came since then wakes this side again
		}
		if err := t.say(d); err != nil {
			return nil, err
		}
	}
}

// deltaOf says changes. A piece that came and went leaves its end only.
func deltaOf(list []piece.Change) *pb.Delta {
	d, last := &pb.Delta{}, make(map[chunk.CID]bool, len(list))
	for _, c := range list {
		last[c.ID] = c.Added
	}
	for id, added := range last {
		if added {
			d.Added = inventory.Append(d.Added, id)
		} else {
			d.Removed = inventory.Append(d.Removed, id)
		}
	}
	return d
}

// addTakings says which fetches began, go on or ended.
func (t *teller) addTakings(d *pb.Delta) {
	t.r.mu.Lock()
	now := t.r.cfg.Boot()
	takings := maps.Clone(t.r.takings)
	t.r.mu.Unlock()
	for id, until := range takings {
		if t.takings[id] == until || until <= now || len(d.Takings) >= takingsMax {
			continue
		}
		t.takings[id] = until
		d.Takings = append(d.Takings, taking(id, until-now))
	}
	for id := range t.takings {
		if _, ok := takings[id]; !ok && len(d.Takings) < takingsMax {
			delete(t.takings, id)
			d.Takings = append(d.Takings, taking(id, 0))
		}
	}
}

func taking(id chunk.CID, left time.Duration) *pb.Taking {
	return &pb.Taking{Piece: inventory.Append(nil, id), Seconds: uint32((left + time.Second - 1) / time.Second)}
}

// addUsage says how full this peer is, if that changed by more than a little or there is something to say anyway.
func (t *teller) addUsage(d *pb.Delta) {
	u := usageOf(t.r.store)
	step := max(1, (u.held+u.free)/usageStep)
	if d.Epoch != nil {
		step = 1
	}
	if !t.first && near(u.held, t.told.held, step) && near(u.free, t.told.free, step) {
		return
	}
	t.first, t.told = false, u
	d.Usage = u.message()
}

func near(a, b, step uint64) bool { return max(a, b)-min(a, b) < step }

// usageOf is how full a store is. What lies in quarantine or the cache goes when room is needed, so it counts as free.
func usageOf(s *piece.Store) usage {
	u := s.Usage()
	return usage{held: uint64(max(0, u.Held)), free: uint64(max(0, u.Free+u.Quarantined+u.Cached)), pieces: uint64(max(0, u.Pieces))}
}

// addSeen says when this peer last saw the others: to whom it has just met, and hourly.
func (t *teller) addSeen(d *pb.Delta) {
	if !t.seenAt.IsZero() && time.Since(t.seenAt) < seenEvery {
		return
	}
	t.seenAt = time.Now()
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	now := t.r.now()
	for _, s := range t.r.planner.LastSeen(now) {
		if ago := now.Wall.Sub(s.At); ago >= 0 && len(d.Seen) < seenMax && !s.At.IsZero() {
			d.Seen = append(d.Seen, &pb.Seen{Peer: []byte(s.Peer), Seconds: uint64(ago / time.Second)})
		}
	}
}

// watchStore tells the planner, and those who listen, what this peer's own store gains and loses.
func (r *Repair) watchStore() {
	for {
		changed := r.store.Changed()
		r.learnStore()
		select {
		case <-changed:
		case <-r.ctx.Done():
			return
		}
	}
}

// learnStore brings the book in step with the store.
func (r *Repair) learnStore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		epoch := r.store.Epoch()
		list, next, ok := r.store.Changes(r.own.next)
		if !ok || epoch != r.own.epoch {
			r.listStore(position{epoch, next})
			continue
		}
		if next == r.own.next {
			return
		}
		r.own.next = next
		r.learnChanges(list)
	}
}

// learnChanges puts changes of the store into the book. mu is held.
func (r *Repair) learnChanges(list []piece.Change) {
	var added, removed []chunk.CID
	for _, c := range list {
		if changed, _ := r.book.Set(r.self, c.ID, c.Added); !changed {
			continue
		}
		if c.Added {
			added = append(added, c.ID)
		} else {
			removed = append(removed, c.ID)
		}
	}
	r.ownChanged(net(added, removed))
}

// net leaves out what came and went, or went and came back: of that nothing changed in the end, and the planner, which takes
// what came before what went, would have the wrong end of it.
func net(added, removed []chunk.CID) (plus, minus []chunk.CID) {
	if len(added) == 0 || len(removed) == 0 {
		return added, removed
	}
	change := make(map[chunk.CID]int, len(added)+len(removed))
	for _, id := range added {
		change[id]++
	}
	for _, id := range removed {
		change[id]--
	}
	for id, n := range change {
		if n > 0 {
			plus = append(plus, id)
		} else if n < 0 {
			minus = append(minus, id)
		}
	}
	return plus, minus
}

// listStore takes the whole store for what this peer holds. at is from before it is listed.
func (r *Repair) listStore(at position) {
	now := map[int][]chunk.CID{}
	for p := range r.store.All() {
		now[int(p.ID.Sum[0])] = append(now[int(p.ID.Sum[0])], p.ID)
	}
	var added, removed []chunk.CID
	for i := range inventory.Buckets {
		plus, minus, _ := r.book.Replace(r.self, i, now[i])
		added, removed = append(added, plus...), append(removed, minus...)
	}
	r.own = at
	r.ownChanged(added, removed)
}

// ownChanged tells the planner. mu is held.
func (r *Repair) ownChanged(added, removed []chunk.CID) {
	if len(added)+len(removed) == 0 {
		return
	}
	r.step(placement.Holds{Peer: r.cfg.Self, Added: added, Removed: removed})
	r.step(placement.Room{Peer: r.cfg.Self, Free: usageOf(r.store).free})
	r.spread()
}

// believed lists those who say that they hold a piece, this peer included.
func (r *Repair) believed(id chunk.CID) (out []peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.book.Holders(id) {
		out = append(out, r.book.ID(s))
	}
	return out
}
