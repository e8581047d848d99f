package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

const (
	// protocolsMax bounds the table of protocols.
	protocolsMax = 64
	// openWait bounds NewStream when its context has no sooner end.
	openWait = 15 * time.Second
	// shoalPrefix is how all of shoal's protocol ids begin.
	shoalPrefix = "/shoal/"
)

// openProtocols are those of shoal's protocols that strangers may speak: the finder, what was shared publicly, and the
// two doors by which a peer becomes or shows itself a member, which judge by themselves.
var openProtocols = []protocol.ID{"/shoal/kad/1.0.0", "/shoal/chunk/1", JoinProtocol, LinkProtocol}

// gate keeps the table of the protocols that only members may speak.
type gate struct {
	mu    sync.Mutex
	table map[protocol.ID]bool
}

// Handle registers the handler of a pool protocol. It sees streams of members in force only, which the other side knows
// to be accepted; all others are refused with a reason before a byte of theirs is read. It panics when the protocol is
// registered already, or its id does not begin with /shoal/: both are mistakes in the program.
func (p *Pool) Handle(id protocol.ID, h network.StreamHandler) {
	p.HandleFor(id, ident.RoleTerminal, func(s network.Stream, _ roster.Member) { h(s) })
}

// HandleFor is Handle for a protocol that needs at least a role, and tells the handler who calls.
func (p *Pool) HandleFor(id protocol.ID, least ident.Role, h func(network.Stream, roster.Member)) {
	p.register(id)
	p.cfg.Host.SetStreamHandler(id, func(s network.Stream) {
		m, refusal := p.admit(s.Conn().RemotePeer(), least)
		if refusal != nil {
			sendRefusal(s, refusal)
			return
		}
		if err := welcome(s); err != nil {
			_ = s.Reset()
			return
		}
		h(s, m)
	})
}

// register puts a protocol into the table.
func (p *Pool) register(id protocol.ID) {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	switch {
	case !strings.HasPrefix(string(id), shoalPrefix):
		panic(fmt.Sprintf("pool: the protocol id %q does not begin with %s", id, shoalPrefix))
	case p.gate.table[id] || slices.Contains(openProtocols, id):
		panic(fmt.Sprintf("pool: the protocol %s is registered twice", id))
	case len(p.gate.table) >= protocolsMax:
		panic("pool: too many protocols")
	}
	p.gate.table[id] = true
}

// unregister empties the table and takes the handlers off the host.
func (p *Pool) unregister() {
	for _, id := range p.Protocols() {
		p.cfg.Host.RemoveStreamHandler(id)
	}
}

// Protocols lists the protocols that stand behind the gate, in order.
func (p *Pool) Protocols() []protocol.ID {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	var out []protocol.ID
	for id := range p.gate.table {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Ungated lists the protocols of shoal that the host answers without the gate and that are not known to be for strangers
// too. It is empty unless a protocol was registered around the pool; a test of the assembled peer holds it.
func (p *Pool) Ungated() []protocol.ID {
	gated := p.Protocols()
	var out []protocol.ID
	for _, id := range p.cfg.Host.Mux().Protocols() {
		if strings.HasPrefix(string(id), shoalPrefix) && !slices.Contains(gated, id) && !slices.Contains(openProtocols, id) {
			out = append(out, id)
		}
	}
	return out
}

// admit judges a peer by the roster as it is now.
func (p *Pool) admit(id peer.ID, least ident.Role) (roster.Member, *Refusal) {
	if p.over() {
		return roster.Member{}, refuse(roster.Stopping, "")
	}
	m, reason := p.view().Judge(id, p.clock.wall())
	if reason != roster.OK {
		return m, p.explain(m, reason)
	}
	// An evicted peer that still runs the pool's protocols for others would be a door left open.
	if _, own := p.view().Judge(p.cfg.Identity.ID, p.clock.wall()); own != roster.OK {
		return m, refuse(roster.Stopping, "the peer itself is no member any more")
	}
	if m.Role < least {
		return m, refuse(roster.NotRole, "it needs %s, the role is %s", least, m.Role)
	}
	return m, nil
}

// explain adds to a reason what may be told to the peer that it is about. A stranger is told nothing.
func (p *Pool) explain(m roster.Member, reason roster.Reason) *Refusal {
	r := &Refusal{Reason: reason}
	switch reason {
	case roster.Evicted, roster.Left, roster.Lapsed:
		if !m.Ends.IsZero() {
			r.Text = "on " + m.Ends.UTC().Format("2006-01-02 15:04 MST")
		}
	}
	if reason == roster.Evicted {
		if revs := p.view().Revocations(m.ID); len(revs) > 0 {
			r.proof = revs[0]
		}
	}
	return r
}

// welcome tells the dialling side that it was let in: one byte, the empty message.
func welcome(s network.Stream) error {
	if err := s.SetWriteDeadline(time.Now().Add(verdictWait)); err != nil {
		return err
	}
	if err := wire.WriteMsg(s, &pb.Verdict{}, verdictMax); err != nil {
		return err
	}
	return s.SetWriteDeadline(time.Time{})
}

// NewStream opens a stream to another member, connecting if need be, and waits for its word that this peer is let in: one
// round trip more than a bare stream, for an error that says why instead of a stream that dies. The error is a *Refusal
// when either side refuses. A member that has not heard of this one yet is shown the certificate, and asked again.
func (p *Pool) NewStream(ctx context.Context, id peer.ID, proto protocol.ID) (network.Stream, error) {
	return p.open(ctx, id, func(ctx context.Context) (network.Stream, error) {
		return p.cfg.Host.NewStream(network.WithAllowLimitedConn(ctx, "pool"), id, proto)
	})
}

// NewBulkStream is NewStream for many bytes: see host.Host.NewBulkStream.
func (p *Pool) NewBulkStream(ctx context.Context, id peer.ID, proto protocol.ID) (network.Stream, error) {
	return p.open(ctx, id, func(ctx context.Context) (network.Stream, error) {
		return p.cfg.Host.NewBulkStream(ctx, id, proto)
	})
}

func (p *Pool) open(ctx context.Context, id peer.ID, dial func(context.Context) (network.Stream, error)) (network.Stream, error) {
	if p.over() {
		return nil, refuse(roster.Stopping, "")
	}
	if m, reason := p.view().Judge(id, p.clock.wall()); reason != roster.OK {
		return nil, p.explain(m, reason)
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	s, err := p.openOnce(ctx, dial)
	if ReasonOf(err) == roster.Stranger && p.introduce(ctx, id) {
		s, err = p.openOnce(ctx, dial)
	}
	p.heed(err)
	return s, err
}

// openOnce opens a stream and reads the verdict.
func (p *Pool) openOnce(ctx context.Context, dial func(context.Context) (network.Stream, error)) (network.Stream, error) {
	s, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("pool: open stream: %w", err)
	}
	if err := within(ctx, s, func() error { return readVerdict(s) }); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("pool: open stream: %w", err)
	}
	return s, nil
}

// within runs an exchange on a stream, which ends with ctx: by its deadline, and at once when it is cancelled.
func within(ctx context.Context, s network.Stream, f func() error) error {
	if d, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(d); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return s.SetDeadline(time.Time{})
}
