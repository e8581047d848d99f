package exchange

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// liar is a server that speaks the protocol by hand.
type liar struct {
	s    *sample
	st   network.Stream
	br   *bufio.Reader
	lied func()       // called once the lie is out: now an honest provider may appear
	lane func() error // answers who asks for a lane
}

// hello reads the Hello, and answers it with a Welcome that change may change.
func (l *liar) hello(change func(*Welcome)) error {
	var h Hello
	if err := wire.ReadMsg(l.br, &h, helloMax); err != nil {
		return err
	}
	w := &Welcome{Leaves: uint32(len(l.s.leaves)), Whole: true}
	if change != nil {
		change(w)
	}
	return wire.WriteMsg(l.st, w, welcomeMax)
}

func (l *liar) send(t frameType, payload []byte) error {
	_, err := l.st.Write(appendFrame(nil, t, payload))
	return err
}

func (l *liar) message(t frameType, m proto.Message) error {
	_, err := l.st.Write(appendMessage(nil, t, m))
	return err
}

func (l *liar) leaf(i int, data []byte) error {
	return l.send(frameLeaf, append(binary.BigEndian.AppendUint32(nil, uint32(i)), data...))
}

func (l *liar) tree() error {
	for _, n := range l.s.nodes {
		if err := l.send(frameNode, n); err != nil {
			return err
		}
	}
	return l.send(frameTreeEnd, nil)
}

// serve answers requests as an honest peer would, save what the two functions
// do instead; nil is honest.
func (l *liar) serve(tree func() error, leaf func(i int) error) error {
	if tree == nil {
		tree = l.tree
	}
	if leaf == nil {
		leaf = func(i int) error { return l.leaf(i, l.s.leaves[i]) }
	}
	for {
		t, n, err := readHeader(l.br, toServer)
		if err != nil {
			return err
		}
		switch t {
		case frameTree:
			err = tree()
		case frameLaneAsk:
			err = l.lane()
		}
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		runs, err := readRuns(l.br, n, len(l.s.leaves))
		if err != nil {
			return err
		}
		for _, r := range runs {
			for i := r.First; i < r.First+r.Count && t == frameAsk; i++ {
				if err := leaf(i); err != nil {
					return err
				}
			}
		}
	}
}

// hold keeps the stream open, and silent, until the other side ends it.
func (l *liar) hold() error {
	l.lied()
	_, err := io.Copy(io.Discard, l.br)
	return err
}

// flood sends frame again and again until the other side has had enough.
func (l *liar) flood(frame []byte) error {
	defer l.lied()
	var many []byte
	for len(many) < 32<<10 {
		many = append(many, frame...)
	}
	for {
		if _, err := l.st.Write(many); err != nil {
			return err
		}
	}
}

func invert(b []byte) []byte {
	out := append([]byte(nil), b...)
	for i := range out {
		out[i] = ^out[i]
	}
	return out
}

var errStop = errors.New("the liar has said enough")

// lies are what a hostile server may do. banned says that it is caught lying;
// silence and refusals are no lies.
var lies = []struct {
	name   string
	banned string // part of the reason; "" for no ban
	do     func(l *liar) error
}{
	{"wrong leaf bytes", "do not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			defer l.lied()
			return l.leaf(i, invert(l.s.leaves[i]))
		}))
	}},
	{"short leaves", "do not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			defer l.lied()
			return l.leaf(i, l.s.leaves[i][1:])
		}))
	}},
	{"empty leaves", "do not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			defer l.lied()
			return l.leaf(i, nil)
		}))
	}},
	{"one leaf for another", "do not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			defer l.lied()
			return l.leaf(i, l.s.leaves[(i+1)%len(l.s.leaves)])
		}))
	}},
	{"wrong leaf bytes and away", "do not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			defer l.lied()
			return errors.Join(l.leaf(i, invert(l.s.leaves[i])), l.st.CloseWrite(), errStop)
		}), l.hold())
	}},
	{"a lane nobody asked for", "a lane that nobody asked for", func(l *liar) error {
		defer l.lied()
		return errors.Join(l.hello(nil), l.message(frameLane, &Lane{Port: 1, Id: make([]byte, laneID), Key: make([]byte, laneKey)}), l.hold())
	}},
	{"a switch to no lane", "a lane that is not there", func(l *liar) error {
		defer l.lied()
		return errors.Join(l.hello(nil), l.send(frameSwitch, nil), l.hold())
	}},
	{"wrong node bytes", "tree that does not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			defer l.lied()
			return errors.Join(l.send(frameNode, invert(l.s.nodes[0])), l.send(frameTreeEnd, nil))
		}, nil))
	}},
	{"another tree", "tree that does not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			defer l.lied()
			for i := range l.s.nodes { // all there, in another order
				if err := l.send(frameNode, l.s.nodes[len(l.s.nodes)-1-i]); err != nil {
					return err
				}
			}
			return l.send(frameTreeEnd, nil)
		}, nil))
	}},
	{"incomplete tree", "incomplete tree", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			defer l.lied()
			return errors.Join(l.send(frameNode, l.s.nodes[0]), l.send(frameTreeEnd, nil))
		}, nil))
	}},
	{"no tree at all", "incomplete tree", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			defer l.lied()
			return l.send(frameTreeEnd, nil)
		}, nil))
	}},
	{"tree without end", "tree that does not match", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			for _, n := range l.s.nodes {
				if err := l.send(frameNode, n); err != nil {
					return err
				}
			}
			return l.flood(appendFrame(nil, frameNode, l.s.nodes[0]))
		}, nil))
	}},
	{"tree over and over", "nobody asked", func(l *liar) error {
		// It is asked for in the same breath as the Hello, and sent; then no more is due.
		return errors.Join(l.hello(nil), l.tree(), l.flood(appendFrame(nil, frameNode, make([]byte, chunk.NodeMax))))
	}},
	{"leaf index out of range", "not asked for", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(int) error {
			defer l.lied()
			return l.leaf(len(l.s.leaves), []byte("x"))
		}))
	}},
	{"leaf index out of all range", "not asked for", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(int) error {
			defer l.lied()
			return l.leaf(1<<32-1, []byte("x"))
		}))
	}},
	{"leaf before the tree", "not asked for", func(l *liar) error {
		defer l.lied()
		return errors.Join(l.hello(nil), l.leaf(0, l.s.leaves[0]), l.hold())
	}},
	{"leaf never asked, for ever", "not asked for", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(int) error {
			big := 0
			for i := range l.s.leaves {
				if len(l.s.leaves[i]) > len(l.s.leaves[big]) {
					big = i
				}
			}
			return l.flood(appendFrame(nil, frameLeaf, append(binary.BigEndian.AppendUint32(nil, uint32(big)), l.s.leaves[big]...)))
		}))
	}},
	{"oversized leaf frame", "frame type 19 of 4294967295 bytes", func(l *liar) error {
		err := l.hello(nil)
		_, err2 := l.st.Write([]byte{byte(frameLeaf), 255, 255, 255, 255})
		return errors.Join(err, err2, l.hold())
	}},
	{"oversized control frame", "frame type 18", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(frameHave, make([]byte, controlMax+1)), l.hold())
	}},
	{"choke with a payload", "frame type 21", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(frameChoke, []byte{0}), l.hold())
	}},
	{"unknown frame type", "unexpected frame type", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(99, nil), l.hold())
	}},
	{"a client's frame", "unexpected frame type", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(frameAsk, nil), l.hold())
	}},
	{"leaf frame of two bytes", "leaf frame", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(frameLeaf, []byte{0, 0}), l.hold())
	}},
	{"rubbish in a control frame", "not what was expected", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(frameGone, []byte{255, 255, 255}), l.hold())
	}},
	{"runs out of range", "run [", func(l *liar) error {
		return errors.Join(l.hello(nil), l.message(frameHave, &Runs{Runs: []uint32{5, 1 << 31}}), l.hold())
	}},
	{"run of nothing", "run [", func(l *liar) error {
		return errors.Join(l.hello(nil), l.message(frameGone, &Gone{First: 1}), l.hold())
	}},
	{"odd run", "list of runs", func(l *liar) error {
		return errors.Join(l.hello(nil), l.message(frameHave, &Runs{Runs: []uint32{5}}), l.hold())
	}},
	{"too few leaves in the Welcome", "leaves", func(l *liar) error {
		return errors.Join(l.hello(func(w *Welcome) { w.Leaves = 1 }), l.serve(func() error {
			defer l.lied()
			return l.tree()
		}, nil))
	}},
	{"too many leaves in the Welcome", "leaves", func(l *liar) error {
		return errors.Join(l.hello(func(w *Welcome) { w.Leaves = 1<<32 - 1 }), l.serve(func() error {
			defer l.lied()
			return l.tree()
		}, nil))
	}},
	{"has the same for ever", "again and again", func(l *liar) error {
		return errors.Join(l.hello(nil), l.flood(appendRuns(nil, frameHave, []bitfield.Run{{First: 0, Count: len(l.s.leaves)}})))
	}},
	{"everything gone, for ever", "again and again", func(l *liar) error {
		return errors.Join(l.hello(nil), l.flood(appendMessage(nil, frameGone, &Gone{Count: uint32(len(l.s.leaves)), Error: 1})))
	}},
	{"no peer ids", "peer id", func(l *liar) error {
		return errors.Join(l.hello(nil), l.message(framePeers, &Peers{Peers: []*Peers_Peer{{Id: []byte("x")}}}), l.hold())
	}},

	// No lies, only no help.
	{"short bitfield", "", func(l *liar) error {
		return errors.Join(l.hello(func(w *Welcome) { w.Whole = false }), l.hold())
	}},
	{"bitfield with spare bits", "", func(l *liar) error {
		return errors.Join(l.hello(func(w *Welcome) {
			w.Whole, w.Have = false, invert(make([]byte, (len(l.s.leaves)+7)/8))
		}), l.hold())
	}},
	{"has nothing", "", func(l *liar) error {
		return errors.Join(l.hello(func(w *Welcome) {
			w.Whole, w.Have = false, make([]byte, (len(l.s.leaves)+7)/8)
		}), l.hold())
	}},
	{"not a word", "", func(l *liar) error { return l.hold() }},
	{"rubbish for a Welcome", "", func(l *liar) error {
		defer l.lied()
		_, err := l.st.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		return errors.Join(err, l.hold())
	}},
	{"a Welcome without end", "", func(l *liar) error {
		defer l.lied()
		_, err := l.st.Write([]byte{255, 255, 255, 255, 127})
		return errors.Join(err, l.hold())
	}},
	{"refuses", "", func(l *liar) error {
		defer l.lied()
		return l.hello(func(w *Welcome) { *w = Welcome{Error: uint32(wire.NotFound) + 1, Text: "go\x1b[2J away"} })
	}},
	{"hangs up", "", func(l *liar) error {
		defer l.lied()
		return l.st.Reset()
	}},
	{"accuses", "", func(l *liar) error {
		// To be called a liar is no proof against the one who says so.
		err := l.hello(nil)
		<-time.After(50 * time.Millisecond) // a reset overtakes what was sent before
		l.lied()
		return errors.Join(err, wire.Reset(l.st, wire.Errorf(wire.Malformed, "you")))
	}},
	{"silent after the Welcome", "", func(l *liar) error { return errors.Join(l.hello(nil), l.hold()) }},
	{"silent in mid-tree", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			return errors.Join(l.send(frameNode, l.s.nodes[0]), l.hold())
		}, nil))
	}},
	{"silent after the tree", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(int) error { return l.hold() }))
	}},
	{"silent in mid-leaf", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			b := appendHeader(nil, frameLeaf, 4+len(l.s.leaves[i]))
			b = binary.BigEndian.AppendUint32(b, uint32(i))
			_, err := l.st.Write(append(b, l.s.leaves[i][:len(l.s.leaves[i])/2]...))
			return errors.Join(err, l.hold())
		}))
	}},
	{"everything gone", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			defer l.lied()
			return l.message(frameGone, &Gone{First: uint32(i), Count: 1, Error: uint32(wire.Changed), Text: "changed\x07"})
		}))
	}},
	{"chokes for ever", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.send(frameChoke, nil), l.serve(nil, func(int) error { return l.hold() }), l.hold())
	}},
	{"chokes in mid-transfer", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(nil, func(i int) error {
			if i%2 == 0 {
				return l.leaf(i, l.s.leaves[i])
			}
			return errors.Join(l.send(frameChoke, nil), l.hold())
		}))
	}},
	{"a million peers", "", func(l *liar) error {
		return errors.Join(l.hello(nil), l.serve(func() error {
			m := &Peers{}
			for k := range 1_000_000 {
				id := append([]byte{0, 36, 8, 1, 18, 32}, noise(uint64(k%60_000), 32)...)
				m.Peers = append(m.Peers, &Peers_Peer{Id: id, Addrs: [][]byte{{4, 127, 0, 0, 1, 6, 0, 9}}})
				if len(m.Peers) == peersMax {
					if err := l.message(framePeers, m); err != nil {
						return err
					}
					m.Peers = nil
				}
				if k == 10*namedMax {
					l.lied()
				}
				if k == 50*namedMax {
					break // the rest only costs the test time
				}
			}
			return l.hold()
		}, nil))
	}},
}

// setLiar has h do do on every stream. lied is closed once the lie is out.
func setLiar(h Host, s *sample, do func(*liar) error) (lied chan struct{}) {
	lied = make(chan struct{})
	var once sync.Once
	h.SetStreamHandler(Protocol, func(st network.Stream) {
		defer st.Reset()
		_ = do(&liar{s: s, st: st, br: bufio.NewReader(st), lied: func() { once.Do(func() { close(lied) }) }})
	})
	return lied
}

// Beside an honest provider, who appears only when the lie is out, the download
// completes and is right; the liar is named.
func TestLiarAndHonest(t *testing.T) {
	s := folderSample(t)
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet()
				h := net.host("liar")
				liarAndHonest(t, s, h, setLiar(h, s, lie.do), lie.banned, func(change ...func(*Config)) *node {
					return net.node(t, string(rune('a'+len(change))), change...)
				})
			})
		})
	}
}

// The same over real connections, for what their behaviour has a part in.
func TestLiarAndHonestForReal(t *testing.T) {
	s := folderSample(t)
	for _, lie := range lies {
		switch lie.name {
		case "wrong leaf bytes", "wrong leaf bytes and away", "tree without end", "oversized leaf frame", "accuses", "hangs up",
			"silent in mid-leaf", "chokes in mid-transfer", "has the same for ever", "a million peers":
		default:
			continue
		}
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			liarAndHonest(t, s, h, setLiar(h, s, lie.do), lie.banned, func(change ...func(*Config)) *node { return newNode(t, change...) })
		})
	}
}

func liarAndHonest(t *testing.T, s *sample, h Host, lied chan struct{}, why string, start func(...func(*Config)) *node) {
	honest := start()
	s.share(t, honest.store)
	n := start(func(c *Config) { c.Finder = &finder{lied, []peer.AddrInfo{infoOf(honest.host)}} })
	out, rep, err := n.get(t.Context(), t, s, 20*time.Second, infoOf(h))
	if err != nil {
		t.Fatal(err)
	}
	s.check(t, out)
	checkBanned(t, rep, h, why)
}

func checkBanned(t *testing.T, rep Report, h Host, why string) {
	t.Helper()
	for _, b := range rep.Banned {
		if b.Peer != h.ID() || why == "" || !strings.Contains(b.Why, why) {
			t.Errorf("banned: %+v", b)
		}
	}
	if n := len(rep.Banned); n != 0 != (why != "") || n > 1 {
		t.Errorf("banned %d times: %+v", n, rep.Banned)
	}
}

// Alone, a liar costs the time limit and no more; the error says who was tried.
func TestLiarAlone(t *testing.T) {
	s := folderSample(t)
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet()
				h := net.host("liar")
				setLiar(h, s, lie.do)
				start := time.Now()
				_, rep, err := net.node(t, "me").get(t.Context(), t, s, 5*time.Second, infoOf(h))
				var none *NoProviderError
				if !errors.As(err, &none) || len(none.Tried) == 0 {
					t.Fatalf("err = %v", err)
				}
				if d := time.Since(start); d > 20*time.Second {
					t.Errorf("it took %v", d)
				}
				if strings.ContainsAny(err.Error(), "\x07\x1b") {
					t.Errorf("a stranger's control characters: %q", err)
				}
				if !strings.Contains(err.Error(), lie.banned) {
					t.Errorf("the error does not say why: %v", err)
				}
				checkBanned(t, rep, h, lie.banned)
			})
		})
	}
}

// A download may be cancelled whatever its peer is doing: it ends at once, and
// (TestMain, and the bubble, see to that) leaves nothing running.
func TestCancelBesideLiar(t *testing.T) {
	s := folderSample(t)
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newMemNet()
				h := net.host("liar")
				lied := setLiar(h, s, lie.do)
				n := net.node(t, "me")
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-lied
					cancel()
				}()
				start := time.Now()
				if _, _, err := n.get(ctx, t, s, time.Minute, infoOf(h)); !errors.Is(err, context.Canceled) {
					t.Errorf("err = %v", err)
				}
				if d := time.Since(start); d > time.Second {
					t.Errorf("it took %v to end", d)
				}
			})
		})
	}
}
