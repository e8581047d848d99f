package pool

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool/pb"
	"github.com/shoal-os/shoal/dht/roster"
)

const day = 24 * time.Hour

// leap lets the clocks of boxes leap, as a night with closed lids does, and has them look at them.
func leap(t *testing.T, d time.Duration, boxes ...*box) {
	t.Helper()
	for _, b := range boxes {
		b.skew.Add(int64(d))
	}
	for _, b := range boxes {
		tick(t, b)
	}
}

func tick(t *testing.T, b *box) {
	t.Helper()
	if err := b.pool.do(t.Context(), b.pool.tick); err != nil {
		t.Fatal(err)
	}
}

func (b *box) expires(id peer.ID) time.Time {
	m, _ := b.pool.Member(id)
	c, _ := m.Certificate()
	return c.NotAfter
}

func TestCertificatesRenewThemselves(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "they meet", func() bool { return a.names() == "anna ben" && b.names() == "anna ben" })
	first := b.expires(b.self.ID)
	leap(t, 16*day, a, b)
	for _, id := range []peer.ID{a.self.ID, b.self.ID} {
		for _, one := range []*box{a, b} {
			wait(t, 5*time.Second, "a certificate is renewed", func() bool { return one.expires(id).Sub(first) > 15*day })
		}
	}
	if m, _ := a.pool.Member(b.self.ID); m.Role != ident.RoleMember || m.Name != "ben" {
		t.Errorf("renewed as %+v", m)
	}
	// Not due: asking gets what there is.
	before := b.expires(b.self.ID)
	if err := b.pool.askRenewal(a.self.ID); err != nil || !b.expires(b.self.ID).Equal(before) {
		t.Errorf("renewed before it was due: %v", err)
	}
	if err := a.pool.askRenewal(b.self.ID); err != nil {
		if ReasonOf(err) != roster.NotAdmin {
			t.Errorf("a member renews: %v", err)
		}
	}
	// Away for longer than a certificate lasts, a member is refused, and an admin signs its own again.
	leap(t, 40*day, a, b)
	if _, reason := a.pool.view().Judge(b.self.ID, a.pool.clock.wall()); reason != roster.Lapsed {
		t.Error(reason)
	}
	if got := a.pool.Standing(); got != roster.OK {
		t.Errorf("the admin itself: %v", got)
	}
	wait(t, 5*time.Second, "ben is refused", func() bool {
		_, err := b.pool.dialLink(context10(t), a.self.ID)
		return ReasonOf(err) == roster.Lapsed
	})
	b.join(a, InviteOptions{}) // a new ticket heals it
	if !a.pool.IsMember(b.self.ID) {
		t.Error("not in again")
	}
}

func TestLeave(t *testing.T) {
	a, b, c := three(t)
	if err := a.pool.Leave(context10(t), LeaveOptions{}); !errors.Is(err, ErrLastAdmin) {
		t.Errorf("the only admin leaves: %v", err)
	}
	full := errors.New("nobody has room")
	if err := b.pool.Leave(context10(t), LeaveOptions{HandOver: func(context.Context) error { return full }}); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if b.pool.over() || !b.pool.IsMember(a.self.ID) {
		t.Fatal("left although nothing was handed over")
	}
	if err := b.pool.Leave(context10(t), LeaveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*box{a, c} {
		wait(t, 2*time.Second, "the others know", func() bool {
			m, ok := one.pool.Member(b.self.ID)
			return !ok && m.Standing == roster.Left && m.State == roster.Departed
		})
	}
	old := a.pool.ID()
	b.reopen()
	if b.pool.ID() == old || len(b.pool.Members()) != 1 || b.pool.Self().Role != ident.RoleAdmin {
		t.Errorf("ben's own pool: %v", b.pool.Members())
	}
	if err := b.pool.Wrote(a.self.ID, time.Now()); ReasonOf(err) != roster.Stranger {
		t.Error(err)
	}
	if err := a.pool.Wrote(b.self.ID, time.Now().Add(-time.Hour)); err != nil {
		t.Errorf("what ben wrote while he was a member: %v", err)
	}
	if err := a.pool.Wrote(b.self.ID, time.Now().Add(time.Hour)); ReasonOf(err) != roster.Left {
		t.Errorf("what ben writes later: %v", err)
	}
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "ben is back", func() bool { return c.names() == "anna ben cleo" })
}

// Losing the first laptop loses nothing when there is another admin.
func TestTheFirstAdminIsLost(t *testing.T) {
	a, b, c := three(t)
	if err := a.pool.Appoint(context10(t), b.self.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, 2*time.Second, "cleo knows", func() bool { return c.pool.view().Admin(b.self.ID) && b.pool.view().Admin(b.self.ID) })
	if err := b.pool.Evict(context10(t), a.self.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, 5*time.Second, "ben and cleo go on", func() bool { return b.names() == "ben cleo" && c.names() == "ben cleo" })
	wait(t, 5*time.Second, "anna learns it", func() bool { return a.pool.Standing() == roster.Evicted })
	if err := c.echo(b); err != nil {
		t.Error(err)
	}
	d := newBox(t, "dora")
	d.join(b, InviteOptions{})
	wait(t, 5*time.Second, "dora is in", func() bool { return c.names() == "ben cleo dora" && d.names() == "ben cleo dora" })
	// Who has anna's key can let nobody in.
	thief := newIdentity(t, "thief")
	forged, err := ident.IssueCertificate(a.self.Key, newCertificate(b.pool.ID(), thief.ID, "thief", ident.RoleAdmin, 1, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	c.pool.learn("", [][]byte{forged.Raw()})
	if c.pool.IsMember(thief.ID) {
		t.Error("the evicted admin let somebody in")
	}
}

// A member that slept while another was evicted has the old secret, is recognised all the same, and gets the new one.
func TestSleepingThroughAnEviction(t *testing.T) {
	a, b, c := three(t)
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.pool.Evict(context10(t), c.self.ID); err != nil {
		t.Fatal(err)
	}
	b.open()
	if got, want := b.pool.Blind(nil)[0], a.pool.Blind(nil)[0]; got == want {
		t.Fatal("the secret did not change")
	}
	wait(t, 5*time.Second, "ben gets the secret and the news", func() bool {
		return b.pool.Blind(nil)[0] == a.pool.Blind(nil)[0] && !b.pool.IsMember(c.self.ID)
	})
	if got := b.pool.Blind(nil)[1]; got != a.pool.Blind(nil)[1] {
		t.Error("the earlier secret was forgotten")
	}
}

// A certificate newer than what the other side has heard of is shown on the way.
func TestIntroduction(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "they meet", func() bool { return a.names() == "anna ben" })
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	c := newBox(t, "cleo")
	c.join(a, InviteOptions{})
	if err := a.pool.Close(); err != nil {
		t.Fatal(err)
	}
	b.open() // and has never heard of cleo
	if b.pool.IsMember(c.self.ID) {
		t.Skip("anna was faster")
	}
	c.host.Peerstore().AddAddrs(b.self.ID, b.host.Addrs(), time.Hour)
	if err := c.echo(b); err != nil {
		t.Error(err)
	}
	if !b.pool.IsMember(c.self.ID) {
		t.Error("cleo was let in and is not known")
	}
}

// What a member missed, and nobody tells it any more, shows in the digest of the heartbeats, and is sent.
func TestDigestsFindWhatIsMissing(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "they meet", func() bool { return a.names() == "anna ben" && b.names() == "anna ben" })
	quiet := newIdentity(t, "cleo")
	rec, err := ident.IssueCertificate(a.self.Key, newCertificate(a.pool.ID(), quiet.ID, "cleo", ident.RoleMember, 1, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	heartbeat := &pb.Say{Digest: make([]byte, digestSize), Secret: 1}
	err = a.pool.do(t.Context(), func() {
		a.pool.roster.Step(a.pool.clock.moment(), roster.Learn{Records: []ident.Record{rec}})
		a.pool.current.Store(a.pool.roster.View())
		a.pool.compare(a.pool.links[b.self.ID], heartbeat)
	})
	if err != nil || b.pool.IsMember(quiet.ID) {
		t.Fatalf("%v, or sent too soon", err)
	}
	if err := a.pool.do(t.Context(), func() { a.pool.compare(a.pool.links[b.self.ID], heartbeat) }); err != nil {
		t.Fatal(err)
	}
	wait(t, time.Second, "ben has it", func() bool { return b.pool.IsMember(quiet.ID) })
}

// A machine that slept does not judge the others; one that says goodbye is away at once.
func TestPresence(t *testing.T) {
	lends := roster.Lends{Cores: 8, Memory: 1 << 34, Power: roster.PowerMains, AlwaysOn: true, Version: "1.2.3"}
	a, b := newBox(t, "anna"), newBox(t, "ben", func(c *Config) { c.Lends = func() roster.Lends { return lends } })
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "anna hears what ben lends", func() bool {
		m, _ := a.pool.Member(b.self.ID)
		return m.State == roster.Online && m.Lends == lends
	})
	var seen []roster.Change
	stop := a.pool.Watch(func(c roster.Change) { seen = append(seen, c) })
	leap(t, 8*time.Hour, a)
	if a.names() != "anna ben" || !a.pool.Grace() {
		t.Errorf("after waking up anna sees %q", a.names())
	}
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, time.Second, "ben said goodbye", func() bool { return a.names() == "anna" })
	err := a.pool.do(t.Context(), func() {
		stop()
		if len(seen) == 0 || seen[len(seen)-1].Now.State != roster.Away {
			t.Errorf("told of %+v", seen)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.open()
	wait(t, 5*time.Second, "ben is back", func() bool { return a.names() == "anna ben" })
}

// A machine that is about to sleep is away at once, says nothing more though it hears the others, and is back when it woke.
func TestASleeperSaysGoodbye(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	meet := func() {
		t.Helper()
		wait(t, 5*time.Second, "they see each other", func() bool { return a.names() == "anna ben" && b.names() == "anna ben" })
	}
	meet()
	b.pool.Sleep(context10(t), true)
	wait(t, time.Second, "anna was told", func() bool { return a.names() == "anna" })
	b.pool.Sleep(context10(t), true) // as said before
	last := func() time.Time { m, _ := b.pool.Member(a.self.ID); return m.Seen }
	asleep := last()
	wait(t, 10*time.Second, "ben hears anna", func() bool { tick(t, b); return last().After(asleep) })
	if a.names() != "anna" || b.names() != "anna ben" {
		t.Errorf("anna sees %q, ben sees %q", a.names(), b.names())
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	b.pool.Sleep(late, false)
	meet()
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	b.pool.Sleep(context10(t), true) // of a closed pool is nothing
}

func TestSleepWatch(t *testing.T) {
	var w sleepWatch
	mono := time.Now()
	boot := time.Hour
	for i, c := range []struct {
		boot, mono time.Duration
		want       bool
	}{{0, 0, false}, {2 * time.Second, 2 * time.Second, false}, {8 * time.Hour, 2 * time.Second, true}, {time.Minute, time.Minute, false}} {
		boot, mono = boot+c.boot, mono.Add(c.mono)
		if got := w.woke(boot, mono); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	first := BootTime()
	if second := BootTime(); first <= 0 || second < first {
		t.Errorf("boot time %v, then %v", first, second)
	}
}

func TestTheFile(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	id := b.pool.ID()
	b.reopen()
	if b.pool.ID() != id || !b.pool.IsMember(a.self.ID) {
		t.Error("forgotten over a restart")
	}
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	path := statePath(b.home)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"empty": {}, "cut short": good[:len(good)/2], "nonsense": []byte("nonsense")} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(b.cfg)
		var broken *StateError
		if !errors.As(err, &broken) || !strings.Contains(broken.Hint(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(raw) {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	// A disk that fails: an eviction that could not be stored is in force here, and said to have failed.
	if err := os.RemoveAll(a.home); err != nil {
		t.Fatal(err)
	}
	if err := a.pool.Evict(context10(t), b.self.ID); err == nil || a.pool.IsMember(b.self.ID) {
		t.Errorf("%v, member %v", err, a.pool.IsMember(b.self.ID))
	}
	if a.pool.Problem() == nil {
		t.Error("no problem")
	}
	if _, err := a.pool.Invite(context10(t), InviteOptions{}); err == nil {
		t.Error("a ticket that is not stored")
	}
	if err := os.MkdirAll(a.home, 0o700); err != nil {
		t.Fatal(err)
	}
	tick(t, a)
	if err := a.pool.Problem(); err != nil {
		t.Errorf("the disk is back: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	a := newBox(t, "anna")
	for _, c := range []Config{{}, {Home: a.home}, {Home: a.home, Identity: a.self}, {Home: a.home, Identity: newIdentity(t, "x"), Host: a.host}} {
		if _, err := Open(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
	if err := a.pool.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.pool.Evict(context10(t), newIdentity(t, "x").ID); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
