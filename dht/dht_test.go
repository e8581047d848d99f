package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
)

func identity(t testing.TB) ident.Identity {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ident.Identity{Key: key, ID: id}
}

func startHost(t *testing.T, who ident.Identity) *host.Host {
	t.Helper()
	return startHostOn(t, who, "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1")
}

func startHostOn(t *testing.T, who ident.Identity, listen ...string) *host.Host {
	t.Helper()
	h, err := host.New(host.Config{Identity: who, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func start(t *testing.T, cfg Config) *DHT {
	t.Helper()
	return startOn(t, startHost(t, identity(t)), cfg)
}

func startOn(t *testing.T, h *host.Host, cfg Config) *DHT {
	t.Helper()
	d, err := New(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func info(d *DHT) peer.AddrInfo { return peer.AddrInfo{ID: d.host.ID(), Addrs: d.host.Addrs()} }

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func context30(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (d *DHT) has(other *DHT) bool {
	return slices.ContainsFunc(d.Peers(), func(p PeerInfo) bool { return p.ID == other.host.ID() })
}

// find runs one lookup to its end.
func find(t *testing.T, d *DHT, k Key) ([]peer.AddrInfo, error) {
	t.Helper()
	var out []peer.AddrInfo
	for info, err := range d.FindProviders(context30(t), k) {
		if err != nil {
			return out, err
		}
		out = append(out, info)
	}
	return out, nil
}

// Two peers that never met find each other through a third that both know. Seeding begins before anyone is known.
func TestProviderIsFoundThroughAThird(t *testing.T) {
	seeder, middle := start(t, Config{}), start(t, Config{})
	k := Key{1, 2, 3}
	seeder.Seed(k)
	seeder.Seed(k)
	if !seeder.Provided(k).IsZero() {
		t.Error("announced to nobody")
	}
	seeder.AddPeers(info(middle))
	eventually(t, "the key is announced", func() bool { return !seeder.Provided(k).IsZero() })

	getter := start(t, Config{Bootstrap: []peer.AddrInfo{info(middle)}})
	eventually(t, "the getter has joined", func() bool { return getter.has(middle) })
	got, err := find(t, getter, k)
	if err != nil || len(got) == 0 || got[0].ID != seeder.host.ID() || len(got[0].Addrs) == 0 {
		t.Fatalf("found %v, %v", got, err)
	}
	if err := getter.host.Connect(context30(t), got[0]); err != nil {
		t.Fatal(err)
	}
	if paths := getter.host.Paths(seeder.host.ID()); len(paths) == 0 || paths[0].Transport != host.TransportTLS {
		t.Errorf("connected over %+v", paths)
	}
	if own, err := find(t, seeder, k); err != nil || len(own) != 0 {
		t.Errorf("the seeder found itself: %v, %v", own, err)
	}
	if none, err := find(t, getter, Key{9}); err != nil || len(none) != 0 {
		t.Errorf("an unknown key: %v, %v", none, err)
	}
}

func TestFindEndsEarly(t *testing.T) {
	alone := start(t, Config{})
	if _, err := find(t, alone, Key{1}); !errors.Is(err, ErrNoPeers) {
		t.Errorf("alone: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := 0
	for _, err := range alone.FindProviders(ctx, Key{1}) {
		if n++; !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d results of a canceled lookup", n)
	}
	closed, err := New(startHost(t, identity(t)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(closed.Close(), closed.Close()); err != nil {
		t.Fatal(err)
	}
	for _, err := range closed.FindProviders(t.Context(), Key{1}) {
		if !errors.Is(err, errClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}

// A caller may break off; the lookup's goroutine must not be left behind waiting for it.
func TestFindBrokenOff(t *testing.T) {
	middle := start(t, Config{})
	k := Key{7}
	for range 3 {
		s := start(t, Config{Bootstrap: []peer.AddrInfo{info(middle)}})
		s.Seed(k)
		eventually(t, "announced", func() bool { return !s.Provided(k).IsZero() })
	}
	getter := start(t, Config{Bootstrap: []peer.AddrInfo{info(middle)}})
	eventually(t, "joined", func() bool { return getter.has(middle) })
	for info, err := range getter.FindProviders(t.Context(), k) {
		if err != nil || info.ID == "" {
			t.Errorf("%v, %v", info, err)
		}
		break
	}
}

// A peer that comes later hears of what was announced before it came, without waiting 25 minutes.
func TestLatecomerLearnsOfOldSeeds(t *testing.T) {
	seeder := start(t, Config{})
	// The first will be gone and still asked. On TCP alone that fails at once; QUIC takes five seconds to give up.
	first := startOn(t, startHostOn(t, identity(t), "/ip4/127.0.0.1/tcp/0"), Config{Bootstrap: []peer.AddrInfo{info(seeder)}})
	k := Key{4}
	seeder.Seed(k)
	eventually(t, "announced", func() bool { return !seeder.Provided(k).IsZero() })
	before := seeder.Provided(k)
	if err := first.host.Close(); err != nil {
		t.Fatal(err)
	}
	late := start(t, Config{Bootstrap: []peer.AddrInfo{info(seeder)}})
	eventually(t, "announced again", func() bool { return seeder.Provided(k).After(before) })
	eventually(t, "the latecomer holds the record", func() bool {
		got, err := late.kad.ProviderStore().GetProviders(t.Context(), k.cid().Hash())
		return err == nil && len(got) == 1 && got[0].ID == seeder.host.ID()
	})
	seeder.Unseed(k)
	if !seeder.Provided(k).IsZero() {
		t.Error("still seeded")
	}
}

func TestStrangersStayOutOfTheTable(t *testing.T) {
	d := start(t, Config{})
	stranger := startHost(t, identity(t)) // speaks libp2p, but not our protocol
	d.AddPeers(peer.AddrInfo{ID: stranger.ID(), Addrs: stranger.Addrs()})
	eventually(t, "connected", func() bool { return len(d.host.Paths(stranger.ID())) > 0 })
	friend := start(t, Config{})
	d.AddPeers(info(friend))
	eventually(t, "the friend is in the table", func() bool { return d.has(friend) })
	if d.Table() != 1 {
		t.Errorf("%d peers in the table", d.Table())
	}
	if known := d.memory.peers(); len(known) != 1 || known[0].ID != friend.host.ID() {
		t.Errorf("remembered %v", known)
	}
}

// watchTable leans on a tag of kad-dht's: if it were renamed, nothing would ever be announced.
func TestWatch(t *testing.T) {
	var mu sync.Mutex
	var added []peer.ID
	h := startHost(t, identity(t))
	w := watchTable(h, tableEvents{added: func(p peer.ID) {
		mu.Lock()
		defer mu.Unlock()
		added = append(added, p)
	}})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(added)
	}
	w.ConnManager().Protect("p", "other")
	w.ConnManager().TagPeer("p", "other", 1)
	if count() != 0 {
		t.Fatal("another tag counts")
	}
	w.ConnManager().Protect("p", tableTag)
	w.ConnManager().TagPeer("q", tableTag, 1)
	if count() != 2 || !h.ConnManager().IsProtected("p", tableTag) {
		t.Fatalf("told of %d, or the tag was kept back", count())
	}
	d := start(t, Config{})
	other := start(t, Config{Bootstrap: []peer.AddrInfo{info(d)}})
	eventually(t, "both were told", func() bool { return d.seeder.isOpen() && other.seeder.isOpen() })
}

func (s *seeder) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.open
}

// After a restart the peers of before are found without any address given.
func TestPeersAreRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	middle := start(t, Config{})
	who := identity(t)
	h := startHost(t, who)
	d, err := New(h, Config{Bootstrap: []peer.AddrInfo{info(middle)}, Remembered: file})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "joined", func() bool { return d.has(middle) })
	if err := errors.Join(d.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != rememberFileMode {
		t.Fatalf("%v, %v", fi, err)
	}
	again, err := New(startHost(t, who), Config{Remembered: file})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	eventually(t, "joined again", func() bool { return again.has(middle) })
}

func TestAddPeersIgnoresNonsense(t *testing.T) {
	d := start(t, Config{})
	d.AddPeers(info(d), peer.AddrInfo{}, peer.AddrInfo{ID: identity(t).ID})
	if n := len(d.dialer.work); n != 0 {
		t.Errorf("%d dials wait", n)
	}
}

func TestDialerIsBounded(t *testing.T) {
	q := newDialer(startHost(t, identity(t))) // not run
	for i := range dialsWaiting + 10 {
		who := identity(t).ID
		q.offer(peer.AddrInfo{ID: who, Addrs: q.host.Addrs()})
		q.offer(peer.AddrInfo{ID: who, Addrs: q.host.Addrs()})
		if want := min(i+1, dialsWaiting); len(q.work) != want || len(q.waiting) != want {
			t.Fatalf("%d and %d wait after %d offers", len(q.work), len(q.waiting), i+1)
		}
	}
}

// Ten peers that know only the first find each other's keys.
func TestSmallNetwork(t *testing.T) {
	first := start(t, Config{})
	peers := []*DHT{first}
	for range 9 {
		peers = append(peers, start(t, Config{Bootstrap: []peer.AddrInfo{info(first)}}))
	}
	for i, d := range peers {
		d.Seed(Key{byte(i + 1)})
	}
	for i, d := range peers {
		eventually(t, fmt.Sprintf("key %d is announced", i), func() bool { return !d.Provided(Key{byte(i + 1)}).IsZero() })
	}
	for i := range peers {
		asker, want := peers[(i+5)%len(peers)], peers[i].host.ID()
		eventually(t, fmt.Sprintf("key %d is found", i), func() bool {
			got, err := find(t, asker, Key{byte(i + 1)})
			return err == nil && slices.ContainsFunc(got, func(p peer.AddrInfo) bool { return p.ID == want })
		})
	}
}
