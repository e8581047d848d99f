package tasks

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/storage/quorum"
	"github.com/shoal-os/shoal/storage/repair"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/keep"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	gib = 1 << 30
	// patience is how long a test waits for what should come soon, on a machine that is busy with other things.
	patience = 90 * time.Second
)

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
	return ident.Identity{Key: key, ID: id, Name: fmt.Sprintf("p%d", n)}
}

// box is one peer, assembled as a node does it, over a real host on loopback. Its files outlive a stop.
type box struct {
	t      testing.TB
	n      int
	home   string
	self   ident.Identity
	lends  market.Lends
	runner Runner
	edit   func(*Config)

	*Tasks
	host   *host.Host
	pool   *pool.Pool
	names  *directory.Directory
	pieces *piece.Store
	repair *repair.Repair
	keeper *keep.Keeper
	quorum *quorum.Engine
	closes []func() error
}

// option changes a box before it is opened.
type option func(*box)

func runs(r Runner) option { return func(b *box) { b.runner = r } }

func cores(n int) option { return func(b *box) { b.lends.Cores = n } }

func newBox(t testing.TB, n int, opts ...option) *box {
	t.Helper()
	b := &box{
		t: t, n: n, home: t.TempDir(), self: newIdentity(t, n),
		lends: market.Lends{Cores: 2, Memory: 64 * gib, Mains: true, Battery: 100, Wasm: true, Proc: true, Labels: []string{"os=test"}},
	}
	b.runner = &fakeRunner{}
	for _, o := range opts {
		o(b)
	}
	t.Cleanup(b.stop)
	b.openPool()
	return b
}

// openPool opens the host and the membership.
func (b *box) openPool() {
	b.t.Helper()
	var err error
	if b.host, err = host.New(host.Config{Identity: b.self, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, PortFile: filepath.Join(b.home, "port")}); err != nil {
		b.t.Fatal(err)
	}
	b.closes = append(b.closes, b.host.Close)
	b.reopenPool()
}

func (b *box) reopenPool() {
	b.t.Helper()
	var err error
	b.pool, err = pool.Open(pool.Config{Home: b.home, Identity: b.self, Host: b.host, Lends: func() roster.Lends {
		return roster.Lends{Cores: uint32(b.lends.Cores), Memory: uint64(b.lends.Memory), Space: gib, Free: gib, Power: roster.PowerMains}
	}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// openAll assembles what is above the pool.
func (b *box) openAll() {
	b.t.Helper()
	b.closes = append(b.closes, b.pool.Close)
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	news, err := b.pool.JoinTopic("news", func(_ peer.ID, data []byte) error { return directory.CheckNews(data) })
	must(err)
	b.names, err = directory.Open(directory.Config{
		Dir: b.dir("names"), Self: b.self, Pool: b.pool.ID(), Members: b.pool, Streams: b.pool, Presence: presence{b.pool}, News: topic{news},
	})
	must(err)
	b.closes = append(b.closes, b.names.Close)
	b.pool.UseRecords(directory.Values{Directory: b.names})
	b.pieces, err = piece.Open(piece.Config{Dir: b.dir("pieces"), Quota: gib})
	must(err)
	b.closes = append(b.closes, b.pieces.Close)
	swarm, err := storage.Open(storage.Config{Dir: b.dir("store"), Host: b.host, Pieces: b.pieces, Member: b.pool.IsMember})
	must(err)
	b.closes = append(b.closes, swarm.Close)
	b.repair, err = repair.Open(repair.Config{
		Self: b.self.ID, Dir: b.dir("repair"), Pool: b.pool.ID(), Pieces: b.pieces, Fetch: repair.Swarm(swarm), Members: b.pool, Streams: b.pool,
		Records: b.names, Lends: func() repair.Offer { return repair.Offer{Space: gib} }, Near: func(peer.ID) bool { return true }, Boot: pool.BootTime,
		Timings: repair.Timings{Grace: -1},
	})
	must(err)
	b.closes = append(b.closes, b.repair.Close)
	b.keeper = keep.Open(b.names)
	b.closes = append(b.closes, b.keeper.Close)
	b.repair.Use(b.keeper)
	b.quorum, err = quorum.Open(quorum.Config{
		Dir: b.dir("quorum"), Self: b.self.ID, Streams: b.pool, Presence: present{b.pool}, Clock: pool.BootTime, Accept: Accept(b.self.ID, b.pool),
	})
	must(err)
	b.closes = append(b.closes, b.quorum.Close)
	ads, err := b.pool.JoinTopic("jobs", CheckAd)
	must(err)
	cfg := Config{
		Dir: b.dir("tasks"), Self: b.self, Pool: b.pool.ID(), Members: b.pool, Streams: b.pool, Ads: topic{ads}, Records: b.names,
		Bytes: bytesOf{b.repair, b.pieces}, Keeper: b.keeper, Quorum: b.quorum, Runner: b.runner, Lends: func() market.Lends { return b.lends },
	}
	if testing.Verbose() && os.Getenv("TASKS_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", b.self.Name)
	}
	if b.edit != nil {
		b.edit(&cfg)
	}
	b.Tasks, err = Open(cfg)
	must(err)
	b.closes = append(b.closes, b.Tasks.Close)
}

func (b *box) dir(name string) string {
	dir := filepath.Join(b.home, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// stop closes everything, in reverse.
func (b *box) stop() {
	for i := len(b.closes) - 1; i >= 0; i-- {
		if err := b.closes[i](); err != nil {
			b.t.Errorf("%s: close: %v", b.self.Name, err)
		}
	}
	b.closes = nil
}

// die is the end of a process, as far as one can have it within another: the connections break first, and nothing is said.
func (b *box) die() {
	_ = b.host.Close()
	b.stop()
}

// bytesOf is repair and the piece store as Tasks wants them.
type bytesOf struct {
	*repair.Repair
	pieces *piece.Store
}

func (x bytesOf) Get(id chunk.CID) (piece.Piece, bool) { return x.pieces.Get(id) }

// Open hides that repair's has a type of its own.
func (x bytesOf) Open(ctx context.Context, f piece.File) (tree.Reader, error) {
	return x.Repair.Open(ctx, f)
}

// presence is the pool as the directory wants it, and present as quorum does.
type presence struct{ *pool.Pool }

func (p presence) Connected() (out []peer.ID) {
	for _, m := range p.Members() {
		if !m.Self && m.State == roster.Online {
			out = append(out, m.ID)
		}
	}
	return out
}

type present struct{ *pool.Pool }

func (p present) Present(id peer.ID) bool {
	m, ok := p.Member(id)
	return ok && m.State == roster.Online
}

func (p present) OnPresence(f func(peer.ID, bool)) (stop func()) {
	up := p.OnConnected(func(id peer.ID) { f(id, true) })
	down := p.Watch(func(c roster.Change) { f(c.Now.ID, c.Now.State == roster.Online) })
	return func() { up(); down() }
}

// topic is a topic as its users want it.
type topic struct{ *gossip.Topic[[]byte] }

func (x topic) Next(ctx context.Context) (peer.ID, []byte, error) {
	m, err := x.Topic.Next(ctx)
	return m.From, m.Value, err
}

// wait waits for a condition.
func wait(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		<-tick.C
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
	return time.Since(began)
}

// invited takes a box into the pool of the first, and opens the rest of it.
func (b *box) invited(first *box, role ident.Role) *box {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	ticket, err := first.pool.Invite(ctx, pool.InviteOptions{Role: role})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.pool.Join(ctx, ticket, pool.JoinOptions{}); err != nil {
		b.t.Fatal(err)
	}
	if err := b.pool.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.reopenPool()
	b.openAll()
	return b
}

// newPool makes a pool of n peers that know each other.
func newPool(t testing.TB, n int, opts ...option) []*box {
	t.Helper()
	first := newBox(t, 1, opts...)
	first.openAll()
	out := []*box{first}
	for i := 2; i <= n; i++ {
		out = append(out, newBox(t, i, opts...).invited(first, ident.RoleMember))
	}
	meet(t, out...)
	return out
}

// meet waits until all see all, and the room that each lends.
func meet(t testing.TB, boxes ...*box) {
	t.Helper()
	wait(t, "all have met", func() bool {
		for _, b := range boxes {
			online := 0
			for _, m := range b.pool.Members() {
				if m.State == roster.Online && (m.Lends.Space > 0 || m.Role < ident.RoleMember) {
					online++
				}
			}
			if online < len(boxes) {
				return false
			}
			free := 0
			for _, m := range b.repair.Overview().Members {
				if m.Free > 0 {
					free++
				}
			}
			if free < len(boxes) {
				return false
			}
		}
		return true
	})
}

// command is a program that a fakeRunner understands: the first argument names what it does.
func command(args ...string) job.Command {
	return job.Command{Kind: job.Proc, Path: "fake", Args: args}
}

// all waits for a job's end and returns its tasks' results.
func (b *box) all(id job.ID) (out []TaskResult) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	var last Event
	for ev, err := range b.Watch(ctx, id) {
		if err != nil {
			b.t.Fatalf("watch: %v (so far %+v)", err, last.Progress)
		}
		last = ev
	}
	for r, err := range b.Results(ctx, id, 0, last.Progress.Tasks) {
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// submit submits a job.
func (b *box) submit(spec job.Spec) Submitted {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	s, err := b.Submit(ctx, spec, SubmitOptions{Fresh: true})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// count makes a job of n tasks.
func count(n int, args ...string) job.Spec {
	return job.Spec{Name: "test", Command: command(args...), Split: job.Split{Kind: job.Count, Count: uint32(n)}}
}
