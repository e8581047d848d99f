package roster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
)

// settle brings presence and view up to date, and fills out with what changed.
func (r *Roster) settle(now Moment, fresh []ident.Record, out *Out) {
	old := r.view
	if len(fresh) > 0 {
		r.recount()
	}
	next := r.build(now)
	for _, rec := range fresh {
		if r.counts[rec.Hash()] {
			out.Save = append(out.Save, rec)
		} else {
			out.Rejected = append(out.Rejected, Rejection{rec, Forged})
		}
	}
	out.Spread = out.Save
	r.compare(old, next, out)
	r.view = next
	if self, reason := next.Judge(r.cfg.Self, now.Wall); self.certificate.Peer != "" && (reason == OK || reason == Lapsed || reason == Early) {
		out.Renew = !now.Wall.Before(self.certificate.HalfLife())
	}
	r.due = r.nextAway(now)
	out.Wake = r.wake(now)
}

// recount computes the authority and which records count: those that an admin signed, be it one of the past, and
// departures of peers with a certificate that counts. Which they are follows from the set of records alone.
func (r *Roster) recount() {
	appointed := make(map[peer.ID][]peer.ID)
	revoked := make(map[peer.ID][]ident.Revocation)
	for _, rec := range r.records {
		switch rec := rec.(type) {
		case ident.Appointment:
			appointed[rec.Signer] = append(appointed[rec.Signer], rec.Peer)
		case ident.Revocation:
			revoked[rec.Signer] = append(revoked[rec.Signer], rec)
		}
	}
	r.auth = judge(r.cfg.Origin.Genesis, appointed, revoked)
	r.counts = make(map[[32]byte]bool, len(r.records)) // the old one belongs to views
	certified := make(map[peer.ID]bool)
	for _, rec := range r.records {
		if _, departure := rec.(ident.Departure); !departure && r.auth.ranked[rec.By()] {
			r.counts[rec.Hash()] = true
			if c, ok := rec.(ident.Certificate); ok {
				certified[c.Peer] = true
			}
		}
	}
	for _, rec := range r.records {
		if d, ok := rec.(ident.Departure); ok && certified[d.Signer] {
			r.counts[rec.Hash()] = true
		}
	}
	r.sorted, r.digest = nil, [32]byte{}
	for _, slot := range slices.Sorted(maps.Keys(r.records)) {
		rec := r.records[slot]
		h := rec.Hash()
		if !r.counts[h] {
			continue
		}
		r.sorted = append(r.sorted, rec)
		for i := range h {
			r.digest[i] ^= h[i]
		}
	}
}

// build makes the view of this moment.
func (r *Roster) build(now Moment) *View {
	v := &View{
		index: make(map[peer.ID]int), grace: now.Boot < r.grace,
		records: r.sorted, counts: r.counts, digest: r.digest, evicted: r.auth.evicted, admins: r.auth.admins,
	}
	best := make(map[peer.ID]ident.Certificate)
	left := make(map[peer.ID]ident.Departure)
	for _, rec := range r.records {
		switch rec := rec.(type) {
		case ident.Certificate:
			if old, ok := best[rec.Peer]; !ok || r.preferred(rec, old, now.Wall) {
				best[rec.Peer] = rec
			}
		case ident.Departure:
			left[rec.Signer] = rec
		case ident.Notice:
			if r.auth.admins[rec.Signer] && (v.notice.Signer == "" || newer(rec, v.notice)) {
				v.notice = rec
			}
		}
	}
	for id, c := range best {
		v.members = append(v.members, r.member(id, c, left, now))
	}
	for id := range r.auth.evicted {
		if _, ok := best[id]; !ok { // the news of an eviction can be faster than that of the membership
			v.members = append(v.members, r.evictedMember(Member{ID: id, Name: "?"}))
		}
	}
	slices.SortFunc(v.members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	for i, m := range v.members {
		v.index[m.ID] = i
		if m.Standing == OK {
			v.inForce++
		}
	}
	return v
}

// newer orders notices of several signers: by number, then by what they announce, then by who does.
func newer(a, b ident.Notice) bool {
	return cmp.Or(cmp.Compare(a.Number, b.Number), slices.Compare(a.Sum[:], b.Sum[:]), cmp.Compare(a.Signer, b.Signer)) > 0
}

// preferred reports whether certificate a says more of its peer's standing than b: one signed by an admin before others,
// one valid now before others, then the greater serial.
func (r *Roster) preferred(a, b ident.Certificate, now time.Time) bool {
	return cmp.Or(
		compareBool(r.auth.admins[a.Signer], r.auth.admins[b.Signer]),
		compareBool(inTime(a, now) == OK, inTime(b, now) == OK),
		compareWithin(a, b),
		slices.Compare(hashOf(a), hashOf(b)),
	) > 0
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// member judges one peer by the certificate that says most, and ages its presence.
func (r *Roster) member(id peer.ID, c ident.Certificate, left map[peer.ID]ident.Departure, now Moment) Member {
	m := Member{ID: id, Name: c.Name, Role: c.Role, Self: id == r.cfg.Self, certificate: c}
	switch admin := r.auth.admins[id]; {
	case admin:
		m.Role = ident.RoleAdmin
	case m.Role == ident.RoleAdmin:
		m.Role = ident.RoleMember // the word of a certificate alone makes no admin
	}
	d, gone := left[id]
	switch {
	case len(r.auth.evicted[id]) > 0:
		return r.evictedMember(m)
	case !r.auth.admins[c.Signer]:
		m.Standing, m.certificate = Forged, ident.Certificate{}
	case gone && d.Serial >= c.Serial:
		m.Standing, m.Ends = Left, d.At
	default:
		m.Standing = inTime(c, now.Wall)
		if m.Standing == Lapsed {
			m.Ends = c.NotAfter
		}
	}
	if m.Standing != OK {
		m.State = Departed
	}
	if m.Standing == OK {
		p := r.presence(id, now)
		r.age(id, p, now)
		m.State, m.Since, m.Seen, m.Lends = p.state, p.since, p.seen, p.lends
	}
	return m
}

// evictedMember fills in the earliest of the evictions that count.
func (r *Roster) evictedMember(m Member) Member {
	m.Standing, m.State = Evicted, Departed
	for _, rev := range r.auth.evicted[m.ID] {
		if m.Ends.IsZero() || rev.At.Before(m.Ends) {
			m.Ends = rev.At
		}
	}
	m.Since, m.Role, m.certificate = m.Ends, ident.RoleNone, ident.Certificate{}
	return m
}

// age moves a member on from state to state, unless this peer has just woken up and knows of nobody.
func (r *Roster) age(id peer.ID, p *presence, now Moment) {
	if id == r.cfg.Self {
		if p.state != Online {
			p.state, p.since = Online, now.Wall
		}
		p.seen = now.Wall
		return
	}
	if now.Boot < r.grace {
		return
	}
	if p.state == Online {
		if _, away := r.view.Pace(); now.Boot-p.beat > away {
			p.state, p.since = Away, p.seen
		}
		return
	}
	from := p.seen
	if from.IsZero() {
		from = p.since
	}
	want := Away
	switch silent := now.Wall.Sub(from); {
	case silent > DepartedAfter:
		want = Departed
	case silent > AbsentAfter:
		want = Absent
	}
	if p.state != want {
		p.state, p.since = want, now.Wall
	}
}

// compare fills in what differs between two views.
func (r *Roster) compare(old, next *View, out *Out) {
	out.Dirty = old.digest != next.digest || old.grace != next.grace || len(old.members) != len(next.members)
	for _, m := range next.members {
		var was Member
		if i, ok := old.index[m.ID]; ok {
			was = old.members[i]
		}
		out.Dirty = out.Dirty || was.Lends != m.Lends || !was.Seen.Equal(m.Seen)
		if was.Standing == OK && was.ID != "" && m.Standing != OK {
			out.Close = append(out.Close, m.ID)
		}
		if was.ID != m.ID || was.Name != m.Name || was.Role != m.Role || was.Standing != m.Standing || was.State != m.State {
			out.Changes = append(out.Changes, Change{Was: was, Now: m})
		}
	}
	out.Dirty = out.Dirty || len(out.Changes) > 0
}

// wake is the next time at which something changes by itself, at most a heartbeat's gap ahead: then the shell's own rhythm
// shows whether this peer was running at all. It is asked with every heartbeat, so it looks at no member: due may be too
// early by then, because heartbeats only put it off, and is found anew by the tick that it leads to.
func (r *Roster) wake(now Moment) time.Duration {
	wake := now.Boot + BeatEvery
	if now.Boot < r.grace {
		wake = min(wake, r.grace)
	}
	if r.due != 0 {
		wake = min(wake, max(r.due, now.Boot+1))
	}
	return wake
}

// nextAway is when the first of those who are online will be away unless it is heard from; 0 if nobody will.
func (r *Roster) nextAway(now Moment) (due time.Duration) {
	_, away := r.view.Pace()
	for id, p := range r.there {
		if at := p.beat + away + 1; id != r.cfg.Self && p.state == Online && at > now.Boot && (due == 0 || at < due) {
			due = at
		}
	}
	return due
}
