package pooltest

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
)

// linkProtocol is pool.LinkProtocol, which this package cannot import: the pool's own tests use it.
const linkProtocol protocol.ID = "/shoal/pool/1"

const (
	knockWait  = 10 * time.Second
	verdictMax = 16 << 10
)

// Pool is what the table needs of a *pool.Pool.
type Pool interface {
	ID() ident.PoolID
	Protocols() []protocol.ID
	Member(peer.ID) (roster.Member, bool)
}

// Victim is a running peer whose gate is tried.
type Victim struct {
	Pool Pool
	At   peer.AddrInfo
	// Admin is the pool's first admin; the table signs in its name.
	Admin ident.Identity
	// Tell makes the victim hear of a record, as it hears of those that others leave among the names.
	Tell func(key string, value []byte) error
}

// outsider is a peer with a bare host: it runs none of our code but the messages.
type outsider struct {
	self ident.Identity
	host *host.Host
	cut  bool // the victim has ended a connection to it
}

func newOutsider(t *testing.T) *outsider {
	t.Helper()
	self := newIdentity(t)
	h, err := host.New(host.Config{Identity: self, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return &outsider{self: self, host: h}
}

func newIdentity(t *testing.T) ident.Identity {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ident.Identity{Key: key, ID: id, Name: "outsider"}
}

// Refusals tries each protocol of a pool as each kind of peer that must not be let in, and as one that must: a member of
// the victim's pool for whom the gate stays shut would make all refusals worthless. A protocol takes part by being in the
// victim's table, which is the only way to be registered.
func Refusals(t *testing.T, v Victim) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			o := newOutsider(t)
			for _, rec := range c.records(t, v, o.self) {
				v.tell(t, rec)
			}
			v.wait(t, o.self.ID, c.want)
			o.knockAll(t, v, c.want)
			if c.then == nil {
				return
			}
			v.tell(t, c.then(t, v, o.self))
			v.wait(t, o.self.ID, c.wantThen)
			o.waitClosed(t, v.At.ID)
			o.knockAll(t, v, c.wantThen)
		})
	}
}

var refusals = []struct {
	name     string
	want     roster.Reason
	records  func(t *testing.T, v Victim, o ident.Identity) []ident.Record
	wantThen roster.Reason
	then     func(t *testing.T, v Victim, o ident.Identity) ident.Record // what happens while it is connected
}{
	{name: "a stranger", want: roster.Stranger,
		records: func(*testing.T, Victim, ident.Identity) []ident.Record { return nil }},
	{name: "a forged certificate", want: roster.Forged,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			return []ident.Record{v.certificate(t, newIdentity(t), o, time.Now())}
		}},
	{name: "a certificate signed by itself", want: roster.Forged,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			return []ident.Record{v.certificate(t, o, o, time.Now())}
		}},
	{name: "a certificate signed by a member for another", want: roster.Forged,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			member := newIdentity(t)
			return []ident.Record{v.certificate(t, v.Admin, member, time.Now()), v.certificate(t, member, o, time.Now())}
		}},
	{name: "an appointment by a member", want: roster.Forged,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			member := newIdentity(t)
			appointment, err := ident.IssueAppointment(member.Key, v.Pool.ID(), o.ID, time.Now())
			return []ident.Record{v.certificate(t, v.Admin, member, time.Now()), checked(t, appointment, err), v.certificate(t, o, o, time.Now())}
		}},
	{name: "an expired certificate", want: roster.Lapsed,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			return []ident.Record{v.certificate(t, v.Admin, o, time.Now().Add(-ident.CertificateLife-time.Minute))}
		}},
	{name: "a certificate of the future", want: roster.Early,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			return []ident.Record{v.certificate(t, v.Admin, o, time.Now().Add(time.Hour))}
		}},
	{name: "a member that left", want: roster.Left,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			departure, err := ident.IssueDeparture(o.Key, v.Pool.ID(), 1, time.Now())
			return []ident.Record{v.certificate(t, v.Admin, o, time.Now()), checked(t, departure, err)}
		}},
	{name: "an evicted member that returns", want: roster.Evicted,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			return []ident.Record{v.certificate(t, v.Admin, o, time.Now()), v.eviction(t, o)}
		}},
	{name: "a member, evicted while it is connected", want: roster.OK,
		records: func(t *testing.T, v Victim, o ident.Identity) []ident.Record {
			return []ident.Record{v.certificate(t, v.Admin, o, time.Now())}
		},
		wantThen: roster.Evicted,
		then:     func(t *testing.T, v Victim, o ident.Identity) ident.Record { return v.eviction(t, o) }},
}

func checked[R ident.Record](t *testing.T, rec R, err error) ident.Record {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func (v Victim) certificate(t *testing.T, by, of ident.Identity, from time.Time) ident.Record {
	t.Helper()
	c := ident.Certificate{
		Peer: of.ID, Name: of.Name, Role: ident.RoleMember, Serial: 1, NotBefore: from, NotAfter: from.Add(ident.CertificateLife),
	}
	c.Pool = v.Pool.ID()
	rec, err := ident.IssueCertificate(by.Key, c)
	return checked(t, rec, err)
}

func (v Victim) eviction(t *testing.T, o ident.Identity) ident.Record {
	t.Helper()
	rec, err := ident.IssueRevocation(v.Admin.Key, v.Pool.ID(), o.ID, nil, time.Now())
	return checked(t, rec, err)
}

func (v Victim) tell(t *testing.T, rec ident.Record) {
	t.Helper()
	if err := v.Tell(rec.Key(), rec.Raw()); err != nil {
		t.Fatal(err)
	}
}

// wait waits until the victim thinks of a peer as it should.
func (v Victim) wait(t *testing.T, id peer.ID, want roster.Reason) {
	t.Helper()
	until(t, "the victim judges the peer: "+want.String(), func() bool {
		m, _ := v.Pool.Member(id)
		return m.Standing == want
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(knockWait)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", knockWait, what)
		}
	}
}

// waitClosed waits until the victim has ended its connections to the outsider.
func (o *outsider) waitClosed(t *testing.T, id peer.ID) {
	t.Helper()
	until(t, "the connection to the evicted is closed", func() bool {
		return o.host.Network().Connectedness(id) != network.Connected
	})
}

// knockAll knocks at each protocol, and at the link, which judges by itself.
func (o *outsider) knockAll(t *testing.T, v Victim, want roster.Reason) {
	t.Helper()
	ids := v.Pool.Protocols()
	if len(ids) == 0 {
		t.Fatal("the victim has no protocols")
	}
	for _, id := range append(ids, linkProtocol) {
		if id == linkProtocol && want != roster.Stranger && want != roster.Evicted {
			continue // there the peer may first show a better certificate than the victim knows
		}
		got, err := o.knock(t.Context(), v.At, id)
		if err != nil && !o.cut {
			// The victim judges a peer that left or was evicted a moment before it ends the connections to it, and that may
			// meet the one on which it is asked.
			o.cut = true
			got, err = o.knock(t.Context(), v.At, id)
		}
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", id, got, err, want)
		}
	}
}

// knock opens a stream and returns the verdict. After a refusal nothing more may come.
func (o *outsider) knock(ctx context.Context, at peer.AddrInfo, id protocol.ID) (roster.Reason, error) {
	ctx, cancel := context.WithTimeout(ctx, knockWait)
	defer cancel()
	if err := o.host.Connect(ctx, at); err != nil {
		return 0, err
	}
	s, err := o.host.NewStream(ctx, at.ID, id)
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Reset() }()
	if err := s.SetDeadline(time.Now().Add(knockWait)); err != nil {
		return 0, err
	}
	if id == linkProtocol { // the others say their word before they have read anything
		if err := wire.WriteMsg(s, &pb.Greet{Nonce: make([]byte, 16), Tags: [][]byte{make([]byte, 32)}}, verdictMax); err != nil {
			return 0, err
		}
	}
	var verdict pb.Verdict
	if err := wire.ReadMsg(s, &verdict, verdictMax); err != nil {
		return 0, err
	}
	reason := roster.Reason(verdict.GetReason())
	if reason == roster.OK {
		return reason, nil
	}
	if rest, err := io.ReadAll(io.LimitReader(s, 1)); len(rest) > 0 {
		return reason, errors.Join(errors.New("there was more after the refusal"), err)
	}
	return reason, nil
}
