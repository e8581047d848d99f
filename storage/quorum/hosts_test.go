package quorum

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// table is a machine: numbers by key.
type table struct {
	Values map[string]int
	Count  uint64
}

func newTable(GroupID) Machine { return &table{Values: map[string]int{}} }

// wish is a command for a table.
type wish struct {
	Key string
	Add int
	Set *int `json:",omitempty"`
	Pad []byte
}

func (w wish) encode() []byte {
	data, _ := json.Marshal(w)
	return data
}

func (t *table) Apply(e Entry) []byte {
	var w wish
	t.Count = e.Index
	if json.Unmarshal(e.Data, &w) != nil {
		return nil
	}
	if w.Set != nil {
		t.Values[w.Key] = *w.Set
	}
	t.Values[w.Key] += w.Add
	return binary.BigEndian.AppendUint64(nil, uint64(t.Values[w.Key]))
}

func (t *table) Snapshot() ([]byte, error) { return json.Marshal(t) }

func (t *table) Restore(data []byte) error {
	*t = table{}
	return json.Unmarshal(data, t)
}

func add(key string, n int) []byte { return wish{Key: key, Add: n}.encode() }

func number(result []byte) int {
	if len(result) != 8 {
		return -1
	}
	return int(binary.BigEndian.Uint64(result))
}

func value(g *Group, key string) (n int) {
	g.View(func(m Machine) { n = m.(*table).Values[key] })
	return n
}

func keyOf(n int) (crypto.PrivKey, peer.ID, error) {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

func newKey(t testing.TB, n int) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, id, err := keyOf(n)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// realPeer is a host on loopback with an engine. It is its own Streams and Presence, as the pool would be.
type realPeer struct {
	*Engine
	host host.Host
	dir  string
}

func (p *realPeer) Handle(id protocol.ID, h network.StreamHandler) { p.host.SetStreamHandler(id, h) }

func (p *realPeer) NewStream(ctx context.Context, to peer.ID, id protocol.ID) (network.Stream, error) {
	return p.host.NewStream(ctx, to, id)
}

func (p *realPeer) Present(id peer.ID) bool {
	return p.host.Network().Connectedness(id) == network.Connected
}

func (p *realPeer) OnPresence(f func(peer.ID, bool)) (stop func()) {
	n := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { f(c.RemotePeer(), true) },
		DisconnectedF: func(_ network.Network, c network.Conn) { f(c.RemotePeer(), p.Present(c.RemotePeer())) },
	}
	p.host.Network().Notify(n)
	return func() { p.host.Network().StopNotify(n) }
}

func newRealPeer(t testing.TB, n int) *realPeer {
	t.Helper()
	p := &realPeer{dir: t.TempDir()}
	p.open(t, n)
	return p
}

func (p *realPeer) open(t testing.TB, n int) {
	t.Helper()
	if err := p.begin(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.close() })
}

func (p *realPeer) begin(n int) error {
	key, id, err := keyOf(n)
	if err != nil {
		return err
	}
	p.host, err = libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		return err
	}
	p.Engine, err = Open(Config{Dir: p.dir, Self: id, Streams: p, Presence: p})
	if err != nil {
		return err
	}
	p.Register("table", newTable)
	p.Register("counter", func(GroupID) Machine { return new(counter) })
	return nil
}

func (p *realPeer) close() error { return errors.Join(p.Engine.Close(), p.host.Close()) }

func connect(t testing.TB, peers ...*realPeer) {
	t.Helper()
	for i, a := range peers {
		for _, b := range peers[i+1:] {
			if err := a.host.Connect(t.Context(), peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// trio is three connected peers with one group.
func trio(t testing.TB, kind string) (peers []*realPeer, groups []*Group) {
	t.Helper()
	var ids []peer.ID
	for n := range 3 {
		p := newRealPeer(t, n+1)
		peers = append(peers, p)
		ids = append(ids, p.host.ID())
	}
	connect(t, peers...)
	id := GroupID{1}
	start := time.Now()
	defer func() { t.Log("a group of three was made in", time.Since(start)) }()
	if _, err := peers[0].Create(t.Context(), id, kind, ids); err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		g, ok := p.Group(id)
		if !ok {
			t.Fatal("a voter has no replica")
		}
		groups = append(groups, g)
	}
	return peers, groups
}

func TestThreeRealHosts(t *testing.T) {
	start := time.Now()
	peers, groups := trio(t, "table")
	t.Log("created after", time.Since(start))
	var wg sync.WaitGroup
	for _, g := range groups {
		for range 8 {
			wg.Go(func() {
				for range 25 {
					if _, err := g.Propose(t.Context(), add("n", 1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for i, g := range groups {
		if err := g.Read(t.Context()); err != nil || value(g, "n") != 600 {
			t.Errorf("peer %d reads %d: %v", i, value(g, "n"), err)
		}
	}
	// The leader's process ends without a word.
	leader, _, _ := groups[1].Leader()
	for i, p := range peers {
		if p.host.ID() != leader {
			continue
		}
		_ = p.host.Close()
		start = time.Now()
		other := groups[(i+1)%3]
		if r, err := other.Propose(t.Context(), add("n", 1)); err != nil || number(r) != 601 {
			t.Errorf("%d, %v", number(r), err)
		}
		t.Log("the next command was applied", time.Since(start), "after the leader was gone")
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("that took %v", d)
		}
	}
}

// What a group holds is far more than fits into its log: a newcomer gets it as a snapshot, and a peer that starts again reads one.
func TestSnapshotsBetweenRealHosts(t *testing.T) {
	peers, groups := trio(t, "table")
	pad := make([]byte, 3000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				if _, err := groups[0].Propose(t.Context(), wish{Key: "n", Add: 1, Pad: pad}.encode()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := groups[0].Status()
	if st.LogBytes > 1<<20 {
		t.Errorf("%d bytes of log", st.LogBytes)
	}
	fourth := newRealPeer(t, 4)
	connect(t, append(peers, fourth)...)
	if err := groups[1].Add(t.Context(), fourth.host.ID()); err != nil {
		t.Fatal(err)
	}
	if err := groups[1].Remove(t.Context(), peers[0].host.ID()); err != nil {
		t.Fatal(err)
	}
	g, ok := fourth.Group(GroupID{1})
	if !ok || g.Read(t.Context()) != nil || value(g, "n") != 480 {
		t.Fatal("the newcomer has", value(g, "n"))
	}
	if err := fourth.close(); err != nil {
		t.Fatal(err)
	}
	fourth.open(t, 4)
	connect(t, peers[1], peers[2], fourth)
	if g, ok := fourth.Group(GroupID{1}); !ok || g.Read(t.Context()) != nil || value(g, "n") != 480 {
		t.Error("after a restart it has", value(g, "n"))
	}
}
