package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/placement"
)

// overlapMax is how long after somebody began a repair another who is awake all the while may begin the same one: it has
// not heard of it yet.
const overlapMax = 2 * delayMax

// fetch begins a fetch, or goes on where one was left.
func (w *world) fetch(l *laptop, f placement.Fetch) {
	n := w.number[f.Piece]
	l.jobs = append(l.jobs, job{n: n, why: f.Why, begun: w.now, done: l.parts[n]})
	w.source(l, &l.jobs[len(l.jobs)-1])
}

// source finds somebody to fetch from and plans the end of it.
func (w *world) source(l *laptop, j *job) {
	l.serial++
	j.serial, j.since, j.from = l.serial, w.now, nil
	for _, id := range l.p.Sources(w.files[j.n].id) {
		if o := w.byID[id]; o.online && w.files[j.n].held.has(int(o.index)) {
			j.from = o
			break
		}
	}
	if j.from == nil {
		w.soon(event{kind: arrives, a: l.index, n: j.serial})
		return
	}
	left := time.Duration(float64(w.cfg.Bytes-j.done) / rate * float64(time.Second))
	w.at(w.now+left+between(w.rng, delayMin, delayMax), event{kind: arrives, a: l.index, n: j.serial})
}

// progress counts the bytes that came since the last time.
func (w *world) progress(l *laptop, j *job) {
	if j.from == nil {
		return
	}
	bytes := min(w.cfg.Bytes-j.done, int64(float64(w.now-j.since)/float64(time.Second)*rate))
	j.done, j.since = j.done+bytes, w.now
	l.parts[j.n] = j.done
	switch j.why {
	case placement.ForUrgency:
		w.res.Urgent += bytes
	case placement.ForShare:
		w.res.Share += bytes
	case placement.ForWriter:
		w.res.Writer += bytes
	default:
		w.res.Repair += bytes
		if w.files[j.n].held.count() >= w.cfg.Copies {
			w.res.Wasted += bytes
		}
	}
}

// end takes a fetch off the list.
func (w *world) end(l *laptop, n int32) {
	k := slices.IndexFunc(l.jobs, func(j job) bool { return j.n == n })
	if k >= 0 {
		w.progress(l, &l.jobs[k])
		l.jobs = slices.Delete(l.jobs, k, k+1)
	}
}

func (w *world) arrives(l *laptop, serial int32) error {
	k := slices.IndexFunc(l.jobs, func(j job) bool { return j.serial == serial })
	if k < 0 || !l.online {
		return nil
	}
	j, id := l.jobs[k], w.files[l.jobs[k].n].id
	w.end(l, j.n)
	if j.from == nil {
		return w.step(l, placement.Failed{Piece: id})
	}
	delete(l.parts, j.n)
	w.gain(l, j.n)
	if j.why == placement.ForShare {
		l.shares++
		w.res.ShareMost = max(w.res.ShareMost, float64(l.shares)/l.limit)
	}
	return w.step(l, placement.Taken{Piece: id})
}

// propose asks for the promises that a trim needs.
func (w *world) propose(l *laptop, t placement.Trim) {
	l.serial++
	l.asks = append(l.asks, ask{serial: l.serial, n: w.number[t.Piece], trim: t})
	for _, id := range t.From {
		w.soon(event{kind: proves, a: w.byID[id].index, b: l.index, n: l.serial})
	}
	w.at(w.now+decideAfter, event{kind: trims, a: l.index, n: l.serial})
}

// proves has a asked for its promise to keep what b wants to let go.
func (w *world) proves(a, b *laptop, serial int32) {
	k := slices.IndexFunc(b.asks, func(q ask) bool { return q.serial == serial })
	if k < 0 || !a.online {
		return
	}
	q := &b.asks[k]
	switch {
	case !w.files[q.n].held.has(int(a.index)):
	case w.cfg.fault == credulous || a.p.Promise(w.moment(), q.trim.Piece):
		q.got++
	}
}

// decide carries a trim out, or not.
func (w *world) decide(l *laptop, serial int32) error {
	k := slices.IndexFunc(l.asks, func(q ask) bool { return q.serial == serial })
	q := l.asks[k]
	l.asks = slices.Delete(l.asks, k, k+1)
	f := &w.files[q.n]
	if !l.online || !f.held.has(int(l.index)) {
		return nil
	}
	if w.now > q.trim.Until || q.got < q.trim.Need && w.cfg.fault != trusting {
		return w.step(l, placement.Kept{Piece: f.id})
	}
	w.drop(l, q.n)
	w.res.Trims++
	if left := f.held.count(); f.live && left < w.cfg.Copies {
		return fmt.Errorf("%s let file %d go, of which %d copies are left", l.id, q.n, left)
	}
	return w.step(l, placement.Holds{Peer: l.id, Removed: []chunk.CID{f.id}})
}

// audit checks what a planner wants against what the world knows.
func (w *world) audit(l *laptop, out placement.Out) error {
	if w.res.Steps%checkEvery == 0 {
		if err := l.p.Check(); err != nil {
			return err
		}
	}
	for _, f := range out.Fetch {
		if f.Why == placement.ForWriter {
			continue
		}
		if since := w.now - l.woke; !w.cfg.Eager && since < graceTime {
			return fmt.Errorf("%s began to mend %v after it woke", l.id, since)
		}
		if err := w.frozen(l); err != nil {
			return err
		}
		if err := w.alone(l, f); err != nil {
			return err
		}
		if f.Why == placement.ForRepair && w.present(l.p.Holders(f.Piece)) >= w.cfg.Copies {
			w.res.Hasty++
		}
	}
	if l.shares > 0 && float64(l.shares) > 1.2*l.limit+2 {
		return fmt.Errorf("%s took %d files when it joined, its share is %.1f", l.id, l.shares, l.limit)
	}
	return nil
}

// alone checks that a repair is not one that others are at who began long enough ago to be heard.
func (w *world) alone(l *laptop, f placement.Fetch) error {
	if f.Why != placement.ForRepair && f.Why != placement.ForUrgency || w.now-l.woke < overlapMax {
		return nil
	}
	s := l.p.Assess(f.Piece)
	need := s.Wanted - s.Copies
	if s.Online <= 1 {
		need = max(need, 1)
	}
	n := w.number[f.Piece]
	for _, o := range w.all {
		if o == l || !o.online || w.now-o.woke < overlapMax {
			continue
		}
		for _, j := range o.jobs {
			if j.n == n && j.from != nil && w.now-j.begun > overlapMax {
				need--
			}
		}
	}
	if need <= 0 {
		return fmt.Errorf("%s began to mend file %d, which others are at", l.id, n)
	}
	return nil
}

// frozen checks that the pool, as a laptop sees it, is not one in which nothing may be mended.
func (w *world) frozen(l *laptop) error {
	if w.cfg.Eager {
		return nil
	}
	members, online, vanished := 0, 0, 0
	for _, o := range w.all {
		switch {
		case o.member.ID == "" || l.roster < o.joined:
			continue
		case o == l || l.sees.has(int(o.index)):
			online++
		case w.now-l.seen[o.index] < time.Hour:
			vanished++
		}
		members++
	}
	if 2*online < members || vanished > 1 && 4*vanished >= members {
		return fmt.Errorf("%s began to mend though of %d members %d are online and %d vanished within an hour", l.id, members, online, vanished)
	}
	return nil
}

// present is how many living laptops of a list are awake or were within the patience.
func (w *world) present(ids []peer.ID) (copies int) {
	for _, id := range ids {
		if l := w.byID[id]; l.alive && (l.online || w.now-l.slept < patience) {
			copies++
		}
	}
	return copies
}
