package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

// JoinProtocol is the id under which a ticket is turned into a membership. It is open to all; whoever does not prove a
// ticket's secret gets nothing but a reason.
const JoinProtocol protocol.ID = "/shoal/join/1"

const (
	joinMsgMax = 4 << 10 // bytes of one message of the handshake
	welcomeMax = 4 << 20 // bytes of the message that ends it
	// joinStep bounds the wait for one message of the joiner's. joinPeople is the same while a person looks at words.
	joinStep   = 10 * time.Second
	joinPeople = 5 * time.Minute
	// joinersMax bounds the joins under way.
	joinersMax = 16
	// nameTries bounds the search for a name that is still free.
	nameTries = 100
)

// door is the inviter's side of joining.
type door struct {
	pool              *Pool
	joining, greeting atomic.Int32
}

func newDoor(p *Pool) *door { return &door{pool: p} }

// enterGreeting reserves a place for a peer that is not known yet.
func (d *door) enterGreeting() bool {
	if d.greeting.Add(1) > greetersMax {
		d.greeting.Add(-1)
		return false
	}
	return true
}

func (d *door) leaveGreeting() { d.greeting.Add(-1) }

// handle serves one joiner.
func (d *door) handle(s network.Stream) {
	if d.joining.Add(1) > joinersMax {
		d.joining.Add(-1)
		_ = wire.Reset(s, wire.Errorf(wire.Busy, "too many joins"))
		return
	}
	defer d.joining.Add(-1)
	ctx, cancel := context.WithTimeout(d.pool.ctx, joinPeople)
	defer cancel()
	if err := within(ctx, s, func() error { return d.serve(ctx, s) }); err != nil {
		_ = wire.Reset(s, err)
		return
	}
	_ = s.Close()
}

// serve runs the handshake: it finds the invitation, proves to know its secret, has the joiner prove it, asks whoever is to
// be asked, and lets the joiner in. A refusal is sent as a message; only a broken stream is an error.
func (d *door) serve(ctx context.Context, s network.Stream) error {
	var begin pb.Begin
	if err := readStep(s, &begin, joinStep); err != nil {
		return err
	}
	t, inv, refusal := d.begin(ctx, s.Conn().RemotePeer(), &begin)
	if refusal != nil {
		return wire.WriteMsg(s, &pb.Challenge{Verdict: refusal.verdict()}, joinMsgMax+verdictMax)
	}
	challenge := &pb.Challenge{Nonce: t.answer, Proof: t.proof(inv.key, labelInviter)}
	if err := wire.WriteMsg(s, challenge, joinMsgMax); err != nil {
		return err
	}
	var shown pb.Proof
	if err := readStep(s, &shown, joinPeople); err != nil { // the joiner's owner compares words first
		return err
	}
	w, refusal := d.decide(ctx, t, inv, shown.GetProof())
	if refusal != nil {
		w = &pb.Welcome{Verdict: refusal.verdict()}
	}
	if err := s.SetDeadline(time.Now().Add(joinStep)); err != nil {
		return err
	}
	return wire.WriteMsg(s, w, welcomeMax)
}

// readStep reads one message of a handshake.
func readStep(s network.Stream, m proto.Message, wait time.Duration) error {
	if err := s.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	return wire.ReadMsg(s, m, joinMsgMax)
}

// begin checks what the joiner asks for, and opens the transcript.
func (d *door) begin(ctx context.Context, joiner peer.ID, m *pb.Begin) (t transcript, inv invitation, refusal *Refusal) {
	p := d.pool
	name := ident.CleanName(m.GetName())
	if len(m.GetNonce()) != joinNonce || name == "" || name != m.GetName() || len(m.GetTicket()) != len(inv.id) {
		return t, inv, refuse(roster.BadProof, "the request is malformed")
	}
	t = transcript{
		pool: p.id, ticket: [16]byte(m.GetTicket()), inviter: p.cfg.Identity.ID, joiner: joiner,
		begin: m.GetNonce(), answer: make([]byte, joinNonce), name: name,
	}
	_, _ = rand.Read(t.answer) // never fails, see crypto/rand
	if string(m.GetPool()) != string(p.id[:]) {
		return t, inv, refuse(roster.TicketForeign, "")
	}
	err := p.try(ctx, func() error { inv, refusal = p.invitationFor(t.ticket, joiner); return nil })
	if err != nil && refusal == nil {
		refusal = refuse(roster.Stopping, "")
	}
	return t, inv, refusal
}

// invitationFor finds the invitation that a peer may use now. Who used it already may again, as long as it is a member: its
// welcome may have been lost.
func (p *Pool) invitationFor(id [16]byte, joiner peer.ID) (invitation, *Refusal) {
	now := p.clock.wall()
	m, reason := p.view().Judge(joiner, now)
	if reason == roster.Evicted {
		return invitation{}, p.explain(m, reason) // for good, whoever invites it
	}
	i := slices.IndexFunc(p.state.invitations, func(i invitation) bool { return i.id == id })
	if i < 0 {
		return invitation{}, refuse(roster.TicketUnknown, "")
	}
	inv := p.state.invitations[i]
	switch again := slices.Contains(inv.usedBy, joiner); {
	case !now.Before(inv.expires):
		return inv, refuse(roster.TicketExpired, "on %s", inv.expires.UTC().Format("2006-01-02 15:04 MST"))
	case again && reason == roster.OK:
	case again || len(inv.usedBy) >= inv.uses:
		return inv, refuse(roster.TicketUsed, "")
	}
	if !p.view().Admin(p.cfg.Identity.ID) || p.Standing() != roster.OK {
		return inv, refuse(roster.NotAdmin, "the inviter is none any more")
	}
	return inv, nil
}

// decide checks the joiner's proof, asks for confirmation, and admits.
func (d *door) decide(ctx context.Context, t transcript, inv invitation, proof []byte) (*pb.Welcome, *Refusal) {
	p := d.pool
	if !t.proves(inv.key, labelJoiner, proof) {
		return nil, refuse(roster.BadProof, "")
	}
	r := JoinRequest{Peer: t.joiner, Name: t.name, Role: inv.role, Words: t.words(inv.key)}
	if p.cfg.Confirm != nil {
		if err := p.cfg.Confirm(ctx, r); err != nil {
			return nil, refuse(roster.Declined, "")
		}
	}
	var w *pb.Welcome
	err := p.try(ctx, func() (err error) { w, r.Name, err = p.letIn(t, r); return err })
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, refusal
	case err != nil:
		return nil, refuse(roster.Stopping, "the inviter could not store the membership")
	}
	if p.cfg.Joined != nil {
		p.cfg.Joined(r)
	}
	return w, nil
}

// letIn uses up the ticket and issues the certificate, in one write to the disk before anything is sent.
func (p *Pool) letIn(t transcript, r JoinRequest) (*pb.Welcome, string, error) {
	if _, refusal := p.invitationFor(t.ticket, t.joiner); refusal != nil { // it may have been used in the meantime
		return nil, "", refusal
	}
	i := slices.IndexFunc(p.state.invitations, func(i invitation) bool { return i.id == t.ticket })
	inv := &p.state.invitations[i]
	if !slices.Contains(inv.usedBy, t.joiner) {
		inv.usedBy = append(inv.usedBy, t.joiner)
	}
	name := p.freeName(r.Name, t.joiner)
	recs, err := p.certify(t.joiner, name, inv.role)
	if err != nil {
		return nil, "", err
	}
	if _, err := p.apply(roster.Learn{Records: recs}, ""); err != nil {
		return nil, "", err
	}
	if m, reason := p.view().Judge(t.joiner, p.clock.wall()); reason != roster.OK {
		return nil, "", p.explain(m, reason)
	}
	return p.welcomeFor(t.joiner), name, nil
}

// certify issues what makes a peer a member in a role.
func (p *Pool) certify(id peer.ID, name string, role ident.Role) ([]ident.Record, error) {
	now := p.clock.wall()
	c := newCertificate(p.id, id, name, min(role, ident.RoleAdmin), p.nextSerial(id), now)
	certificate, err := ident.IssueCertificate(p.cfg.Identity.Key, c)
	if err != nil {
		return nil, err
	}
	recs := []ident.Record{certificate}
	if role == ident.RoleAdmin {
		a, err := ident.IssueAppointment(p.cfg.Identity.Key, p.id, id, now)
		if err != nil {
			return nil, err
		}
		recs = append(recs, a)
	}
	return recs, nil
}

// certificateBackdate is how far a certificate begins in the past: an admin whose clock is ahead by hours would otherwise
// renew members out of the pool, for that long.
const certificateBackdate = 24 * time.Hour

// newCertificate fills in the times of a certificate that is to be issued now.
func newCertificate(pool ident.PoolID, id peer.ID, name string, role ident.Role, serial uint64, now time.Time) ident.Certificate {
	c := ident.Certificate{
		Peer: id, Name: name, Role: role, Serial: serial,
		NotBefore: now.Add(-certificateBackdate), NotAfter: now.Add(ident.CertificateLife),
	}
	c.Pool = pool
	return c
}

// nextSerial is greater than that of any certificate or departure of the peer.
func (p *Pool) nextSerial(id peer.ID) uint64 {
	var last uint64
	for _, rec := range p.view().Records() {
		switch rec := rec.(type) {
		case ident.Certificate:
			if rec.Peer == id {
				last = max(last, rec.Serial)
			}
		case ident.Departure:
			if rec.Signer == id {
				last = max(last, rec.Serial)
			}
		}
	}
	return last + 1
}

// freeName gives a second laptop called "laptop" a number, so that names on the command line mean one member.
func (p *Pool) freeName(name string, id peer.ID) string {
	taken := func(n string) bool {
		return slices.ContainsFunc(p.Members(), func(m roster.Member) bool { return m.Name == n && m.ID != id })
	}
	for i := 2; taken(name) && i < nameTries; i++ {
		suffix := "-" + strconv.Itoa(i)
		base := ident.CleanName(trimTo(name, ident.NameMax-len(suffix)))
		if try := ident.CleanName(base + suffix); !taken(try) {
			return try
		}
	}
	return name
}

func trimTo(s string, n int) string { return s[:min(len(s), n)] }

// welcomeFor gathers what a new member needs to know.
func (p *Pool) welcomeFor(id peer.ID) *pb.Welcome {
	p.notePlaces()
	places := make(map[peer.ID]place)
	for other, pl := range p.state.places {
		if other != id {
			places[other] = place{addrs: pl.addrs}
		}
	}
	places[p.cfg.Identity.ID] = place{addrs: ticketAddrs(p.cfg.Host.Addrs())}
	w := &pb.Welcome{Origin: p.state.origin.Marshal(), Secrets: encodeSecrets(p.state.secrets), Places: encodePlaces(places)}
	for _, rec := range p.view().Records() {
		w.Records = append(w.Records, rec.Raw())
	}
	return w
}
