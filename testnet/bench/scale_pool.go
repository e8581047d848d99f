package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/gossip"
	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/directory"
	"github.com/shoal-os/shoal/testnet/scale"
)

const (
	spreadSize  = 300                    // bytes of a message: about those of a job's announcement
	spreadPause = 250 * time.Millisecond // between two
	spreadWait  = 20 * time.Second       // for the last deliveries
)

// scaleRun says how long and how often real hosts are watched.
type scaleRun struct {
	sizes                    []int
	watch, settle            time.Duration // an idle pool; until it is one, and tables are full
	messages, names, lookups int
}

// newScaleRun is what measures the sizes given; names are compared every minute.
func newScaleRun(sizes []int) scaleRun {
	return scaleRun{sizes, 70 * time.Second, 15 * time.Second, 40, 10, 40}
}

// quickScaleRun only shows that it works. A pool is watched for two heartbeats, so that one at least is seen.
func quickScaleRun() scaleRun {
	return scaleRun{[]int{3, 5}, 2 * roster.BeatEvery, 100 * time.Millisecond, 3, 3, 4}
}

// measure starts pools and tables of real hosts, one after the other, watches them, and puts what they cost in place of what
// m says of these sizes. done is called after each.
func (run scaleRun) measure(ctx context.Context, dir string, m *scale.Measured, done func() error) error {
	m.Machine, m.Go = machine(), runtime.Version()
	for _, n := range run.sizes {
		k, err := run.table(ctx, filepath.Join(dir, fmt.Sprintf("kad%d", n)), n)
		if err != nil {
			return fmt.Errorf("a table of %d: %w", n, err)
		}
		progress("table of %d: %+v", n, k)
		m.PutTable(k)
		if err := done(); err != nil {
			return err
		}
		p, err := run.pool(ctx, filepath.Join(dir, fmt.Sprintf("pool%d", n)), n)
		if err != nil {
			return fmt.Errorf("a pool of %d: %w", n, err)
		}
		progress("pool of %d: %+v", n, p)
		m.PutPool(p)
		if err := done(); err != nil {
			return err
		}
	}
	return nil
}

func (run scaleRun) pool(ctx context.Context, dir string, n int) (p scale.Pool, err error) {
	before, cpu, begun := heapInUse(), ownCPU(), time.Now()
	b := &poolBench{dir: dir, peers: n, records: 1, idle: run.watch}
	defer b.close()
	if err := b.build(ctx); err != nil {
		return p, err
	}
	fn := float64(n)
	p = scale.Pool{Peers: n, JoinSeconds: time.Since(begun).Seconds(), JoinCPU: ownCPU() - cpu}
	topics, err := joinJobs(b.members)
	if err != nil {
		return p, err
	}
	defer func() {
		for _, t := range topics {
			_ = t.Close()
		}
	}()
	if err := pause(ctx, run.settle); err != nil {
		return p, err
	}
	if err := await(ctx, "the pool settles", b.inStep); err != nil {
		return p, err
	}
	p.Memory = (heapInUse() - before) / fn
	sent, cpu, begun := b.sent(), ownCPU(), time.Now()
	if err := pause(ctx, run.watch); err != nil {
		return p, err
	}
	took := time.Since(begun).Seconds()
	flow := b.sent().minus(sent)
	p.Watched, p.IdleCPU = took, (ownCPU()-cpu)/took/fn
	for _, id := range flow.protocols() {
		p.Idle = append(p.Idle, scale.Flow{Protocol: string(id), Bytes: float64(flow[id].sent) / took / fn, Writes: float64(flow[id].writes) / took / fn})
	}
	if p.Gossip, err = run.gossiping(ctx, b, topics, p); err != nil {
		return p, err
	}
	p.Records, err = run.naming(ctx, b, p)
	return p, err
}

// heapInUse is the memory of heap and stacks in use, in bytes.
func heapInUse() float64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc + s.StackInuse)
}

func joinJobs(members []*poolPeer) (out []*gossip.Topic[[]byte], err error) {
	for _, m := range members {
		t, err := m.pool.JoinTopic("jobs", nil)
		if err != nil {
			return out, err
		}
		out = append(out, t)
	}
	return out, nil
}

// arrivals is when which messages came.
type arrivals struct {
	mu   sync.Mutex
	sent map[uint64]time.Time
	late []float64 // seconds of each delivery
}

func (a *arrivals) read(ctx context.Context, t *gossip.Topic[[]byte]) {
	for {
		m, err := t.Next(ctx)
		if err != nil {
			return
		}
		a.mu.Lock()
		a.late = append(a.late, time.Since(a.sent[binary.BigEndian.Uint64(m.Value)]).Seconds())
		a.mu.Unlock()
	}
}

// gossiping has members publish by turns.
func (run scaleRun) gossiping(ctx context.Context, b *poolBench, topics []*gossip.Topic[[]byte], idle scale.Pool) (s scale.Spread, err error) {
	a := &arrivals{sent: map[uint64]time.Time{}}
	reading, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	for _, t := range topics {
		readers.Go(func() { a.read(reading, t) })
	}
	defer readers.Wait()
	defer stop()
	sent, cpu, begun := b.sent(), ownCPU(), time.Now()
	for i := range run.messages {
		data := make([]byte, spreadSize)
		binary.BigEndian.PutUint64(data, uint64(i))
		a.mu.Lock()
		a.sent[uint64(i)] = time.Now()
		a.mu.Unlock()
		if err := topics[i*len(topics)/run.messages].Publish(ctx, data); err != nil {
			return s, err
		}
		if err := pause(ctx, spreadPause); err != nil {
			return s, err
		}
	}
	due := run.messages * (b.peers - 1)
	deadline, cancel := context.WithTimeout(ctx, spreadWait)
	defer cancel()
	_ = await(deadline, "all is delivered", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.late) >= due }) // what is not is counted
	if err := pause(ctx, time.Second); err != nil {                                                                      // for the last duplicates
		return s, err
	}
	took := time.Since(begun).Seconds()
	s = spreadOf(run.messages, spreadSize, b.peers, took, b.sent().minus(sent), gossip.Protocol, idle)
	s.CPU = max(0, ownCPU()-cpu-took*idle.IdleCPU*float64(b.peers)) / float64(run.messages*b.peers)
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.Sort(a.late)
	s.Delivered = float64(len(a.late)) / float64(due)
	if n := len(a.late); n > 0 {
		s.Half, s.Last = a.late[n/2], a.late[n*99/100]
	}
	return s, nil
}

// gossipEnvelope is what GossipSub adds to a message: sender (40), number (10), topic (about 60), signature (66), framing.
const gossipEnvelope = 182

// spreadOf takes what would have flowed anyway off what flowed.
func spreadOf(messages, size, peers int, took float64, flow tally, main protocol.ID, idle scale.Pool) scale.Spread {
	s := scale.Spread{Messages: messages, Size: size}
	for _, id := range []protocol.ID{gossip.Protocol, directory.Protocol} {
		extra := float64(flow[id].sent) / float64(peers)
		for _, f := range idle.Idle {
			if f.Protocol == string(id) {
				extra -= f.Bytes * took
			}
		}
		if id == gossip.Protocol {
			s.Copies = max(0, extra) / float64(messages) / float64(size+gossipEnvelope)
		}
		if id == main || main == "" {
			s.Bytes += max(0, extra) / float64(messages)
		}
	}
	return s
}

// naming has one member write records, one at a time, and waits until all have each.
func (run scaleRun) naming(ctx context.Context, b *poolBench, idle scale.Pool) (s scale.Spread, err error) {
	sent, cpu, begun := b.sent(), ownCPU(), time.Now()
	var late []float64
	for i := range run.names {
		at := time.Now()
		if err := write(ctx, b.members[0].names, fmt.Sprintf("scale/%d", i), 1); err != nil {
			return s, err
		}
		if err := await(ctx, "all have the name", b.inStep); err != nil {
			return s, err
		}
		late = append(late, time.Since(at).Seconds())
	}
	if err := pause(ctx, time.Second); err != nil {
		return s, err
	}
	took := time.Since(begun).Seconds()
	s = spreadOf(run.names, poolValue, b.peers, took, b.sent().minus(sent), "", idle)
	s.CPU = max(0, ownCPU()-cpu-took*idle.IdleCPU*float64(b.peers)) / float64(run.names*b.peers)
	slices.Sort(late)
	s.Delivered, s.Half, s.Last = 1, late[len(late)/2], late[len(late)-1]
	s.Copies = 0 // the record is signed too, and grows by that: bytes say it better
	return s, nil
}
