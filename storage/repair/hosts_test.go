package repair

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/pool/pooltest"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
)

// realNode is a peer over a real host and a real swarm, in a world that says who is a member and what is wanted.
type realNode struct {
	*fakeNode
	host *host.Host
	swar *storage.Storage
	dead atomic.Bool
}

// realStreams are streams of members over a host, as the pool would give them.
type realStreams struct {
	*host.Host
	w *world
}

func (s realStreams) Handle(id protocol.ID, h network.StreamHandler) {
	s.SetStreamHandler(id, func(raw network.Stream) {
		s.w.mu.Lock()
		member := s.w.nodes[raw.Conn().RemotePeer()] != nil
		s.w.mu.Unlock()
		if !member {
			_ = raw.Reset()
			return
		}
		h(raw)
	})
}

func (s realStreams) NewStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	return s.Host.NewStream(ctx, p, id)
}

func (s realStreams) NewBulkStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	return s.Host.NewBulkStream(ctx, p, id)
}

// joinReal adds the n-th peer and connects it to all others.
func (w *world) joinReal(n int, edit func(*Config)) *realNode {
	w.t.Helper()
	x := &realNode{fakeNode: &fakeNode{w: w, id: newIdentity(w.t, n), dir: w.t.TempDir(), offer: Offer{Space: 8 * gib}}}
	x.init()
	var err error
	if x.host, err = host.New(host.Config{Identity: x.id, Listen: []string{"/ip4/127.0.0.1/tcp/0"}}); err != nil {
		w.t.Fatal(err)
	}
	x.fakeNode.edit = func(c *Config) {
		member := func(p peer.ID) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.nodes[p] != nil }
		x.swar, err = storage.Open(storage.Config{
			Dir: filepath.Join(x.dir, "store"), Host: x.host, Pieces: c.Pieces, Member: member,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		c.Fetch, c.Streams = Swarm(x.swar), realStreams{x.host, w}
		if edit != nil {
			edit(c)
		}
	}
	w.mu.Lock()
	others := slices.Collect(maps.Values(w.nodes))
	w.nodes[x.id.ID] = x.fakeNode
	w.real[x.id.ID] = x
	w.mu.Unlock()
	for _, o := range others {
		h := w.real[o.id.ID].host
		if err := x.host.Connect(w.t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
			w.t.Fatal(err)
		}
	}
	x.open()
	w.t.Cleanup(x.die)
	return x
}

// die ends a peer: its connections first, as a kill does.
func (x *realNode) die() {
	if x.dead.Swap(true) {
		return
	}
	err := x.host.Close()
	x.w.setUp(x.fakeNode, false)
	if err = errors.Join(err, x.Repair.Close(), x.swar.Close(), x.pieces.Close()); err != nil {
		x.w.t.Error(err)
	}
}

// until waits for a condition.
func until(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		<-tick.C
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
	return time.Since(began)
}

// met waits until all peers have heard each other's room.
func (w *world) met() {
	w.t.Helper()
	until(w.t, 20*time.Second, "all have met", func() bool {
		for _, x := range w.nodes {
			o := x.Overview()
			if len(o.Members) != len(w.nodes) || slices.ContainsFunc(o.Members, func(m MemberHolds) bool { return m.Free == 0 }) {
				return false
			}
		}
		return true
	})
}

// mixed puts files of several sizes into a peer's store and secures them.
func (x *realNode) mixed(t testing.TB, sizes []int, copies, ack int) (pieces []piece.Piece, files []piece.File, data [][]byte) {
	t.Helper()
	batch := x.pieces.NewBatch()
	defer batch.Close()
	rng := rand.NewChaCha8([32]byte{7})
	for _, n := range sizes {
		b := make([]byte, n)
		_, _ = rng.Read(b)
		f, err := batch.Add(t.Context(), bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		pieces, files, data = append(pieces, f.Pieces...), append(files, f), append(data, b)
	}
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := x.Secure(t.Context(), pieces, copies, ack, nil)
	if err != nil || got.Copies < ack {
		t.Fatalf("secured %d copies, %v", got.Copies, err)
	}
	x.w.name(copies, pieces...)
	return pieces, files, data
}

// TestFivePeersTwoDie is the first point, over loopback.
func TestFivePeersTwoDie(t *testing.T) {
	w := newWorld(t)
	var nodes []*realNode
	for n := range 5 {
		nodes = append(nodes, w.joinReal(n+1, func(c *Config) { c.Timings = Timings{Patience: 4 * time.Second} }))
	}
	w.met()
	sizes := slices.Repeat([]int{100, 4 << 10, 200 << 10, 1 << 20}, 20)
	sizes = append(sizes, 1<<20+1, 3<<20, 10<<20, 17<<20)
	pieces, files, data := nodes[0].mixed(t, sizes, 3, 2)
	// On a busy machine the writer takes longer than the second after which, with so short a patience, planners come to its
	// help: what they move then is no repair of what is lost below.
	until(t, time.Minute, "three copies of all, and rest", func() bool { return w.least(pieces) == 3 && atRest(nodes) })
	before, missing, moved := int64(0), int64(0), int64(0)
	for _, x := range nodes[:3] {
		before += x.counted.mended.Load()
	}
	nodes[3].die()
	nodes[4].die()
	for _, p := range pieces {
		missing += int64(3-w.copies(p.ID)) * p.Size
	}
	for i, f := range files { // at once, from what remains
		sameBytes(t, nodes[1+i%2], f, data[i])
	}
	took := until(t, time.Minute, "three copies of all again", func() bool { return w.least(pieces) == 3 })
	for _, x := range nodes[:3] {
		moved += x.counted.mended.Load()
	}
	moved -= before
	t.Logf("%d MB of copies were missing, %d MB were moved, after %v", missing>>20, moved>>20, took.Round(time.Millisecond))
	if float64(moved) > 1.2*float64(missing) {
		t.Errorf("%d bytes were moved for %d", moved, missing)
	}
	for i, f := range files {
		sameBytes(t, nodes[2], f, data[i])
	}
}

// atRest reports that nobody is fetching a piece.
func atRest(nodes []*realNode) bool {
	return !slices.ContainsFunc(nodes, func(x *realNode) bool {
		x.Repair.mu.Lock()
		defer x.Repair.mu.Unlock()
		return len(x.jobs) > 0
	})
}

func sameBytes(t testing.TB, x *realNode, f piece.File, want []byte) {
	t.Helper()
	file, err := x.Open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := make([]byte, len(want))
	if n, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes, %v", n, len(want), err)
	}
}

// TestALargePieceWithAFlippedBit is never served, and mended.
func TestALargePieceWithAFlippedBit(t *testing.T) {
	w := newWorld(t)
	var nodes []*realNode
	for n := range 3 {
		nodes = append(nodes, w.joinReal(n+1, func(c *Config) { c.Timings = Timings{Patience: 4 * time.Second} }))
	}
	w.met()
	pieces, files, data := nodes[0].mixed(t, []int{5 << 20}, 3, 3)
	flipIn(t, nodes[1].dir+"/pieces", data[0][2<<20:][:64])
	sameBytes(t, nodes[1], files[0], data[0])
	until(t, time.Minute, "it is mended", func() bool {
		return nodes[1].pieces.Has(pieces[0].ID) && nodes[1].pieces.Verify(t.Context(), pieces[0].ID) == nil
	})
	flipIn(t, nodes[2].dir+"/pieces", data[0][3<<20:][:64])
	rep, err := nodes[2].ScrubNow(t.Context(), nil)
	if err != nil || rep.Damaged != 1 || rep.Repaired != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestManySmallFiles measures how many small files a writer secures in a second.
func TestManySmallFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 120 MB")
	}
	w := newWorld(t)
	var nodes []*realNode
	for n := range 3 {
		nodes = append(nodes, w.joinReal(n+1, nil))
	}
	w.met()
	const files = 10_000
	began := time.Now()
	pieces := nodes[0].files(1, files, 4<<10)
	local := time.Since(began)
	began = time.Now()
	got, err := nodes[0].Secure(t.Context(), pieces, 3, 2, nil)
	second := time.Since(began)
	if err != nil || got.Copies < 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	all := until(t, time.Minute, "three copies", func() bool { return w.least(pieces) == 3 }) + second
	t.Logf("%d files of 4 KiB: here in %v, a second copy after %v more (%.0f files/s), a third after %v",
		files, local.Round(time.Millisecond), second.Round(time.Millisecond), files/second.Seconds(), all.Round(time.Millisecond))
	reader := w.joinReal(9, nil)
	w.met()
	until(t, 20*time.Second, "the reader knows", func() bool { return len(reader.believed(pieces[0].ID)) == 3 })
	began = time.Now()
	reader.Warm(t.Context(), pieces)
	t.Logf("read by another in %v", time.Since(began).Round(time.Millisecond))
	for _, p := range pieces[:100] {
		if b, err := reader.small(t.Context(), p, nil); err != nil || chunk.SumRaw(b) != p.ID {
			t.Fatal(err)
		}
	}
}

// TestStrangersAreRefused tries the protocol as everybody who is no member.
func TestStrangersAreRefused(t *testing.T) {
	self := newIdentity(t, 1)
	h, err := host.New(host.Config{Identity: self, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pool.Open(pool.Config{Home: t.TempDir(), Identity: self, Host: h})
	if err != nil {
		t.Fatal(err)
	}
	names := pooltest.NewNames()
	p.UseRecords(names)
	w := newWorld(t)
	x := &fakeNode{w: w, id: self, dir: t.TempDir(), offer: Offer{Space: gib}}
	x.init()
	w.nodes[self.ID] = x
	x.edit = func(c *Config) { c.Members, c.Streams = p, p }
	x.open()
	defer func() {
		x.close()
		if err := errors.Join(p.Close(), h.Close()); err != nil {
			t.Error(err)
		}
	}()
	if !slices.Contains(p.Protocols(), Protocol) {
		t.Fatalf("%s is not among %v", Protocol, p.Protocols())
	}
	pooltest.Refusals(t, pooltest.Victim{
		Pool: p, At: peer.AddrInfo{ID: self.ID, Addrs: h.Addrs()}, Admin: self, Tell: names.Put,
	})
}
