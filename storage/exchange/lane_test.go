package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

func laneSample(t testing.TB) *sample {
	return makeSample(t, map[string][]byte{"": noise(9, laneMin+5<<20+77)})
}

// TestLane: what is large goes by a lane, what is small does not.
func TestLane(t *testing.T) {
	t.Run("open", func(t *testing.T) { testLane(t) })
	t.Run("sealed", func(t *testing.T) { testLane(t, sealAll) })
}

func sealAll(c *Config) { c.SealAll = true }

func testLane(t *testing.T, change ...func(*Config)) {
	a, b := newNode(t, change...), newNode(t, change...)
	for name, s := range map[string]*sample{"large": laneSample(t), "small": makeSample(t, map[string][]byte{"": noise(8, 3<<20)})} {
		s.share(t, a.store)
		before := a.lanes.Load()
		out, rep, err := b.get(testContext(t), t, s, 20*time.Second, infoOf(a.host))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, out)
		if rep.Wasted != 0 || len(rep.Banned) != 0 {
			t.Errorf("%s: %+v", name, rep)
		}
		if n := a.lanes.Load() - before; name == "small" && n != 0 {
			t.Errorf("%s: %d lanes", name, n)
		}
	}
	// With luck all of it came before the lane stood; a second and a third time it is not so again.
	for i := 0; b.lanes.Load() == 0; i++ {
		if i == 10 {
			t.Fatal("no lane was taken up")
		}
		c := newNode(t, change...)
		s := laneSample(t)
		if _, _, err := c.get(testContext(t), t, s, 20*time.Second, infoOf(a.host)); err != nil {
			t.Fatal(err)
		}
		b.lanes.Add(c.lanes.Load())
	}
}

// laneServer is a hostile server's host, which speaks by hand on real connections.
func laneServer(t *testing.T, s *sample, serve func(l *liar, n int) error) Host {
	h := newHost(t)
	var streams atomic.Int32
	h.SetStreamHandler(Protocol, func(st network.Stream) {
		defer st.Reset()
		n := int(streams.Add(1))
		l := &liar{s: s, st: st, br: bufio.NewReader(st), lied: func() {}}
		if err := serve(l, n); err != nil && !errors.Is(err, errStop) && !errors.Is(err, io.EOF) && t.Context().Err() == nil {
			t.Logf("stream %d: %v", n, err)
		}
	})
	return h
}

// TestLaneThatFails: whatever becomes of a lane, the file arrives, and nobody is taken for a liar.
func TestLaneThatFails(t *testing.T) {
	s := laneSample(t)
	// take has the client take up a lane, and goes over to it.
	take := func(l *liar, m *Lane) (*laneWriter, error) {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer tcp.Close()
		m.Port, m.Id, m.Key = uint32(tcp.Addr().(*net.TCPAddr).Port), make([]byte, laneID), testKey
		if err := l.message(frameLane, m); err != nil {
			return nil, err
		}
		conn, err := tcp.Accept()
		if err != nil {
			return nil, err
		}
		if !knocks(conn.(*net.TCPConn), make([]byte, laneID)) {
			return nil, errors.New("it does not knock")
		}
		sealing, err := newSealing(testKey)
		return &laneWriter{conn: conn, sealing: sealing}, errors.Join(err, l.send(frameSwitch, nil))
	}
	open := func(l *liar) (*laneWriter, error) { return take(l, &Lane{}) }
	for name, lane := range map[string]func(l *liar) error{
		"nobody listens": func(l *liar) error {
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			_ = tcp.Close()
			return l.message(frameLane, &Lane{Port: uint32(tcp.Addr().(*net.TCPAddr).Port), Id: make([]byte, laneID), Key: testKey})
		},
		"never opened": func(*liar) error { return nil },
		"breaks at once": func(l *liar) error {
			w, err := open(l)
			if err == nil {
				err = w.conn.Close()
			}
			return errors.Join(err, errStop)
		},
		"breaks in a leaf": func(l *liar) error {
			w, err := open(l)
			if err == nil {
				_, err = w.Write(appendFrame(nil, frameLeaf, append([]byte{0, 0, 0, 0}, l.s.leaves[0]...))[:1000])
				err = errors.Join(err, w.conn.Close())
			}
			return errors.Join(err, errStop)
		},
		"is not sealed": func(l *liar) error {
			w, err := open(l)
			if err == nil {
				_, err = w.conn.Write(appendFrame(nil, frameLeaf, append([]byte{0, 0, 0, 0}, l.s.leaves[0]...)))
				_, _ = io.Copy(io.Discard, w.conn)
			}
			return errors.Join(err, errStop)
		},
		"is open and does not show its key": func(l *liar) error {
			w, err := take(l, &Lane{Open: true})
			if err == nil {
				_, err = w.conn.Write(append(make([]byte, laneKey), appendFrame(nil, frameLeaf, append([]byte{0, 0, 0, 0}, l.s.leaves[0]...))...))
				_, _ = io.Copy(io.Discard, w.conn)
			}
			return errors.Join(err, errStop)
		},
		"is open and breaks in a leaf": func(l *liar) error {
			w, err := take(l, &Lane{Open: true})
			if err == nil {
				_, err = w.conn.Write(append(bytes.Clone(testKey), appendFrame(nil, frameLeaf, append([]byte{0, 0, 0, 0}, l.s.leaves[0]...))[:1000]...))
				err = errors.Join(err, w.conn.Close())
			}
			return errors.Join(err, errStop)
		},
		"is ended": func(l *liar) error {
			w, err := open(l)
			if err == nil {
				err = w.end()
			}
			return errors.Join(err, errStop)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := laneServer(t, s, func(l *liar, n int) error {
				l.lane = func() error {
					if n > 1 {
						t.Error("a lane is asked for again")
					}
					return lane(l)
				}
				return errors.Join(l.hello(func(w *Welcome) { w.Lanes = true }), l.serve(nil, nil))
			})
			out, rep, err := newNode(t).get(testContext(t), t, s, 20*time.Second, infoOf(h))
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, out)
			if len(rep.Banned) != 0 {
				t.Errorf("%+v", rep)
			}
		})
	}
}

// laneClient is an asker that speaks by hand on a real connection.
func laneClient(t *testing.T, to *node, s *sample) *client {
	t.Helper()
	h := newHost(t)
	if err := h.Connect(t.Context(), infoOf(to.host)); err != nil {
		t.Fatal(err)
	}
	st, err := h.NewBulkStream(t.Context(), to.host.ID(), Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Reset() })
	_ = st.SetDeadline(time.Now().Add(time.Minute))
	return &client{t, st, bufio.NewReader(st), s}
}

// offered asks for a lane and reads the offer.
func (c *client) offered() (m *Lane, addr string) {
	c.t.Helper()
	m = &Lane{}
	if err := c.write(appendHeader(nil, frameLaneAsk, 0)); err != nil {
		c.t.Fatal(err)
	}
	for {
		kind, n, err := readHeader(c.br, toAsker)
		if err != nil {
			c.t.Fatal(err)
		}
		if kind != frameLane {
			_, _ = c.br.Discard(n)
			continue
		}
		if err := readMessage(c.br, n, m); err != nil {
			c.t.Fatal(err)
		}
		return m, fmt.Sprintf("127.0.0.1:%d", m.Port)
	}
}

// takeUp connects to an offered lane and waits until all is sent on it.
func (c *client) takeUp(m *Lane, addr string) net.Conn {
	c.t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write(m.Id); err != nil {
		c.t.Fatal(err)
	}
	for kind := frameType(0); kind != frameSwitch; {
		if kind, _, err = c.next(); err != nil {
			c.t.Fatal(err)
		}
	}
	return conn
}

// TestLaneIsForOneWhoKnows: others who come to the port get nothing, and do not keep the right one out.
func TestLaneIsForOneWhoKnows(t *testing.T) {
	s, a := laneSample(t), newNode(t)
	s.share(t, a.store)
	c := laneClient(t, a, s)
	c.greet()
	m, addr := c.offered()
	stranger, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write(make([]byte, laneID)); err != nil {
		t.Fatal(err)
	}
	_ = stranger.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(stranger); len(got) > 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stranger read %d bytes, %v", len(got), err)
	}
	conn := c.takeUp(m, addr)
	lane, err := newLaneReader(conn, m)
	if err != nil {
		t.Fatal(err)
	}
	c.br = bufio.NewReader(lane)
	if err := c.ask(bitfield.Run{First: 3, Count: 2}); err != nil {
		t.Fatal(err)
	}
	c.leaf(3)
	c.leaf(4)
	// The lane is over with its stream, in good order.
	if err := c.st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c.br); err != nil || bytes.Contains(rest, s.leaves[0][:20]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
}

// TestLaneOnce: a second lane is a breach of the protocol, and the port closes with the stream.
func TestLaneOnce(t *testing.T) {
	s, a := laneSample(t), newNode(t)
	s.share(t, a.store)
	c := laneClient(t, a, s)
	c.greet()
	_, addr := c.offered()
	if err := c.write(appendHeader(nil, frameLaneAsk, 0)); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		_, _, err = c.next()
	}
	eventually(t, "the port is closed", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

// TestCloseBesideAStalledLane: one who takes up a lane and then reads nothing must not hold up this peer's end.
func TestCloseBesideAStalledLane(t *testing.T) {
	s, a := laneSample(t), newNode(t)
	s.share(t, a.store)
	c := laneClient(t, a, s)
	c.greet()
	m, addr := c.offered()
	c.takeUp(m, addr)
	if err := c.ask(slices.Repeat([]bitfield.Run{{First: 0, Count: len(s.leaves)}}, 100)...); err != nil {
		t.Fatal(err)
	}
	root, _ := a.store.Root(s.root)
	was, still := int64(0), 0
	eventually(t, "nothing more goes out", func() bool {
		now := root.Uploaded.Load()
		if still++; now != was || now == 0 {
			was, still = now, 0
		}
		return still > 40
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.Swarm.Close()
	}()
	select {
	case <-ended:
	case <-time.After(writeWait / 2):
		t.Errorf("it has not ended within %v", writeWait/2)
		<-ended
	}
}
