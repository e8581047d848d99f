package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pooltest"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// What the pool promises, and how much longer a machine may take that has other things to do meanwhile.
	listedWithin = 2 * time.Second
	knownWithin  = time.Second
	healedWithin = 5 * time.Second
	patience     = 4
)

// cut is a gater that keeps some peers apart.
type cut struct {
	mu   sync.Mutex
	from map[peer.ID]bool
}

func (c *cut) set(ids ...peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = map[peer.ID]bool{}
	for _, id := range ids {
		c.from[id] = true
	}
}

func (c *cut) open(p peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.from[p]
}

func (c *cut) InterceptPeerDial(p peer.ID) bool                        { return c.open(p) }
func (c *cut) InterceptAddrDial(p peer.ID, _ multiaddr.Multiaddr) bool { return c.open(p) }
func (c *cut) InterceptAccept(network.ConnMultiaddrs) bool             { return true }
func (c *cut) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return c.open(p)
}
func (c *cut) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// startNamed starts a peer on loopback that looks for nobody.
func startNamed(t *testing.T, name string, cfg Config) *Node {
	t.Helper()
	cfg.Home, cfg.Name, cfg.Listen = filepath.Join(t.TempDir(), name), name, []string{"/ip4/127.0.0.1/tcp/0"}
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// within waits for a condition and returns how long it took; far beyond the limit it fails.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(begun) > patience*limit {
			t.Fatalf("%s: not within %s", what, patience*limit)
		}
		<-tick.C
	}
	took := time.Since(begun)
	t.Logf("%s: %s (limit %s)", what, took.Round(time.Millisecond), limit)
	return took
}

func invite(t *testing.T, n *Node, req client.InviteRequest) string {
	t.Helper()
	inv, err := n.Invite(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return inv.Ticket
}

// join joins without asking, and returns the check words.
func join(t *testing.T, n *Node, req client.JoinRequest) (words string, err error) {
	t.Helper()
	req.Yes = true
	_, err = n.Join(t.Context(), req, func(q client.JoinQuestion) error { words = q.Words; return nil })
	return words, err
}

func mustJoin(t *testing.T, n *Node, ticket string) string {
	t.Helper()
	words, err := join(t, n, client.JoinRequest{Ticket: ticket})
	if err != nil {
		t.Fatal(err)
	}
	return words
}

// online lists the members that a peer sees online, in order.
func online(n *Node) (names []string) {
	p, err := n.Pool(context.Background())
	if err != nil {
		return nil
	}
	for _, m := range p.Members {
		if m.State == "online" {
			names = append(names, m.Name)
		}
	}
	return names
}

func circleOf(t *testing.T, n *Node) *circle {
	t.Helper()
	c, err := n.circle()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// threePeers is a pool of three; the clocks of ada's and bob's names are wrong by the skews.
func threePeers(t *testing.T, skews ...time.Duration) ([]*Node, []*cut) {
	t.Helper()
	var nodes []*Node
	var cuts []*cut
	for i, name := range []string{"ada", "bob", "cy"} {
		cfg := Config{}
		if i < len(skews) {
			cfg.Now = func() time.Time { return time.Now().Add(skews[i]) }
		}
		c := &cut{}
		cfg.gater = c
		nodes, cuts = append(nodes, startNamed(t, name, cfg)), append(cuts, c)
	}
	ticket := invite(t, nodes[0], client.InviteRequest{Uses: 2})
	mustJoin(t, nodes[1], ticket)
	mustJoin(t, nodes[2], ticket)
	within(t, listedWithin, "all three list all three", func() bool {
		return !slices.ContainsFunc(nodes, func(n *Node) bool { return !slices.Equal(online(n), []string{"ada", "bob", "cy"}) })
	})
	return nodes, cuts
}

// inStep reports whether all hold the same names.
func inStep(t *testing.T, nodes []*Node) bool {
	t.Helper()
	first := circleOf(t, nodes[0]).names.Digest()
	return !slices.ContainsFunc(nodes, func(n *Node) bool { return circleOf(t, n).names.Digest() != first })
}

func TestARecordIsOnAllMembers(t *testing.T) {
	nodes, _ := threePeers(t)
	for i, writer := range nodes {
		key := fmt.Sprintf("test/%d", i)
		if err := circleOf(t, writer).names.Put(key, []byte(key)); err != nil {
			t.Fatal(err)
		}
		within(t, knownWithin, "a record written on "+writer.ident.Name, func() bool {
			return !slices.ContainsFunc(nodes, func(n *Node) bool {
				r, ok := circleOf(t, n).names.Get(key)
				return !ok || string(r.Value) != key
			})
		})
	}
	within(t, knownWithin, "the same digest", func() bool { return inStep(t, nodes) })
	for _, n := range nodes {
		c := circleOf(t, n)
		if open := c.pool.Ungated(); len(open) > 0 {
			t.Errorf("%s answers %v around the gate", n.ident.Name, open)
		}
		if protos := c.pool.Protocols(); !slices.Contains(protos, apiProtocol) {
			t.Errorf("the gate knows %v", protos)
		}
		if !n.preferred(nodes[0].ident.ID) {
			t.Error("a member is not served first")
		}
	}
}

func TestPartitionHeals(t *testing.T) {
	for name, skews := range map[string][]time.Duration{
		"clocks right":    nil,
		"bob's is ahead":  {0, 3 * time.Hour},
		"bob's is behind": {0, -3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) { partition(t, 3*time.Second, skews) })
	}
}

// partition cuts bob off for a while, in which both sides write.
func partition(t *testing.T, length time.Duration, skews []time.Duration) {
	nodes, cuts := threePeers(t, skews...)
	ada, bob, cy := nodes[0], nodes[1], nodes[2]
	cuts[0].set(bob.ident.ID)
	cuts[1].set(ada.ident.ID, cy.ident.ID)
	cuts[2].set(bob.ident.ID)
	for _, n := range []*Node{ada, cy} {
		if err := errors.Join(n.host.Network().ClosePeer(bob.ident.ID), bob.host.Network().ClosePeer(n.ident.ID)); err != nil {
			t.Fatal(err)
		}
	}
	over := time.After(length)
	for i := range 50 {
		for _, n := range []*Node{ada, bob} {
			names := circleOf(t, n).names
			err := errors.Join(names.Put(fmt.Sprintf("same/%d", i), []byte(n.ident.Name)), names.Put(fmt.Sprintf("%s/%d", n.ident.Name, i), []byte{1}))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if inStep(t, nodes) {
		t.Error("they are in step without a connection")
	}
	select { // for as long as the cut lasts
	case <-over:
	case <-t.Context().Done():
	}
	for _, c := range cuts {
		c.set()
	}
	within(t, healedWithin, "all are equal again", func() bool { return inStep(t, nodes) })
	for _, n := range nodes {
		names := circleOf(t, n).names
		for i := range 50 {
			same, _ := names.Get(fmt.Sprintf("same/%d", i))
			_, a := names.Get(fmt.Sprintf("ada/%d", i))
			_, b := names.Get(fmt.Sprintf("bob/%d", i))
			if !a || !b || same == nil || string(same.Value) != "ada" && string(same.Value) != "bob" {
				t.Fatalf("%s lost something of %d", n.ident.Name, i)
			}
		}
	}
}

func TestTicketsAreRefusedWithAReason(t *testing.T) {
	ada, bob, cy := startNamed(t, "ada", Config{}), startNamed(t, "bob", Config{}), startNamed(t, "cy", Config{})
	ticket := invite(t, ada, client.InviteRequest{})
	mustJoin(t, bob, ticket)
	short := invite(t, ada, client.InviteRequest{TTL: 1})
	within(t, 2*time.Second, "the ticket runs out", func() bool {
		parsed, err := ident.ParseTicket(short)
		return err == nil && time.Now().After(parsed.Expires)
	})
	dee := startNamed(t, "dee", Config{})
	gone := invite(t, dee, client.InviteRequest{})
	if err := dee.Close(); err != nil {
		t.Fatal(err)
	}
	other := "a"
	if ticket[len(ticket)/2] == 'a' {
		other = "b"
	}
	altered := ticket[:len(ticket)/2] + other + ticket[len(ticket)/2+1:]
	for name, c := range map[string]struct {
		ticket string
		kind   client.Kind
		text   string
	}{
		"used":      {ticket, client.KindRefused, "used already"},
		"expired":   {short, client.KindRefused, "ran out"},
		"truncated": {ticket[:len(ticket)-7], client.KindInvalid, "cut short"},
		"altered":   {altered, client.KindInvalid, "wrong character"},
		"no ticket": {"hello", client.KindInvalid, "no ticket"},
		"nobody":    {gone, client.KindNotFound, "cannot be reached"},
	} {
		_, err := join(t, cy, client.JoinRequest{Ticket: c.ticket})
		var e *client.Error
		if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(e.Text, c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := online(cy); !slices.Equal(got, []string{"cy"}) {
		t.Errorf("after all refusals cy is with %v", got)
	}
}

func TestOwnPoolIsNotLeftUnasked(t *testing.T) {
	ada, bob := startNamed(t, "ada", Config{}), startNamed(t, "bob", Config{})
	own := circleOf(t, bob)
	if err := own.names.Put("file/x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	ticket := invite(t, ada, client.InviteRequest{})
	var e *client.Error
	if _, err := join(t, bob, client.JoinRequest{Ticket: ticket}); !errors.As(err, &e) || !strings.Contains(e.Hint, "--take-theirs") {
		t.Errorf("a pool with a file in it: %v", err)
	}
	if _, err := join(t, bob, client.JoinRequest{Ticket: ticket, TakeTheirs: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the names of the pool that was left: %v", err)
	}
	if _, ok := circleOf(t, bob).names.Get("file/x"); ok {
		t.Error("a name came along into the other pool")
	}
}

func TestPeopleAreAskedOnBothSides(t *testing.T) {
	ada, bob := startNamed(t, "ada", Config{}), startNamed(t, "bob", Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watching := make(chan struct{})
	var inviterSaw string
	answers := []bool{false, true}
	go func() {
		defer close(watching)
		_ = ada.PoolEvents(ctx, 0, true, func(e client.PoolEvent) error {
			if e.Token == "" {
				return nil
			}
			inviterSaw = e.Words
			accept := answers[0]
			answers = answers[1:]
			return ada.Answer(ctx, client.PoolAnswer{Token: e.Token, Accept: accept})
		})
	}()
	within(t, time.Second, "somebody answers", func() bool { yes, _ := ada.happened.attended(); return yes })
	ticket := invite(t, ada, client.InviteRequest{})
	ask := func(yes bool, words *string) func(client.JoinQuestion) error {
		return func(q client.JoinQuestion) error {
			*words = q.Words
			return bob.Answer(ctx, client.PoolAnswer{Token: q.Token, Accept: yes})
		}
	}
	var words string
	if _, err := bob.Join(ctx, client.JoinRequest{Ticket: ticket}, ask(false, &words)); client.KindOf(err) != client.KindRefused {
		t.Errorf("the joiner says no: %v", err)
	}
	if _, err := bob.Join(ctx, client.JoinRequest{Ticket: ticket}, ask(true, &words)); client.KindOf(err) != client.KindRefused {
		t.Errorf("the inviter says no: %v", err)
	}
	if _, err := bob.Join(ctx, client.JoinRequest{Ticket: ticket}, ask(true, &words)); err != nil {
		t.Errorf("both say yes: %v", err)
	}
	cancel()
	<-watching
	if words == "" || words != inviterSaw {
		t.Errorf("the joiner saw %q, the inviter %q", words, inviterSaw)
	}
}

// apiAt is a client of n's API that asks another member.
func apiAt(t *testing.T, n *Node, member string) *client.Client {
	t.Helper()
	c := client.New(n.cfg.Home, n.Endpoint())
	t.Cleanup(c.Close)
	return c.At(member)
}

func TestAnotherMemberIsAsked(t *testing.T) {
	nodes, _ := threePeers(t)
	ada, bob := nodes[0], nodes[1]
	for _, text := range []string{"ada", "a", "AD", ada.ident.ID.String(), ada.ident.ID.String()[:prefixMin]} {
		if s, err := apiAt(t, bob, text).Status(t.Context()); err != nil || s.ID != ada.ident.ID.String() {
			t.Errorf("%s: %s, %v", text, s.ID, err)
		}
	}
	if _, err := apiAt(t, bob, "zoe").Status(t.Context()); client.KindOf(err) != client.KindNotFound {
		t.Errorf("nobody: %v", err)
	}
	if _, err := apiAt(t, bob, "ada").Invite(t.Context(), client.InviteRequest{}); client.KindOf(err) != client.KindRefused {
		t.Errorf("a member invites through an admin: %v", err)
	}
	if _, err := ada.Promote(t.Context(), client.MemberRequest{Peer: "bob"}); err != nil {
		t.Fatal(err)
	}
	within(t, knownWithin, "bob invites through ada", func() bool {
		_, err := apiAt(t, bob, "ada").Invite(t.Context(), client.InviteRequest{})
		return err == nil
	})
	within(t, knownWithin, "bob invites by himself", func() bool {
		_, err := bob.Invite(t.Context(), client.InviteRequest{})
		return err == nil
	})
	if _, err := bob.Evict(t.Context(), client.MemberRequest{Peer: "cy"}); err != nil {
		t.Fatal(err)
	}
	within(t, knownWithin, "cy is refused with the reason", func() bool { // at first its connections just end
		_, err := apiAt(t, nodes[2], "ada").Status(t.Context())
		return err != nil && strings.Contains(err.Error(), roster.Evicted.String())
	})
}

func TestLeaveAndEvictGoOn(t *testing.T) {
	nodes, _ := threePeers(t)
	ada, bob, cy := nodes[0], nodes[1], nodes[2]
	if _, err := ada.Leave(t.Context(), client.LeaveRequest{}); client.KindOf(err) != client.KindRefused {
		t.Errorf("the only admin leaves: %v", err)
	}
	before := circleOf(t, cy).pool.ID()
	if p, err := cy.Leave(t.Context(), client.LeaveRequest{}); err != nil || len(p.Members) != 1 || p.ID == before.String() {
		t.Fatalf("leave: %+v, %v", p, err)
	}
	within(t, knownWithin, "two are left", func() bool {
		return slices.Equal(online(ada), []string{"ada", "bob"}) && slices.Equal(online(bob), []string{"ada", "bob"})
	})
	if _, err := ada.Evict(t.Context(), client.MemberRequest{Peer: "bob"}); err != nil {
		t.Fatal(err)
	}
	within(t, knownWithin, "bob knows that he is out", func() bool {
		p, err := bob.Pool(t.Context())
		return err == nil && p.Standing == roster.Evicted.String()
	})
	if _, err := join(t, bob, client.JoinRequest{Ticket: invite(t, ada, client.InviteRequest{}), TakeTheirs: true}); client.KindOf(err) != client.KindRefused {
		t.Errorf("the evicted peer joins again: %v", err)
	}
	if _, err := bob.Leave(t.Context(), client.LeaveRequest{}); err != nil {
		t.Errorf("the evicted peer makes a pool of its own: %v", err)
	}
	mustJoin(t, cy, invite(t, ada, client.InviteRequest{}))
	within(t, listedWithin, "cy is back", func() bool { return slices.Equal(online(ada), []string{"ada", "cy"}) })
}

func TestAPoolOutlivesARestart(t *testing.T) {
	ada, home := startNamed(t, "ada", Config{}), filepath.Join(t.TempDir(), "bob")
	bob := startAt(t, home)
	mustJoin(t, bob, invite(t, ada, client.InviteRequest{}))
	if err := circleOf(t, ada).names.Put("test/x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	within(t, knownWithin, "bob knows x", func() bool { _, ok := circleOf(t, bob).names.Get("test/x"); return ok })
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	if err := circleOf(t, ada).names.Put("test/y", []byte("y")); err != nil {
		t.Fatal(err)
	}
	bob = startAt(t, home)
	if _, ok := circleOf(t, bob).names.Get("test/x"); !ok {
		t.Error("a name was lost in the restart")
	}
	within(t, healedWithin, "bob knows y", func() bool { _, ok := circleOf(t, bob).names.Get("test/y"); return ok })
	within(t, listedWithin, "both are there", func() bool {
		return slices.Equal(online(ada), []string{"ada", "bob"}) && slices.Equal(online(bob), []string{"ada", "bob"})
	})
}

func TestLeavingLosesNothingUnasked(t *testing.T) {
	ada, bob := startNamed(t, "ada", Config{}), startNamed(t, "bob", Config{})
	mustJoin(t, bob, invite(t, ada, client.InviteRequest{Role: "admin"}))
	if err := ada.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, listedWithin, "bob is alone", func() bool { return slices.Equal(online(bob), []string{"bob"}) })
	if err := circleOf(t, bob).names.Put("file/x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Leave(t.Context(), client.LeaveRequest{}); client.KindOf(err) != client.KindRefused || !strings.Contains(err.Error(), "no other member is online") {
		t.Errorf("leaving with the only copy of a name: %v", err)
	}
	if _, err := bob.Leave(t.Context(), client.LeaveRequest{Force: true}); err != nil {
		t.Error(err)
	}
}

func startAt(t *testing.T, home string) *Node {
	t.Helper()
	n, err := Start(t.Context(), Config{Home: home, Name: "bob", Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestATerminalLendsNothing(t *testing.T) {
	ada, bob := startNamed(t, "ada", Config{Lend: Lend{Cores: 3, Memory: 1 << 30, Space: 1 << 20, Anchor: true}}), startNamed(t, "bob", Config{})
	mustJoin(t, bob, invite(t, ada, client.InviteRequest{Role: "terminal"}))
	lends := func(n *Node, name string) (l client.Lends) {
		p, err := n.Pool(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range p.Members {
			if m.Name == name {
				l = m.Lends
			}
		}
		return l
	}
	within(t, 5*time.Second, "what ada lends", func() bool {
		l := lends(bob, "ada")
		return l.Cores == 3 && l.Memory == 1<<30 && l.Space == 1<<20 && l.Free > 0 && l.Free <= 1<<20 && l.AlwaysOn
	})
	within(t, 5*time.Second, "what bob lends", func() bool { return lends(ada, "bob").System != "" })
	if l := lends(ada, "bob"); l.Cores != 0 || l.Memory != 0 || l.Space != 0 || l.Free != 0 || l.AlwaysOn {
		t.Errorf("a terminal lends %+v", l)
	}
	if p, err := ada.Pool(t.Context()); err != nil || p.Totals.Cores != 3 || p.Totals.Members != 2 {
		t.Errorf("the totals are %+v, %v", p.Totals, err)
	}
}

func TestMembersAreFoundByName(t *testing.T) {
	members := []roster.Member{{ID: "1", Name: "laptop"}, {ID: "2", Name: "laptop-2"}, {ID: "3", Name: "Nas"}}
	for text, want := range map[string]peer.ID{"laptop": "1", "laptop-": "2", "nas": "3", "N": "3"} {
		if m, err := findMember(members, text); err != nil || m.ID != want {
			t.Errorf("%s: %q, %v", text, m.ID, err)
		}
	}
	for text, want := range map[string]client.Kind{"lap": client.KindInvalid, "": client.KindNotFound, "x": client.KindNotFound, "laptop-22": client.KindNotFound} {
		if _, err := findMember(members, text); client.KindOf(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestEveryPoolProtocolRefuses tries all protocols of an assembled peer as everybody who must not be let in.
func TestEveryPoolProtocolRefuses(t *testing.T) {
	ada := startNamed(t, "ada", Config{})
	c := circleOf(t, ada)
	pooltest.Refusals(t, pooltest.Victim{
		Pool: c.pool, At: peer.AddrInfo{ID: ada.ident.ID, Addrs: ada.host.Addrs()}, Admin: ada.ident, Tell: c.names.Put,
	})
}
