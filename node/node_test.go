package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/node/api"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// start starts a peer on loopback that looks for nobody.
func start(t *testing.T, home string) *Node {
	t.Helper()
	n, err := Start(t.Context(), Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
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

func TestOnePeerAHome(t *testing.T) {
	home := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	n := start(t, home)
	_, err := Start(t.Context(), Config{Home: home})
	if client.KindOf(err) != client.KindBusy || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second peer: %v", err)
	}
	if CheckFree(home) == nil {
		t.Error("a held home counts as free")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := CheckFree(home); err != nil {
		t.Error(err)
	}
	again := start(t, home)
	if a, b := n.ident.ID, again.ident.ID; a != b {
		t.Errorf("the identity changed from %s to %s", a, b)
	}
}

func TestAFailedStartLetsGoOfTheHome(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "identity.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Home: home})
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindHome || e.Hint == "" {
		t.Errorf("damaged key: %#v", err)
	}
	if err := CheckFree(home); err != nil {
		t.Error(err)
	}
}

func TestStopIsAsked(t *testing.T) {
	n := start(t, t.TempDir())
	select {
	case <-n.Done():
		t.Fatal("done before anybody asked")
	default:
	}
	n.Stop()
	n.Stop()
	<-n.Done()
}

func TestOfflineIsUnlistedAndLeavesNoTrace(t *testing.T) {
	home := t.TempDir()
	n, err := Start(t.Context(), Config{Home: home, Offline: true, LAN: true, Listen: []string{"/ip4/0.0.0.0/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(home); !errors.Is(err, client.ErrNoPeer) {
		t.Errorf("an offline peer is listed: %v", err)
	}
	c := client.New(home, n.Endpoint())
	defer c.Close()
	s, err := c.Status(t.Context())
	if err != nil || s.LAN || !n.host.Confined() {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{portFile, peersFile} {
		if _, err := os.Stat(filepath.Join(home, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigIsValidated(t *testing.T) {
	home := t.TempDir()
	for name, cfg := range map[string]Config{
		"no home":       {},
		"listen":        {Home: home, Listen: []string{"localhost:1"}},
		"bootstrap":     {Home: home, Bootstrap: []string{"/ip4/127.0.0.1/tcp/1"}},
		"many to begin": {Home: home, Bootstrap: slices.Repeat([]string{"x"}, bootstrapMax+1)},
		"api":           {Home: home, API: api.Network("post")},
	} {
		if _, err := Start(t.Context(), cfg); client.KindOf(err) != client.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPathsAreAbsolute(t *testing.T) {
	n := start(t, t.TempDir())
	if _, err := n.Share(t.Context(), client.ShareRequest{Path: "x"}, nil); client.KindOf(err) != client.KindInvalid {
		t.Errorf("share: %v", err)
	}
	if _, err := n.Get(t.Context(), client.GetRequest{Link: "x", Dest: "x"}, nil); client.KindOf(err) != client.KindInvalid {
		t.Errorf("get: %v", err)
	}
	if err := n.Unshare(t.Context(), "x"); client.KindOf(err) != client.KindInvalid {
		t.Errorf("unshare: %v", err)
	}
	if err := n.Unshare(t.Context(), chunk.SumRaw(nil).String()); client.KindOf(err) != client.KindNotFound {
		t.Errorf("unshare of an unknown root: %v", err)
	}
}

func TestKindsOfStorageErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want client.Kind
	}{
		{&exchange.NoProviderError{}, client.KindNotFound},
		{storage.ErrNotShared, client.KindNotFound},
		{storage.ErrExists, client.KindExists},
		{storage.ErrSpace, client.KindNoSpace},
		{&fs.PathError{Err: syscall.ENOSPC}, client.KindNoSpace},
		{storage.ErrChanging, client.KindChanged},
		{chunk.ErrTree, client.KindCorrupt},
		{exchange.ErrBusy, client.KindBusy},
		{fs.ErrPermission, client.KindPermission},
		{fs.ErrNotExist, client.KindMissing},
		{context.Canceled, client.KindStopping},
		{errors.New("x"), client.KindInternal},
	} {
		if got := storageKind(fmt.Errorf("storage: %w", c.err), client.KindInternal); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
	if got := (inPlainWords{errors.New("storage: get: exchange: nobody")}).Error(); got != "nobody" {
		t.Errorf("%q", got)
	}
}

func TestLinkAddresses(t *testing.T) {
	const id = "/p2p/12D3KooWR4pgg9gycpD51d6sbjKuy4pzDtVaFCNU9cxaijxV5U84"
	parse := func(addrs ...string) (out []multiaddr.Multiaddr) {
		for _, a := range addrs {
			out = append(out, multiaddr.StringCast(a+id))
		}
		return out
	}
	all := parse("/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/192.168.1.2/tcp/1",
		"/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/8.8.8.8/tcp/1", "/ip4/192.168.1.3/tcp/1", "/ip4/192.168.1.4/tcp/1")
	got := linkAddrs(all)
	want := parse("/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/192.168.1.2/tcp/1", "/ip4/192.168.1.3/tcp/1",
		"/ip4/192.168.1.4/tcp/1", "/ip4/192.168.1.2/udp/1/quic-v1")
	if len(got) != linkAddrsMax || !slices.EqualFunc(got, want, multiaddr.Multiaddr.Equal) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if alone := parse("/ip4/127.0.0.1/tcp/1"); len(linkAddrs(alone)) != 1 {
		t.Error("a link with no address at all")
	}
}

func TestExamineHomeOfNobody(t *testing.T) {
	home := filepath.Join(t.TempDir(), "not-there")
	checks := ExamineHome(home)
	if len(checks) != 1 || checks[0].State != client.CheckWarn {
		t.Errorf("%+v", checks)
	}
	if _, err := os.Stat(home); !errors.Is(err, fs.ErrNotExist) {
		t.Error("looking at a home made it")
	}
}

// TestTheTimeOfDayIsOne: what a peer says and signs is by the clock that it was given, and follows when that jumps.
func TestTheTimeOfDayIsOne(t *testing.T) {
	var wrong atomic.Int64
	now := func() time.Time { return time.Now().Round(0).Add(time.Duration(wrong.Load())) }
	wrong.Store(int64(-30 * time.Hour))
	n := startNamed(t, "ada", Config{Now: now})
	about := func(what string, got time.Time) {
		t.Helper()
		if d := got.Sub(now()); d.Abs() > time.Minute {
			t.Errorf("%s is off by %v", what, d)
		}
	}
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	about("the start", s.Started)
	for _, jump := range []time.Duration{0, 40 * time.Hour, -2 * time.Hour} {
		wrong.Add(int64(jump))
		c := circleOf(t, n)
		inv, err := n.Invite(t.Context(), client.InviteRequest{TTL: 600})
		if err != nil {
			t.Fatal(err)
		}
		about("an invitation's end", inv.Expires.Add(-10*time.Minute))
		// The pool's time goes on as it was until the leap is taken up; then nobody is there who knows better.
		within(t, time.Second, "the pool's time", func() bool { return c.names.Now().Sub(now()).Abs() < time.Minute })
		if err := c.names.Put("test/a", []byte(jump.String())); err != nil {
			t.Fatal(err)
		}
		r, _ := c.names.Get("test/a")
		about("a record", r.Time.Time())
		ctx, stop := context.WithCancel(t.Context())
		if err := n.PoolEvents(ctx, 0, false, func(e client.PoolEvent) error { stop(); about("an event", e.Time); return nil }); err != nil {
			t.Error(err)
		}
		stop()
	}
}
