package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

// goneWithin is how long a silence is before it counts (roster.AwayAfter), and longer after this very process was held up.
const goneWithin = 15 * time.Second

// drillers is a pool of three, of whom bob's owner allows drills.
func drillers(t *testing.T) (ada, bob, cy *Node) {
	t.Helper()
	ada, bob, cy = startNamed(t, "ada", Config{}), startNamed(t, "bob", Config{Lend: Lend{AllowDrill: true}}), startNamed(t, "cy", Config{})
	ticket := invite(t, ada, client.InviteRequest{Uses: 2})
	mustJoin(t, bob, ticket)
	mustJoin(t, cy, ticket)
	within(t, listedWithin, "all three list all three", func() bool {
		return !slices.ContainsFunc([]*Node{ada, bob, cy}, func(n *Node) bool { return !slices.Equal(online(n), []string{"ada", "bob", "cy"}) })
	})
	return ada, bob, cy
}

// asks asks a member by way of the pool, as `shoal drill` does.
func asks(t *testing.T, from *Node, to string) *client.Client {
	t.Helper()
	c := client.New(from.cfg.Home, from.Endpoint())
	t.Cleanup(c.Close)
	return c.At(to)
}

func wantKind(t *testing.T, what string, err error, kind client.Kind, text string) {
	t.Helper()
	if client.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v (%s), want %s and %q", what, err, client.KindOf(err), kind, text)
	}
}

// TestADrillIsWithConsent: nobody drops out whose owner does not allow it, or for somebody who has not asked, or for longer than it may.
func TestADrillIsWithConsent(t *testing.T) {
	ada, bob, cy := drillers(t)
	fall := client.DrillFall{For: 5}
	_, err := asks(t, ada, "bob").DrillFall(t.Context(), fall)
	wantKind(t, "without having asked", err, client.KindRefused, "nobody asked")
	s, err := asks(t, ada, "cy").DrillAsk(t.Context())
	if err != nil || s.Allowed {
		t.Errorf("cy says %+v, %v", s, err)
	}
	_, err = asks(t, ada, "cy").DrillFall(t.Context(), fall)
	wantKind(t, "without consent", err, client.KindRefused, "takes no part in drills")
	s, err = asks(t, ada, "bob").DrillAsk(t.Context())
	if err != nil || !s.Allowed || s.By != "ada" {
		t.Errorf("bob says %+v, %v", s, err)
	}
	_, err = asks(t, cy, "bob").DrillAsk(t.Context())
	wantKind(t, "two at a time", err, client.KindBusy, "ada prepares a drill")
	_, err = asks(t, cy, "bob").DrillFall(t.Context(), fall)
	wantKind(t, "for who has not the claim", err, client.KindRefused, "nobody asked")
	_, err = bob.DrillFall(t.Context(), ada.ident.ID.String(), client.DrillFall{For: 3600})
	wantKind(t, "for an hour", err, client.KindInvalid, "5m0s")
	_, err = asks(t, ada, "bob").DrillStop(t.Context())
	wantKind(t, "to stop another's", err, client.KindRefused, "only the owner")
}

// TestWhoDropsOutIsGone: the others see it go, nobody reaches it, its own API says why, and it comes back as it was.
func TestWhoDropsOutIsGone(t *testing.T) {
	ada, bob, cy := drillers(t)
	if _, err := asks(t, ada, "bob").DrillAsk(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := asks(t, ada, "bob").DrillFall(t.Context(), client.DrillFall{For: client.DrillMost.Seconds()})
	if err != nil || time.Until(s.Until) < client.DrillMost/2 {
		t.Fatalf("%+v, %v", s, err)
	}
	within(t, goneWithin, "the others see that bob is gone", func() bool {
		return slices.Equal(online(ada), []string{"ada", "cy"}) && slices.Equal(online(cy), []string{"ada", "cy"})
	})
	_, err = bob.Pool(t.Context())
	wantKind(t, "its own API", err, client.KindUnready, "this peer is in a drill until ")
	if c, err := ada.Dial(t.Context(), bob.ident.ID.String()); err == nil {
		c.Close()
		t.Error("it can be reached")
	}
	if n := len(bob.host.Network().Conns()); n > 0 {
		t.Errorf("it has %d connections", n)
	}
	_, err = bob.DrillFall(t.Context(), ada.ident.ID.String(), client.DrillFall{For: 5})
	wantKind(t, "twice", err, client.KindUnready, "in a drill")
	if err := circleOf(t, ada).names.Put("test/meanwhile", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if s, err = bob.DrillStop(t.Context()); err != nil || !s.Until.IsZero() || s.Stops != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	within(t, healedWithin, "all three list all three again", func() bool {
		return !slices.ContainsFunc([]*Node{ada, bob, cy}, func(n *Node) bool { return !slices.Equal(online(n), []string{"ada", "bob", "cy"}) })
	})
	within(t, healedWithin, "the same names", func() bool { return inStep(t, []*Node{ada, bob, cy}) })
}

// TestItComesBackByItself: nothing has to be done for it, and a peer may end in the middle.
func TestItComesBackByItself(t *testing.T) {
	ada, bob, _ := drillers(t)
	fall := func() {
		t.Helper()
		if _, err := asks(t, ada, "bob").DrillAsk(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := asks(t, ada, "bob").DrillFall(t.Context(), client.DrillFall{For: client.DrillLeast.Seconds()}); err != nil {
			t.Fatal(err)
		}
		within(t, healedWithin, "bob is gone", func() bool { _, err := bob.circle(); return err != nil })
	}
	fall()
	within(t, client.DrillLeast+healedWithin, "bob is back", func() bool { return slices.Equal(online(ada), []string{"ada", "bob", "cy"}) })
	within(t, healedWithin, "bob sees the others", func() bool { return slices.Equal(online(bob), []string{"ada", "bob", "cy"}) })
	fall()
	if err := bob.Close(); err != nil {
		t.Error(err)
	}
	if bob.current.Load() != nil {
		t.Error("it came back to end")
	}
}
