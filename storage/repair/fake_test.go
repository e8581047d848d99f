package repair

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/tree"
)

var testPool = [32]byte{'t', 'e', 's', 't'}

const gib = 1 << 30

// newIdentity makes the n-th peer, always the same one.
func newIdentity(t testing.TB, n int) ident.Identity {
	t.Helper()
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ident.Identity{Key: key, ID: id, Name: fmt.Sprint("peer ", n)}
}

// world is a pool in memory: who is there, what the names say, which bytes went where.
type world struct {
	t testing.TB

	mu      sync.Mutex
	nodes   map[peer.ID]*fakeNode
	real    map[peer.ID]*realNode
	up      map[peer.ID]bool
	seen    map[peer.ID]time.Time // when it went
	records map[string]*directory.Record
	wants   map[chunk.CID]tree.Want
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, nodes: map[peer.ID]*fakeNode{}, real: map[peer.ID]*realNode{}, up: map[peer.ID]bool{}, seen: map[peer.ID]time.Time{},
		records: map[string]*directory.Record{}, wants: map[chunk.CID]tree.Want{},
	}
}

// fakeNode is one peer. Its stores are real, in folders of the test.
type fakeNode struct {
	*Repair
	w       *world
	id      ident.Identity
	dir     string
	pieces  *piece.Store
	offer   Offer
	battery atomic.Int32 // per cent; 0: mains
	edit    func(*Config)

	mu      sync.Mutex
	handler network.StreamHandler
	members map[int]func(roster.Change)
	lends   map[int]func(*directory.Record)
	names   map[int]func([]tree.Want)
	next    int

	sent, received atomic.Int64 // over all streams
}

// join adds the n-th peer, with space for all.
func (w *world) join(n int) *fakeNode {
	w.t.Helper()
	return w.joinWith(n, Offer{Space: gib}, nil)
}

func (w *world) joinWith(n int, offer Offer, edit func(*Config)) *fakeNode {
	w.t.Helper()
	x := &fakeNode{w: w, id: newIdentity(w.t, n), dir: w.t.TempDir(), offer: offer, edit: edit}
	x.init()
	w.mu.Lock()
	w.nodes[x.id.ID] = x
	w.mu.Unlock()
	x.open()
	w.t.Cleanup(x.close)
	return x
}

func (x *fakeNode) init() {
	x.members, x.lends, x.names = map[int]func(roster.Change){}, map[int]func(*directory.Record){}, map[int]func([]tree.Want){}
}

// open starts a peer, again or for the first time.
func (x *fakeNode) open() {
	x.w.t.Helper()
	var err error
	x.pieces, err = piece.Open(piece.Config{Dir: x.dir + "/pieces", Quota: int64(x.offer.Space)})
	if err != nil {
		x.w.t.Fatal(err)
	}
	cfg := Config{
		Self: x.id.ID, Dir: x.dir + "/repair", Pool: testPool, Pieces: x.pieces, Fetch: noFetch{}, Members: x, Streams: x,
		Records: recordsOf{x}, Lends: func() Offer { return x.offer }, Power: x.power, Near: func(peer.ID) bool { return true },
	}
	if x.edit != nil {
		x.edit(&cfg)
	}
	if x.Repair, err = Open(cfg); err != nil {
		x.w.t.Fatal(err)
	}
	x.Use(x)
	x.w.setUp(x, true)
}

// close ends a peer as a kill does, but for its files, which the tests of the piece store see to.
func (x *fakeNode) close() {
	x.w.setUp(x, false)
	if err := errors.Join(x.Repair.Close(), x.pieces.Close()); err != nil {
		x.w.t.Error(err)
	}
}

// setUp lets a peer come or go, and tells the others.
func (w *world) setUp(x *fakeNode, up bool) {
	w.mu.Lock()
	w.up[x.id.ID], w.seen[x.id.ID] = up, time.Now()
	var tell []func(roster.Change)
	for _, o := range w.nodes {
		o.mu.Lock()
		tell = slices.AppendSeq(tell, maps.Values(o.members))
		o.mu.Unlock()
	}
	w.mu.Unlock()
	for _, f := range tell {
		f(roster.Change{})
	}
}

func (x *fakeNode) power() (roster.Power, uint8) {
	if n := x.battery.Load(); n > 0 {
		return roster.PowerBattery, uint8(n)
	}
	return roster.PowerMains, 0
}

func (w *world) linked(a, b peer.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up[a] && w.up[b]
}

// Members implements Members.
func (x *fakeNode) Members() (out []roster.Member) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	for id := range x.w.nodes {
		m := roster.Member{ID: id, Role: ident.RoleMember, State: roster.Away, Seen: x.w.seen[id], Self: id == x.id.ID}
		if m.Self || x.w.up[id] && x.w.up[x.id.ID] {
			m.State, m.Seen = roster.Online, time.Now()
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b roster.Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

// addTo adds a watcher to one of a node's lists.
func addTo[F any](x *fakeNode, list map[int]F, f F) (stop func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next++
	n := x.next
	list[n] = f
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(list, n)
	}
}

// WatchWants implements Names.
func (x *fakeNode) WatchWants(f func([]tree.Want)) (stop func()) { return addTo(x, x.names, f) }

// Wants implements Names.
func (x *fakeNode) Wants() iter.Seq[tree.Want] {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	return maps.Values(maps.Clone(x.w.wants))
}

// Live implements Names.
func (x *fakeNode) Live() func(chunk.CID) bool {
	return func(id chunk.CID) bool {
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		_, ok := x.w.wants[id]
		return ok
	}
}

// name has every peer hear of wanted pieces; no copies: they are wanted no more.
func (w *world) name(copies int, pieces ...piece.Piece) {
	var wants []tree.Want
	w.mu.Lock()
	for _, p := range pieces {
		want := tree.Want{Piece: p, Copies: copies}
		if w.wants[p.ID] = want; copies == 0 {
			delete(w.wants, p.ID)
		}
		wants = append(wants, want)
	}
	var tell []func([]tree.Want)
	for _, o := range w.nodes {
		o.mu.Lock()
		tell = slices.AppendSeq(tell, maps.Values(o.names))
		o.mu.Unlock()
	}
	w.mu.Unlock()
	for _, f := range tell {
		f(wants)
	}
}

// Watch implements Members.
func (x *fakeNode) Watch(f func(roster.Change)) (stop func()) { return addTo(x, x.members, f) }

// recordsOf is a fakeNode as Records.
type recordsOf struct{ x *fakeNode }

func (r recordsOf) Put(key string, value []byte) error {
	w := r.x.w
	rec := &directory.Record{Key: key, Value: value, Author: r.x.id.ID}
	w.mu.Lock()
	w.records[key] = rec
	var tell []func(*directory.Record)
	for _, o := range w.nodes {
		o.mu.Lock()
		tell = slices.AppendSeq(tell, maps.Values(o.lends))
		o.mu.Unlock()
	}
	w.mu.Unlock()
	for _, f := range tell {
		f(rec)
	}
	return nil
}

func (r recordsOf) Scan(prefix string) iter.Seq[*directory.Record] {
	w := r.x.w
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*directory.Record
	for _, key := range slices.Sorted(maps.Keys(w.records)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, w.records[key])
		}
	}
	return slices.Values(out)
}

func (r recordsOf) Watch(prefix string, f func(*directory.Record)) (stop func()) {
	return addTo(r.x, r.x.lends, f)
}

// noFetch is for pools that have small pieces only.
type noFetch struct{}

func (noFetch) TakePiece(context.Context, piece.Piece, []peer.ID, func(int64)) error {
	return errors.New("no large pieces here")
}

func (noFetch) TakePieceNow(context.Context, piece.Piece, []peer.ID, func(int64)) error {
	return errors.New("no large pieces here")
}

func (noFetch) SetRepairRate(int64) {}

func (noFetch) OpenPiece(context.Context, piece.Piece, []peer.ID) (PieceReader, error) {
	return nil, errors.New("no large pieces here")
}

// Handle implements Streams.
func (x *fakeNode) Handle(_ protocol.ID, h network.StreamHandler) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.handler = h
}

// NewBulkStream implements Streams.
func (x *fakeNode) NewBulkStream(ctx context.Context, to peer.ID, proto protocol.ID) (network.Stream, error) {
	return x.NewStream(ctx, to, proto)
}

// NewStream implements Streams.
func (x *fakeNode) NewStream(_ context.Context, to peer.ID, proto protocol.ID) (network.Stream, error) {
	x.w.mu.Lock()
	other := x.w.nodes[to]
	x.w.mu.Unlock()
	if other == nil || !x.w.linked(x.id.ID, to) || proto != Protocol {
		return nil, errors.New("no route")
	}
	other.mu.Lock()
	h := other.handler
	other.mu.Unlock()
	if h == nil {
		return nil, errors.New("protocol not supported")
	}
	a, b := newPipe(x, other)
	go h(b)
	return a, nil
}

// files makes n small pieces of so many bytes, and puts them into a peer's store.
func (x *fakeNode) files(seed, n, size int) []piece.Piece {
	x.w.t.Helper()
	batch := x.pieces.NewBatch()
	defer batch.Close()
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	data := make([]byte, size)
	var out []piece.Piece
	for range n {
		_, _ = rng.Read(data)
		f, err := batch.Add(context.Background(), bytes.NewReader(data))
		if err != nil {
			x.w.t.Fatal(err)
		}
		out = append(out, f.Pieces...)
	}
	if err := batch.Commit(); err != nil {
		x.w.t.Fatal(err)
	}
	return out
}

// put is what a writer does: bytes, copies, names.
func (x *fakeNode) put(seed, n, size, copies, ack int) []piece.Piece {
	x.w.t.Helper()
	pieces := x.files(seed, n, size)
	got, err := x.Secure(context.Background(), pieces, copies, ack, nil)
	if err != nil || got.Copies < ack {
		x.w.t.Fatalf("secured %d copies of %d, %v", got.Copies, ack, err)
	}
	x.w.name(copies, pieces...)
	return pieces
}

// copies counts the peers that are there and hold a piece.
func (w *world) copies(id chunk.CID) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, x := range w.nodes {
		if w.up[p] && x.pieces.Has(id) {
			n++
		}
	}
	return n
}

// least is how many copies the worst of some pieces has.
func (w *world) least(pieces []piece.Piece) int {
	least := len(w.nodes)
	for _, p := range pieces {
		least = min(least, w.copies(p.ID))
	}
	return least
}

// settle lets virtual time pass.
func settle(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// fileBytes is how many bytes of files all peers that are there have fetched, been given or read.
func (w *world) fileBytes() (n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, x := range w.nodes {
		if w.up[p] {
			n += x.counted.read.Load() + x.counted.received.Load()
		}
	}
	return n
}

// window is how many writes a fake stream takes before it is read from.
const window = 64

// pipe is one end of a stream in memory, with room for some writes as real streams have.
type pipe struct {
	network.Stream
	self   *fakeNode
	remote *fakeNode
	in     <-chan []byte
	out    chan<- []byte
	ended  *ending // of what comes in: the other side closed
	ends   *ending // of what goes out
	rest   []byte
	read   deadline
	write  deadline
}

// ending is closed once, with or without an error.
type ending struct {
	once  sync.Once
	done  chan struct{}
	reset atomic.Bool
}

func (e *ending) end(reset bool) {
	e.once.Do(func() {
		e.reset.Store(reset)
		close(e.done)
	})
}

func newPipe(a, b *fakeNode) (network.Stream, network.Stream) {
	ab, ba := make(chan []byte, window), make(chan []byte, window)
	abEnd, baEnd := &ending{done: make(chan struct{})}, &ending{done: make(chan struct{})}
	return &pipe{self: a, remote: b, in: ba, out: ab, ended: baEnd, ends: abEnd},
		&pipe{self: b, remote: a, in: ab, out: ba, ended: abEnd, ends: baEnd}
}

func (s *pipe) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		select {
		case s.rest = <-s.in:
			continue
		default:
		}
		timer, stop := s.read.timer()
		select {
		case s.rest = <-s.in:
		case <-s.ended.done:
			stop()
			if s.ended.reset.Load() {
				return 0, network.ErrReset
			}
			if len(s.in) == 0 {
				return 0, io.EOF
			}
		case <-timer:
			return 0, os.ErrDeadlineExceeded
		}
		stop()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	s.self.received.Add(int64(n))
	return n, nil
}

func (s *pipe) Write(p []byte) (int, error) {
	if !s.self.w.linked(s.self.id.ID, s.remote.id.ID) {
		_ = s.Reset()
		return 0, network.ErrReset
	}
	timer, stop := s.write.timer()
	defer stop()
	select {
	case <-s.ends.done:
		return 0, network.ErrReset
	default:
	}
	select {
	case s.out <- bytes.Clone(p):
		s.self.sent.Add(int64(len(p)))
		return len(p), nil
	case <-s.ends.done:
		return 0, network.ErrReset
	case <-timer:
		return 0, os.ErrDeadlineExceeded
	}
}

func (s *pipe) Close() error { s.ends.end(false); return nil }
func (s *pipe) Reset() error { s.ends.end(true); s.ended.end(true); return nil }

func (s *pipe) ResetWithError(network.StreamErrorCode) error { return s.Reset() }

func (s *pipe) SetDeadline(t time.Time) error      { s.read.set(t); s.write.set(t); return nil }
func (s *pipe) SetReadDeadline(t time.Time) error  { s.read.set(t); return nil }
func (s *pipe) SetWriteDeadline(t time.Time) error { s.write.set(t); return nil }
func (s *pipe) Conn() network.Conn                 { return pipeConn{remote: s.remote.id.ID} }

// deadline is when a read or write ends; one that waits already does not hear of a new one.
type deadline struct{ at atomic.Pointer[time.Time] }

func (d *deadline) set(t time.Time) { d.at.Store(&t) }

func (d *deadline) timer() (<-chan time.Time, func()) {
	at := d.at.Load()
	if at == nil || at.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(*at))
	return timer.C, func() { timer.Stop() }
}

// pipeConn gives a stream the one method of a connection that is asked for.
type pipeConn struct {
	network.Conn
	remote peer.ID
}

func (c pipeConn) RemotePeer() peer.ID { return c.remote }
