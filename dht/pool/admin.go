package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

// RenewProtocol is the id under which a member asks an admin for its next certificate.
const RenewProtocol protocol.ID = "/shoal/renew/1"

const (
	renewMax = ident.RecordMax + 1<<10 // bytes of one message
	// renewAgain is the wait between two attempts to renew, of which there is time for thousands.
	renewAgain = 5 * time.Minute
	// partWait bounds the farewell of a member that leaves, and the first spreading of an eviction.
	partWait = 2 * time.Second
)

// ErrLastAdmin says that a pool would be left without an admin.
var ErrLastAdmin = errors.New("this peer is the pool's only admin: name another first, or nobody can ever be invited or evicted again")

// Evict ends a peer's membership for good, by its key. Before it returns the eviction is stored, in force at this peer's
// gate, and on its way to all members that are online; the connections to the peer are closed, and the pool has a new
// secret. Only an admin can. Evicting twice is evicting once.
func (p *Pool) Evict(ctx context.Context, id peer.ID) error {
	if id == p.cfg.Identity.ID {
		return errors.New("pool: evict: this peer cannot evict itself; it can leave")
	}
	var flushed []<-chan struct{}
	err := p.try(ctx, func() error {
		m, reason := p.view().Judge(id, p.clock.wall())
		switch {
		case reason == roster.Evicted:
			return nil
		case reason == roster.Stranger:
			return fmt.Errorf("there is no such member: %s", id)
		case !p.view().Admin(p.cfg.Identity.ID) || p.Standing() != roster.OK:
			return refuse(roster.NotAdmin, "evicting")
		}
		recs, fresh, err := p.eviction(m)
		if err != nil {
			return err
		}
		before := p.state.secrets
		p.state.secrets = slices.Insert(slices.Clone(before), 0, fresh)[:min(len(before)+1, secretsMax)]
		if _, err := p.apply(roster.Learn{Records: recs}, ""); err != nil {
			return err // in force here; told when it could be stored
		}
		p.publishSecrets()
		for _, l := range p.links {
			p.tellSecret(l)
			flushed = append(flushed, p.flush(l))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pool: evict: %w", err)
	}
	waitAll(ctx, flushed)
	return nil
}

// eviction issues all that ends one membership: the revocation, which names the admins that the peer appointed as
// staying; certificates in place of those that it signed; its own evictions once more, in this peer's name; and the notice
// of a new secret.
func (p *Pool) eviction(m roster.Member) (recs []ident.Record, fresh secret, err error) {
	key, now := p.cfg.Identity.Key, p.clock.wall()
	issue := func(r ident.Record, failed error) {
		recs, err = append(recs, r), errors.Join(err, failed)
	}
	var keep []peer.ID
	for _, rec := range p.view().Records() {
		if rec.By() != m.ID || rec.About() == m.ID {
			continue
		}
		switch rec := rec.(type) {
		case ident.Appointment:
			if p.view().Admin(rec.Peer) && len(keep) < ident.KeepMax {
				keep = append(keep, rec.Peer)
			}
		case ident.Revocation:
			issue(ident.IssueRevocation(key, p.id, rec.Peer, rec.Keep, rec.At))
		}
	}
	slices.Sort(keep)
	issue(ident.IssueRevocation(key, p.id, m.ID, slices.Compact(keep), now))
	for _, other := range p.Members() {
		if c, ok := other.Certificate(); ok && c.Signer == m.ID && other.ID != m.ID {
			issue(ident.IssueCertificate(key, newCertificate(p.id, c.Peer, c.Name, c.Role, p.nextSerial(c.Peer), now)))
		}
	}
	notice, _ := p.view().Notice()
	fresh, failed := newSecret(notice.Number + 1)
	err = errors.Join(err, failed)
	issue(ident.IssueNotice(key, p.id, fresh.number, fresh.key, now))
	return recs, fresh, err
}

// Appoint makes a member an admin. Only an admin can. The more there are, the less is lost with one laptop.
func (p *Pool) Appoint(ctx context.Context, id peer.ID) error {
	var flushed []<-chan struct{}
	err := p.try(ctx, func() error {
		if !p.view().Admin(p.cfg.Identity.ID) || p.Standing() != roster.OK {
			return refuse(roster.NotAdmin, "appointing")
		}
		m, reason := p.view().Judge(id, p.clock.wall())
		if reason != roster.OK {
			return p.explain(m, reason)
		}
		if m.Role == ident.RoleAdmin {
			return nil
		}
		a, err := ident.IssueAppointment(p.cfg.Identity.Key, p.id, id, p.clock.wall())
		if err != nil {
			return err
		}
		if _, err := p.apply(roster.Learn{Records: []ident.Record{a}}, ""); err != nil {
			return err
		}
		if !p.view().Admin(id) {
			return errors.New("the chain of admins from the pool's first one is too long")
		}
		for _, l := range p.links {
			flushed = append(flushed, p.flush(l))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pool: appoint: %w", err)
	}
	waitAll(ctx, flushed)
	return nil
}

// LeaveOptions says how to leave.
type LeaveOptions struct {
	// HandOver, when set, is called first, while this peer still is a member: it gives others what must not be lost. When
	// it fails, nothing is left.
	HandOver func(ctx context.Context) error
	// Force leaves even when the pool then has no admin.
	Force bool
}

// Leave ends this peer's own membership and tells the others. On success the home holds no pool and this Pool is over:
// after Close, Open begins a new pool of one.
func (p *Pool) Leave(ctx context.Context, o LeaveOptions) error {
	if p.lastAdmin() && !o.Force {
		return fmt.Errorf("pool: leave: %w", ErrLastAdmin)
	}
	if o.HandOver != nil {
		if err := o.HandOver(ctx); err != nil {
			return fmt.Errorf("pool: leave: hand over: %w", err)
		}
	}
	if err := p.moveTo(ctx, nil); err != nil {
		return fmt.Errorf("pool: leave: %w", err)
	}
	return nil
}

// lastAdmin reports whether the pool has other members and would have no admin without this peer.
func (p *Pool) lastAdmin() bool {
	if p.Standing() != roster.OK || !p.view().Admin(p.cfg.Identity.ID) {
		return false
	}
	others := false
	for _, m := range p.Members() {
		if !m.Self && m.Role == ident.RoleAdmin {
			return false
		}
		others = others || !m.Self
	}
	return others
}

// depart tells the members that this peer leaves, if there is anybody to tell.
func (p *Pool) depart(ctx context.Context) (told bool, err error) {
	var flushed []<-chan struct{}
	err = p.try(ctx, func() error {
		c, ok := p.Self().Certificate()
		if !ok || len(p.Members()) < 2 || p.Standing() != roster.OK {
			return nil
		}
		told = true
		d, err := ident.IssueDeparture(p.cfg.Identity.Key, p.id, c.Serial, p.clock.wall())
		if err != nil {
			return err
		}
		// It is told before it is applied: applying it ends this peer's own links.
		for _, l := range p.links {
			p.tell(l, []ident.Record{d})
			flushed = append(flushed, p.flush(l))
		}
		p.leaveNames([]ident.Record{d})
		return nil
	})
	waitAll(ctx, flushed)
	return told, err
}

// flush returns a channel that is closed when all that is queued for a link was sent, or the link went down.
func (p *Pool) flush(l *link) <-chan struct{} {
	done := make(chan struct{})
	if !l.up {
		close(done)
		return done
	}
	select {
	case l.marks <- done:
	default:
		close(done)
	}
	return done
}

// waitAll waits until all are closed, for partWait at most.
func waitAll(ctx context.Context, all []<-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, partWait)
	defer cancel()
	for _, one := range all {
		select {
		case <-one:
		case <-ctx.Done():
			return
		}
	}
}

func removeState(home string) error {
	if err := os.Remove(statePath(home)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(home)
}

// renew gets this peer its next certificate: an admin signs its own, all others ask one.
func (p *Pool) renew() {
	m := p.Self()
	if p.view().Admin(m.ID) {
		if recs, err := p.certify(m.ID, p.freeName(p.cfg.Identity.Name, m.ID), certifiedRole(m)); err == nil {
			_, _ = p.apply(roster.Learn{Records: recs[:1]}, "")
		}
		return
	}
	var admins []peer.ID
	for id, l := range p.links {
		if l.up && p.view().Admin(id) {
			admins = append(admins, id)
		}
	}
	p.wg.Go(func() {
		for _, id := range admins {
			if p.askRenewal(id) == nil {
				return
			}
		}
	})
}

// certifiedRole is the role that a member's certificate says.
func certifiedRole(m roster.Member) ident.Role {
	if c, ok := m.Certificate(); ok {
		return c.Role
	}
	return m.Role
}

func (p *Pool) askRenewal(admin peer.ID) error {
	ctx, cancel := context.WithTimeout(p.ctx, openWait)
	defer cancel()
	s, err := p.NewStream(ctx, admin, RenewProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	var m pb.Renewed
	err = within(ctx, s, func() error {
		if err := wire.WriteMsg(s, &pb.Renew{Name: ident.CleanName(p.cfg.Identity.Name)}, renewMax); err != nil {
			return err
		}
		return wire.ReadMsg(s, &m, renewMax)
	})
	if err != nil {
		return err
	}
	if r := fromVerdict(m.GetVerdict()); r != nil {
		return r
	}
	p.learn(admin, [][]byte{m.GetCertificate()})
	return nil
}

// serveRenew is the admin's side. The gate has seen to it that who asks is a member in force; it gets its present role for
// another term.
func (p *Pool) serveRenew(s network.Stream, m roster.Member) {
	ctx, cancel := context.WithTimeout(p.ctx, openWait)
	defer cancel()
	err := within(ctx, s, func() error {
		var ask pb.Renew
		if err := wire.ReadMsg(s, &ask, renewMax); err != nil {
			return err
		}
		answer := &pb.Renewed{}
		raw, err := p.renewFor(ctx, m.ID, ident.CleanName(ask.GetName()))
		var refusal *Refusal
		switch {
		case errors.As(err, &refusal):
			answer.Verdict = refusal.verdict()
		case err != nil:
			return err
		}
		answer.Certificate = raw
		return wire.WriteMsg(s, answer, renewMax+verdictMax)
	})
	if err != nil {
		_ = wire.Reset(s, err)
		return
	}
	_ = s.Close()
}

func (p *Pool) renewFor(ctx context.Context, id peer.ID, name string) (raw []byte, err error) {
	err = p.try(ctx, func() error {
		m, reason := p.view().Judge(id, p.clock.wall())
		c, ok := m.Certificate()
		switch {
		case reason != roster.OK || !ok:
			return p.explain(m, reason)
		case !p.view().Admin(p.cfg.Identity.ID) || p.Standing() != roster.OK:
			return refuse(roster.NotAdmin, "renewing")
		case p.clock.wall().Before(c.HalfLife()):
			raw = c.Raw() // not due: what it has is as good, and asking often changes nothing
			return nil
		}
		if name == "" {
			name = c.Name
		}
		recs, err := p.certify(id, p.freeName(name, id), c.Role)
		if err != nil {
			return err
		}
		if _, err := p.apply(roster.Learn{Records: recs[:1]}, ""); err != nil {
			return err
		}
		raw = recs[0].Raw()
		return nil
	})
	return raw, err
}
