package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

// testPool is a set of members.
type testPool struct {
	mu sync.Mutex
	in map[peer.ID]bool
}

func newPool() *testPool { return &testPool{in: map[peer.ID]bool{}} }

func (p *testPool) add(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in[id] = true
}

func (p *testPool) has(id peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in[id]
}

// watchFinder knows nobody and notes what it is told and asked.
type watchFinder struct {
	mu    sync.Mutex
	asked map[dht.Key]int
}

func (f *watchFinder) note(k dht.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked = map[dht.Key]int{}
	}
	f.asked[k]++
}

func (f *watchFinder) Seed(k dht.Key)   { f.note(k) }
func (f *watchFinder) Unseed(k dht.Key) { f.note(k) }
func (f *watchFinder) FindProviders(_ context.Context, k dht.Key) iter.Seq2[peer.AddrInfo, error] {
	f.note(k)
	return func(func(peer.AddrInfo, error) bool) {}
}

// never fails if the finder heard of a root.
func (f *watchFinder) never(t testing.TB, root chunk.CID) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.asked[dht.Key(root.Sum)]; n > 0 {
		t.Errorf("the finder heard of %s %d times", root, n)
	}
}

// poolPeer is a peer with pieces.
type poolPeer struct {
	*testPeer
	pieces *piece.Store
	finder *watchFinder
	home   string
}

const testQuota = 256 << 20

// member starts a member of p that knows the addresses of the others.
func (p *testPool) member(t testing.TB, home string, others ...*poolPeer) *poolPeer {
	t.Helper()
	return p.memberWith(t, home, nil, others...)
}

func (p *testPool) memberWith(t testing.TB, home string, change func(*Config), others ...*poolPeer) *poolPeer {
	t.Helper()
	x := &poolPeer{home: home, finder: &watchFinder{}}
	var err error
	x.pieces, err = piece.Open(piece.Config{Dir: filepath.Join(home, "pieces"), Quota: testQuota})
	must(t, err)
	t.Cleanup(func() { must(t, x.pieces.Close()) })
	x.testPeer = startPeer(t, home, func(c *Config) {
		c.Pieces, c.Member, c.Finder = x.pieces, p.has, x.finder
		if change != nil {
			change(c)
		}
	})
	p.add(x.host.ID())
	for _, o := range others {
		x.meet(o)
	}
	return x
}

// meet has two peers know each other's addresses, as the pool's links do.
func (x *poolPeer) meet(o *poolPeer) {
	x.host.Peerstore().AddAddrs(o.host.ID(), o.host.Addrs(), time.Hour)
	o.host.Peerstore().AddAddrs(x.host.ID(), x.host.Addrs(), time.Hour)
}

// add has x hold data, which makes one piece.
func (x *poolPeer) add(t testing.TB, data []byte) piece.Piece {
	t.Helper()
	b := x.pieces.NewBatch()
	defer b.Close()
	f, err := b.Add(testContext(t), bytes.NewReader(data))
	must(t, err)
	must(t, b.Commit())
	if len(f.Pieces) != 1 {
		t.Fatalf("%d pieces", len(f.Pieces))
	}
	return f.Pieces[0]
}

// holds fails unless x holds exactly data as p.
func (x *poolPeer) holds(t testing.TB, p piece.Piece, data []byte) {
	t.Helper()
	if !x.pieces.Has(p.ID) {
		t.Fatalf("%s is not held", p.ID)
	}
	l, err := x.pieces.OpenLarge(p.ID)
	must(t, err)
	got := make([]byte, l.Size())
	_, err = l.ReadAt(got, 0)
	must(t, errors.Join(err, l.Close()))
	if !bytes.Equal(got, data) {
		t.Error("the piece's bytes are not what was added")
	}
}

func ids(peers ...*poolPeer) (out []peer.ID) {
	for _, p := range peers {
		out = append(out, p.host.ID())
	}
	return out
}

func TestTakePiece(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	b := pool.member(t, t.TempDir(), a)
	c := pool.member(t, t.TempDir(), a, b)
	data := mib(1, 9)
	p := a.add(t, data)
	var last int64
	must(t, b.TakePiece(testContext(t), p, ids(a), func(n int64) { last = n }))
	b.holds(t, p, data)
	if last != p.Size {
		t.Errorf("told of %d bytes at last", last)
	}
	must(t, b.TakePiece(testContext(t), p, nil, nil)) // it is here: nobody is asked
	must(t, c.TakePieceNow(testContext(t), p, ids(b), nil))
	c.holds(t, p, data)
	for _, x := range []*poolPeer{a, b, c} {
		x.finder.never(t, p.ID)
		if s := x.Shares(); len(s) > 0 {
			t.Errorf("listed as a share: %+v", s)
		}
	}
}

// What a stranger is told of a piece is what he is told of a root that nobody has.
func TestPieceAndStranger(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	stranger := newPeer(t)
	data := mib(2, 3)
	p := a.add(t, data)
	ask := func(root chunk.CID) string {
		_, err := stranger.Get(testContext(t), a.link(t, Share{Root: root}), GetOptions{
			Dest: filepath.Join(t.TempDir(), "x"), Timeout: time.Second,
		}, nil)
		var none *exchange.NoProviderError
		if !errors.As(err, &none) || len(none.Tried) != 1 {
			t.Fatalf("err = %v", err)
		}
		return none.Tried[0].Err.Error()
	}
	unknown, _ := chunk.FileDAG([]chunk.CID{chunk.SumRaw([]byte("a")), chunk.SumRaw([]byte("b"))}, 1<<20+1)
	if got, want := ask(p.ID), ask(unknown.CID); got != want {
		t.Errorf("of a piece: %q, of nothing: %q", got, want)
	}

	t.Run("shared, too", func(t *testing.T) {
		sh, _ := a.shareFile(t, data)
		if sh.Root != p.ID {
			t.Fatal("the share has another root")
		}
		out := filepath.Join(t.TempDir(), "out")
		_, err := stranger.Get(testContext(t), a.link(t, sh), GetOptions{Dest: out}, nil)
		must(t, err)
		same(t, out, data)
		b := pool.member(t, t.TempDir(), a)
		must(t, b.TakePiece(testContext(t), p, ids(a), nil))
		b.holds(t, p, data)
		must(t, a.Unshare(sh.Root))
		c := pool.member(t, t.TempDir(), a)
		must(t, c.TakePiece(testContext(t), p, ids(a), nil))
	})
}

// lyingHost spoils the large writes of what a peer serves.
type lyingHost struct{ exchange.Host }

func (h lyingHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(p, func(st network.Stream) { f(lyingStream{st}) })
}

type lyingStream struct{ network.Stream }

func (s lyingStream) Write(b []byte) (int, error) {
	if len(b) > 64<<10 {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
	}
	return s.Stream.Write(b)
}

// A source that lies is replaced by one that does not.
func TestTakeFromLiar(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	data := mib(3, 6)
	p := a.add(t, data)
	liar := pool.memberWith(t, t.TempDir(), func(c *Config) { c.Host = lyingHost{c.Host} })
	liar.add(t, data)
	b := pool.member(t, t.TempDir(), a, liar)
	must(t, b.TakePiece(testContext(t), p, ids(liar, a), nil))
	b.holds(t, p, data)
	c := pool.member(t, t.TempDir(), liar)
	ctx, cancel := context.WithTimeout(testContext(t), 2*time.Second)
	defer cancel()
	if err := c.TakePiece(ctx, p, ids(liar), nil); err == nil || c.pieces.Has(p.ID) {
		t.Errorf("from a liar alone: %v", err)
	}
}

// A source that vanishes in mid-take is replaced by another.
func TestTakeFromOneWhoLeaves(t *testing.T) {
	t.Parallel()
	pool := newPool()
	data := mib(4, 12)
	g, change := gated(5 << 20)
	a := pool.memberWith(t, t.TempDir(), change)
	t.Cleanup(g.open)
	p := a.add(t, data)
	b := pool.member(t, t.TempDir(), a)
	late := pool.member(t, t.TempDir())
	late.add(t, data)
	done := make(chan error)
	go func() { done <- b.TakePiece(testContext(t), p, ids(a, late), nil) }()
	<-g.full
	g.open()
	must(t, a.host.Close())
	b.meet(late)
	must(t, <-done)
	b.holds(t, p, data)
}

// What was taken before a cut is not fetched again.
func TestTakeGoesOn(t *testing.T) {
	t.Parallel()
	pool := newPool()
	data := mib(5, 12)
	g, change := gated(7 << 20)
	a := pool.memberWith(t, t.TempDir(), change)
	t.Cleanup(g.open)
	p := a.add(t, data)
	b := pool.member(t, t.TempDir(), a)
	ctx, cancel := context.WithCancel(testContext(t))
	err := b.TakePiece(ctx, p, ids(a), func(n int64) {
		if n >= 4<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || b.pieces.Has(p.ID) {
		t.Fatalf("err = %v", err)
	}
	g.open()
	before := a.sent(p.ID)
	must(t, b.TakePiece(testContext(t), p, ids(a), nil))
	b.holds(t, p, data)
	// Of what was under way to the take that was canceled some is counted only now.
	if n := a.sent(p.ID) - before; n > 10<<20 {
		t.Errorf("%d bytes were sent though 4 MiB were there", n)
	}
}

// sent is how many bytes of a piece this peer has served.
func (x *poolPeer) sent(id chunk.CID) int64 {
	r, ok := x.pieces.Roots().Root(id)
	if !ok {
		return 0
	}
	return r.Uploaded.Load()
}

// childPiece is the environment's name of a link to the piece that the child takes.
const childPiece = "SHOAL_TEST_CHILD_PIECE"

// TestChildTakes is no test of its own: it is a member in a process that can be killed.
func TestChildTakes(t *testing.T) {
	said := strings.Fields(os.Getenv(childPiece))
	if len(said) == 0 {
		t.Skip("it is run by TestTakeKilled")
	}
	pool := newPool()
	x := pool.member(t, os.Getenv(childHome))
	link, err := chunk.ParseLink(said[0])
	must(t, err)
	from, err := peer.AddrInfosFromP2pAddrs(link.Addrs...)
	must(t, err)
	pool.add(from[0].ID)
	x.host.Peerstore().AddAddrs(from[0].ID, from[0].Addrs, time.Hour)
	err = x.TakePiece(t.Context(), piece.Piece{ID: link.Root, Size: link.Size}, []peer.ID{from[0].ID}, func(n int64) {
		fmt.Printf("done %d\n", n)
	})
	t.Fatal("it was to be killed before its take ended: ", err)
}

// kill -9 in mid-take, and again: what was verified is not fetched twice.
func TestTakeKilled(t *testing.T) {
	t.Parallel()
	pool := newPool()
	data := mib(6, 14) // less than what is sent on a lane, which the gate does not hold
	g, change := gated(11 << 20)
	a := pool.memberWith(t, t.TempDir(), change)
	t.Cleanup(g.open)
	p := a.add(t, data)
	home := t.TempDir()
	id, err := ident.LoadOrCreate(home, "test")
	must(t, err)
	pool.add(id.ID)
	link := a.link(t, Share{Root: p.ID, Size: p.Size})
	killChild(t, "TestChildTakes", 6<<20, childHome+"="+home, childPiece+"="+link.String())
	g.open()
	before := a.sent(p.ID)
	b := pool.member(t, home, a)
	must(t, b.TakePiece(testContext(t), p, ids(a), nil))
	b.holds(t, p, data)
	if n := a.sent(p.ID) - before; n > 10<<20 {
		t.Errorf("%d bytes were sent though 6 MiB were there", n)
	}
}

// A piece that is not held is fetched as it is read, and no more of it than that takes.
func TestOpenPiece(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	b := pool.member(t, t.TempDir(), a)
	data := mib(7, 40)
	p := a.add(t, data)
	r, err := b.OpenPiece(testContext(t), p, ids(a))
	must(t, err)
	readsAs(t, r, data, 5<<20+7, 3<<20)
	readsAs(t, r, data, p.Size-10, 10)
	if n := a.sent(p.ID); n > 24<<20 {
		t.Errorf("%d bytes came for 3 MiB and a bit", n)
	}
	if b.pieces.Has(p.ID) {
		t.Error("what was read counts as held")
	}
	b.finder.never(t, p.ID)

	t.Run("served to members", func(t *testing.T) {
		c := pool.member(t, t.TempDir(), b)
		x, err := c.OpenPiece(testContext(t), p, ids(b))
		must(t, err)
		readsAs(t, x, data, 5<<20, 1<<20)
		must(t, x.Close())
		var none *exchange.NoProviderError
		_, err = newPeer(t).Get(testContext(t), b.link(t, Share{Root: p.ID}), GetOptions{
			Dest: filepath.Join(t.TempDir(), "x"), Timeout: time.Second,
		}, nil)
		if !errors.As(err, &none) || !strings.Contains(err.Error(), "not held here") {
			t.Errorf("a stranger: %v", err)
		}
	})
	t.Run("taken meanwhile", func(t *testing.T) {
		before := a.sent(p.ID)
		must(t, b.TakePiece(testContext(t), p, ids(a), nil))
		b.holds(t, p, data)
		if n := a.sent(p.ID) - before; n > p.Size-3<<20 {
			t.Errorf("%d of %d bytes came though some were read before", n, p.Size)
		}
		readsAs(t, r, data, 0, len(data))
	})
	must(t, r.Close())
	if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func readsAs(t testing.TB, r *PieceReader, data []byte, off int64, n int) {
	t.Helper()
	got := make([]byte, n)
	if k, err := r.ReadAt(got, off); err != nil || !bytes.Equal(got, data[off:int(off)+n]) {
		t.Fatalf("%d bytes at %d: read %d, %v", n, off, k, err)
	}
}

// A held piece with a flipped bit is read from another, never as it is.
func TestOpenDamagedPiece(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	b := pool.member(t, t.TempDir(), a)
	data := mib(8, 5)
	p := a.add(t, data)
	must(t, b.TakePiece(testContext(t), p, ids(a), nil))
	r, err := b.OpenPiece(testContext(t), p, ids(a))
	must(t, err)
	defer r.Close()
	flip(t, b, p, 3<<20+5)
	readsAs(t, r, data, 0, len(data))
	if b.pieces.Has(p.ID) {
		t.Error("it is still held")
	}
	must(t, b.TakePiece(testContext(t), p, ids(a), nil))
	b.holds(t, p, data)
}

// A member is not served a flipped bit, and the holder notices.
func TestServeDamagedPiece(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	b := pool.member(t, t.TempDir(), a)
	c := pool.member(t, t.TempDir(), a, b)
	data := mib(9, 5)
	p := a.add(t, data)
	must(t, b.TakePiece(testContext(t), p, ids(a), nil))
	flip(t, a, p, 2<<20)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error)
	go func() { done <- c.TakePiece(ctx, p, ids(a), nil) }()
	until(t, "the damaged piece is dropped", func() bool { return !a.pieces.Has(p.ID) })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, c.TakePiece(testContext(t), p, ids(a, b), nil))
	c.holds(t, p, data)
}

// flip changes a bit of a held piece, and nothing else that could tell of it.
func flip(t testing.TB, x *poolPeer, p piece.Piece, off int64) {
	t.Helper()
	r, ok := x.pieces.Roots().Root(p.ID)
	if !ok {
		t.Fatal("no record")
	}
	path := r.Info().Path
	fi, err := os.Stat(path)
	must(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	must(t, err)
	b[0] ^= 16
	_, err = f.WriteAt(b[:], off)
	must(t, errors.Join(err, f.Close(), os.Chtimes(path, fi.ModTime(), fi.ModTime())))
}

func TestRepairRate(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	data := mib(10, 8)
	p := a.add(t, data)
	took := func(now bool) time.Duration {
		b := pool.member(t, t.TempDir(), a)
		b.SetRepairRate(4 << 20)
		began, take := time.Now(), b.TakePiece
		if now {
			take = b.TakePieceNow
		}
		must(t, take(testContext(t), p, ids(a), nil))
		return time.Since(began)
	}
	if d := took(false); d < 800*time.Millisecond {
		t.Errorf("8 MiB at 4 MiB/s, the first 4 at once, took %v", d)
	}
	took(true)
}

func TestTakeRefusals(t *testing.T) {
	t.Parallel()
	pool := newPool()
	a := pool.member(t, t.TempDir())
	b := pool.member(t, t.TempDir(), a)
	p := a.add(t, mib(11, 4))
	wrong := p
	wrong.Size++
	if err := b.TakePiece(testContext(t), wrong, ids(a), nil); !errors.Is(err, piece.ErrNotPiece) {
		t.Errorf("of another size: %v", err)
	}
	none := newPeer(t)
	if err := none.TakePiece(testContext(t), p, nil, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a piece store: %v", err)
	}
	if _, err := none.OpenPiece(testContext(t), p, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a piece store: %v", err)
	}
}
