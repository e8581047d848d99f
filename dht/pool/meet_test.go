package pool

import (
	"context"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/roster"
)

// board is a DHT in memory, as several peers see it.
type board struct {
	mu   sync.Mutex
	seen map[[32]byte]map[peer.ID]peer.AddrInfo
}

type finder struct {
	*board
	host *host.Host
}

func (f finder) Seed(key [32]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[key] == nil {
		f.seen[key] = make(map[peer.ID]peer.AddrInfo)
	}
	f.seen[key][f.host.ID()] = peer.AddrInfo{ID: f.host.ID(), Addrs: f.host.Addrs()}
}

func (f finder) Unseed(key [32]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.seen[key], f.host.ID())
}

func (f finder) FindProviders(_ context.Context, key [32]byte) iter.Seq2[peer.AddrInfo, error] {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []peer.AddrInfo
	for _, info := range f.seen[key] {
		all = append(all, info)
	}
	return func(yield func(peer.AddrInfo, error) bool) {
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// move closes the peer and starts it again at another address, as a laptop that is carried to another network.
func (b *box) move(d *board) {
	b.t.Helper()
	if err := b.pool.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.host.Close(); err != nil {
		b.t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: b.self, Listen: []string{loopback}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = h.Close() })
	b.host, b.cfg.Host, b.cfg.Finder = h, h, finder{d, h}
	b.open()
}

// Members that have all moved find each other at the points that follow from the pool's secret; the others who look at the
// same board do not even know which entries belong to the pool.
func TestMeeting(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "they meet", func() bool { return a.names() == "anna ben" && b.names() == "anna ben" })
	d := &board{seen: make(map[[32]byte]map[peer.ID]peer.AddrInfo)}
	a.move(d)
	wait(t, 5*time.Second, "anna is announced", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.seen) > 0
	})
	b.move(d)
	wait(t, 10*time.Second, "they meet again", func() bool { return a.names() == "anna ben" && b.names() == "anna ben" })
}

func TestMeetingPoints(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	one, two := []secret{{number: 1, key: [32]byte{1}}}, []secret{{number: 2, key: [32]byte{2}}}
	if n := len(meetings(one, noon)); n != 1 {
		t.Errorf("%d points at noon", n)
	}
	if n := len(meetings(one, noon.Add(10*time.Hour))); n != 2 {
		t.Errorf("%d points in the late evening", n)
	}
	for key := range meetings(one, noon) {
		if meetings(two, noon)[key] {
			t.Error("two secrets have the same point")
		}
		if meetings(one, noon.Add(48*time.Hour))[key] {
			t.Error("two days have the same point")
		}
		if !meetings(append(two, one...), noon)[key] {
			t.Error("who has both secrets does not come to the point of the first")
		}
	}
}

// A member found on the local network that this peer does not know yet is recognised, and a stranger is asked only once.
func TestFoundNearby(t *testing.T) {
	a, b := newBox(t, "anna"), newBox(t, "ben")
	c := newBox(t, "cleo")
	b.join(a, InviteOptions{})
	wait(t, 5*time.Second, "they meet", func() bool { return a.names() == "anna ben" })
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	c.join(a, InviteOptions{})
	if err := a.pool.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.pool.foundNearby(peer.AddrInfo{ID: c.self.ID, Addrs: c.host.Addrs()})
	wait(t, 5*time.Second, "ben and cleo meet", func() bool { return b.names() == "ben cleo" && c.names() == "ben cleo" })
	id := newIdentity(t, "x").ID
	err := b.pool.do(t.Context(), func() {
		if !b.pool.mayAsk(id) || b.pool.mayAsk(id) {
			t.Error("a stranger is asked again and again")
		}
		b.skew.Add(int64(strangerAgain))
		if !b.pool.mayAsk(id) {
			t.Error("a stranger is never asked again")
		}
		for range strangersMax {
			b.pool.asked[newIdentity(t, "x").ID] = b.pool.clock.boot()
		}
		if len(b.pool.asked) > strangersMax && b.pool.mayAsk(newIdentity(t, "x").ID) {
			t.Error("more strangers are remembered than the limit")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, reason := b.pool.view().Judge(id, time.Now()); reason != roster.Stranger {
		t.Error(reason)
	}
}
