package pool

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
)

const (
	// ticketLife is how long an invitation is good for unless it says otherwise, and ticketLifeMax the longest.
	ticketLife    = 24 * time.Hour
	ticketLifeMax = 90 * 24 * time.Hour
	// ticketUsesMax is the most peers that one ticket may let in.
	ticketUsesMax = 1000
)

// InviteOptions says what a ticket is good for. The zero value is one member within 24 hours.
type InviteOptions struct {
	Role ident.Role    // RoleMember by default
	TTL  time.Duration // 24 h by default, at most 90 days
	Uses int           // 1 by default
}

func (o InviteOptions) withDefaults() (InviteOptions, error) {
	if o.Role == ident.RoleNone {
		o.Role = ident.RoleMember
	}
	if o.TTL == 0 {
		o.TTL = ticketLife
	}
	if o.Uses == 0 {
		o.Uses = 1
	}
	switch {
	case !o.Role.Valid():
		return o, fmt.Errorf("pool: invite: unknown role %d", o.Role)
	case o.TTL < time.Second || o.TTL > ticketLifeMax:
		return o, fmt.Errorf("pool: invite: the ticket must be good for between a second and %d days", ticketLifeMax/(24*time.Hour))
	case o.Uses < 1 || o.Uses > ticketUsesMax:
		return o, fmt.Errorf("pool: invite: the ticket must be good for between 1 and %d uses", ticketUsesMax)
	}
	return o, nil
}

// Invitation is a ticket that was given out, without its secret.
type Invitation struct {
	ID      string // names it for Withdraw
	Role    ident.Role
	Expires time.Time
	Uses    int       // how many it lets in
	Used    []peer.ID // who came by it
}

// Invite makes a ticket. Only an admin can, and the ticket works only while this peer is running: it is this peer that
// the joiner talks to. It is stored before it is returned.
func (p *Pool) Invite(ctx context.Context, o InviteOptions) (ident.Ticket, error) {
	o, err := o.withDefaults()
	if err != nil {
		return ident.Ticket{}, err
	}
	t := ident.Ticket{
		Pool: p.id, Inviter: p.cfg.Identity.ID, Addrs: ticketAddrs(p.cfg.Host.Addrs()),
		Expires: p.clock.wall().Add(o.TTL).UTC().Truncate(time.Second), Role: o.Role,
	}
	_, _ = rand.Read(t.Secret[:]) // never fails, see crypto/rand
	add := func() error {
		if !p.view().Admin(p.cfg.Identity.ID) || p.Standing() != roster.OK {
			return refuse(roster.NotAdmin, "inviting")
		}
		p.dropExpired()
		if len(p.state.invitations) >= invitationsMax {
			return fmt.Errorf("pool: invite: there are %d open invitations already", invitationsMax)
		}
		p.state.invitations = append(p.state.invitations, invitation{
			id: t.Secret.ID(), key: ticketKey(t.Secret), role: o.Role, expires: t.Expires, uses: o.Uses,
		})
		return p.save()
	}
	if err := p.try(ctx, add); err != nil {
		return ident.Ticket{}, err
	}
	return t, nil
}

// try runs f on the pool's goroutine and returns its error.
func (p *Pool) try(ctx context.Context, f func() error) (err error) {
	if p.retired.Load() {
		return refuse(roster.Stopping, "")
	}
	if failed := p.do(ctx, func() { err = f() }); failed != nil {
		return failed
	}
	return err
}

// Invitations lists the tickets given out that have not run out, used up ones too.
func (p *Pool) Invitations() (out []Invitation) {
	_ = p.do(p.ctx, func() {
		now := p.clock.wall()
		for _, i := range p.state.invitations {
			if now.Before(i.expires) {
				out = append(out, Invitation{
					ID: fmt.Sprintf("%x", i.id[:4]), Role: i.role, Expires: i.expires, Uses: i.uses, Used: slices.Clone(i.usedBy),
				})
			}
		}
	})
	return out
}

// Withdraw makes a ticket worthless. Who came by it stays.
func (p *Pool) Withdraw(ctx context.Context, id string) error {
	return p.try(ctx, func() error {
		before := len(p.state.invitations)
		p.state.invitations = slices.DeleteFunc(p.state.invitations, func(i invitation) bool { return fmt.Sprintf("%x", i.id[:4]) == id })
		if len(p.state.invitations) == before {
			return fmt.Errorf("pool: withdraw: there is no invitation %q", id)
		}
		return p.save()
	})
}

// expiredKept is how long an invitation is remembered after it ran out, so that a late joiner hears what is wrong.
const expiredKept = 7 * 24 * time.Hour

func (p *Pool) dropExpired() {
	limit := p.clock.wall().Add(-expiredKept)
	p.state.invitations = slices.DeleteFunc(p.state.invitations, func(i invitation) bool { return i.expires.Before(limit) })
}

// ticketKey is what both sides prove to know. The ticket's secret itself is kept by nobody but who holds the text.
func ticketKey(s ident.TicketSecret) [32]byte { return keyed(s[:], "shoal join key v1") }

// ticketAddrs picks the addresses that a ticket has room for: public ones and those of the local network before loopback,
// and TCP before the rest, as host dials them.
func ticketAddrs(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	out := slices.Clone(addrs)
	rank := func(a multiaddr.Multiaddr) int {
		n := 0
		if manet.IsIPLoopback(a) {
			n += 4
		}
		if _, err := a.ValueForProtocol(multiaddr.P_CIRCUIT); err == nil {
			n += 2
		}
		if _, err := a.ValueForProtocol(multiaddr.P_TCP); err != nil {
			n++
		}
		return n
	}
	slices.SortStableFunc(out, func(a, b multiaddr.Multiaddr) int { return rank(a) - rank(b) })
	return out[:min(len(out), ident.TicketAddrs)]
}
