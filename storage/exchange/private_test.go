package exchange

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// inMembers says that who has a name like "member1" is a member.
func inMembers(p peer.ID) bool { return strings.HasPrefix(string(p), "member") }

// privately gives a node private roots, in a store of their own.
func privately(t testing.TB, damaged ...func(chunk.CID)) (*block.Store, func(*Config)) {
	t.Helper()
	st, err := block.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st, func(c *Config) {
		c.Private, c.Member = st, inMembers
		for _, f := range damaged {
			c.Damaged = f
		}
	}
}

// answer is all that a server says to a Hello before it waits for requests.
func answer(t *testing.T, net *memNet, n *node, name string, root chunk.CID) string {
	t.Helper()
	x := net.client(t, name, n, nil)
	if err := wire.WriteMsg(x.st, &Hello{Root: root.Bytes()}, helloMax); err != nil {
		t.Fatal(err)
	}
	_ = x.st.SetReadDeadline(time.Now().Add(time.Minute))
	said, err := io.ReadAll(x.br)
	return fmt.Sprintf("%x, %v", said, err)
}

func TestPrivateIsUnknownToStrangers(t *testing.T) {
	hidden, open := folderSample(t), makeSample(t, map[string][]byte{"": []byte("for all")})
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		st, private := privately(t)
		n := net.node(t, "server", private)
		hidden.share(t, st)
		open.share(t, st)
		open.share(t, n.store)

		unknown := answer(t, net, n, "stranger", chunk.SumRaw([]byte("nobody has this")))
		if got := answer(t, net, n, "stranger", hidden.root); got != unknown {
			t.Errorf("a stranger is told of a private root: %s, of an unknown one: %s", got, unknown)
		}
		for _, name := range []string{"member1", "stranger"} {
			x := net.client(t, name, n, open)
			if w, err := x.hello(open.root.Bytes()); err != nil || w.Error != 0 {
				t.Errorf("%s: a root that is public, too: %v, %v", name, w, err)
			}
		}
		x := net.client(t, "member1", n, hidden)
		w, err := x.hello(hidden.root.Bytes())
		if err != nil || w.Error != 0 || !w.Private {
			t.Fatalf("%v, %v", w, err)
		}
		if err := x.ask(bitfield.Run{First: 3, Count: 1}); err != nil {
			t.Fatal(err)
		}
		x.leaf(3)
		if k := n.Serving(hidden.root); k != 0 {
			t.Errorf("%d peers are listed as served in public", k)
		}
	})
}

// A job with Private asks nobody but members, whoever names others, and no finder.
func TestPrivateAsksMembersOnly(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		st, private := privately(t)
		holder := net.node(t, "member1", private)
		s.share(t, st)
		stranger := net.host("stranger")
		stranger.SetStreamHandler(Protocol, func(st network.Stream) {
			t.Error("a stranger was asked")
			_ = st.Reset()
		})
		f := &finder{ready: make(chan struct{}), peers: []peer.AddrInfo{infoOf(stranger)}}
		close(f.ready)
		mine, private := privately(t)
		n := net.node(t, "member2", private, func(c *Config) { c.Finder = f })
		out := filepath.Join(t.TempDir(), "out")
		_, begin := n.begin(t)
		spec := Job{Root: s.root, Private: true, Begin: begin, Timeout: time.Minute, From: []peer.AddrInfo{infoOf(stranger)}}
		var none *NoProviderError
		if _, err := n.Fetch(t.Context(), spec); !errors.As(err, &none) || len(none.Tried) != 0 {
			t.Errorf("with nobody but a stranger: %v", err)
		}
		spec.From = append(spec.From, infoOf(holder.host))
		root, err := mine.Begin(s.tree, s.nodes, "x", out)
		if err != nil {
			t.Fatal(err)
		}
		spec.Into = root
		if _, err := n.Fetch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := root.Finish(false); err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
	})
}

// Who has a root, or fetches it, as a member is named to members only.
func TestPrivateSwarmIsNotNamed(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		st, private := privately(t)
		n := net.node(t, "server", private)
		s.share(t, st)
		s.share(t, n.store)
		net.client(t, "member1", n, s).greet()
		net.client(t, "stranger1", n, s).greet()
		synctest.Wait()
		j := &job{connected: []source{{"member2", true}, {"stranger2", false}}}
		n.jobs[circle{s.root, false}] = j
		n.jobs[circle{s.root, true}] = &job{connected: []source{{"member3", true}}}
		for name, want := range map[string]string{
			"stranger": "stranger1 stranger2",
			"member":   "member1 member2 member3 stranger1 stranger2",
		} {
			root, hidden, _ := n.find(s.root, peer.ID(name))
			u := &upload{swarm: n.Swarm, peer: peer.ID(name), root: root, private: hidden, member: n.member(peer.ID(name))}
			var got []string
			for _, p := range u.members() {
				got = append(got, string(p))
			}
			slices.Sort(got)
			if have := strings.Join(got, " "); have != want {
				t.Errorf("%s is told of %s, want %s", name, have, want)
			}
		}
		clear(n.jobs)
	})
}

// A leaf of a private root that has rotted is not served, and somebody is told.
func TestPrivateIsVerifiedWhenServed(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		told := make(chan chunk.CID, 8)
		st, private := privately(t, func(c chunk.CID) { told <- c })
		n := net.node(t, "server", private)
		s.share(t, st)
		r, _ := st.Root(s.root)
		flip(t, r.Info().Path, s, 0)
		x := net.client(t, "member1", n, s)
		x.greet()
		if err := x.ask(bitfield.Run{First: 0, Count: 2}); err != nil {
			t.Fatal(err)
		}
		if kind, _, err := x.next(); err != nil || kind != frameGone {
			t.Fatalf("frame %d, %v", kind, err)
		}
		x.leaf(1)
		if c := <-told; c != s.root {
			t.Errorf("told of %s", c)
		}
	})
}

// flip changes a bit of a leaf's file and leaves its time as it was.
func flip(t *testing.T, dir string, s *sample, leaf int) {
	t.Helper()
	path := filepath.Join(dir, s.tree.Entries[s.tree.Leaves[leaf].Entry].Path)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[s.tree.Leaves[leaf].Offset] ^= 4
	if err := errors.Join(os.WriteFile(path, data, 0o644), os.Chtimes(path, fi.ModTime(), fi.ModTime())); err != nil {
		t.Fatal(err)
	}
}
