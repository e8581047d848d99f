package exchange

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// openLane greets as one that takes up open lanes, and goes over to the one that it is given.
func (c *client) openLane() *Lane {
	c.t.Helper()
	var w Welcome
	err := wire.WriteMsg(c.st, &Hello{Root: c.s.root.Bytes(), OpenLane: true}, helloMax)
	if err = errors.Join(err, wire.ReadMsg(c.br, &w, welcomeMax)); err != nil || w.Error != 0 {
		c.t.Fatal(&w, err)
	}
	m, addr := c.offered()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(m.Id); err != nil {
		c.t.Fatal(err)
	}
	for kind := frameType(0); kind != frameSwitch; {
		if kind, _, err = c.next(); err != nil {
			c.t.Fatal(err)
		}
	}
	lane, err := newLaneReader(conn, m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.br = bufio.NewReader(lane)
	return m
}

// TestOpenLane: between processes of one machine leaves come as they are, large and small, and the end of the lane is no clean one.
func TestOpenLane(t *testing.T) {
	files := map[string][]byte{"big": noise(9, 3<<20+77)}
	for _, name := range []string{"a", "b", "c", "x", "y"} {
		files[name] = noise(uint64(name[0]), 1000)
	}
	s, a := makeSample(t, files), newNode(t)
	s.share(t, a.store)
	c := laneClient(t, a, s)
	if m := c.openLane(); !m.Open {
		t.Fatal("the lane is sealed")
	}
	all := bitfield.Run{First: 0, Count: len(s.leaves)}
	for range 2 {
		if err := c.ask(all); err != nil {
			t.Fatal(err)
		}
		for i := range s.leaves {
			c.leaf(i)
		}
	}
	r, _ := a.store.Root(s.root)
	sum := int64(0)
	for _, l := range s.leaves {
		sum += int64(len(l))
	}
	eventually(t, "all of it is accounted for", func() bool { return r.Uploaded.Load() == 2*sum })
	if err := c.st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.ended(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// TestOpenLaneOnlyIfBoth: who does not say that it takes up open lanes is given a sealed one, and one that seals all gives no other.
func TestOpenLaneOnlyIfBoth(t *testing.T) {
	s, a := laneSample(t), newNode(t)
	s.share(t, a.store)
	c := laneClient(t, a, s)
	c.greet()
	if m, _ := c.offered(); m.Open {
		t.Error("open, for one that did not say that it takes it")
	}
	b := newNode(t, sealAll)
	s.share(t, b.store)
	if m := laneClient(t, b, s).openLane(); m.Open {
		t.Error("open, from one that seals all")
	}
}

// TestOpenLaneNotWanted: who seals all does not take up a lane that is not sealed, and its server breaks the protocol.
func TestOpenLaneNotWanted(t *testing.T) {
	s := laneSample(t)
	h := laneServer(t, s, func(l *liar, _ int) error {
		l.lane = func() error {
			return l.message(frameLane, &Lane{Port: 1, Id: make([]byte, laneID), Key: testKey, Open: true})
		}
		return errors.Join(l.hello(func(w *Welcome) { w.Lanes = true }), l.serve(nil, nil))
	})
	_, rep, err := newNode(t, sealAll).get(testContext(t), t, s, 5*time.Second, infoOf(h))
	if err == nil || len(rep.Banned) != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestOpenLaneFileChanges: a leaf whose file is not what was shared any more never comes whole.
func TestOpenLaneFileChanges(t *testing.T) {
	s, a := laneSample(t), newNode(t)
	s.share(t, a.store)
	r, _ := a.store.Root(s.root)
	path := r.Info().Path
	c := laneClient(t, a, s)
	c.openLane()
	if err := c.ask(bitfield.Run{First: 0, Count: 1}); err != nil {
		t.Fatal(err)
	}
	c.leaf(0)
	// Before: the leaf is refused, and the lane goes on.
	if err := os.Truncate(path, int64(len(s.files[""]))-1); err != nil {
		t.Fatal(err)
	}
	if err := c.ask(bitfield.Run{First: 1, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := c.next(); err != nil || kind != frameGone {
		t.Errorf("frame %d, %v", kind, err)
	}
}

// TestPrivateIsNotPassed: leaves of private roots are looked at on an open lane, too.
func TestPrivateIsNotPassed(t *testing.T) {
	s := makeSample(t, map[string][]byte{"big": noise(9, 3<<20)})
	st, private := privately(t)
	a := newNode(t, private, func(c *Config) { c.Member = func(peer.ID) bool { return true } })
	s.share(t, st)
	r, _ := st.Root(s.root)
	flip(t, filepath.Dir(filepath.Join(r.Info().Path, "big")), s, 0)
	c := laneClient(t, a, s)
	if m := c.openLane(); !m.Open {
		t.Fatal("the lane is sealed")
	}
	if err := c.ask(bitfield.Run{First: 0, Count: 2}); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := c.next(); err != nil || kind != frameGone {
		t.Fatalf("frame %d, %v", kind, err)
	}
	c.leaf(1)
}
