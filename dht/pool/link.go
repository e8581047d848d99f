package pool

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

// LinkProtocol is the id under which members greet each other and send heartbeats. It is open to all, as it is where a
// peer shows its certificate; DESIGN.md describes it.
const LinkProtocol protocol.ID = "/shoal/pool/1"

const (
	// linkMax bounds one message of a link, in bytes, and linkRecords what of it are records.
	linkMax     = 64 << 10
	linkRecords = linkMax - 8<<10
	nonceSize   = 16
	// greetWait bounds the greeting, and dialLinkWait the connection before it.
	greetWait    = 10 * time.Second
	dialLinkWait = 15 * time.Second
	// sayWait bounds the sending of one message. A link that takes longer is begun anew.
	sayWait = 5 * time.Second
	// silentTimes is for how many times as long as a member may be silent without being away a link may be silent before
	// the listening side drops it.
	silentTimes = 3
	// A link that is down is tried again after waits that double between these.
	relinkFirst = time.Second
	relinkMax   = time.Minute
	// Members that were there not long ago may be back any moment, as after a partition: of their links keenEach are tried
	// with each heartbeat, in turn, and all once one of them is up. It costs a pool half of whose laptops sleep two dials a
	// second at most, whatever its size.
	keenFor  = time.Hour
	keenEach = 4
	// linkQueue bounds what waits to be sent on one link. What does not fit is found missing by its digest, later.
	linkQueue = 64
	// greetersMax bounds the greetings under way from peers that are not known as members.
	greetersMax = 32
	// connTag marks connections to members for the connection manager: they are never trimmed.
	connTag = "shoal-pool"
	// memberAddrs is how long addresses are kept in the peerstore that a member told.
	memberAddrs = time.Hour
	// lendsEvery is how often this peer looks what it lends.
	lendsEvery = 3 * roster.BeatEvery
	// byeWait bounds the farewell.
	byeWait = 500 * time.Millisecond
)

// link is the stream on which this peer tells one member what there is. Each direction has its own: no two peers must
// agree on who dials, and one that is half dead is noticed by the side that hears nothing.
type link struct {
	peer   peer.ID
	poke   chan struct{} // capacity 1: try now
	out    chan *pb.Say
	marks  chan chan struct{} // closed once all that was queued before is sent
	cancel context.CancelFunc
	over   chan struct{} // closed when the link has ended, its farewell included

	// What follows belongs to the pool's goroutine.
	up      bool
	tried   time.Duration   // Boot when it was last tried keenly
	waiting []chan struct{} // closed when the link comes up
	sync    syncState
}

func (l *link) pokeNow() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// send queues a message unless the link is down or full.
func (l *link) send(m *pb.Say) {
	if !l.up {
		return
	}
	select {
	case l.out <- m:
	default:
	}
}

// reconcileLinks keeps a link to each member in force, while this peer is one and awake.
func (p *Pool) reconcileLinks() {
	want := make(map[peer.ID]bool)
	if r := p.Standing(); r != roster.Evicted && r != roster.Left && !p.over() && !p.asleep {
		for _, m := range p.view().Members() {
			want[m.ID] = !m.Self
		}
	}
	for id, l := range p.links {
		if !want[id] {
			l.cancel()
			delete(p.links, id)
		}
	}
	for id, wanted := range want {
		if wanted && p.links[id] == nil {
			p.startLink(id)
		}
	}
}

func (p *Pool) startLink(id peer.ID) {
	ctx, cancel := context.WithCancel(p.ctx)
	l := &link{
		peer: id, poke: make(chan struct{}, 1), out: make(chan *pb.Say, linkQueue), marks: make(chan chan struct{}, linkQueue), cancel: cancel,
		over: make(chan struct{}),
	}
	p.links[id] = l
	p.cfg.Host.ConnManager().Protect(id, connTag)
	if pl, ok := p.state.places[id]; ok {
		p.cfg.Host.Peerstore().AddAddrs(id, pl.addrs, peerstore.RecentlyConnectedAddrTTL)
	}
	p.wg.Go(func() { p.keepLink(ctx, l) })
}

func (p *Pool) stopLinks() {
	for id, l := range p.links {
		l.cancel()
		delete(p.links, id)
	}
}

// Sleep says that this machine is about to sleep, or with on false that it woke or stays awake after all. Before it sleeps the links
// end, as in Close, so that the other members see it as away at once and not only when it has been silent for long enough; it keeps
// its protocols, and hears what they say. When it woke the links are begun anew. Sleep waits until those members were told that a link
// was up to, but no longer than ctx, nor than two seconds. Once the pool is closed it does nothing. The same may be said again.
func (p *Pool) Sleep(ctx context.Context, on bool) {
	var told []<-chan struct{}
	err := p.do(p.ctx, func() { // whatever ctx is: a pool that missed the waking would say nothing for ever
		p.asleep = on
		for _, l := range p.links {
			told = append(told, l.over)
		}
		p.reconcileLinks()
	})
	if err == nil && on {
		waitAll(ctx, told)
	}
}

// keepLink keeps one link up until ctx ends.
func (p *Pool) keepLink(ctx context.Context, l *link) {
	defer close(l.over)
	wait := relinkFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-timer.C:
		case <-l.poke:
		case <-ctx.Done():
			return
		}
		s, err := p.dialLink(ctx, l.peer)
		if err == nil {
			wait = relinkFirst
			p.post(func() { p.linkUp(l) })
			p.talk(ctx, l, s)
			p.post(func() { p.linkDown(l) })
		} else {
			p.heed(err)
		}
		timer.Reset(wait + mrand.N(wait/2))
		wait = min(2*wait, relinkMax)
	}
}

func (p *Pool) linkUp(l *link) {
	if p.links[l.peer] != l {
		return
	}
	l.up = true
	p.tryKeenly(len(p.links)) // where one is reached again, others may be
	for _, w := range l.waiting {
		close(w)
	}
	l.waiting = nil
	p.gossip.Add(l.peer)
	p.listeners.up(l.peer)
}

// tryKeenly tries some of the links that are down to members who were there not long ago, those first that waited longest.
func (p *Pool) tryKeenly(most int) {
	now := p.clock.moment()
	var down []*link
	for id, l := range p.links {
		if m, _ := p.view().Judge(id, now.Wall); !l.up && !m.Seen.IsZero() && now.Wall.Sub(m.Seen).Abs() < keenFor {
			down = append(down, l)
		}
	}
	slices.SortFunc(down, func(a, b *link) int { return cmp.Compare(a.tried, b.tried) })
	for _, l := range down[:min(len(down), most)] {
		l.tried = now.Boot
		l.pokeNow()
	}
}

func (p *Pool) linkDown(l *link) {
	l.up = false
	l.sync = syncState{}
	for empty := false; !empty; { // what was queued for the old stream is found missing by its digest
		select {
		case <-l.out:
		case mark := <-l.marks:
			close(mark)
		default:
			empty = true
		}
	}
	if p.links[l.peer] == l {
		p.gossip.Remove(l.peer)
	}
}

// introduce shows this peer's certificate to a member that does not know it yet, and reports whether it now does.
func (p *Pool) introduce(ctx context.Context, id peer.ID) bool {
	up := make(chan struct{})
	err := p.do(ctx, func() {
		l := p.links[id]
		switch {
		case l == nil:
		case l.up:
			close(up)
		default:
			l.waiting = append(l.waiting, up)
			l.pokeNow()
		}
	})
	if err != nil {
		return false
	}
	select {
	case <-up:
		return true
	case <-ctx.Done():
		return false
	}
}

// dialLink connects and greets.
func (p *Pool) dialLink(ctx context.Context, id peer.ID) (network.Stream, error) {
	dialCtx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, "pool"), dialLinkWait)
	defer cancel()
	// Direct, because libp2p otherwise refuses to dial an address again that failed lately, for up to five minutes. A
	// member that only a relay leads to is reached by the next try, without it.
	s, err := p.cfg.Host.NewStream(network.WithForceDirectDial(dialCtx, "pool"), id, LinkProtocol)
	if err != nil {
		s, err = p.cfg.Host.NewStream(dialCtx, id, LinkProtocol)
	}
	if err != nil {
		return nil, fmt.Errorf("pool: link: %w", err)
	}
	greetCtx, done := context.WithTimeout(ctx, greetWait)
	defer done()
	if err := within(greetCtx, s, func() error { return p.greet(s, id) }); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

// greet is the dialling side of the greeting: recognise each other, then show why this peer is a member. Nothing is shown
// to a peer that is neither known as a member nor knows a secret of the pool.
func (p *Pool) greet(s network.Stream, id peer.ID) error {
	secrets := *p.secrets.Load()
	hello := &pb.Greet{Nonce: make([]byte, nonceSize)}
	_, _ = rand.Read(hello.Nonce) // never fails, see crypto/rand
	self := p.cfg.Identity.ID
	for i := range secretsMax {
		tag := make([]byte, 32) // chance, so that the number of secrets does not show
		_, _ = rand.Read(tag)
		if i < len(secrets) {
			sum := greetTag(secrets[i], labelGreet, self, id, hello.Nonce)
			tag = sum[:]
		}
		hello.Tags = append(hello.Tags, tag)
	}
	if err := wire.WriteMsg(s, hello, linkMax); err != nil {
		return err
	}
	if err := readVerdict(s); err != nil {
		return err
	}
	var answer pb.Greeted
	if err := wire.ReadMsg(s, &answer, linkMax); err != nil {
		return err
	}
	if !p.IsMember(id) && !tagged(secrets, answer.GetTag(), labelGreeted, id, self, hello.Nonce, answer.GetNonce()) {
		return refuse(roster.Stranger, "it does not know the pool's secret")
	}
	p.learn(s.Conn().RemotePeer(), answer.GetRecords())
	if m, reason := p.view().Judge(id, p.clock.wall()); reason != roster.OK {
		return p.explain(m, reason)
	}
	if err := wire.WriteMsg(s, &pb.Present{Records: p.credentials()}, linkMax); err != nil {
		return err
	}
	return readVerdict(s)
}

// tagged reports whether a tag proves one of the secrets.
func tagged(secrets []secret, tag []byte, label string, from, to peer.ID, nonces ...[]byte) bool {
	_, ok := whichTag(secrets, tag, label, from, to, nonces...)
	return ok
}

func whichTag(secrets []secret, tag []byte, label string, from, to peer.ID, nonces ...[]byte) (secret, bool) {
	for _, s := range secrets {
		want := greetTag(s, label, from, to, nonces...)
		if hmac.Equal(tag, want[:]) {
			return s, true
		}
	}
	return secret{}, false
}

// credentials are the records that show why this peer is a member: its certificate and the chain of admins to it.
func (p *Pool) credentials() (out [][]byte) {
	size := 0
	for _, rec := range p.view().Records() {
		switch rec := rec.(type) {
		case ident.Appointment:
		case ident.Certificate:
			if rec.Peer != p.cfg.Identity.ID {
				continue
			}
		default:
			continue
		}
		if size += len(rec.Raw()) + 4; size > linkRecords {
			break
		}
		out = append(out, rec.Raw())
	}
	return out
}

// serveLink is the listening side: the greeting, then heartbeats until the stream ends.
func (p *Pool) serveLink(s network.Stream) {
	id := s.Conn().RemotePeer()
	ctx, cancel := context.WithTimeout(p.ctx, greetWait)
	defer cancel()
	err := within(ctx, s, func() error { return p.greeted(s, id) })
	var r *Refusal
	switch {
	case errors.As(err, &r):
		sendRefusal(s, r)
		return
	case err != nil:
		_ = s.Reset()
		return
	}
	if err := p.listen(s, id); err != nil {
		_ = wire.Reset(s, err)
		return
	}
	_ = s.Close()
}

// greeted answers a greeting. A peer that is neither known nor knows a secret learns only that it is a stranger.
func (p *Pool) greeted(s network.Stream, id peer.ID) error {
	if p.over() {
		return refuse(roster.Stopping, "")
	}
	m, reason := p.view().Judge(id, p.clock.wall())
	if reason == roster.Evicted {
		return p.explain(m, reason)
	}
	if reason != roster.OK && !p.door.enterGreeting() {
		return wire.Errorf(wire.Busy, "too many greetings")
	} else if reason != roster.OK {
		defer p.door.leaveGreeting()
	}
	var hello pb.Greet
	if err := wire.ReadMsg(s, &hello, linkMax); err != nil {
		return err
	}
	self := p.cfg.Identity.ID
	answer := &pb.Greeted{Nonce: make([]byte, nonceSize)}
	_, _ = rand.Read(answer.Nonce)
	for _, tag := range hello.GetTags()[:min(len(hello.GetTags()), secretsMax)] {
		if one, ok := whichTag(*p.secrets.Load(), tag, labelGreet, id, self, hello.GetNonce()); ok {
			mine := greetTag(one, labelGreeted, self, id, hello.GetNonce(), answer.GetNonce())
			answer.Tag = mine[:]
			break
		}
	}
	if answer.Tag == nil && reason == roster.Stranger {
		return refuse(roster.Stranger, "")
	}
	answer.Records = p.credentials()
	if err := errors.Join(wire.WriteMsg(s, &pb.Verdict{}, verdictMax), wire.WriteMsg(s, answer, linkMax)); err != nil {
		return err
	}
	var shown pb.Present
	if err := wire.ReadMsg(s, &shown, linkMax); err != nil {
		return err
	}
	p.learn(id, shown.GetRecords())
	if _, refusal := p.admit(id, ident.RoleTerminal); refusal != nil {
		return refusal
	}
	return wire.WriteMsg(s, &pb.Verdict{}, verdictMax)
}

// learn takes records that another peer showed.
func (p *Pool) learn(from peer.ID, raws [][]byte) {
	if recs := p.newRecords(raws); len(recs) > 0 {
		_ = p.do(p.ctx, func() { _, _ = p.apply(roster.Learn{Records: recs}, from) })
	}
}

// listen takes what a member says until it falls silent, says goodbye, or is no member any more.
func (p *Pool) listen(s network.Stream, id peer.ID) error {
	for {
		_, away := p.view().Pace()
		if err := s.SetReadDeadline(time.Now().Add(silentTimes * away)); err != nil {
			return err
		}
		var m pb.Say
		if err := wire.ReadMsg(s, &m, linkMax); err != nil {
			return err
		}
		if _, refusal := p.admit(id, ident.RoleTerminal); refusal != nil {
			return refusal
		}
		recs := p.newRecords(m.GetRecords())
		if err := p.do(p.ctx, func() { p.heard(id, &m, recs) }); err != nil || m.GetBye() {
			return err
		}
	}
}

// talk sends heartbeats and news until the link breaks or ctx ends.
func (p *Pool) talk(ctx context.Context, l *link, s network.Stream) {
	defer func() { _ = s.Reset() }()
	ended := make(chan struct{}) // the other side never sends: a read returns when the link breaks
	p.wg.Go(func() {
		defer close(ended)
		var b [1]byte
		_, _ = s.Read(b[:])
	})
	beat, _ := p.view().Pace()
	timer := time.NewTimer(beat)
	defer timer.Stop()
	var told saying
	if p.sayNow(s, &told) != nil {
		return
	}
	for {
		var err error
		select {
		case m := <-l.out:
			err = say(s, m, sayWait)
		case mark := <-l.marks:
			err = drain(s, l)
			close(mark)
		case <-timer.C:
			beat, _ := p.view().Pace()
			timer.Reset(beat)
			err = p.sayNow(s, &told)
		case <-ended:
			return
		case <-ctx.Done():
			if say(s, &pb.Say{Bye: true}, byeWait) == nil {
				_ = s.CloseWrite()
				select {
				case <-ended: // it has been read, so a reset cannot overtake it
				case <-time.After(byeWait):
				}
			}
			return
		}
		if err != nil {
			return
		}
	}
}

// drain sends what is queued now.
func drain(s network.Stream, l *link) error {
	for {
		select {
		case m := <-l.out:
			if err := say(s, m, sayWait); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// sayNow sends a heartbeat, with what changed since the last one.
func (p *Pool) sayNow(s network.Stream, told *saying) error {
	digest := p.view().Digest()
	m := &pb.Say{Digest: digest[:digestSize], Secret: p.heldSecret()}
	if now := p.saying.Load(); now != nil && !now.equal(*told) {
		m.Lends, m.Addrs, m.Relays = encodeLends(now.lends), now.addrs, now.relays
		*told = *now
	}
	return say(s, m, sayWait)
}

func say(s network.Stream, m *pb.Say, wait time.Duration) error {
	if err := s.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	return wire.WriteMsg(s, m, linkMax)
}
