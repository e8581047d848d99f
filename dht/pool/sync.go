package pool

import (
	"bytes"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
)

const (
	// digestSize is how much of the digest a heartbeat carries, in bytes.
	digestSize = 8
	// resyncAfter is how many heartbeats in a row must show other records before all are sent: news under way settles
	// most differences by itself. resyncAgain is the least time between two such sendings on one link.
	resyncAfter = 2
	resyncAgain = 10 * time.Second
	// resyncRest is that time at most: it doubles for a member that all records did not bring into step.
	resyncRest = 5 * time.Minute
	// resyncFew is to how many members this peer sends all records within resyncAgain. While a pool grows everybody differs
	// from everybody: were all to send all to all, each would check as many records as the square of the members every ten
	// seconds, which 45 in one machine could not keep up with, and so went on differing. A few suffice: who lacks something
	// differs from each member that has it, and tells others what it is sent.
	resyncFew = 4
	// spreadFew is how many members this peer tells of news that it has from another member.
	spreadFew = 4
	// secretAgain is the least time between two sendings of the secrets on one link.
	secretAgain = 2 * time.Second
)

// syncState is what is known of how far a member's records and secrets agree with ours.
type syncState struct {
	differs            int
	resynced, secreted time.Duration // Boot of the last sendings; zero: never on this link
	rest               time.Duration // from the last sending of all records to the next
}

// resyncs counts how many members were sent all records lately.
type resyncs struct {
	since time.Duration // Boot when the count began
	count int
}

// take reports whether one more may be sent them now, and counts it.
func (r *resyncs) take(now time.Duration) bool {
	if now-r.since >= resyncAgain {
		*r = resyncs{since: now}
	}
	if r.count >= resyncFew {
		return false
	}
	r.count++
	return true
}

// saying is what a heartbeat tells when it changed.
type saying struct {
	lends  roster.Lends
	addrs  [][]byte
	relays bool
	set    bool
}

func (a saying) equal(b saying) bool {
	return a.set == b.set && a.relays == b.relays && a.lends == b.lends && slices.EqualFunc(a.addrs, b.addrs, bytes.Equal)
}

// refreshSaying looks what this peer lends and where it can be reached.
func (p *Pool) refreshSaying() {
	own, relayed := ticketAddrs(p.cfg.Host.Addrs()), p.relayed()
	own = append(own[:min(len(own), placeAddrs-len(relayed))], relayed...)
	next := saying{set: true, addrs: encodeAddrs(own), relays: p.relaying.serving != nil}
	if p.cfg.Lends != nil {
		next.lends = p.cfg.Lends()
	}
	p.saying.Store(&next)
	_, _ = p.apply(roster.Beat{Peer: p.cfg.Identity.ID, Lends: &next.lends}, "")
}

// heard takes one message of a member: what it knows first, then its secrets, then that it is there.
func (p *Pool) heard(id peer.ID, m *pb.Say, recs []ident.Record) {
	if p.over() {
		return
	}
	if len(recs) > 0 {
		_, _ = p.apply(roster.Learn{Records: recs}, id)
	}
	p.takeSecrets(m.GetSecrets())
	if m.GetBye() {
		_, _ = p.apply(roster.Bye{Peer: id}, id)
		return
	}
	if addrs := parseAddrs(m.GetAddrs()); len(addrs) > 0 {
		p.cfg.Host.Peerstore().AddAddrs(id, addrs, memberAddrs)
		if m.GetRelays() {
			p.relaying.offers[id] = true
		} else {
			delete(p.relaying.offers, id)
		}
	}
	var lends *roster.Lends
	if m.GetLends() != nil {
		lends = decodeLends(m.GetLends())
	}
	_, _ = p.apply(roster.Beat{Peer: id, Lends: lends}, id)
	if l := p.links[id]; l != nil {
		p.compare(l, m)
		if !l.up {
			l.pokeNow() // it is there, so it can be reached
		}
	}
}

// compare sends a member what it lacks, by what its heartbeat says that it has.
func (p *Pool) compare(l *link, m *pb.Say) {
	if !l.up || len(m.GetDigest()) == 0 {
		return
	}
	now := p.clock.boot()
	digest := p.view().Digest()
	if bytes.Equal(m.GetDigest(), digest[:digestSize]) {
		l.sync.differs, l.sync.rest = 0, 0
	} else if l.sync.differs++; l.sync.differs >= resyncAfter && now-l.sync.resynced >= l.sync.rest && p.resyncs.take(now) {
		l.sync.resynced, l.sync.rest = now, min(max(2*l.sync.rest, resyncAgain), resyncRest)
		p.tell(l, p.view().Records())
	}
	if m.GetSecret() < p.heldSecret() && (l.sync.secreted == 0 || now-l.sync.secreted >= secretAgain) {
		l.sync.secreted = now
		p.tellSecret(l)
	}
}

// spread tells the other members of records: all of them, if this peer made the records or heard them outside the pool, and
// a few if a member told it, who tells all that it has links to by itself. Were all to tell all, each join would cost as many
// messages as the square of the members. Whom the few miss is found out by the digest in its heartbeats.
func (p *Pool) spread(recs []ident.Record, from peer.ID) {
	most := len(p.links)
	if from != "" {
		most = spreadFew
	}
	for id, l := range p.links { // in an order that Go makes another each time
		if most == 0 {
			return
		}
		if id != from && l.up {
			p.tell(l, recs)
			most--
		}
	}
}

// tell queues records for one link, in messages of a bounded size. Certificates and appointments go first: those that take
// the place of an evicted admin's are there before the eviction, and nobody is shut out in between.
func (p *Pool) tell(l *link, recs []ident.Record) {
	m, size := &pb.Say{}, 0
	ends := func(r ident.Record) int {
		switch r.(type) {
		case ident.Certificate, ident.Appointment:
			return 0
		default:
			return 1
		}
	}
	recs = slices.Clone(recs)
	slices.SortStableFunc(recs, func(a, b ident.Record) int { return ends(a) - ends(b) })
	for _, rec := range recs {
		if size+len(rec.Raw()) > linkRecords {
			l.send(m)
			m, size = &pb.Say{}, 0
		}
		m.Records = append(m.Records, rec.Raw())
		size += len(rec.Raw()) + 4
	}
	if size > 0 {
		l.send(m)
	}
}

// tellSecret hands a member the current secret, after all evictions: whoever gets the new secret knows for whom it was
// changed, and does not hand it on to them.
func (p *Pool) tellSecret(l *link) {
	var recs []ident.Record
	for _, rec := range p.view().Records() {
		switch rec.(type) {
		case ident.Revocation, ident.Notice, ident.Appointment:
			recs = append(recs, rec)
		}
	}
	p.tell(l, recs)
	l.send(&pb.Say{Secrets: encodeSecrets(p.state.secrets[:1])})
}

// takeSecrets adopts the secret that an admin in force announced last.
func (p *Pool) takeSecrets(list []*pb.Secret) {
	secrets, err := decodeSecrets(list)
	notice, ok := p.view().Notice()
	if err != nil || !ok {
		return
	}
	for _, s := range secrets {
		next, err := adopt(p.state.secrets, s, notice)
		if err != nil || slices.Equal(next, p.state.secrets) {
			continue
		}
		p.state.secrets = next
		_ = p.save()
		p.publishSecrets()
	}
}

// publishSecrets lets other goroutines see the secrets.
func (p *Pool) publishSecrets() {
	list := slices.Clone(p.state.secrets)
	p.secrets.Store(&list)
}

// heldSecret is the number of the secret that the current notice announces, if this peer holds it, and otherwise less.
func (p *Pool) heldSecret() uint64 {
	n, ok := p.view().Notice()
	secrets := *p.secrets.Load()
	switch {
	case !ok || len(secrets) == 0:
		return 0
	case ident.SecretSum(secrets[0].key) == n.Sum:
		return n.Number
	default:
		return min(secrets[0].number, max(n.Number, 1)-1)
	}
}

// notePlaces writes into the state where members were reached and when they were heard of.
func (p *Pool) notePlaces() {
	places := make(map[peer.ID]place)
	for _, m := range p.view().Members() {
		if m.Self || len(places) >= placesMax {
			continue
		}
		places[m.ID] = place{addrs: p.reachable(m.ID), seen: m.Seen}
	}
	p.state.places = places
}

// reachable returns the addresses known of a member, or those known of old.
func (p *Pool) reachable(id peer.ID) (out []multiaddr.Multiaddr) {
	for _, c := range p.cfg.Host.Network().ConnsToPeer(id) {
		if c.Stat().Direction == network.DirOutbound {
			out = append(out, c.RemoteMultiaddr())
		}
	}
	out = multiaddr.Unique(append(out, p.cfg.Host.Peerstore().Addrs(id)...))
	if len(out) == 0 {
		out = p.state.places[id].addrs
	}
	return out[:min(len(out), placeAddrs)]
}

func encodeLends(l roster.Lends) *pb.Lends {
	return &pb.Lends{
		Cores: l.Cores, Memory: l.Memory, Space: l.Space, Free: l.Free, Power: uint32(l.Power), Battery: uint32(l.Battery),
		AlwaysOn: l.AlwaysOn, Version: l.Version, System: l.System,
	}
}

func decodeLends(m *pb.Lends) *roster.Lends {
	return &roster.Lends{
		Cores: m.GetCores(), Memory: m.GetMemory(), Space: m.GetSpace(), Free: m.GetFree(),
		Power: roster.Power(min(m.GetPower(), uint32(roster.PowerBattery))), Battery: uint8(min(m.GetBattery(), 100)),
		AlwaysOn: m.GetAlwaysOn(), Version: m.GetVersion(), System: m.GetSystem(),
	}
}
