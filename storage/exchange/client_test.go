package exchange

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// client is an asker that speaks the protocol by hand.
type client struct {
	t  *testing.T
	st network.Stream
	br *bufio.Reader
	s  *sample
}

func (n *memNet) client(t *testing.T, name string, to *node, s *sample) *client {
	t.Helper()
	st, err := n.host(name).NewBulkStream(t.Context(), to.host.ID(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	return &client{t, st, bufio.NewReader(st), s}
}

// hello opens the root and returns the Welcome.
func (c *client) hello(root []byte) (*Welcome, error) {
	if err := wire.WriteMsg(c.st, &Hello{Root: root}, helloMax); err != nil {
		return nil, err
	}
	var w Welcome
	return &w, wire.ReadMsg(c.br, &w, welcomeMax)
}

func (c *client) greet() {
	c.t.Helper()
	if w, err := c.hello(c.s.root.Bytes()); err != nil || w.Error != 0 {
		c.t.Fatalf("welcome %v, %v", w, err)
	}
}

func (c *client) write(b []byte) error {
	_, err := c.st.Write(b)
	return err
}

func (c *client) ask(runs ...bitfield.Run) error { return c.write(appendRuns(nil, frameAsk, runs)) }

// next reads one frame whole.
func (c *client) next() (frameType, []byte, error) {
	t, n, err := readHeader(c.br, toAsker)
	if err != nil {
		return 0, nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(c.br, b)
	return t, b, err
}

// leaf reads frames up to the next leaf and checks it.
func (c *client) leaf(i int) {
	c.t.Helper()
	for {
		t, b, err := c.next()
		if err != nil {
			c.t.Fatal(err)
		}
		if t != frameLeaf {
			continue
		}
		if got := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3]); got != i || !bytes.Equal(b[4:], c.s.leaves[i]) {
			c.t.Fatalf("leaf %d of %d bytes, want %d", got, len(b)-4, i)
		}
		return
	}
}

// ended returns why the server ended the stream.
func (c *client) ended() error {
	for {
		if _, _, err := c.next(); err != nil {
			return err
		}
	}
}

// served has f talk to a node that shares s, on virtual time.
func served(t *testing.T, s *sample, f func(t *testing.T, net *memNet, n *node)) {
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		n := net.node(t, "server")
		s.share(t, n.store)
		f(t, net, n)
	})
}

func TestHostileHello(t *testing.T) {
	s := folderSample(t)
	other := chunk.SumRaw([]byte("other")).Bytes()
	for name, c := range map[string]struct {
		say  func(c *client) error
		kind wire.ErrKind // of the Welcome's refusal, or of the reset
	}{
		"rubbish":       {func(c *client) error { return c.write([]byte("GET / HTTP/1.1\r\n\r\n" + strings.Repeat("x", 100))) }, wire.Malformed},
		"huge":          {func(c *client) error { return c.write([]byte{255, 255, 255, 127}) }, wire.TooLarge},
		"long":          {func(c *client) error { return wire.WriteMsg(c.st, &Hello{Root: make([]byte, helloMax+1)}, 1<<20) }, wire.TooLarge},
		"no root":       {func(c *client) error { return wire.WriteMsg(c.st, &Hello{}, helloMax) }, wire.Malformed},
		"half a root":   {func(c *client) error { return wire.WriteMsg(c.st, &Hello{Root: other[:20]}, helloMax) }, wire.Malformed},
		"root and more": {func(c *client) error { return wire.WriteMsg(c.st, &Hello{Root: append(other, 0)}, helloMax) }, wire.Malformed},
		"unknown root":  {func(c *client) error { return wire.WriteMsg(c.st, &Hello{Root: other}, helloMax) }, wire.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			served(t, s, func(t *testing.T, net *memNet, n *node) {
				x := net.client(t, "x", n, s)
				if err := c.say(x); err != nil {
					t.Fatal(err)
				}
				var w Welcome
				err := wire.ReadMsg(x.br, &w, welcomeMax)
				if err == nil && w.Error != uint32(c.kind)+1 || err != nil && wire.KindOf(err) != c.kind {
					t.Errorf("welcome %v, err %v", &w, err)
				}
			})
		})
	}
	t.Run("silence", func(t *testing.T) {
		served(t, s, func(t *testing.T, net *memNet, n *node) {
			start := time.Now()
			if err := net.client(t, "x", n, s).ended(); err == nil || time.Since(start) > 2*helloWait {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
}

func TestHostileRequests(t *testing.T) {
	s := folderSample(t)
	all := len(s.leaves)
	half := appendRuns(nil, frameAsk, []bitfield.Run{{First: 0, Count: 1}})
	for name, c := range map[string]struct {
		say  []byte
		kind wire.ErrKind
	}{
		"past the end":        {appendRuns(nil, frameAsk, []bitfield.Run{{First: all, Count: 1}}), wire.Malformed},
		"over the end":        {appendRuns(nil, frameAsk, []bitfield.Run{{First: all - 1, Count: 2}}), wire.Malformed},
		"so long it wraps":    {appendMessage(nil, frameAsk, &Runs{Runs: []uint32{1<<32 - 1, 1<<32 - 1}}), wire.Malformed},
		"nothing":             {appendMessage(nil, frameAsk, &Runs{Runs: []uint32{0, 0}}), wire.Malformed},
		"odd":                 {appendMessage(nil, frameAsk, &Runs{Runs: []uint32{0}}), wire.Malformed},
		"too many in a frame": {appendMessage(nil, frameAsk, &Runs{Runs: make([]uint32, 2*runsMax+2)}), wire.Malformed},
		"rubbish":             {appendFrame(nil, frameAsk, []byte{1, 2, 3, 255}), wire.Malformed},
		"cancel past the end": {appendRuns(nil, frameCancel, []bitfield.Run{{First: all, Count: 1}}), wire.Malformed},
		"a server's frame":    {appendFrame(nil, frameHave, nil), wire.Malformed},
		"an unknown frame":    {appendFrame(nil, 77, nil), wire.Malformed},
		"tree with a payload": {appendFrame(nil, frameTree, []byte{1}), wire.TooLarge},
		"a huge frame":        {appendHeader(nil, frameAsk, 1<<31), wire.TooLarge},
		"half a frame":        {half[:len(half)-1], wire.Unknown},
		"half a header":       {half[:3], wire.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			served(t, s, func(t *testing.T, net *memNet, n *node) {
				x := net.client(t, "x", n, s)
				x.greet()
				if err := x.write(c.say); err != nil {
					t.Fatal(err)
				}
				_ = x.st.CloseWrite()
				if err := x.ended(); wire.KindOf(err) != c.kind || errors.Is(err, io.EOF) {
					t.Errorf("ended: %v", err)
				}
				y := net.client(t, "y", n, s) // others are served as before
				y.greet()
				if err := y.ask(bitfield.Run{First: 3, Count: 2}); err != nil {
					t.Fatal(err)
				}
				y.leaf(3)
				y.leaf(4)
			})
		})
	}
}

// Requests are answered in order, cancelled ones are not, and an end after
// requests is answered before it is returned.
func TestServeInOrder(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		x := net.client(t, "x", n, s)
		x.greet()
		if err := x.ask(bitfield.Run{First: 7, Count: 2}, bitfield.Run{First: 0, Count: 1}); err != nil {
			t.Fatal(err)
		}
		_ = x.st.CloseWrite()
		for _, i := range []int{7, 8, 0} {
			x.leaf(i)
		}
		if err := x.ended(); !errors.Is(err, io.EOF) {
			t.Errorf("ended: %v", err)
		}
	})
}

// A client may not pile up requests.
func TestAskFlood(t *testing.T) {
	s := folderSample(t)
	for name, say := range map[string]func(x *client) error{
		"asks": func(x *client) error { return x.ask(slices.Repeat([]bitfield.Run{{First: 0, Count: 1}}, runsMax)...) },
		"asks for everything": func(x *client) error {
			return x.ask(slices.Repeat([]bitfield.Run{{First: 0, Count: len(s.leaves)}}, runsMax)...)
		},
		"cancels in the middle": func(x *client) error {
			err := x.ask(slices.Repeat([]bitfield.Run{{First: 0, Count: len(s.leaves)}}, 500)...)
			var odd []bitfield.Run
			for i := 1; i < len(s.leaves)-1; i += 2 {
				odd = append(odd, bitfield.Run{First: i, Count: 1})
			}
			return errors.Join(err, x.write(appendRuns(nil, frameCancel, odd)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			served(t, s, func(t *testing.T, net *memNet, n *node) {
				x := net.client(t, "x", n, s)
				x.greet()
				for range 4 { // it never reads, so none of it is answered for long
					if err := say(x); err != nil {
						break
					}
				}
				if err := x.ended(); wire.KindOf(err) != wire.TooLarge {
					t.Errorf("ended: %v", err)
				}
			})
		})
	}
}

// A client that never reads is given up, and holds nothing afterwards.
func TestNeverReads(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		x := net.client(t, "x", n, s)
		x.greet()
		if err := x.ask(slices.Repeat([]bitfield.Run{{First: 0, Count: len(s.leaves)}}, 100)...); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n.Serving(s.root) != 1 {
			t.Fatal("it is not served")
		}
		<-time.After(2 * writeWait) // virtual
		if k := n.Serving(s.root); k != 0 {
			t.Errorf("%d streams after %v of not reading", k, 2*writeWait)
		}
	})
}

// One peer gets so many streams and no more, and gets them again later.
func TestManyStreams(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		var open []*client
		for range uploadsPerPeer {
			x := net.client(t, "x", n, s)
			x.greet()
			open = append(open, x)
		}
		synctest.Wait()
		more := net.client(t, "x", n, s)
		if _, err := more.hello(s.root.Bytes()); err == nil {
			err = more.ended()
			if wire.KindOf(err) != wire.Busy {
				t.Errorf("one too many: %v", err)
			}
		}
		other := net.client(t, "y", n, s)
		other.greet()
		for _, x := range open {
			_ = x.st.Reset()
		}
		synctest.Wait()
		again := net.client(t, "x", n, s)
		again.greet()
		if err := again.ask(bitfield.Run{First: 1, Count: 1}); err != nil {
			t.Fatal(err)
		}
		again.leaf(1)
	})
}

// There is a bound on the streams of all peers together, too.
func TestManyPeers(t *testing.T) {
	s := makeSample(t, map[string][]byte{"": []byte("small")})
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		for k := range uploadsMax {
			net.client(t, fmt.Sprint("peer", k), n, s).greet()
		}
		synctest.Wait()
		more := net.client(t, "late", n, s)
		_, err := more.hello(s.root.Bytes())
		if err == nil {
			err = more.ended()
		}
		if wire.KindOf(err) != wire.Busy {
			t.Errorf("one too many: %v", err)
		}
		if k := n.Serving(s.root); k != uploadsMax {
			t.Errorf("%d served", k)
		}
	})
}

// With more askers than slots, those without are choked, told so, and served
// when their turn comes.
func TestChoke(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		var all []*client
		for k := range 12 {
			x := net.client(t, fmt.Sprint("peer", k), n, s)
			x.greet()
			all = append(all, x)
		}
		<-time.After(time.Second) // virtual
		served := 0
		for _, x := range all {
			if err := x.ask(bitfield.Run{First: 0, Count: 1}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for _, x := range all {
			if answered(x, frameLeaf) {
				served++
			}
		}
		if served != 8 {
			t.Errorf("%d of 12 were served, with 8 slots", served)
		}
		// In a while everybody has a turn.
		turns := 0
		for _, x := range all {
			_ = x.st.SetReadDeadline(time.Now().Add(10 * time.Minute))
			for {
				kind, _, err := x.next()
				if err == nil && kind == frameChoke {
					continue
				}
				if err == nil && kind == frameUnchoke {
					turns++
				}
				break
			}
		}
		if turns < 4 {
			t.Errorf("%d of 4 waiting peers had a turn in ten minutes", turns)
		}
	})
}

// answered reads what has come so far and reports whether a frame of type t is
// among it.
func answered(x *client, want frameType) (found bool) {
	_ = x.st.SetReadDeadline(time.Now().Add(time.Millisecond))
	for {
		t, _, err := x.next()
		if err != nil {
			return found
		}
		found = found || t == want
	}
}

func TestCancelRuns(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	randomRuns := func() (out []bitfield.Run) {
		for range rng.IntN(6) {
			out = append(out, bitfield.Run{First: rng.IntN(40), Count: 1 + rng.IntN(10)})
		}
		return out
	}
	flat := func(runs []bitfield.Run) (out []int) {
		for _, r := range runs {
			for i := range r.Count {
				out = append(out, r.First+i)
			}
		}
		return out
	}
	for range 20_000 {
		queue, gone := randomRuns(), randomRuns()
		drop := flat(gone)
		want := slices.DeleteFunc(flat(queue), func(i int) bool { return slices.Contains(drop, i) })
		got := cancelRuns(slices.Clone(queue), slices.Clone(gone))
		if !slices.Equal(flat(got), want) {
			t.Fatalf("%v without %v is %v", queue, gone, got)
		}
		for _, r := range got {
			if r.Count <= 0 {
				t.Fatalf("%v without %v is %v", queue, gone, got)
			}
		}
	}
}

// peers reads frames up to the next that names peers.
func (c *client) peers() (out []string) {
	c.t.Helper()
	for {
		t, b, err := c.next()
		if err != nil {
			c.t.Fatal(err)
		}
		if t != framePeers {
			continue
		}
		var m Peers
		if err := proto.Unmarshal(b, &m); err != nil {
			c.t.Fatal(err)
		}
		for _, p := range m.Peers {
			out = append(out, fmt.Sprintf("%s %d", p.Id, len(p.Addrs)))
		}
		return out
	}
}

// A peer is named at once, and again when its addresses are known; not a third time.
func TestNamedBeforeAddresses(t *testing.T) {
	s := folderSample(t)
	served(t, s, func(t *testing.T, net *memNet, n *node) {
		x := net.client(t, "x", n, s)
		x.greet()
		net.client(t, "y", n, s).greet()
		if got := x.peers(); len(got) != 1 || got[0] != "y 0" {
			t.Fatalf("told of %q", got)
		}
		n.host.(*memHost).learn("y")
		if got := x.peers(); len(got) != 1 || got[0] != "y 1" {
			t.Fatalf("told of %q", got)
		}
		net.client(t, "z", n, s).greet()
		if got := x.peers(); len(got) != 1 || got[0] != "z 0" {
			t.Fatalf("told of %q", got)
		}
	})
}

// Who fetches a root says what it has asked seeds for, once, as long as it does
// not have everything.
func TestSaysWhatComesSoon(t *testing.T) {
	s := folderSample(t)
	synctest.Test(t, func(t *testing.T) {
		net := newMemNet()
		n := net.node(t, "server")
		_, begin := n.begin(t)
		root, err := begin(t.Context(), s.tree, s.nodes)
		if err != nil {
			t.Fatal(err)
		}
		j := &job{swarm: n.Swarm, root: root, tree: s.tree}
		setJob := func(j *job) {
			n.mu.Lock()
			defer n.mu.Unlock()
			clear(n.jobs)
			if j != nil {
				n.jobs[circle{s.root, false}] = j
			}
		}
		setJob(j)
		x := net.client(t, "x", n, s)
		x.greet()
		for _, want := range []bitfield.Run{{First: 3, Count: 4}, {First: 20, Count: 1}} {
			j.expect(want)
			kind, said, err := x.next()
			if err != nil || kind != frameSoon {
				t.Fatalf("frame %d, %v", kind, err)
			}
			var m Runs
			if err := proto.Unmarshal(said, &m); err != nil || len(m.Runs) != 2 || int(m.Runs[0]) != want.First || int(m.Runs[1]) != want.Count {
				t.Errorf("says %v, %v; want %v", m.Runs, err, want)
			}
		}
		setJob(nil)
	})
}
