package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/testnet/scale"
)

// kadKnown is how many peers a newcomer is told of.
const kadKnown = 3

// kadPeer is one member of the table.
type kadPeer struct {
	host  *host.Host
	count *counter
	dht   *dht.DHT
}

func openKad(dir string, known []peer.AddrInfo) (*kadPeer, error) {
	self, err := ident.LoadOrCreate(dir, "")
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: self, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return nil, err
	}
	p := &kadPeer{host: h, count: &counter{Host: h.Host, bytes: map[protocol.ID]*traffic{}}}
	h.Host = p.count
	if p.dht, err = dht.New(h, dht.Config{Bootstrap: known}); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return p, nil
}

func (p *kadPeer) close() error { return errors.Join(p.dht.Close(), p.host.Close()) }

// table starts a table of so many, each told of three before it, and has some announce keys that others find.
func (run scaleRun) table(ctx context.Context, dir string, n int) (k scale.Kad, err error) {
	k.Peers = n
	var peers []*kadPeer
	defer func() {
		for _, p := range peers {
			_ = p.close()
		}
	}()
	for i := range n {
		var known []peer.AddrInfo
		for j := range min(i, kadKnown) {
			q := peers[(i*7+j*13)%i]
			known = append(known, peer.AddrInfo{ID: q.host.ID(), Addrs: q.host.Addrs()})
		}
		p, err := openKad(filepath.Join(dir, fmt.Sprint(i)), known)
		if err != nil {
			return k, err
		}
		peers = append(peers, p)
		if err := await(ctx, "it has joined", func() bool { return i == 0 || p.dht.Table() > 0 }); err != nil {
			return k, err
		}
	}
	if err := pause(ctx, run.settle); err != nil {
		return k, err
	}
	for _, p := range peers {
		k.Table += float64(p.dht.Table()) / float64(n)
	}
	var announcing, finding lookupTally
	for i := range run.lookups {
		key := dht.Key(sha256.Sum256(fmt.Append(nil, "scale", i)))
		from, to := peers[i*n/run.lookups], peers[(i*n/run.lookups+n/2)%n]
		if err := announcing.announce(ctx, from, key); err != nil {
			return k, err
		}
		if err := finding.find(ctx, from, to, key); err != nil {
			return k, err
		}
	}
	k.Provide, k.Find = announcing.mean(run.lookups), finding.mean(run.lookups)
	k.Found, k.First = float64(finding.found)/float64(run.lookups), finding.first/float64(max(1, finding.found))
	return k, nil
}

// lookupTally sums up what lookups cost those who made them.
type lookupTally struct {
	scale.Lookup
	found int
	first float64
}

func (t *lookupTally) mean(n int) scale.Lookup {
	l, f := t.Lookup, float64(n)
	return scale.Lookup{Asked: l.Asked / f, Dialed: l.Dialed / f, Bytes: l.Bytes / f, CPU: l.CPU / f, Seconds: l.Seconds / f}
}

// announce has a peer announce a key, and counts what it sends until that is done: questions, and the records.
func (t *lookupTally) announce(ctx context.Context, p *kadPeer, key dht.Key) error {
	done := t.watch(p)
	p.dht.Seed(key)
	defer p.dht.Unseed(key)
	if err := await(ctx, "it is announced", func() bool { return !p.dht.Provided(key).IsZero() }); err != nil {
		return err
	}
	t.Asked += float64(done())
	return nil
}

// find has a peer look a key up to the end, and counts whom it asks.
func (t *lookupTally) find(ctx context.Context, provider, p *kadPeer, key dht.Key) error {
	looking, cancel := context.WithCancel(ctx)
	defer cancel()
	looking, events := routing.RegisterForQueryEvents(looking)
	asked := make(chan int)
	go func() {
		n := 0
		for e := range events {
			if e.Type == routing.SendingQuery {
				n++
			}
		}
		asked <- n
	}()
	done, begun, found := t.watch(p), time.Now(), false
	for info, err := range p.dht.FindProviders(looking, key) {
		if err != nil {
			cancel()
			<-asked
			return err
		}
		if info.ID == provider.host.ID() && !found {
			found = true
			t.found++
			t.first += time.Since(begun).Seconds()
		}
	}
	done()
	cancel()
	t.Asked += float64(<-asked)
	return nil
}

// watch returns a function that adds what happened since, and says how many messages the peer sent.
func (t *lookupTally) watch(p *kadPeer) (done func() int64) {
	begun, cpu, before, conns := time.Now(), ownCPU(), p.count.snapshot()[dht.Protocol], len(p.host.Network().Conns())
	return func() int64 {
		now := p.count.snapshot()[dht.Protocol]
		t.Bytes += float64(now.sent + now.got - before.sent - before.got)
		t.CPU += ownCPU() - cpu
		t.Seconds += time.Since(begun).Seconds()
		t.Dialed += float64(max(0, len(p.host.Network().Conns())-conns))
		return now.writes - before.writes
	}
}
