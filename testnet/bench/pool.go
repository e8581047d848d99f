package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/pool"
	"github.com/shoal-os/shoal/storage/directory"
)

const (
	groupConverge   = "converge"
	groupDifference = "difference"
	groupIdle       = "idle"

	poolWait    = 10 * time.Minute // for anything that is awaited
	poolTick    = 10 * time.Millisecond
	poolDiffers = 10  // records that a returning peer lacks, or has alone
	poolValue   = 100 // bytes of a record's value
	writeAtOnce = 64  // records of one write

	poolSettle = 10 * time.Second // longer than gossip remembers its messages, so that they do not help who comes back
	poolClose  = 10 * time.Second // the process ends anyway
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
	fs.DurationVar(&b.idle, "idle", 2*time.Minute, "for how long the idle pool is watched; members compare their names every minute")
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
			{groupDifference, fmt.Sprintf("%d records differ among %d; one comparison of two peers may send 20000", poolDiffers, b.records), "B sent", 1, "CPU s"},
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

// A peer tries to join a few times: a machine that is busy with ninety others may be too late with the first. libp2p dials
// nobody again for some seconds whom it could not reach.
const (
	joinTries = 6
	joinPause = 7 * time.Second
)

func (b *poolBench) join(ctx context.Context, p *poolPeer) error {
	for try := 1; ; try++ {
		ticket, err := b.members[0].pool.Invite(ctx, pool.InviteOptions{})
		if err != nil {
			return err
		}
		if _, err = p.pool.Join(ctx, ticket, pool.JoinOptions{}); err == nil {
			break
		}
		if try == joinTries || ctx.Err() != nil {
			return err
		}
		progress("%s: %v; once more", p.self.Name, err)
		if err := pause(ctx, joinPause); err != nil {
			return err
		}
	}
	if err := p.shut(); err != nil {
		return err
	}
	return p.open()
}

func (b *poolBench) close() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		var all sync.WaitGroup
		for _, p := range b.members {
			all.Go(func() { _ = p.close() })
		}
		all.Wait()
	}()
	select {
	case <-closed:
	case <-time.After(poolClose):
	}
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
// itself. It counts what the peer sends under the directory's protocol to all members until all hold the same.
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
	if err := b.settle(ctx, others); err != nil {
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
	sent := back.count.snapshot()[directory.Protocol].sent
	got := b.sentBy(others).minus(before)[directory.Protocol].sent
	most := back.count.most(directory.Protocol)
	return sample{
		rate: float64(sent), seconds: took, send: result{CPU: used, RSS: ownRSS()},
		note: fmt.Sprintf("all others sent %d B; the stream on which it sent most: %d B sent, %d B got", got, most.sent, most.got),
	}, nil
}

// settle waits until the members hold the same, and what was said about it is over.
func (b *poolBench) settle(ctx context.Context, members []*poolPeer) error {
	if err := await(ctx, "the pool settles", func() bool { return equal(members) }); err != nil {
		return err
	}
	return pause(ctx, poolSettle)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
	if err := b.settle(ctx, b.members); err != nil {
		return sample{}, err
	}
	before, cpu, begun := b.sent(), ownCPU(), time.Now()
	if err := pause(ctx, b.idle); err != nil {
		return sample{}, err
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
			all[id] = amounts{sum.sent + t.sent, sum.got + t.got, sum.writes + t.writes}
		}
	}
	return all
}
