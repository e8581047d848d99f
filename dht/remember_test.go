package dht

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

func someone(t testing.TB, port int) peer.AddrInfo {
	t.Helper()
	a, err := multiaddr.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port))
	if err != nil {
		t.Fatal(err)
	}
	return peer.AddrInfo{ID: identity(t).ID, Addrs: []multiaddr.Multiaddr{a}}
}

func TestMemoryKeepsTheNewest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	m := newMemory(file, nil)
	now := time.Now().Truncate(time.Second)
	var all []peer.AddrInfo
	for i := range 3 * rememberMax {
		all = append(all, someone(t, i+1))
		m.seen(all[i], now.Add(time.Duration(i)*time.Second-time.Hour))
		if len(m.known) > 2*rememberMax {
			t.Fatalf("%d in memory", len(m.known))
		}
	}
	if err := m.save(now); err != nil {
		t.Fatal(err)
	}
	got := newMemory(file, nil).peers()
	if len(got) != rememberMax {
		t.Fatalf("%d remembered", len(got))
	}
	for i, p := range got {
		if want := all[len(all)-1-i]; p.ID != want.ID || !p.Addrs[0].Equal(want.Addrs[0]) {
			t.Fatalf("place %d holds %v, want %v", i, p, want)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestMemoryForgets(t *testing.T) {
	m := newMemory("", nil)
	now := time.Now()
	m.seen(someone(t, 1), now.Add(-rememberLife))
	m.seen(peer.AddrInfo{ID: identity(t).ID}, now) // no address, no use
	young := someone(t, 2)
	for range rememberAddrs {
		young.Addrs = append(young.Addrs, young.Addrs[0])
	}
	m.seen(young, now)
	got := m.peers()
	if len(got) != 1 || got[0].ID != young.ID || len(got[0].Addrs) != rememberAddrs {
		t.Errorf("remembered %v", got)
	}
	if err := m.save(now); err != nil {
		t.Errorf("saving nowhere: %v", err)
	}
}

func TestMemoryOfABadFile(t *testing.T) {
	good := someone(t, 7)
	data, err := encodePeers([]remembered{{info: good, seen: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	mixed := strings.Replace(string(data), `"peers": [`, `"peers": [{"id":"x","addrs":["/ip4/127.0.0.1/tcp/1"]},
		{"id":"`+good.ID.String()+`","addrs":["nonsense"]},`, 1)
	for name, c := range map[string]struct {
		data []byte
		want int
	}{
		"empty":     {nil, 0},
		"garbage":   {[]byte("{"), 0},
		"cut":       {data[:len(data)/2], 0},
		"too large": {append(data, bytes.Repeat([]byte(" "), rememberFileMax)...), 0},
		"mixed":     {[]byte(mixed), 1},
	} {
		file := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(file, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		m := newMemory(file, nil)
		if got := m.peers(); len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
		m.seen(someone(t, 8), time.Now())
		if err := m.save(time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := newMemory(file, nil).peers(); len(got) != c.want+1 {
			t.Errorf("%s: after saving %v", name, got)
		}
	}
}

func TestMemoryCannotBeSaved(t *testing.T) {
	m := newMemory(filepath.Join(t.TempDir(), "no", "such", "folder", "peers.json"), nil)
	m.seen(someone(t, 1), time.Now())
	if err := m.save(time.Now()); err == nil {
		t.Error("saved into nothing")
	}
	if !m.dirty {
		t.Error("counts as saved")
	}
}

// The file is written once for many changes, some seconds after the first.
func TestMemoryGathersChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(file, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.run(ctx)
		}()
		for i := range 5 {
			m.seen(someone(t, i+1), time.Now())
		}
		pass(rememberSettle - time.Millisecond)
		if _, err := os.Stat(file); err == nil {
			t.Error("written at once")
		}
		pass(time.Millisecond)
		if got := newMemory(file, nil).peers(); len(got) != 5 {
			t.Errorf("%d written", len(got))
		}
		cancel()
		<-done
	})
}

func FuzzPeersFile(f *testing.F) {
	data, err := encodePeers([]remembered{{info: someone(f, 7), seen: time.Unix(1e9, 0)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"peers":[{"id":"x"},{}]}`))
	f.Add([]byte(`{"peers":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		peers, err := decodePeers(data)
		if err != nil {
			return
		}
		if len(peers) > rememberMax {
			t.Errorf("%d peers", len(peers))
		}
		again, err := encodePeers(peers)
		if err != nil {
			return // a year that JSON has no form for
		}
		back, err := decodePeers(again)
		if err != nil || len(back) != len(peers) {
			t.Errorf("%d peers came back as %d, %v", len(peers), len(back), err)
		}
	})
}
