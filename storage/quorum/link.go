package quorum

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/quorum/pb"
	"github.com/shoal-os/shoal/storage/quorum/replica"
)

const (
	// queueMax and queueBytes bound what waits for a peer. More is dropped: Raft sends again.
	queueMax   = 16 << 10
	queueBytes = 16 << 20
	// dialWait bounds the opening of a stream, writeWait the sending of a packet.
	dialWait  = 5 * time.Second
	writeWait = 10 * time.Second
	// After a failure a peer is left alone for redialFirst, then twice as long each time up to redialMax; what is to be
	// sent to it meanwhile is dropped. When it is said to be present again it is tried at once.
	redialFirst = 100 * time.Millisecond
	redialMax   = 5 * time.Second
	// linksMax bounds the peers that messages go to.
	linksMax = 1024
)

// links are the ways to other peers, and what is known of them.
type links struct {
	mu      sync.Mutex
	to      map[peer.ID]*link
	absent  map[peer.ID]bool
	inbound map[peer.ID]network.Stream
	calls   map[peer.ID]int // calls and snapshots of theirs that are being served
	idle    map[peer.ID][]idleCall
	over    bool
}

func (l *links) init() {
	l.to, l.absent = make(map[peer.ID]*link), make(map[peer.ID]bool)
	l.inbound, l.calls = make(map[peer.ID]network.Stream), make(map[peer.ID]int)
	l.idle = make(map[peer.ID][]idleCall)
}

// stop ends the streams of others; the links end with the engine.
func (l *links) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, s := range l.inbound {
		_ = s.Reset()
	}
	for _, list := range l.idle {
		for _, i := range list {
			_ = i.s.Reset()
		}
	}
	clear(l.idle)
}

// link is the stream on which messages go to one peer.
type link struct {
	e    *Engine
	peer peer.ID
	wake chan struct{}
	poke chan struct{} // try again now

	mu    sync.Mutex
	queue []*pb.Parcel
	bytes int
}

// sendAll sends a group's messages.
func (e *Engine) sendAll(g *Group, messages []replica.Message) {
	for i := range messages {
		m := &messages[i]
		if index, fresh, ok := m.Snapshot(); ok && !fresh {
			e.sendSnapshot(g, *m, index)
			continue
		} else if ok {
			g.post(replica.SnapshotSent{To: m.To, OK: true}) // there are no bytes; if it is lost Raft will find out
		}
		p, err := toParcel(g.id, m)
		if err == nil {
			e.send(m.Peer, p)
		}
	}
}

// send queues a parcel for a peer.
func (e *Engine) send(to peer.ID, p *pb.Parcel) {
	l := e.linkTo(to)
	if l == nil {
		return
	}
	e.sent.Add(1)
	size := len(p.GetRaft()) + len(p.GetAsk().GetEntry()) + 64
	l.mu.Lock()
	if len(l.queue) < queueMax && l.bytes < queueBytes {
		l.queue = append(l.queue, p)
		l.bytes += size
	}
	l.mu.Unlock()
	kick(l.wake)
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// linkTo finds or makes the link to a peer; nil: there may be none.
func (e *Engine) linkTo(to peer.ID) *link {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	l := e.links.to[to]
	if l == nil && len(e.links.to) < linksMax && to != e.cfg.Self && !e.links.over {
		l = &link{e: e, peer: to, wake: make(chan struct{}, 1), poke: make(chan struct{}, 1)}
		e.links.to[to] = l
		e.wg.Go(l.run)
	}
	return l
}

// take returns what is to be sent now.
func (l *link) take() []*pb.Parcel {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queue
	l.queue, l.bytes = nil, 0
	return q
}

// run keeps the link until the engine closes.
func (l *link) run() {
	wait := redialFirst
	for l.pause(nil) {
		s, err := l.dial(l.e.ctx)
		if err != nil {
			l.take()
			l.e.setReachable(l.peer, false)
			l.rest(&wait)
			continue
		}
		l.keep(s, &wait)
	}
}

// pause waits until there is something to send. It reports false when the engine closes, or the stream broke.
func (l *link) pause(broken <-chan struct{}) bool {
	select {
	case <-l.wake:
		return true
	case <-broken:
	case <-l.e.ctx.Done():
	}
	return false
}

// rest leaves the peer alone for a while, and for longer the next time.
func (l *link) rest(wait *time.Duration) {
	timer := time.NewTimer(*wait)
	defer timer.Stop()
	*wait = min(2**wait, redialMax)
	select {
	case <-timer.C:
	case <-l.poke:
	case <-l.e.ctx.Done():
	}
}

// dial opens the stream.
func (l *link) dial(ctx context.Context) (network.Stream, error) {
	return l.e.open(ctx, l.peer, &pb.Opening{Packets: true})
}

// open opens a stream to a peer and says what it is for.
func (e *Engine) open(ctx context.Context, to peer.ID, o *pb.Opening) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	s, err := e.cfg.Streams.NewStream(ctx, to, Protocol)
	if err != nil {
		return nil, err
	}
	_ = s.SetWriteDeadline(time.Now().Add(writeWait))
	if err := wire.WriteMsg(s, o, packetMax); err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

// keep sends on a stream until it breaks. Then it finds out at once whether the connection did too, for that is how a peer that was
// killed is noticed: a stream that can be opened without dialling says that the peer is still there. One that breaks
// again and again, because the peer does not want it, is not opened all the time.
func (l *link) keep(s network.Stream, wait *time.Duration) {
	for s != nil {
		l.e.setReachable(l.peer, true)
		kick(l.wake) // for what waits already
		began := time.Now()
		l.talk(s)
		if time.Since(began) < redialMax {
			l.rest(wait)
		} else {
			*wait = redialFirst
		}
		if l.e.ctx.Err() != nil {
			return
		}
		var err error
		if s, err = l.dial(network.WithNoDial(l.e.ctx, "quorum")); err != nil {
			l.e.setReachable(l.peer, false)
			return
		}
	}
}

// talk sends until the stream breaks.
func (l *link) talk(s network.Stream) {
	broken := make(chan struct{}) // the other side never sends: a read returns when the stream breaks
	l.e.wg.Go(func() {
		defer close(broken)
		var b [1]byte
		_, _ = s.Read(b[:])
	})
	defer func() {
		_ = s.Reset()
		<-broken
	}()
	for l.pause(broken) {
		if err := l.flush(s, l.take()); err != nil {
			return
		}
	}
}

// flush sends parcels in as few packets as their size allows.
func (l *link) flush(s network.Stream, parcels []*pb.Parcel) error {
	for len(parcels) > 0 {
		n, size := 0, 0
		for n < len(parcels) && (n == 0 || size < packetGoal) {
			size += proto.Size(parcels[n]) + 8
			if n > 0 && size > packetMax/2 {
				break
			}
			n++
		}
		if err := s.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
			return err
		}
		if err := wire.WriteMsg(s, &pb.Packet{Parcels: parcels[:n]}, packetMax); err != nil {
			return err
		}
		parcels = parcels[n:]
	}
	return nil
}

// presence takes the pool's word on who can be reached.
func (e *Engine) presence(id peer.ID, present bool) {
	e.setReachable(id, present)
	if present {
		e.links.mu.Lock()
		l := e.links.to[id]
		e.links.mu.Unlock()
		if l != nil {
			kick(l.poke)
		}
	}
}

// reachable reports whether a peer is believed to be.
func (e *Engine) reachable(id peer.ID) bool {
	e.links.mu.Lock()
	absent, known := e.links.absent[id]
	e.links.mu.Unlock()
	if known {
		return !absent
	}
	return e.cfg.Presence.Present(id)
}

// setReachable tells all groups that a peer came or went.
func (e *Engine) setReachable(id peer.ID, present bool) {
	e.links.mu.Lock()
	was, known := e.links.absent[id]
	e.links.absent[id] = !present
	e.links.mu.Unlock()
	if known && was == !present {
		return
	}
	e.mu.Lock()
	var tell []*Group
	for _, g := range e.groups {
		tell = append(tell, g)
	}
	e.mu.Unlock()
	for _, g := range tell {
		if g.has(id) {
			g.post(replica.Presence{Peer: id, Present: present})
		}
	}
}

// has reports whether a peer is a member.
func (g *Group) has(id peer.ID) bool {
	for _, m := range g.status.get().Members {
		if m.Peer == id {
			return true
		}
	}
	return false
}
