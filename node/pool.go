package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/block/piece"
)

// prefixMin is how much of a peer id has to be given when it is not given whole: all begin alike.
const prefixMin = len("12D3KooW") + 4

// Pool describes the pool as this peer sees it now.
func (n *Node) Pool(context.Context) (client.Pool, error) {
	c, err := n.circle()
	if err != nil {
		return client.Pool{}, err
	}
	return n.poolShape(c), nil
}

func (n *Node) poolShape(c *circle) client.Pool {
	p := client.Pool{
		ID: c.pool.ID().String(), Self: n.ident.ID.String(), Standing: "ok", Waking: c.pool.Grace(),
		Members: []client.Member{}, Former: []client.Member{}, Names: namesShape(c.names.Status()),
	}
	if r := c.pool.Standing(); r != roster.OK {
		p.Standing = r.String()
	}
	if err := c.pool.Problem(); err != nil {
		p.Problem = err.Error()
	}
	for _, m := range c.pool.Members() {
		shape := n.memberShape(m)
		p.Members = append(p.Members, shape)
		sum(&p.All, shape.Lends)
		if m.State == roster.Online || m.Self {
			sum(&p.Totals, shape.Lends)
		}
	}
	for _, m := range c.pool.Former() {
		p.Former = append(p.Former, n.memberShape(m))
	}
	return p
}

func sum(t *client.Totals, l client.Lends) {
	t.Members++
	t.Cores += l.Cores
	t.Memory += l.Memory
	t.Space += l.Space
	t.Free += l.Free
}

func (n *Node) memberShape(m roster.Member) client.Member {
	shape := client.Member{
		ID: m.ID.String(), Name: wire.CleanText(m.Name), Role: m.Role.String(), State: m.State.String(), Self: m.Self,
		Since: m.Since, Seen: m.Seen, Lends: lendsShape(m.Lends), Paths: []client.Path{},
	}
	if m.Standing != roster.OK {
		shape.Ended = m.Standing.String()
	}
	for _, path := range n.host.Paths(m.ID) {
		shape.Paths = append(shape.Paths, pathShape(path))
	}
	return shape
}

// Invite makes a ticket.
func (n *Node) Invite(ctx context.Context, req client.InviteRequest) (client.Invitation, error) {
	c, err := n.circle()
	if err != nil {
		return client.Invitation{}, err
	}
	o := pool.InviteOptions{TTL: time.Duration(req.TTL * float64(time.Second)), Uses: req.Uses}
	if req.Role != "" {
		if o.Role, err = ident.ParseRole(req.Role); err != nil {
			return client.Invitation{}, client.Wrap(client.KindInvalid, err, "terminal, member or admin")
		}
	}
	t, err := c.pool.Invite(ctx, o)
	if err != nil {
		return client.Invitation{}, poolError(err)
	}
	return client.Invitation{Ticket: t.String(), Role: t.Role.String(), Uses: max(o.Uses, 1), Expires: t.Expires}, nil
}

// Join takes up a ticket, in place of the present membership.
func (n *Node) Join(ctx context.Context, req client.JoinRequest, ask func(client.JoinQuestion) error) (client.Pool, error) {
	t, err := ident.ParseTicket(req.Ticket)
	if err != nil {
		return client.Pool{}, client.Wrap(client.KindInvalid, err, "`shoal invite` on a member prints a ticket")
	}
	o := pool.JoinOptions{}
	if req.TakeTheirs {
		o.Wins = pool.WinsTheirs
	}
	var asked error
	o.Confirm = func(words string) bool {
		yes, err := n.confirmWords(ctx, t, words, req.Yes, ask)
		asked = err
		return yes && err == nil
	}
	c, err := n.move(func(c *circle) error {
		_, err := c.pool.Join(ctx, t, o)
		if asked != nil {
			return asked
		}
		return poolError(err)
	})
	if err != nil {
		return client.Pool{}, err
	}
	return n.poolShape(c), nil
}

// confirmWords shows the joiner's owner the check words and, unless yes is given beforehand, waits for the answer.
func (n *Node) confirmWords(ctx context.Context, t ident.Ticket, words string, yes bool, ask func(client.JoinQuestion) error) (bool, error) {
	q := client.JoinQuestion{Words: words, Inviter: t.Inviter.String(), Role: t.Role.String(), Pool: t.Pool.String()}
	if yes {
		return true, ask(q)
	}
	token, answer, done, err := n.asked.ask()
	if err != nil {
		return false, err
	}
	defer done()
	q.Token = token
	if err := ask(q); err != nil {
		return false, err
	}
	select {
	case accept := <-answer:
		return accept, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Leave ends this peer's membership. It is in a new pool of its own then.
func (n *Node) Leave(ctx context.Context, req client.LeaveRequest) (client.Pool, error) {
	c, err := n.move(func(c *circle) error {
		return poolError(c.pool.Leave(ctx, pool.LeaveOptions{Force: req.Force, HandOver: func(ctx context.Context) error { return n.handOver(ctx, c, req.Force) }}))
	})
	if err != nil {
		return client.Pool{}, err
	}
	return n.poolShape(c), nil
}

// handOver sees to it that leaving loses nothing: a member that is there has compared its names with this peer's, and
// holds the bytes that were here only.
func (n *Node) handOver(ctx context.Context, c *circle, force bool) error {
	others := c.pool.Members()
	if force || len(others) < 2 || n.files() == 0 {
		return nil
	}
	if len(presence{c.pool}.Connected()) == 0 {
		return client.Errorf(client.KindRefused, "wait until another member is online, or leave with --force",
			"no other member is online, and what was written here lately may be nowhere else")
	}
	if err := n.handOverNames(ctx, c); err != nil {
		return err
	}
	return n.handOverPieces(ctx, c)
}

// handOverNames has a member compare its names with this peer's, until it holds all of them.
func (n *Node) handOverNames(ctx context.Context, c *circle) error {
	ctx, cancel := context.WithTimeout(ctx, handOverWait)
	defer cancel()
	tick := time.NewTicker(handOverTick)
	defer tick.Stop()
	for {
		for _, p := range (presence{c.pool}).Connected() {
			if same, err := c.names.Compare(p); err == nil && same {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return client.Errorf(client.KindRefused, "try again, or leave with --force", "no member has taken over the names that this peer holds")
		}
	}
}

const (
	handOverWait = 30 * time.Second
	handOverTick = 200 * time.Millisecond
)

// handOverPieces gives what nobody else has to others.
func (n *Node) handOverPieces(ctx context.Context, c *circle) error {
	var alone []piece.Piece
	for _, id := range c.repair.WhatIf(n.ident.ID).Lost {
		if p, ok := n.pieces.Get(id); ok {
			alone = append(alone, p)
		}
	}
	if len(alone) == 0 {
		return nil
	}
	s, err := c.repair.Secure(ctx, alone, handedOver, handedOver, nil)
	if err != nil {
		return err
	}
	if s.Copies >= handedOver {
		return nil
	}
	return client.Errorf(client.KindRefused, "wait until a member with space is online, or leave with --force and lose them; `shoal what-if remove` names them",
		"%d pieces of the pool's files are on this machine only", len(alone))
}

// handedOver is how many copies there are of what was on this peer alone, its own counted, when it may go.
const handedOver = 2

// Evict ends a member's membership for good.
func (n *Node) Evict(ctx context.Context, req client.MemberRequest) (client.Member, error) {
	return n.withMember(req.Peer, func(c *circle, m roster.Member) error { return c.pool.Evict(ctx, m.ID) })
}

// Promote makes a member an admin.
func (n *Node) Promote(ctx context.Context, req client.MemberRequest) (client.Member, error) {
	return n.withMember(req.Peer, func(c *circle, m roster.Member) error { return c.pool.Appoint(ctx, m.ID) })
}

// withMember does something to the member that a text names, and returns what became of it.
func (n *Node) withMember(text string, do func(*circle, roster.Member) error) (client.Member, error) {
	c, err := n.circle()
	if err != nil {
		return client.Member{}, err
	}
	m, err := findMember(c.pool.Members(), text)
	if err != nil {
		return client.Member{}, err
	}
	if err := do(c, m); err != nil {
		return client.Member{}, poolError(err)
	}
	after, _ := c.pool.Member(m.ID)
	return n.memberShape(after), nil
}

// Find resolves a text to a member's id.
func (n *Node) Find(_ context.Context, text string) (id string, self bool, err error) {
	c, err := n.circle()
	if err != nil {
		return "", false, err
	}
	m, err := findMember(c.pool.Members(), text)
	return m.ID.String(), m.Self, err
}

// Dial opens a connection to a member's API.
func (n *Node) Dial(ctx context.Context, id string) (net.Conn, error) {
	c, err := n.circle()
	if err != nil {
		return nil, err
	}
	who, err := peer.Decode(id)
	if err != nil {
		return nil, client.Wrap(client.KindInvalid, err, "")
	}
	s, err := c.pool.NewStream(ctx, who, apiProtocol)
	if err != nil {
		if pool.ReasonOf(err) != roster.OK {
			return nil, poolError(err)
		}
		m, _ := c.pool.Member(who)
		return nil, client.Errorf(client.KindNotFound, "is it running? `shoal peers` shows who is online", "%s cannot be reached: %w", m.Name, plainPool{err})
	}
	return streamConn{s}, nil
}

// findMember finds the one member that a text names: by its whole name or id, or else by the beginning of one.
func findMember(members []roster.Member, text string) (roster.Member, error) {
	for _, is := range []func(roster.Member) bool{
		func(m roster.Member) bool { return m.ID.String() == text || m.Name == text },
		func(m roster.Member) bool {
			return text != "" && strings.EqualFold(m.Name[:min(len(m.Name), len(text))], text)
		},
		func(m roster.Member) bool { return len(text) >= prefixMin && strings.HasPrefix(m.ID.String(), text) },
	} {
		var found []roster.Member
		var names []string
		for _, m := range members {
			if is(m) {
				found, names = append(found, m), append(names, m.Name)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return roster.Member{}, client.Errorf(client.KindInvalid, "give more of the name, or the peer id as `shoal peers --json` shows it",
				"%q is the beginning of several members' names: %s", wire.CleanText(text), strings.Join(names, ", "))
		}
	}
	return roster.Member{}, client.Errorf(client.KindNotFound, "`shoal peers` lists the members", "there is no member %q", wire.CleanText(text))
}

// poolError is the one place where the pool's errors become kinds of failure.
func poolError(err error) error {
	var refusal *pool.Refusal
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case client.KindOf(err) != client.KindInternal:
		return err
	case errors.As(err, &refusal):
		return client.Wrap(client.KindRefused, fmt.Errorf("%w", refusal), refusal.Hint())
	case errors.Is(err, pool.ErrWhichWins):
		return client.Wrap(client.KindInvalid, plainPool{err}, "--take-theirs leaves this peer's own pool; to keep it, invite the other peer here with `shoal invite`")
	case errors.Is(err, pool.ErrAlreadyIn):
		return client.Wrap(client.KindExists, plainPool{err}, "`shoal peers` lists the members")
	case errors.Is(err, pool.ErrLastAdmin):
		return client.Wrap(client.KindRefused, plainPool{err}, "`shoal promote PEER` names another; --force leaves all the same")
	case strings.Contains(err.Error(), "cannot be reached"):
		return client.Wrap(client.KindNotFound, plainPool{err}, "the peer that made the ticket has to be running, and one of the ticket's addresses has to lead to it")
	case errors.Is(err, pool.ErrClosed):
		return client.Wrap(client.KindStopping, plainPool{err}, "")
	}
	return client.Wrap(client.KindInternal, plainPool{err}, "")
}

// plainPool takes away the names of the parts that an error came through.
type plainPool struct{ error }

func (e plainPool) Error() string {
	text := e.error.Error()
	for _, prefix := range []string{"pool: ", "join: ", "leave: ", "evict: ", "appoint: ", "invite: ", "open stream: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

func (e plainPool) Unwrap() error { return e.error }

// confirmJoin is asked about each peer that proved a ticket. It says so to whoever follows the events, and lets the peer
// in unless somebody is there to be asked.
func (n *Node) confirmJoin(ctx context.Context, r pool.JoinRequest) error {
	e := client.PoolEvent{Kind: "joining", Peer: r.Peer.String(), Name: wire.CleanText(r.Name), Role: r.Role.String(), Words: r.Words}
	n.cfg.Log.Info("a peer proved its ticket", "name", r.Name, "peer", r.Peer, "role", r.Role, "words", r.Words)
	attended, _ := n.happened.attended()
	if !attended {
		n.happened.add(e)
		return nil
	}
	token, answer, done, err := n.asked.ask()
	if err != nil {
		return err
	}
	defer done()
	e.Token = token
	n.happened.add(e)
	for {
		attended, changed := n.happened.attended()
		if !attended {
			return errors.New("nobody is there any more to say yes")
		}
		select {
		case yes := <-answer:
			if !yes {
				return errors.New("declined")
			}
			return nil
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noteJoined tells of a peer that was let in here.
func (n *Node) noteJoined(r pool.JoinRequest) {
	n.cfg.Log.Info("a peer joined the pool", "name", r.Name, "peer", r.Peer, "role", r.Role)
	n.happened.add(client.PoolEvent{Kind: "joined", Peer: r.Peer.String(), Name: wire.CleanText(r.Name), Role: r.Role.String(), Words: r.Words})
}

// noteChange tells of a member that came, went or changed.
func (n *Node) noteChange(c roster.Change) {
	m := c.Now
	e := client.PoolEvent{Peer: m.ID.String(), Name: wire.CleanText(m.Name), Role: m.Role.String()}
	for _, is := range []struct {
		so   bool
		kind string
	}{
		{c.Was.Standing != m.Standing && m.Standing == roster.Evicted, "evicted"},
		{c.Was.Standing != m.Standing && m.Standing == roster.Left, "left"},
		{c.Was.ID != "" && c.Was.Name != m.Name, "renamed"},
		{c.Was.ID != "" && c.Was.Role != m.Role, "role"},
		{c.Was.ID == "" || c.Was.State != m.State, m.State.String()},
	} {
		if is.so {
			e.Kind = is.kind
			n.happened.add(e)
			return
		}
	}
}
