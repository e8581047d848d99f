package sim

import (
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/placement"
)

// meets has a hear of b: that it is there, with its inventory and takings, or that it is not.
func (w *world) meets(a, b *laptop) error {
	a.pending.clear(int(b.index))
	if !a.online || b.member.ID == "" || a.roster < b.joined {
		return nil
	}
	if !b.online {
		if !a.sees.has(int(b.index)) {
			return nil
		}
		a.sees.clear(int(b.index))
		a.seen[b.index] = max(a.seen[b.index], min(b.slept, w.now))
		if b.slept < a.woke {
			a.seen[b.index] = min(b.slept, a.slept)
		}
		return w.step(a, placement.Presence{Peer: b.id, State: roster.Away, Seen: epoch.Add(a.seen[b.index])})
	}
	connects := !a.sees.has(int(b.index)) || w.now-a.woke < delayMax
	if !a.sees.has(int(b.index)) {
		a.sees.add(int(b.index))
		if err := w.step(a, placement.Presence{Peer: b.id, State: roster.Online}); err != nil {
			return err
		}
	}
	if connects && w.cfg.fault != mute {
		if err := w.step(a, placement.Hearsay{Seen: b.p.LastSeen(w.moment())}); err != nil {
			return err
		}
	}
	if err := w.inventory(a, b); err != nil {
		return err
	}
	if len(b.jobs) == 0 {
		return nil
	}
	return w.hears(a, b, -1)
}

// retells has a laptop that did not sleep since say again when it last saw the others: what it found out after waking.
func (w *world) retells(l *laptop, wakings int32) error {
	if !l.online || l.wakings != wakings || w.cfg.fault == mute {
		return nil
	}
	seen := placement.Hearsay{Seen: l.p.LastSeen(w.moment())}
	for _, o := range w.all {
		if o.online && o != l && o.roster >= l.joined {
			if err := w.step(o, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// inventory tells a what b gained and dropped since it last heard.
func (w *world) inventory(a, b *laptop) error {
	news := b.log[a.read[b.index]:]
	if len(news) == 0 && a.met.has(int(b.index)) {
		return nil
	}
	a.met.add(int(b.index))
	a.read[b.index] = len(b.log)
	if err := w.step(a, placement.Room{Peer: b.id, Free: w.free(b)}); err != nil {
		return err
	}
	last := map[int32]bool{}
	for _, d := range news {
		last[d.n] = d.added
	}
	ev := placement.Holds{Peer: b.id}
	for _, d := range news {
		added, ok := last[d.n]
		delete(last, d.n)
		switch {
		case !ok:
		case added:
			ev.Added = append(ev.Added, w.files[d.n].id)
		default:
			ev.Removed = append(ev.Removed, w.files[d.n].id)
		}
	}
	return w.step(a, ev)
}

// hears tells a of b's taking of a file, or of all.
func (w *world) hears(a, b *laptop, n int32) error {
	if !a.online || !b.online || w.cfg.fault == deaf {
		return nil
	}
	found := false
	for _, t := range b.p.Takings(w.moment()) {
		if k := w.number[t.Piece]; n < 0 || k == n {
			found = true
			if err := w.step(a, placement.Taking{Peer: b.id, Piece: t.Piece, For: t.For}); err != nil {
				return err
			}
		}
	}
	if n < 0 || found {
		return nil
	}
	return w.step(a, placement.Taking{Peer: b.id, Piece: w.files[n].id})
}

// learns brings the directory's news: members, and files written and removed. Removed ones are deleted at once.
func (w *world) learns(l *laptop) error {
	if !l.online {
		return nil
	}
	if l.roster != w.roster {
		if err := w.step(l, w.members(l)); err != nil {
			return err
		}
		w.greet(l)
	}
	var ev placement.Pieces
	for _, n := range w.news[l.news:] {
		if w.files[n].live {
			ev.Changed = append(ev.Changed, w.piece(n))
		} else {
			ev.Removed = append(ev.Removed, w.files[n].id)
		}
	}
	news := w.news[l.news:]
	if l.news = len(w.news); len(news) == 0 {
		return nil
	}
	if err := w.step(l, ev); err != nil {
		return err
	}
	gone := placement.Holds{Peer: l.id}
	for _, n := range news {
		if f := &w.files[n]; !f.live && f.held.has(int(l.index)) {
			w.drop(l, n)
			gone.Removed = append(gone.Removed, f.id)
		}
	}
	return w.step(l, gone)
}

// greet has a laptop hear soon from all who are awake.
func (w *world) greet(l *laptop) {
	for _, o := range w.all {
		if o.online && o != l && !l.pending.has(int(o.index)) {
			l.pending.add(int(o.index))
			w.soon(event{kind: meets, a: l.index, b: o.index})
		}
	}
}
