package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/directory"
)

const (
	groupConverge   = "converge"
	groupDifference = "difference"
	groupIdle       = "idle"

	poolWait     = 10 * time.Minute // for anything that is awaited
	poolTick     = 10 * time.Millisecond
	poolDiffers  = 10  // records that a returning peer lacks, or has alone
	poolValue    = 100 // bytes of a record's value
	writeAtOnce  = 64  // records of one write
	quietSeconds = 8   // without a directory byte: longer than gossip remembers its messages
)

// poolBench is a pool of real peers in this process, on loopback: hosts, pools and directories as a peer has them, without
// its DHT and API. It is made once, by the first case that needs it.
type poolBench struct {
	dir            string
	peers, records int
	idle           time.Duration
	members        []*poolPeer
	written        int
}

func runPool(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench pool", flag.ContinueOnError)
	b := &poolBench{}
	fs.IntVar(&b.peers, "peers", 50, "members of the pool")
	fs.IntVar(&b.records, "records", 10_000, "records that all converge on")
	fs.DurationVar(&b.idle, "idle", 30*time.Second, "for how long the idle pool is watched")
	opts := addRunFlags(fs, 1)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || opts.runs < 1 || b.peers < 3 || b.records < 1 || b.idle <= 0 {
		return errors.New("pool: bad arguments; see pool --help")
	}
	return inTemporaryFolder(func(dir string) error {
		b.dir = dir
		defer b.close()
		report := newReport("pool", opts.runs)
		report.groups = []group{
			{groupConverge, fmt.Sprintf("%d peers in one process converge on %d records", b.peers, b.records), "records/s", 1, "CPU s"},
			{groupDifference, fmt.Sprintf("%d records differ among %d; the limit is 20000", poolDiffers, b.records), "B sent", 1, "CPU s"},
			{groupIdle, fmt.Sprintf("a pool of %d members idles for %v", b.peers, b.idle), "B/s a peer", b.idle.Seconds() * float64(b.peers) / 100, "CPU %"},
		}
		return report.measure(ctx, opts, b.cases())
	})
}

func (b *poolBench) cases() []testcase {
	return []testcase{
		{name: "one", group: groupConverge, what: "all written on one peer", run: b.onPool(func(ctx context.Context) (sample, error) { return b.converge(ctx, 1) })},
		{name: "all", group: groupConverge, what: "written on all peers at once", run: b.onPool(func(ctx context.Context) (sample, error) { return b.converge(ctx, b.peers) })},
		{name: "lacks", group: groupDifference, what: "by a peer that comes back and lacks them, to all members together", run: b.onPool(func(ctx context.Context) (sample, error) { return b.difference(ctx, false) })},
		{name: "has", group: groupDifference, what: "by a peer that comes back, half of them its own, to all members together", run: b.onPool(func(ctx context.Context) (sample, error) { return b.difference(ctx, true) })},
		{name: "idle", group: groupIdle, what: "bytes of all streams, without TLS, multiplexing and TCP", run: b.onPool(b.idling)},
	}
}

// onPool has a case run on the pool, made if it is not there.
func (b *poolBench) onPool(run func(context.Context) (sample, error)) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		if err := b.build(ctx); err != nil {
			return sample{}, err
		}
		return run(ctx)
	}
}

// poolPeer is one member.
type poolPeer struct {
	home  string
	self  ident.Identity
	host  *host.Host
	count *counter
	pool  *pool.Pool
	topic *gossip.Topic[[]byte]
	names *directory.Directory
}

func openPoolPeer(home, name string) (*poolPeer, error) {
	self, err := ident.LoadOrCreate(home, name)
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: self, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, PortFile: filepath.Join(home, "port")})
	if err != nil {
		return nil, err
	}
	p := &poolPeer{home: home, self: self, host: h, count: &counter{Host: h.Host, bytes: map[protocol.ID]*traffic{}}}
	h.Host = p.count // what opens and takes streams from here on is counted
	return p, p.open()
}

// open takes up the membership that the home holds.
func (p *poolPeer) open() (err error) {
	lends := func() roster.Lends { return roster.Lends{Cores: 1, Version: "bench"} }
	if p.pool, err = pool.Open(pool.Config{Home: p.home, Identity: p.self, Host: p.host, Lends: lends}); err != nil {
		return err
	}
	if p.topic, err = p.pool.JoinTopic("news", func(_ peer.ID, data []byte) error { return directory.CheckNews(data) }); err != nil {
		return err
	}
	dir := filepath.Join(p.home, p.pool.ID().String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	p.names, err = directory.Open(directory.Config{
		Dir: dir, Self: p.self, Pool: p.pool.ID(), Members: p.pool, Streams: p.pool, Presence: p, News: p,
	})
	if err != nil {
		return err
	}
	p.pool.UseRecords(poolRecords{p.names})
	return nil
}

// shut ends the membership's work; the host stays.
func (p *poolPeer) shut() error {
	var err error
	if p.names != nil {
		err = p.names.Close()
	}
	if p.topic != nil {
		err = errors.Join(err, p.topic.Close())
	}
	if p.pool != nil {
		err = errors.Join(err, p.pool.Close())
	}
	return err
}

func (p *poolPeer) close() error { return errors.Join(p.shut(), p.host.Close()) }

// Connected implements [directory.Presence].
func (p *poolPeer) Connected() (out []peer.ID) {
	for _, m := range p.pool.Members() {
		if !m.Self && m.State == roster.Online {
			out = append(out, m.ID)
		}
	}
	return out
}

// OnConnected implements [directory.Presence].
func (p *poolPeer) OnConnected(f func(peer.ID)) (stop func()) { return p.pool.OnConnected(f) }

// Publish implements [directory.News].
func (p *poolPeer) Publish(ctx context.Context, data []byte) error { return p.topic.Publish(ctx, data) }

// Next implements [directory.News].
func (p *poolPeer) Next(ctx context.Context) (peer.ID, []byte, error) {
	m, err := p.topic.Next(ctx)
	return m.From, m.Value, err
}

// poolRecords is a directory as a pool wants it.
type poolRecords struct{ names *directory.Directory }

func (r poolRecords) Put(key string, value []byte) error {
	if old, ok := r.names.Get(key); ok && string(old.Value) == string(value) {
		return nil
	}
	return r.names.Put(key, value)
}

func (r poolRecords) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for rec := range r.names.Scan(prefix) {
			if !yield(rec.Key, rec.Value) {
				return
			}
		}
	}
}

func (r poolRecords) Watch(prefix string, f func(string)) (stop func()) {
	return r.names.Watch(prefix, func(rec *directory.Record) { f(rec.Key) })
}

// build starts the peers and has all join the first.
func (b *poolBench) build(ctx context.Context) error {
	if b.members != nil {
		return nil
	}
	begun, cpu := time.Now(), ownCPU()
	for i := range b.peers {
		p, err := openPoolPeer(filepath.Join(b.dir, fmt.Sprintf("peer%d", i)), fmt.Sprintf("peer%d", i))
		if err != nil {
			return err
		}
		b.members = append(b.members, p)
		if i == 0 {
			continue
		}
		if err := b.join(ctx, p); err != nil {
			return fmt.Errorf("join %d: %w", i, err)
		}
	}
	err := await(ctx, "all members see all others", func() bool {
		return !slices.ContainsFunc(b.members, func(p *poolPeer) bool { return len(p.Connected()) < b.peers-1 })
	})
	if err == nil {
		err = await(ctx, "all names are equal", b.inStep)
	}
	progress("%d peers joined in %.1f s, with %.1f s of CPU", b.peers, time.Since(begun).Seconds(), ownCPU()-cpu)
	return err
}

func (b *poolBench) join(ctx context.Context, p *poolPeer) error {
	ticket, err := b.members[0].pool.Invite(ctx, pool.InviteOptions{})
	if err != nil {
		return err
	}
	if _, err := p.pool.Join(ctx, ticket, pool.JoinOptions{}); err != nil {
		return err
	}
	if err := p.shut(); err != nil {
		return err
	}
	return p.open()
}

func (b *poolBench) close() {
	var all sync.WaitGroup
	for _, p := range b.members {
		all.Go(func() { _ = p.close() })
	}
	all.Wait()
}

// await waits for a condition.
func await(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, poolWait)
	defer cancel()
	tick := time.NewTicker(poolTick)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
	return nil
}

// inStep reports whether all members hold the same.
func (b *poolBench) inStep() bool {
	first := b.members[0].names.Digest()
	return !slices.ContainsFunc(b.members[1:], func(p *poolPeer) bool { return p.names.Digest() != first })
}

// converge writes the records on some of the peers at once and waits until all hold them.
func (b *poolBench) converge(ctx context.Context, writers int) (sample, error) {
	round := b.written
	b.written++
	total := b.members[0].names.Len() + b.records
	begun, cpu, sent := time.Now(), ownCPU(), b.sent()
	failed := make(chan error, writers)
	for w := range writers {
		go func() {
			failed <- write(ctx, b.members[w].names, fmt.Sprintf("bench/%d/%d", round, w), share(b.records, writers, w))
		}()
	}
	var err error
	for range writers {
		err = errors.Join(err, <-failed)
	}
	stored := time.Since(begun)
	if err == nil {
		err = await(ctx, "all converge", func() bool { return b.members[b.peers-1].names.Len() >= total && b.inStep() })
	}
	took := time.Since(begun).Seconds()
	if n := b.members[0].names.Len(); err == nil && n != total {
		err = fmt.Errorf("%d records are there, want %d", n, total)
	}
	per := float64(b.sent().minus(sent).total()) / float64(b.peers)
	return sample{
		rate: float64(b.records) / took, seconds: took, send: result{CPU: ownCPU() - cpu, RSS: ownRSS()},
		note: fmt.Sprintf("on disk after %.1f s, %.1f MB sent by each peer", stored.Seconds(), per/1e6),
	}, err
}

// share is how many of total the i-th of n gets.
func share(total, n, i int) int { return total*(i+1)/n - total*i/n }

// write writes records, many at a time.
func write(ctx context.Context, names *directory.Directory, prefix string, n int) error {
	for at := 0; at < n; at += writeAtOnce {
		var changes []directory.Change
		for i := at; i < min(n, at+writeAtOnce); i++ {
			value := strings.Repeat(fmt.Sprintf("%08d", i), poolValue/8+1)[:poolValue]
			changes = append(changes, directory.Change{Key: fmt.Sprintf("%s/%06d", prefix, i), Value: []byte(value)})
		}
		if err := names.Write(ctx, changes...); err != nil {
			return err
		}
	}
	return nil
}

// difference has a peer go away and come back to a pool of which it lacks some records, of which it may have written half
// itself. It counts what the peer sends under the directory's protocol to all members, from then on until the pool is quiet.
func (b *poolBench) difference(ctx context.Context, own bool) (sample, error) {
	if err := b.fill(ctx); err != nil {
		return sample{}, err
	}
	there, alone := poolDiffers, 0
	if own {
		there, alone = poolDiffers/2, poolDiffers-poolDiffers/2
	}
	round := b.written
	b.written++
	last := b.members[b.peers-1]
	if err := last.close(); err != nil {
		return sample{}, err
	}
	if err := write(ctx, b.members[0].names, fmt.Sprintf("bench/%d/there", round), there); err != nil {
		return sample{}, err
	}
	others := b.members[:b.peers-1]
	if err := b.quiet(ctx, others); err != nil {
		return sample{}, err
	}
	before, cpu, begun := b.sentBy(others), ownCPU(), time.Now()
	back, err := openPoolPeer(last.home, "")
	if err != nil {
		return sample{}, err
	}
	b.members[b.peers-1] = back
	if alone > 0 {
		if err := write(ctx, back.names, fmt.Sprintf("bench/%d/alone", round), alone); err != nil {
			return sample{}, err
		}
	}
	if err := await(ctx, "the peer is in step", b.inStep); err != nil {
		return sample{}, err
	}
	took, used := time.Since(begun).Seconds(), ownCPU()-cpu
	if err := b.quiet(ctx, b.members); err != nil {
		return sample{}, err
	}
	sent := back.count.snapshot()[directory.Protocol].sent
	got := b.sentBy(others).minus(before)[directory.Protocol].sent
	most := back.count.most(directory.Protocol)
	return sample{
		rate: float64(sent), seconds: took, send: result{CPU: used, RSS: ownRSS()},
		note: fmt.Sprintf("all others sent %d B; the stream on which it sent most: %d B sent, %d B got", got, most.sent, most.got),
	}, nil
}

// quiet waits until nobody of the members has said anything of the names for a while, and all hold the same.
func (b *poolBench) quiet(ctx context.Context, members []*poolPeer) error {
	still, last := 0, int64(-1)
	return await(ctx, "the pool is quiet", func() bool {
		now := b.sentBy(members)[directory.Protocol].sent
		if still++; now != last {
			still, last = 0, now
		}
		return still >= int(quietSeconds*time.Second/poolTick) && equal(members)
	})
}

// fill sees to it that there are as many records as a difference is to be among.
func (b *poolBench) fill(ctx context.Context) error {
	lack := b.records - b.members[0].names.Len()
	if lack <= 0 {
		return nil
	}
	b.written++
	if err := write(ctx, b.members[0].names, fmt.Sprintf("bench/%d/fill", b.written), lack); err != nil {
		return err
	}
	return await(ctx, "all are filled", b.inStep)
}

func equal(members []*poolPeer) bool {
	return !slices.ContainsFunc(members, func(p *poolPeer) bool { return p.names.Digest() != members[0].names.Digest() })
}

// idling watches the pool do nothing.
func (b *poolBench) idling(ctx context.Context) (sample, error) {
	if err := b.quiet(ctx, b.members); err != nil {
		return sample{}, err
	}
	before, cpu, begun := b.sent(), ownCPU(), time.Now()
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return sample{}, ctx.Err()
	}
	took := time.Since(begun).Seconds()
	cost := b.sent().minus(before)
	rate := func(n int64) float64 { return float64(n) / took / float64(b.peers) }
	used := ownCPU() - cpu
	note := fmt.Sprintf("%.3f %% of a core a peer;", 100*used/took/float64(b.peers))
	for _, id := range cost.protocols() {
		note += fmt.Sprintf(" %s %.0f", id, rate(cost[id].sent))
	}
	return sample{rate: rate(cost.total()), seconds: took, send: result{CPU: used, RSS: ownRSS()}, note: note}, nil
}

// sent is what all members sent so far.
func (b *poolBench) sent() tally { return b.sentBy(b.members) }

func (b *poolBench) sentBy(members []*poolPeer) tally {
	all := tally{}
	for _, p := range members {
		for id, t := range p.count.snapshot() {
			sum := all[id]
			all[id] = amounts{sum.sent + t.sent, sum.got + t.got}
		}
	}
	return all
}

// amounts are bytes of streams.
type amounts struct{ sent, got int64 }

// tally is bytes by protocol.
type tally map[protocol.ID]amounts

func (t tally) minus(o tally) tally {
	out := tally{}
	for id, a := range t {
		out[id] = amounts{a.sent - o[id].sent, a.got - o[id].got}
	}
	return out
}

func (t tally) total() (n int64) {
	for _, a := range t {
		n += a.sent
	}
	return n
}

// protocols are those with bytes, those with most first.
func (t tally) protocols() (ids []protocol.ID) {
	for id, a := range t {
		if a.sent > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b protocol.ID) int { return int(t[b].sent - t[a].sent) })
	return ids
}

// traffic counts the bytes of one protocol, and those of each of its streams that moved most.
type traffic struct {
	sent, got atomic.Int64
	mu        sync.Mutex
	most      amounts // of the stream that sent most
}

// counter is a host that counts the bytes of its streams.
type counter struct {
	p2phost.Host
	mu    sync.Mutex
	bytes map[protocol.ID]*traffic
}

func (c *counter) of(id protocol.ID) *traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes[id] == nil {
		c.bytes[id] = &traffic{}
	}
	return c.bytes[id]
}

func (c *counter) snapshot() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := tally{}
	for id, t := range c.bytes {
		out[id] = amounts{t.sent.Load(), t.got.Load()}
	}
	return out
}

// most is the stream of a protocol that sent most.
func (c *counter) most(id protocol.ID) amounts {
	t := c.of(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.most
}

// SetStreamHandler counts the streams that come in.
func (c *counter) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	c.Host.SetStreamHandler(id, func(s network.Stream) { h(&counted{Stream: s, to: c.of(id)}) })
}

// SetStreamHandlerMatch counts the streams that come in.
func (c *counter) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, h network.StreamHandler) {
	c.Host.SetStreamHandlerMatch(id, match, func(s network.Stream) { h(&counted{Stream: s, to: c.of(id)}) })
}

// NewStream counts the streams that go out.
func (c *counter) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := c.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &counted{Stream: s, to: c.of(ids[0])}, nil
}

// counted is a stream whose bytes are counted.
type counted struct {
	network.Stream
	to        *traffic
	sent, got atomic.Int64
}

func (s *counted) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	s.to.sent.Add(int64(n))
	s.note(s.sent.Add(int64(n)))
	return n, err
}

func (s *counted) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.to.got.Add(int64(n))
	s.got.Add(int64(n))
	s.note(s.sent.Load())
	return n, err
}

// note keeps the amounts of the stream that sent most.
func (s *counted) note(sent int64) {
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	if sent >= s.to.most.sent {
		s.to.most = amounts{sent, s.got.Load()}
	}
}
