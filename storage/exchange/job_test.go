package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

// begin returns a Begin that makes a partial at a fresh path of n's.
func (n *node) begin(t testing.TB) (out string, f func(context.Context, *chunk.Tree, [][]byte) (*block.Root, error)) {
	out = filepath.Join(t.TempDir(), "out")
	return out, func(_ context.Context, tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
		return n.store.Begin(tree, nodes, "x", out)
	}
}

// A peer that answers and hangs up is tried ever more rarely, and what its
// sessions took is given back while the download still runs.
func TestComesAndGoes(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		h := net.host("restless")
		var came atomic.Int64
		setLiar(h, s, func(l *liar) error {
			came.Add(1)
			err := l.hello(nil)
			<-time.After(50 * time.Millisecond)
			return errors.Join(err, l.st.Close())
		})
		n := net.node(t, "me")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := n.get(ctx, t, s, 0, infoOf(h))
			done <- err
		}()
		<-time.After(5 * time.Minute) // virtual
		synctest.Wait()
		if k := came.Load(); k < 5 || k > 25 {
			t.Errorf("tried %d times in five minutes", k)
		}
		if left := ours(); len(left) > 6 {
			t.Errorf("%d goroutines:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Sessions that are of no use make room for a peer that is.
func TestUselessMakeRoom(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		var from []peer.AddrInfo
		all := make(chan struct{})
		var here atomic.Int64
		for k := range sessionsMax + 5 {
			h := net.host(fmt.Sprint("useless", k))
			setLiar(h, s, func(l *liar) error {
				if here.Add(1) == sessionsMax {
					close(all)
				}
				return errors.Join(l.hello(func(w *Welcome) {
					w.Whole, w.Have = false, make([]byte, (len(s.leaves)+7)/8)
				}), l.hold())
			})
			from = append(from, infoOf(h))
		}
		honest := net.node(t, "honest")
		s.share(t, honest.store)
		n := net.node(t, "me", func(c *Config) { c.Finder = &finder{all, []peer.AddrInfo{infoOf(honest.host)}} })
		out, rep, err := n.get(t.Context(), t, s, 5*time.Minute, from...)
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
		if len(rep.Banned) != 0 {
			t.Errorf("banned: %v", rep.Banned)
		}
	})
}

// An address that swallows packets does not hold up the tree while another
// peer is there.
func TestDeadAddressDoesNotDelay(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		dead := net.host("dead")
		dead.dead = true
		honest := net.node(t, "honest")
		s.share(t, honest.store)
		start := time.Now()
		for range 4 { // whichever is dialled first
			n := net.node(t, "me")
			out, _, err := n.get(t.Context(), t, s, time.Minute, infoOf(dead), infoOf(honest.host))
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, out)
			if err := n.store.Remove(s.root); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestOneFetchOfARoot(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		n := net.node(t, "me")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := n.get(ctx, t, s, 0)
			done <- err
		}()
		synctest.Wait()
		if _, _, err := n.get(t.Context(), t, s, 0); !errors.Is(err, ErrBusy) {
			t.Errorf("a second: %v", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		n.Swarm.Close()
		if _, _, err := n.get(t.Context(), t, s, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Close ends a download that runs.
func TestCloseEndsFetch(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		h := net.host("silent")
		lied := setLiar(h, s, func(l *liar) error { return errors.Join(l.hello(nil), l.hold()) })
		n := net.node(t, "me")
		done := make(chan error)
		go func() {
			_, _, err := n.get(t.Context(), t, s, 0, infoOf(h))
			done <- err
		}()
		<-lied
		n.Swarm.Close()
		if err := <-done; err == nil {
			t.Error("fetched")
		}
	})
}

// What is here already is not asked for, and the books say what came.
func TestFetchTheRest(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, a *node) {
		n := net.node(t, "me")
		out, begin := n.begin(t)
		root, err := begin(t.Context(), s.tree, s.nodes)
		if err != nil {
			t.Fatal(err)
		}
		w, err := root.NewWriter()
		if err != nil {
			t.Fatal(err)
		}
		var missing int64
		for i := range s.leaves {
			if i%3 == 0 {
				missing += int64(len(s.leaves[i]))
			} else if err := errors.Join(w.WriteLeaf(i, s.leaves[i]), root.Mark(i)); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		var last Progress
		rep, err := n.Fetch(t.Context(), Job{
			Root: s.root, Into: root, From: []peer.AddrInfo{infoOf(a.host)},
			Progress: func(p Progress) {
				if p.Done < last.Done || p.Done > p.Total && p.Total >= 0 {
					t.Errorf("progress from %+v to %+v", last, p)
				}
				last = p
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if rep.Fetched != missing || rep.Wasted != 0 || len(rep.Sources) != 1 || rep.Sources[0].Bytes != missing {
			t.Errorf("%d bytes were missing: %+v", missing, rep)
		}
		if last.Done != last.Total || last.Total != s.tree.Size {
			t.Errorf("at the end: %+v of %d", last, s.tree.Size)
		}
		if err := root.Finish(false); err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
	})
}

// A leaf that comes twice counts once, and the peer is forgiven some of that.
func TestBooksOfDoubles(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		h := net.host("stutters")
		setLiar(h, s, func(l *liar) error {
			return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
				return errors.Join(l.leaf(i, s.leaves[i]), l.leaf(i, s.leaves[i]))
			}))
		})
		out, rep, err := net.node(t, "me").get(t.Context(), t, s, time.Minute, infoOf(h))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
		if rep.Fetched != s.tree.Size || rep.Wasted <= 0 || rep.Wasted > s.tree.Size || len(rep.Banned) != 0 {
			t.Errorf("of %d bytes: %+v", s.tree.Size, rep)
		}
	})
}

// A session may have been opened before the tree was known, by a peer that
// claims more leaves than there are: its leaves must not reach the verifiers.
func TestLeafBeyondTheTree(t *testing.T) {
	for leaf, ok := range map[byte]bool{0: true, 4: true, 5: false, 9: false} {
		j := &job{swarm: &Swarm{}, ctx: t.Context(), work: make(chan *slab, 1), notes: make(chan note, 9)}
		j.readyFor.Store(5)
		s := &session{job: j, leaves: 10, br: bufio.NewReader(strings.NewReader("\x00\x00\x00" + string(rune(leaf)) + "data"))}
		if err := s.readLeaf(8); (err == nil) != ok {
			t.Errorf("leaf %d of 5: %v", leaf, err)
		}
	}
}

// Equal leaves come once.
func TestTwinsComeOnce(t *testing.T) {
	data := noise(3, 1<<20)
	s := makeSample(t, map[string][]byte{"a": data, "b": append(append([]byte(nil), data...), data...), "c": data[:100], "sub/c": data[:100]})
	served(t, s, func(t *testing.T, net *memNet, a *node) {
		out, rep, err := net.node(t, "me").get(t.Context(), t, s, time.Minute, infoOf(a.host))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
		if want := int64(1<<20 + 100); rep.Fetched != want {
			t.Errorf("fetched %d bytes, want %d", rep.Fetched, want)
		}
	})
}

// A disk that fails ends the download with its own error, and what was verified
// before stays.
func TestDiskFails(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, a *node) {
		n := net.node(t, "me")
		out, begin := n.begin(t)
		_, err := n.Fetch(t.Context(), Job{
			Root: s.root, From: []peer.AddrInfo{infoOf(a.host)},
			Begin: func(ctx context.Context, tree *chunk.Tree, nodes [][]byte) (*block.Root, error) {
				r, err := begin(ctx, tree, nodes)
				// No file can be made in what is no folder any more.
				sub := filepath.Join(out+block.PartialSuffix, "sub")
				return r, errors.Join(err, os.Remove(sub), os.WriteFile(sub, nil, 0o644))
			},
		})
		if err == nil || !strings.Contains(err.Error(), "sub/") {
			t.Fatalf("err = %v", err)
		}
		r, ok := n.store.Root(s.root)
		if !ok || r.HaveCount() == len(s.leaves) {
			t.Fatal("no partial")
		}
		rd, err := r.NewReader()
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		for i := range s.leaves {
			if !r.Has(i) {
				continue
			}
			if got, err := rd.ReadLeaf(i, nil); err != nil || string(got) != string(s.leaves[i]) {
				t.Errorf("leaf %d is marked: %d bytes, %v", i, len(got), err)
			}
		}
	})
}

// A root that states wrong sizes is bad whoever serves it: nobody is banned for
// it, and the error says so.
func TestRootLiesAboutSizes(t *testing.T) {
	data := noise(4, 1000)
	child := chunk.Child{Name: "f", CID: chunk.SumRaw(data), Tsize: 1001}
	dir, nodes, err := chunk.DirDAG([]chunk.Child{child})
	if err != nil {
		t.Fatal(err)
	}
	s := &sample{root: dir.CID, leaves: [][]byte{data}}
	for _, n := range nodes {
		s.nodes = append(s.nodes, n.Data)
	}
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		h := net.host("honest, though")
		setLiar(h, s, func(l *liar) error { return errors.Join(l.hello(nil), l.serve(nil, nil)) })
		_, rep, err := net.node(t, "me").get(t.Context(), t, s, time.Minute, infoOf(h))
		if !errors.Is(err, chunk.ErrTree) || len(rep.Banned) != 0 {
			t.Errorf("err = %v, banned %v", err, rep.Banned)
		}
	})
}

// A peer that holds a part gives it, and what arrives there later too.
func TestPartialProvider(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		a := net.node(t, "a")
		_, begin := a.begin(t)
		root, err := begin(t.Context(), s.tree, s.nodes)
		if err != nil {
			t.Fatal(err)
		}
		w, err := root.NewWriter()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		give := func(from, to int) {
			for i := from; i < to; i++ {
				if err := errors.Join(w.WriteLeaf(i, s.leaves[i]), root.Mark(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		give(0, 10)
		b := net.node(t, "b")
		done := make(chan error)
		var out string
		go func() {
			var err error
			out, _, err = b.get(t.Context(), t, s, time.Minute, infoOf(a.host))
			done <- err
		}()
		<-time.After(time.Second) // virtual
		synctest.Wait()
		if r, ok := b.store.Root(s.root); !ok || r.HaveCount() != 10 {
			t.Errorf("not what there is so far")
		}
		give(10, len(s.leaves))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
	})
}

// A peer that withdraws the root in mid-transfer, or is closed, is replaced.
func TestProviderDisappears(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		h := net.host("leaver")
		lied := setLiar(h, s, func(l *liar) error {
			sent := 0
			return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
				if sent++; sent > 20 {
					<-time.After(time.Second) // virtual: what was sent arrives
					l.lied()
					return errors.Join(l.st.Reset(), errStop)
				}
				return l.leaf(i, s.leaves[i])
			}))
		})
		honest := net.node(t, "honest")
		s.share(t, honest.store)
		n := net.node(t, "me", func(c *Config) { c.Finder = &finder{lied, []peer.AddrInfo{infoOf(honest.host)}} })
		out, rep, err := n.get(t.Context(), t, s, time.Minute, infoOf(h))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
		if len(rep.Sources) != 2 || len(rep.Banned) != 0 || rep.Fetched != s.tree.Size {
			t.Errorf("%+v", rep)
		}
	})
}

// One address is enough: whoever answers there names the others.
func TestPeerExchange(t *testing.T) {
	s := folderSample(t)
	honest := newNode(t)
	s.share(t, honest.store)
	h := newHost(t)
	setLiar(h, s, func(l *liar) error {
		x := &Peers_Peer{Id: []byte(honest.host.ID())}
		for _, a := range honest.host.Addrs() {
			x.Addrs = append(x.Addrs, a.Bytes())
		}
		return errors.Join(l.hello(func(w *Welcome) { w.Whole, w.Have = false, make([]byte, (len(s.leaves)+7)/8) }),
			l.message(framePeers, &Peers{Peers: []*Peers_Peer{x}}), l.serve(nil, nil))
	})
	out, rep, err := newNode(t).get(testContext(t), t, s, 20*time.Second, infoOf(h))
	if err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
	if len(rep.Sources) != 1 || rep.Sources[0].Peer != honest.host.ID() {
		t.Errorf("sources: %+v", rep.Sources)
	}
}

// A server names each asker to the others, by addresses that lead there.
func TestServerNamesPeers(t *testing.T) {
	s := folderSample(t)
	n := newNode(t)
	s.share(t, n.store)
	first, second := newHost(t), newHost(t)
	var streams []*client
	for _, h := range []Host{first, second} {
		if err := h.Connect(testContext(t), infoOf(n.host)); err != nil {
			t.Fatal(err)
		}
		// identify brings the addresses that are named
		eventually(t, "the server knows addresses", func() bool { return len(n.host.Peerstore().Addrs(h.ID())) > 0 })
		st, err := h.NewBulkStream(testContext(t), n.host.ID(), Protocol)
		if err != nil {
			t.Fatal(err)
		}
		x := &client{t, st, bufio.NewReader(st), s}
		x.greet()
		streams = append(streams, x)
	}
	_ = streams[0].st.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		kind, b, err := streams[0].next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == framePeers {
			var m Peers
			if err := readMessage(bufio.NewReader(strings.NewReader(string(b))), len(b), &m); err != nil {
				t.Fatal(err)
			}
			if len(m.Peers) != 1 || string(m.Peers[0].Id) != string(second.ID()) || len(m.Peers[0].Addrs) == 0 {
				t.Errorf("named: %v", &m)
			}
			return
		}
	}
}

// A root whose bytes are in doubt is not served until it has been read again.
func TestSuspectIsNotServed(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		n := net.node(t, "me")
		out, begin := n.begin(t)
		if err := os.MkdirAll(out+block.PartialSuffix, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(out+block.PartialSuffix, "big"), noise(99, len(s.files["big"])), 0o644); err != nil {
			t.Fatal(err)
		}
		root, err := begin(t.Context(), s.tree, s.nodes)
		if err != nil {
			t.Fatal(err)
		}
		if w, err := net.client(t, "x", n, s).hello(s.root.Bytes()); err != nil || w.Error != uint32(wire.Busy)+1 {
			t.Errorf("welcome %v, %v", w, err)
		}
		if err := errors.Join(root.Unmark(0, 1, 2), root.Rechecked()); err != nil {
			t.Fatal(err)
		}
		if w, err := net.client(t, "y", n, s).hello(s.root.Bytes()); err != nil || w.Error != 0 {
			t.Errorf("welcome %v, %v", w, err)
		}
	})
}

// A file that changed is refused leaf by leaf, others are served on.
func TestChangedFileIsRefused(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		root, _ := n.store.Root(s.root)
		if err := os.WriteFile(filepath.Join(root.Info().Path, "big"), []byte("other"), 0o644); err != nil {
			t.Fatal(err)
		}
		x := net.client(t, "x", n, s)
		x.greet()
		if err := x.ask(bitfield.Run{First: 0, Count: len(s.leaves)}); err != nil {
			t.Fatal(err)
		}
		gone, came := 0, 0
		for gone+came < len(s.leaves) {
			kind, _, err := x.next()
			if err != nil {
				t.Fatal(err)
			}
			switch kind {
			case frameGone:
				gone++
			case frameLeaf:
				came++
			}
		}
		if gone != 3 || !strings.Contains(root.Info().Problem, "big changed") {
			t.Errorf("%d leaves refused, problem %q", gone, root.Info().Problem)
		}
	})
}

var _ network.Stream = (*memStream)(nil)

// A peer that was asked for the tree, given up for a quicker one, and needed
// again when that one went, is asked once too often: it is not to blame.
func TestTreeAskedForTwice(t *testing.T) {
	s := folderSample(t)
	for range 8 { // which of the two is asked first is chance
		synctest.Test(t, func(t *testing.T) {
			net := newMemNet()
			slow, brief := net.host("slow"), net.host("brief")
			setLiar(slow, s, func(l *liar) error {
				<-time.After(10 * time.Millisecond)
				return errors.Join(l.hello(nil), l.serve(func() error {
					<-time.After(100 * time.Millisecond)
					return l.tree()
				}, nil))
			})
			setLiar(brief, s, func(l *liar) error {
				err := l.hello(nil)
				<-time.After(50 * time.Millisecond)
				return errors.Join(err, l.st.Reset())
			})
			began := time.Now()
			out, rep, err := net.node(t, "me").get(t.Context(), t, s, time.Minute, infoOf(slow), infoOf(brief))
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, out)
			if len(rep.Banned) > 0 || time.Since(began) > 2*time.Second {
				t.Errorf("after %v: %+v", time.Since(began), rep.Banned)
			}
		})
	}
}

// Whom a peer names without addresses is not dialled before they are known, and
// then at once; but he counts as a fellow from the start.
func TestNamedWithoutAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		n := net.node(t, "me")
		n.host.(*memHost).alone = true
		j := &job{swarm: n.Swarm, ctx: t.Context(), cands: map[peer.ID]*candidate{}}
		j.found(peer.AddrInfo{ID: "fellow"}, viaExchange)
		now := time.Now()
		if c := j.cands["fellow"]; c == nil || !c.isFellow() || len(j.due(now)) != 0 {
			t.Fatal("dialled without an address")
		}
		j.later(j.cands["fellow"], errors.New("as if it had been tried"))
		j.found(peer.AddrInfo{ID: "fellow", Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}}, viaExchange)
		if len(j.due(now)) != 1 {
			t.Error("not dialled when its address was known")
		}
	})
}

// Who was found lying while he was dialled again, is not taken in when that succeeds.
func TestBannedWhileDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		n := net.node(t, "me")
		j := &job{swarm: n.Swarm, cands: map[peer.ID]*candidate{}, sessions: map[sched.Peer]*session{}, notes: make(chan note, notesMax)}
		j.ctx, j.cancel = context.WithCancel(t.Context())
		j.found(peer.AddrInfo{ID: "liar"}, viaLink)
		c := j.cands["liar"]
		c.dials, j.dialing = true, 1
		j.lied("liar")
		mine, theirs := memStreams("me", "liar")
		j.dialed(note{kind: noteDialed, info: c.info, sess: &session{
			job: j, id: 1, peer: "liar", st: mine, br: bufio.NewReader(mine), ended: make(chan struct{}), wake: make(chan struct{}, 1),
		}})
		if len(j.sessions) != 0 || c.sess != nil || c.dials || j.dialing != 0 {
			t.Errorf("%d sessions, %+v", len(j.sessions), c)
		}
		_ = theirs.SetReadDeadline(time.Now().Add(time.Second)) // virtual
		if _, err := theirs.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("he is not hung up on")
		}
		j.cancel()
		j.tasks.Wait()
	})
}

// A fellow that has only just begun is tried again soon.
func TestFellowTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &job{}
		c := &candidate{via: viaExchange}
		for k, want := range []time.Duration{25, 50, 100} {
			j.later(c, &wire.Error{Kind: wire.NotFound})
			if d := time.Until(c.next); d != want*time.Millisecond {
				t.Errorf("try %d: after %v", k, d)
			}
		}
		if time.Until(j.dialAt) != 25*time.Millisecond {
			t.Errorf("woken after %v", time.Until(j.dialAt))
		}
		c = &candidate{via: viaLink}
		if j.later(c, &wire.Error{Kind: wire.NotFound}); time.Until(c.next) != retryFirst {
			t.Error("one that a link names is tried again as soon")
		}
	})
}
