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
)

const (
	// idleCalls is how many streams for calls are kept to each peer for the next call, and idleWait for how long: to open one
	// takes the pool's gate and the negotiation of its protocol, several times what a call itself does.
	idleCalls = 2
	idleWait  = time.Minute
	// lingerWait is how long the other side waits for another call: longer, so that a stream is mostly not closed under a call.
	lingerWait = 2 * idleWait
)

// idleCall is a stream whose last call was answered.
type idleCall struct {
	s     network.Stream
	since time.Time
}

// takeIdle returns a stream to a peer that waits for a call; nil: there is none.
func (l *links) takeIdle(to peer.ID) network.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.idle[to]
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	l.setIdle(to, list[:len(list)-1])
	if time.Since(last.since) > idleWait {
		_ = last.s.Reset()
		return nil
	}
	return last.s
}

// setIdle replaces the list; the links are locked.
func (l *links) setIdle(to peer.ID, list []idleCall) {
	if len(list) == 0 {
		delete(l.idle, to)
		return
	}
	l.idle[to] = list
}

// giveIdle keeps a stream for the next call. Old ones go first.
func (l *links) giveIdle(to peer.ID, s network.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.idle[to]
	for len(list) > 0 && time.Since(list[0].since) > idleWait {
		_ = list[0].s.Reset()
		list = list[1:]
	}
	if l.over || len(list) >= idleCalls {
		_ = s.Reset()
	} else {
		list = append(list, idleCall{s, time.Now()})
	}
	l.setIdle(to, list)
}

// call asks something of a peer and waits for the answer.
func (e *Engine) call(ctx context.Context, to peer.ID, c *pb.Call) (*pb.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	if s := e.links.takeIdle(to); s != nil {
		_ = s.SetWriteDeadline(time.Now().Add(writeWait))
		if wire.WriteMsg(s, &pb.Opening{Call: c}, packetMax) == nil {
			answer, err := e.heed(ctx, to, s)
			if err == nil || ctx.Err() != nil {
				return answer, errors.Join(err, refusalError(answer))
			}
		}
		// It broke while nobody looked. Whoever did what was asked nevertheless refuses to do it again.
		_ = s.Reset()
	}
	s, err := e.open(ctx, to, &pb.Opening{Call: c})
	if err != nil {
		return nil, err
	}
	answer, err := e.heed(ctx, to, s)
	return answer, errors.Join(err, refusalError(answer))
}

// heed reads the answer to a call, and keeps the stream for the next one.
func (e *Engine) heed(ctx context.Context, to peer.ID, s network.Stream) (*pb.Answer, error) {
	a, err := readAnswer(ctx, s)
	if err == nil {
		e.links.giveIdle(to, s)
	}
	return a, err
}

// readAnswer reads an answer. After an error the stream is of no more use.
func readAnswer(ctx context.Context, s network.Stream) (*pb.Answer, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	var a pb.Answer
	err := wire.ReadMsg(s, &a, callMax)
	if !stop() || err != nil {
		_ = s.Reset()
		return nil, errors.Join(ctx.Err(), err)
	}
	return &a, nil
}

// serveCalls answers a call, and those that follow on the stream.
func (e *Engine) serveCalls(s network.Stream, r *bufio.Reader, from peer.ID, c *pb.Call) error {
	stop := context.AfterFunc(e.ctx, func() { _ = s.Reset() })
	defer stop()
	for {
		if err := e.serveCall(s, from, c); err != nil {
			return err
		}
		_ = s.SetReadDeadline(time.Now().Add(lingerWait))
		var o pb.Opening
		switch err := wire.ReadMsg(r, &o, packetMax); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case o.GetCall() == nil:
			return wire.Errorf(wire.Malformed, "after a call comes a call")
		}
		c = o.GetCall()
	}
}

// serveCall answers one call.
func (e *Engine) serveCall(s network.Stream, from peer.ID, c *pb.Call) error {
	if !e.links.enter(from) {
		return wire.Errorf(wire.Busy, "too many calls")
	}
	defer e.links.exit(from)
	ctx, cancel := context.WithTimeout(e.ctx, callWait)
	defer cancel()
	id, ok := groupOf(c.GetGroup())
	if !ok {
		return wire.Errorf(wire.Malformed, "a call without a group")
	}
	a := &pb.Answer{Founded: c.GetOffer().GetFounder() != 0}
	if err := e.answer(ctx, from, id, c); err != nil {
		a = refusalOf(err)
	}
	_ = s.SetWriteDeadline(time.Now().Add(writeWait))
	return wire.WriteMsg(s, a, callMax)
}

func (e *Engine) answer(ctx context.Context, from peer.ID, id GroupID, c *pb.Call) error {
	if c.GetOffer() != nil {
		return e.accept(from, id, c.GetOffer())
	}
	g, ok := e.Group(id)
	switch {
	case e.ended.has(id):
		return ErrDissolved
	case !ok:
		return errUnknown
	case !g.has(from):
		return wire.Errorf(wire.Refused, "only members may ask for that")
	case len(c.GetAdd()) > 0:
		who, err := peerOf(c.GetAdd())
		if err != nil {
			return err
		}
		return g.addHere(ctx, who)
	case len(c.GetRemove()) > 0:
		who, err := peerOf(c.GetRemove())
		if err != nil {
			return err
		}
		return g.removeHere(ctx, who)
	case len(c.GetTransfer()) > 0:
		who, err := peerOf(c.GetTransfer())
		if err != nil {
			return err
		}
		return g.transferHere(who)
	}
	return wire.Errorf(wire.Malformed, "a call that asks for nothing")
}
