package pool

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pooltest"
	"github.com/shoal-os/shoal/dht/roster"
)

const loopback = "/ip4/127.0.0.1/tcp/0"

// echoProtocol stands for any pool protocol that a higher floor registers.
const echoProtocol = "/shoal/test-echo/1"

// box is one peer with its home; its pool can be closed and opened again, at another time of day.
type box struct {
	t    *testing.T
	self ident.Identity
	host *host.Host
	home string
	cfg  Config
	pool *Pool
	skew atomic.Int64 // nanoseconds added to both clocks
}

func newIdentity(t testing.TB, name string) ident.Identity {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ident.Identity{Key: key, ID: id, Name: name}
}

func newBox(t *testing.T, name string, change ...func(*Config)) *box {
	t.Helper()
	b := &box{t: t, self: newIdentity(t, name), home: t.TempDir()}
	h, err := host.New(host.Config{Identity: b.self, Listen: []string{loopback}})
	if err != nil {
		t.Fatal(err)
	}
	b.host = h
	t.Cleanup(func() {
		if b.pool != nil {
			if err := b.pool.Close(); err != nil {
				t.Errorf("%s: close: %v", name, err)
			}
		}
		if err := h.Close(); err != nil {
			t.Errorf("%s: close host: %v", name, err)
		}
	})
	b.cfg = Config{Home: b.home, Identity: b.self, Host: h}
	for _, f := range change {
		f(&b.cfg)
	}
	b.open()
	return b
}

func (b *box) clock() clock {
	c := clockOf(b.cfg)
	return clock{
		boot: func() time.Duration { return c.boot() + time.Duration(b.skew.Load()) },
		wall: func() time.Time { return c.wall().Add(time.Duration(b.skew.Load())) },
	}
}

func (b *box) open() {
	b.t.Helper()
	p, err := openWith(b.cfg, b.clock())
	if err != nil {
		b.t.Fatal(err)
	}
	b.pool = p
	p.Handle(echoProtocol, func(s network.Stream) {
		var buf [64]byte
		if n, err := s.Read(buf[:]); err == nil {
			_, _ = s.Write(buf[:n])
		}
		_ = s.Close()
	})
}

// reopen closes the pool and opens what the home then holds.
func (b *box) reopen() {
	b.t.Helper()
	if err := b.pool.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

// join takes b into the pool of inviter.
func (b *box) join(inviter *box, o InviteOptions) Joined {
	b.t.Helper()
	ctx := context10(b.t)
	ticket, err := inviter.pool.Invite(ctx, o)
	if err != nil {
		b.t.Fatal(err)
	}
	joined, err := b.pool.Join(ctx, ticket, JoinOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.reopen()
	return joined
}

func context10(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// wait waits for a condition that changes of the pools bring about.
func wait(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// names lists the online members that a box sees.
func (b *box) names() string {
	var out []string
	for _, m := range b.pool.Members() {
		if m.State == roster.Online {
			out = append(out, m.Name)
		}
	}
	return strings.Join(out, " ")
}

func (b *box) echo(to *box) error {
	s, err := b.pool.NewStream(context10(b.t), to.self.ID, echoProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	if _, err := s.Write([]byte("hello")); err != nil {
		return err
	}
	var buf [5]byte
	_, err = s.Read(buf[:])
	return err
}

// three makes a pool of three.
func three(t *testing.T) (a, b, c *box) {
	a, b, c = newBox(t, "anna"), newBox(t, "ben"), newBox(t, "cleo")
	b.join(a, InviteOptions{})
	c.join(a, InviteOptions{})
	for _, one := range []*box{a, b, c} {
		wait(t, 5*time.Second, "all list all", func() bool { return one.names() == "anna ben cleo" })
	}
	return a, b, c
}

func TestThreeListThree(t *testing.T) {
	a, b, c := newBox(t, "anna"), newBox(t, "ben"), newBox(t, "cleo")
	b.join(a, InviteOptions{})
	start := time.Now()
	c.join(a, InviteOptions{})
	for _, one := range []*box{a, b, c} {
		wait(t, 2*time.Second-time.Since(start), one.self.Name+" lists all three", func() bool { return one.names() == "anna ben cleo" })
	}
	t.Logf("all three list all three after %v", time.Since(start))
	for _, from := range []*box{a, b, c} {
		for _, to := range []*box{a, b, c} {
			if from == to {
				continue
			}
			if err := from.echo(to); err != nil {
				t.Errorf("%s to %s: %v", from.self.Name, to.self.Name, err)
			}
		}
	}
	if m, _ := b.pool.Member(a.self.ID); m.Role != ident.RoleAdmin {
		t.Errorf("anna's role is %v", m.Role)
	}
	if d := slices.Compact([]ident.PoolID{a.pool.ID(), b.pool.ID(), c.pool.ID()}); len(d) != 1 {
		t.Errorf("they are in different pools: %v", d)
	}
	for _, one := range []*box{a, b, c} {
		if ids := one.pool.Ungated(); len(ids) != 0 {
			t.Errorf("ungated: %v", ids)
		}
	}
}

func TestEvictionClosesWithinASecond(t *testing.T) {
	a, b, c := three(t)
	closed := make(chan peer.ID, 4)
	b.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, conn network.Conn) {
		if conn.RemotePeer() == c.self.ID {
			closed <- c.self.ID
		}
	}})
	before := a.pool.Blind([]byte("x"))[0]
	start := time.Now()
	if err := a.pool.Evict(context10(t), c.self.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, time.Second, "ben knows", func() bool { return !b.pool.IsMember(c.self.ID) })
	select {
	case <-closed:
	case <-time.After(time.Second - time.Since(start)):
		t.Error("ben's connection to the evicted is still open")
	}
	t.Logf("closed everywhere after %v", time.Since(start))
	wait(t, 3*time.Second, "ben has the new secret", func() bool {
		return b.pool.Blind([]byte("x"))[0] == a.pool.Blind([]byte("x"))[0]
	})
	if a.pool.Blind([]byte("x"))[0] == before {
		t.Error("the secret did not change")
	}
	wait(t, 5*time.Second, "cleo learns that she is out", func() bool { return c.pool.Standing() == roster.Evicted })
	if slices.Contains(c.pool.Blind([]byte("x")), a.pool.Blind([]byte("x"))[0]) {
		t.Error("the evicted has the new secret")
	}
	for _, to := range []*box{a, b} {
		if err := c.echo(to); ReasonOf(err) != roster.Evicted {
			t.Errorf("the evicted reaches %s: %v", to.self.Name, err)
		}
		if err := to.echo(c); ReasonOf(err) != roster.Evicted {
			t.Errorf("%s reaches the evicted: %v", to.self.Name, err)
		}
	}
}

func TestTwoPoolsOnOneNetworkNeverMix(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	x, y := newBox(t, "xena"), newBox(t, "yuri")
	b.join(a, InviteOptions{})
	y.join(x, InviteOptions{})
	all := []*box{a, b, x, y}
	for _, one := range all {
		for _, other := range all {
			if one != other {
				info := peer.AddrInfo{ID: other.self.ID, Addrs: other.host.Addrs()}
				if err := one.host.Connect(context10(t), info); err != nil {
					t.Fatal(err)
				}
				one.pool.foundNearby(info)
			}
		}
	}
	for _, one := range []*box{a, b} {
		wait(t, 5*time.Second, "anna and ben meet", func() bool { return one.names() == "anna ben" })
		for _, other := range []*box{x, y} {
			if err := one.echo(other); ReasonOf(err) != roster.Stranger {
				t.Errorf("%s to %s: %v", one.self.Name, other.self.Name, err)
			}
			if _, err := one.pool.dialLink(context10(t), other.self.ID); ReasonOf(err) != roster.Stranger {
				t.Errorf("%s greets %s: %v", one.self.Name, other.self.Name, err)
			}
		}
	}
	for _, one := range []*box{x, y} {
		wait(t, 5*time.Second, "xena and yuri meet", func() bool { return one.names() == "xena yuri" })
	}
	if len(a.pool.Former())+len(x.pool.Former()) != 0 {
		t.Error("a stranger is in the roster")
	}
}

func TestGossipReachesMembers(t *testing.T) {
	a, b, c := three(t)
	ctx := context10(t)
	news := make(map[*box]interface {
		Publish(context.Context, []byte) error
		Peers() int
	})
	got := make(chan string, 8)
	for _, one := range []*box{a, b, c} {
		topic, err := one.pool.JoinTopic("news", nil)
		if err != nil {
			t.Fatal(err)
		}
		news[one] = topic
		go func() {
			for {
				m, err := topic.Next(ctx)
				if err != nil {
					return
				}
				got <- one.self.Name + " hears " + string(m.Value)
			}
		}()
	}
	wait(t, 5*time.Second, "all listen", func() bool { return news[a].Peers() == 2 && news[b].Peers() == 2 && news[c].Peers() == 2 })
	if err := news[b].Publish(ctx, []byte("ben")); err != nil {
		t.Fatal(err)
	}
	var heard []string
	for range 2 {
		select {
		case one := <-got:
			heard = append(heard, one)
		case <-ctx.Done():
			t.Fatalf("only %v", heard)
		}
	}
	slices.Sort(heard)
	if want := []string{"anna hears ben", "cleo hears ben"}; !slices.Equal(heard, want) {
		t.Errorf("%v", heard)
	}
	if _, err := a.pool.JoinTopic("gossip", nil); err == nil {
		t.Error("joined a topic that pools do not have")
	}
}

// A member that was away finds what happened among the names, even if nobody who was there tells it.
func TestRecordsReachThroughNames(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	na, nb := pooltest.NewNames(), pooltest.NewNames()
	pooltest.Connect(na, nb)
	a.pool.UseRecords(na)
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	stranger := newIdentity(t, "dora")
	var err error
	if doErr := a.pool.do(t.Context(), func() {
		var recs []ident.Record
		if recs, err = a.pool.certify(stranger.ID, "dora", ident.RoleMember); err == nil {
			_, err = a.pool.apply(roster.Learn{Records: recs}, "")
		}
	}); doErr != nil || err != nil {
		t.Fatal(doErr, err)
	}
	if err := a.pool.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	if b.pool.IsMember(stranger.ID) {
		t.Fatal("known too early")
	}
	b.pool.UseRecords(nb)
	if !b.pool.IsMember(stranger.ID) {
		t.Error("not learned from the names")
	}
	// A name that says something else is put back.
	if err := nb.Put("member/"+a.self.ID.String(), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if err := b.pool.do(t.Context(), b.pool.reconcileNames); err != nil {
		t.Fatal(err)
	}
	for key, value := range nb.Scan("member/" + a.self.ID.String()) {
		if _, err := ident.ParseRecord(value); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
