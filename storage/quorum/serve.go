package quorum

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/quorum/pb"
	"github.com/shoal-os/shoal/storage/quorum/replica"
)

const (
	// openingWait bounds the first message of a stream.
	openingWait = 10 * time.Second
	// callWait bounds a call, snapshotWait the transfer of a snapshot.
	callWait     = 30 * time.Second
	snapshotWait = 5 * time.Minute
	// callsMax is how many calls and snapshots of one peer are served at a time.
	callsMax = 16
	// snapshotsOut is how many snapshots are sent at a time, to all peers.
	snapshotsOut = 4
)

// serve answers a stream of another member.
func (e *Engine) serve(s network.Stream) {
	from := s.Conn().RemotePeer()
	var o pb.Opening
	_ = s.SetReadDeadline(time.Now().Add(openingWait))
	r := bufio.NewReaderSize(s, 64<<10)
	err := wire.ReadMsg(r, &o, packetMax)
	if err == nil {
		err = e.dispatch(s, r, from, &o)
	}
	if err != nil {
		_ = wire.Reset(s, err)
		return
	}
	_ = s.Close()
}

func (e *Engine) dispatch(s network.Stream, r *bufio.Reader, from peer.ID, o *pb.Opening) error {
	switch {
	case e.ctx.Err() != nil:
		return wire.Errorf(wire.Closing, "the peer is closing")
	case o.GetPackets():
		return e.servePackets(s, r, from)
	case o.GetCall() == nil && o.GetSnapshot() == nil:
		return wire.Errorf(wire.Malformed, "an opening that says nothing")
	}
	if o.GetCall() != nil {
		return e.serveCalls(s, r, from, o.GetCall())
	}
	if !e.links.enter(from) {
		return wire.Errorf(wire.Busy, "too many calls")
	}
	defer e.links.exit(from)
	return e.serveSnapshot(s, r, from, o.GetSnapshot())
}

func (l *links) enter(id peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || l.calls[id] >= callsMax {
		return false
	}
	l.calls[id]++
	return true
}

func (l *links) exit(id peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls[id]--; l.calls[id] == 0 {
		delete(l.calls, id)
	}
}

// servePackets takes a peer's messages until its stream ends. A newer stream of the peer takes the place of an older one.
func (e *Engine) servePackets(s network.Stream, r *bufio.Reader, from peer.ID) error {
	_ = s.SetReadDeadline(time.Time{})
	e.links.mu.Lock()
	if e.links.over {
		e.links.mu.Unlock()
		return wire.Errorf(wire.Closing, "the peer is closing")
	}
	if old := e.links.inbound[from]; old != nil {
		_ = old.Reset()
	}
	e.links.inbound[from] = s
	e.links.mu.Unlock()
	defer func() {
		e.links.mu.Lock()
		defer e.links.mu.Unlock()
		if e.links.inbound[from] == s {
			delete(e.links.inbound, from)
		}
	}()
	e.setReachable(from, true)
	for {
		var p pb.Packet
		if err := wire.ReadMsg(r, &p, packetMax); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, x := range p.GetParcels() {
			e.deliver(from, x)
		}
	}
}

// deliver brings a parcel to its group.
func (e *Engine) deliver(from peer.ID, p *pb.Parcel) {
	id, ok := groupOf(p.GetGroup())
	if !ok {
		return
	}
	e.mu.Lock()
	g, dormant := e.groups[id], e.dormant[id] != nil || e.reserved[id]
	e.mu.Unlock()
	switch {
	case p.GetDenial() != 0:
		if g != nil {
			g.denied(from, p)
		}
	case g != nil && g.self == p.GetTo():
		if m, ok := fromParcel(p); ok {
			g.receive(replica.Receive{From: from, Message: m}, len(p.GetRaft())+len(p.GetAsk().GetEntry()))
		}
	case dormant:
	default:
		e.deny(from, id, p)
	}
}

// deny tells a replica that the one that it wrote to is not here, or that the group is no more.
func (e *Engine) deny(to peer.ID, id GroupID, p *pb.Parcel) {
	why := deniedUnknown
	if e.ended.has(id) {
		why = deniedDissolved
	}
	e.send(to, &pb.Parcel{Group: id[:], From: p.GetTo(), To: p.GetFrom(), Denial: why})
}

// denied takes a denial, if it comes from a member.
func (g *Group) denied(from peer.ID, p *pb.Parcel) {
	if p.GetTo() != g.self || !g.has(from) {
		return
	}
	switch p.GetDenial() {
	case deniedUnknown:
		g.stepMu.Lock()
		m, ok := g.rep.Status().Book.Get(p.GetFrom())
		g.stepMu.Unlock()
		if ok && m.Peer == from {
			g.post(replica.Lost{ID: p.GetFrom()})
		}
	case deniedDissolved:
		go g.finish(true)
	}
}

// sendSnapshot sends a message with the snapshot that it speaks of, on a stream of its own so that it delays nothing else.
func (e *Engine) sendSnapshot(g *Group, m replica.Message, index uint64) {
	e.wg.Go(func() {
		ok := false
		defer func() { g.post(replica.SnapshotSent{To: m.To, OK: ok}) }()
		ctx, cancel := context.WithTimeout(e.ctx, snapshotWait)
		defer cancel()
		if e.snapshots.Acquire(ctx, 1) != nil {
			return
		}
		defer e.snapshots.Release(1)
		err := e.carrySnapshot(ctx, g, m, index)
		if ok = err == nil; !ok && ctx.Err() == nil {
			e.log.Debug("quorum: a snapshot was not delivered", "group", g.id, "to", m.Peer, "err", err)
		}
	})
}

func (e *Engine) carrySnapshot(ctx context.Context, g *Group, m replica.Message, index uint64) error {
	data, err := e.readSnapshot(g.id, index)
	if err != nil {
		return err
	}
	p, err := toParcel(g.id, &m)
	if err != nil {
		return err
	}
	s, err := e.open(ctx, m.Peer, &pb.Opening{Snapshot: &pb.Snapshot{Parcel: p, Size: uint64(len(data)), Crc: crc(data)}})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetWriteDeadline(time.Now().Add(snapshotWait))
	if _, err := s.Write(data); err != nil {
		_ = s.Reset()
		return err
	}
	a, err := readAnswer(ctx, s)
	_ = s.Reset()
	return errors.Join(err, refusalError(a))
}

// serveSnapshot takes a snapshot. It is durable before the replica hears of it.
func (e *Engine) serveSnapshot(s network.Stream, r io.Reader, from peer.ID, head *pb.Snapshot) error {
	id, ok := groupOf(head.GetParcel().GetGroup())
	g, here := e.Group(id)
	m, ok2 := fromParcel(head.GetParcel())
	index, fresh, ok3 := m.Snapshot()
	switch {
	case !ok || !ok2 || !ok3 || fresh || head.GetSize() > SnapshotMax:
		return wire.Errorf(wire.Malformed, "no snapshot of a group")
	case !here || g.self != m.To:
		e.deny(from, id, head.GetParcel())
		return wire.Errorf(wire.NotFound, "there is no such replica")
	}
	_ = s.SetReadDeadline(time.Now().Add(snapshotWait))
	data, err := readAll(r, int(head.GetSize()))
	switch {
	case err != nil:
		return err
	case crc(data) != head.GetCrc():
		return wire.Errorf(wire.Malformed, "the snapshot was damaged on its way")
	}
	if err := e.storeSnapshot(id, index, data); err != nil {
		return wire.Errorf(wire.Internal, "%v", err)
	}
	g.receive(replica.Receive{From: from, Message: m}, 0)
	_ = s.SetWriteDeadline(time.Now().Add(writeWait))
	return wire.WriteMsg(s, &pb.Answer{}, callMax)
}

// readAll reads size bytes, taking memory as they come.
func readAll(r io.Reader, size int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && len(data) < size {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}
