package pool

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

func (b *box) invite(o InviteOptions) ident.Ticket {
	b.t.Helper()
	t, err := b.pool.Invite(context10(b.t), o)
	if err != nil {
		b.t.Fatal(err)
	}
	return t
}

func (b *box) tryJoin(t ident.Ticket, o JoinOptions) error {
	b.t.Helper()
	_, err := b.pool.Join(context10(b.t), t, o)
	return err
}

// hand makes a ticket with the same content as another but for a change, and a checksum that fits.
func hand(t *testing.T, from ident.Ticket, change func(*ident.Ticket)) ident.Ticket {
	t.Helper()
	change(&from)
	out, err := ident.ParseTicket(from.String())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTicketRefusals is the table of tickets that must not work, each with its reason. Truncated and altered texts do not
// even parse: see ident.TestTicketErrors.
func TestTicketRefusals(t *testing.T) {
	a, b, x := newBox(t, "anna"), newBox(t, "ben"), newBox(t, "xena")
	good := a.invite(InviteOptions{Uses: 2})
	text := good.String()
	for name, broken := range map[string]string{"truncated": text[:len(text)-9], "altered": strings.Replace(text, text[40:41], "7", 1)} {
		if _, err := ident.ParseTicket(broken); err == nil && broken != text {
			t.Errorf("%s: parsed", name)
		}
	}
	short := a.invite(InviteOptions{TTL: time.Second})
	withdrawn := a.invite(InviteOptions{})
	for _, i := range a.pool.Invitations() {
		if i.Expires.Equal(withdrawn.Expires) && i.Uses == 1 && i.ID == idOf(withdrawn) {
			if err := a.pool.Withdraw(context10(t), i.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	used := a.invite(InviteOptions{})
	c := newBox(t, "cleo")
	if err := c.tryJoin(used, JoinOptions{}); err != nil {
		t.Fatal(err)
	}
	evicted := newBox(t, "eve")
	evicted.join(a, InviteOptions{})
	if err := a.pool.Evict(context10(t), evicted.self.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, 5*time.Second, "eve knows that she is out", func() bool { return evicted.pool.Standing() == roster.Evicted })
	a.skew.Store(int64(time.Minute)) // for the inviter, the short one has run out; for the joiner it has not
	before := len(a.pool.Members())
	for _, c := range []struct {
		name   string
		joiner *box
		ticket ident.Ticket
		want   roster.Reason
	}{
		{"expired", b, hand(t, short, func(k *ident.Ticket) { k.Expires = k.Expires.Add(time.Hour) }), roster.TicketExpired},
		{"expired by the joiner's own clock", b, hand(t, good, func(k *ident.Ticket) { k.Expires = k.Expires.Add(-48 * time.Hour) }), roster.TicketExpired},
		{"used", b, used, roster.TicketUsed},
		{"withdrawn", b, withdrawn, roster.TicketUnknown},
		{"with another secret", b, hand(t, good, func(k *ident.Ticket) { k.Secret[0] ^= 1 }), roster.TicketUnknown},
		{"for another pool", b, hand(t, good, func(k *ident.Ticket) { k.Pool = x.pool.ID() }), roster.TicketForeign},
		{"of an inviter in another pool", b, hand(t, good, func(k *ident.Ticket) { k.Inviter, k.Addrs = x.self.ID, x.host.Addrs() }), roster.TicketForeign},
		{"its own", a, hand(t, good, func(k *ident.Ticket) { k.Pool = x.pool.ID() }), roster.TicketForeign},
		{"good, of an evicted peer", evicted, good, roster.Evicted},
	} {
		own := c.joiner.pool.ID()
		err := c.joiner.tryJoin(c.ticket, JoinOptions{})
		if ReasonOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.joiner.pool.ID() != own || c.joiner.pool.over() || len(a.pool.Members()) != before {
			t.Errorf("%s: something changed", c.name)
		}
	}
	if err := b.tryJoin(good, JoinOptions{}); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func idOf(t ident.Ticket) string {
	id := t.Secret.ID()
	const hex = "0123456789abcdef"
	var out []byte
	for _, b := range id[:4] {
		out = append(out, hex[b>>4], hex[b&15])
	}
	return string(out)
}

// rawJoin speaks the joiner's side by hand.
type rawJoin struct {
	t *testing.T
	s network.Stream
}

func dialJoin(t *testing.T, from, to *box) rawJoin {
	t.Helper()
	if err := from.host.Connect(context10(t), to.invite(InviteOptions{}).Info()); err != nil {
		t.Fatal(err)
	}
	s, err := from.host.NewStream(context10(t), to.self.ID, JoinProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return rawJoin{t, s}
}

func (r rawJoin) begin(m *pb.Begin) *pb.Challenge {
	r.t.Helper()
	var c pb.Challenge
	if err := errors.Join(wire.WriteMsg(r.s, m, joinMsgMax), wire.ReadMsg(r.s, &c, joinMsgMax+verdictMax)); err != nil {
		r.t.Fatal(err)
	}
	return &c
}

func (r rawJoin) prove(proof []byte) *pb.Welcome {
	r.t.Helper()
	var w pb.Welcome
	if err := errors.Join(wire.WriteMsg(r.s, &pb.Proof{Proof: proof}, joinMsgMax), wire.ReadMsg(r.s, &w, welcomeMax)); err != nil {
		r.t.Fatal(err)
	}
	return &w
}

// Messages of a join that went well are worth nothing a second time, for whoever recorded them; and a proof for one name is
// none for another.
func TestReplayedJoin(t *testing.T) {
	a, b, c := newBox(t, "anna"), newBox(t, "ben"), newBox(t, "cleo")
	ticket := a.invite(InviteOptions{Uses: 5})
	tr := transcript{
		pool: ticket.Pool, ticket: ticket.Secret.ID(), inviter: a.self.ID, joiner: b.self.ID,
		begin: make([]byte, joinNonce), name: "ben",
	}
	begin := &pb.Begin{Pool: ticket.Pool[:], Ticket: tr.ticket[:], Nonce: tr.begin, Name: "ben"}
	key := ticketKey(ticket.Secret)

	first := dialJoin(t, b, a)
	challenge := first.begin(begin)
	tr.answer = challenge.GetNonce()
	if !tr.proves(key, labelInviter, challenge.GetProof()) {
		t.Fatal("the inviter does not prove the secret")
	}
	proof := tr.proof(key, labelJoiner)
	wrongName := tr
	wrongName.name = "benn"
	for name, bad := range map[string][]byte{
		"nothing":                 nil,
		"the inviter's own proof": challenge.GetProof(),
		"a proof of another name": wrongName.proof(key, labelJoiner),
		"cut short":               proof[:31],
	} {
		r := dialJoin(t, b, a)
		r.begin(begin)
		if w := r.prove(bad); w.GetVerdict().GetReason() != uint32(roster.BadProof) || len(w.GetSecrets()) > 0 {
			t.Errorf("%s: %v", name, w.GetVerdict())
		}
	}
	if w := first.prove(proof); w.GetVerdict().GetReason() != 0 || len(w.GetRecords()) == 0 {
		t.Fatalf("the true one: %v", w.GetVerdict())
	}
	for _, replayer := range []*box{b, c} {
		r := dialJoin(t, replayer, a)
		r.begin(begin)
		if w := r.prove(proof); w.GetVerdict().GetReason() != uint32(roster.BadProof) {
			t.Errorf("replayed by %s: %v", replayer.self.Name, w.GetVerdict())
		}
	}
	if a.pool.IsMember(c.self.ID) {
		t.Error("the replayer is in")
	}
	malformed := dialJoin(t, c, a)
	if v := malformed.begin(&pb.Begin{Pool: ticket.Pool[:], Ticket: tr.ticket[:], Nonce: tr.begin, Name: "a\x1b[2J"}).GetVerdict(); v.GetReason() == 0 {
		t.Error("a name with control characters passed")
	}
}

// Both sides see the same words; either may say no, and then nothing changed.
func TestWords(t *testing.T) {
	requests := make(chan JoinRequest, 8)
	var no error
	a := newBox(t, "anna", func(c *Config) {
		c.Confirm = func(_ context.Context, r JoinRequest) error { requests <- r; return no }
	})
	b := newBox(t, "ben")
	ticket := a.invite(InviteOptions{})
	var seen []string
	show := func(answer bool) JoinOptions {
		return JoinOptions{Confirm: func(w string) bool { seen = append(seen, w); return answer }}
	}
	if err := b.tryJoin(ticket, show(false)); ReasonOf(err) != roster.Declined {
		t.Errorf("the joiner says no: %v", err)
	}
	no = errors.New("not on my watch")
	if err := b.tryJoin(ticket, show(true)); ReasonOf(err) != roster.Declined {
		t.Errorf("the inviter says no: %v", err)
	}
	no = nil
	joined, err := b.pool.Join(context10(t), ticket, show(true))
	if err != nil {
		t.Fatal(err)
	}
	refused, admitted := <-requests, <-requests
	if len(requests) != 0 || refused.Words != seen[1] || admitted.Words != seen[2] || joined.Words != seen[2] {
		t.Errorf("the inviter saw %q and %q, the joiner %q", refused.Words, admitted.Words, seen)
	}
	if seen[0] == seen[1] || seen[1] == seen[2] || len(strings.Fields(seen[2])) != checkWords {
		t.Errorf("the words %q are not of each attempt", seen)
	}
	if joined.Inviter != "anna" || joined.Name != "ben" || joined.Role != ident.RoleMember || admitted.Name != "ben" {
		t.Errorf("%+v, %+v", joined, admitted)
	}
}

// A peer with a pool of its own that is not empty must say which wins. One with nothing in it is simply left.
func TestWhichWins(t *testing.T) {
	files := 0
	a, b := newBox(t, "anna"), newBox(t, "ben", func(c *Config) { c.Files = func() int { return files } })
	ticket := a.invite(InviteOptions{})
	files = 3
	if err := b.tryJoin(ticket, JoinOptions{}); !errors.Is(err, ErrWhichWins) {
		t.Errorf("with files: %v", err)
	}
	files = 0
	c := newBox(t, "cleo")
	c.join(b, InviteOptions{})
	wait(t, 5*time.Second, "ben hears cleo", func() bool { return b.names() == "ben cleo" })
	if err := b.tryJoin(ticket, JoinOptions{}); !errors.Is(err, ErrWhichWins) {
		t.Errorf("with a member: %v", err)
	}
	if err := b.tryJoin(ticket, JoinOptions{Wins: WinsOurs}); !errors.Is(err, ErrOursWins) {
		t.Errorf("ours: %v", err)
	}
	if err := b.tryJoin(ticket, JoinOptions{Wins: WinsTheirs}); err != nil {
		t.Fatal(err)
	}
	if err := b.echo(c); ReasonOf(err) != roster.Stopping {
		t.Errorf("the pool that was left still works: %v", err)
	}
	wait(t, 5*time.Second, "cleo hears that ben left", func() bool {
		m, _ := c.pool.Member(b.self.ID)
		return m.Standing == roster.Left
	})
	b.reopen()
	if b.pool.ID() != a.pool.ID() {
		t.Error("ben is in another pool")
	}
	wait(t, 5*time.Second, "anna and ben meet", func() bool { return a.names() == "anna ben" && b.names() == "anna ben" })
	if err := b.tryJoin(a.invite(InviteOptions{}), JoinOptions{}); !errors.Is(err, ErrAlreadyIn) {
		t.Errorf("again: %v", err)
	}
}

// A joiner whose welcome was lost may come again with the same ticket; another peer may not.
func TestLostWelcome(t *testing.T) {
	a, b, c := newBox(t, "anna"), newBox(t, "ben"), newBox(t, "cleo")
	ticket := a.invite(InviteOptions{})
	if _, _, err := b.pool.ask(context10(t), ticket, nil); err != nil { // and the answer is forgotten
		t.Fatal(err)
	}
	if err := c.tryJoin(ticket, JoinOptions{}); ReasonOf(err) != roster.TicketUsed {
		t.Errorf("another: %v", err)
	}
	a.reopen() // what is used up survives a restart
	if err := c.tryJoin(ticket, JoinOptions{}); ReasonOf(err) != roster.TicketUsed {
		t.Errorf("another, later: %v", err)
	}
	if err := b.tryJoin(ticket, JoinOptions{}); err != nil {
		t.Errorf("the same: %v", err)
	}
}

// What a lying inviter could send: the joiner believes none of it, and stays what it was.
func TestLyingInviter(t *testing.T) {
	a, b, x := newBox(t, "anna"), newBox(t, "ben"), newBox(t, "xena")
	ticket := a.invite(InviteOptions{})
	var good *pb.Welcome
	err := a.pool.do(t.Context(), func() {
		recs, err := a.pool.certify(b.self.ID, "ben", ident.RoleMember)
		if err == nil {
			_, err = a.pool.apply(roster.Learn{Records: recs}, "")
		}
		if err != nil {
			t.Error(err)
		}
		good = a.pool.welcomeFor(b.self.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.pool.accept(good, ticket, ""); err != nil {
		t.Fatal(err)
	}
	xs := *x.pool.secrets.Load()
	forged := newCertificate(a.pool.ID(), b.self.ID, "ben", ident.RoleAdmin, 9, time.Now())
	bad, err := ident.IssueCertificate(x.self.Key, forged)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ident.IssueCertificate(a.self.Key, newCertificate(a.pool.ID(), b.self.ID, "ben", ident.RoleMember, 9, time.Now().Add(-31*24*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ident.IssueCertificate(a.self.Key, newCertificate(a.pool.ID(), a.self.ID, "anna", ident.RoleAdmin, 9, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		w    *pb.Welcome
		want error
	}{
		"another pool's origin": {&pb.Welcome{Origin: x.pool.state.origin.Marshal(), Records: good.Records, Secrets: good.Secrets}, &Refusal{Reason: roster.TicketForeign}},
		"no certificate":        {&pb.Welcome{Origin: good.Origin, Secrets: good.Secrets}, &Refusal{Reason: roster.Stranger}},
		"a forged certificate":  {&pb.Welcome{Origin: good.Origin, Records: [][]byte{ours.Raw(), bad.Raw()}, Secrets: good.Secrets}, &Refusal{Reason: roster.Forged}},
		"an expired one":        {&pb.Welcome{Origin: good.Origin, Records: [][]byte{ours.Raw(), old.Raw()}, Secrets: good.Secrets}, &Refusal{Reason: roster.Lapsed}},
		"no secret":             {&pb.Welcome{Origin: good.Origin, Records: good.Records}, errSecret},
		"another secret":        {&pb.Welcome{Origin: good.Origin, Records: good.Records, Secrets: encodeSecrets(xs)}, errSecret},
	} {
		if _, _, err := b.pool.accept(c.w, ticket, ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// An inviter that does not know the secret cannot go on.
	a.host.SetStreamHandler(JoinProtocol, func(s network.Stream) {
		var begin pb.Begin
		if wire.ReadMsg(s, &begin, joinMsgMax) == nil {
			_ = wire.WriteMsg(s, &pb.Challenge{Nonce: make([]byte, joinNonce), Proof: make([]byte, 32)}, joinMsgMax)
		}
		_, _ = s.Read(make([]byte, 1))
		_ = s.Close()
	})
	if err := b.tryJoin(ticket, JoinOptions{Confirm: func(string) bool { t.Error("asked for words"); return true }}); ReasonOf(err) != roster.BadProof {
		t.Errorf("an inviter without the secret: %v", err)
	}
}

func TestNamesAreMadeDifferent(t *testing.T) {
	a, b, c := newBox(t, "laptop"), newBox(t, "laptop"), newBox(t, "laptop")
	if got := b.join(a, InviteOptions{}).Name; got != "laptop-2" {
		t.Error(got)
	}
	if got := c.join(a, InviteOptions{}).Name; got != "laptop-3" {
		t.Error(got)
	}
}

func TestInviteOptions(t *testing.T) {
	a := newBox(t, "anna")
	for _, o := range []InviteOptions{{TTL: -1}, {TTL: ticketLifeMax + 1}, {Uses: -1}, {Uses: ticketUsesMax + 1}, {Role: 9}} {
		if _, err := a.pool.Invite(context10(t), o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	for range invitationsMax {
		if err := a.pool.do(t.Context(), func() {
			a.pool.state.invitations = append(a.pool.state.invitations, invitation{expires: time.Now().Add(time.Hour), role: ident.RoleMember, uses: 1})
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.pool.Invite(context10(t), InviteOptions{}); err == nil {
		t.Error("more invitations than the limit")
	}
}
