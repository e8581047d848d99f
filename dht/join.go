package dht

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/host"
)

const (
	// dialsParallel bounds the dials of peers that were offered.
	dialsParallel = 8
	// dialsWaiting bounds the offers that wait for one of those.
	dialsWaiting = 256
	// dialWait bounds one dial.
	dialWait = 15 * time.Second

	// While this peer is alone, the known peers are dialled again and again, at waits that double between these.
	rejoinFirst = 5 * time.Second
	rejoinMax   = 2 * time.Minute
	// joinedCheck is how often a peer that is not alone looks whether it still is not, and dials the bootstrap peers that
	// it has lost: two groups that each have company would otherwise never meet.
	joinedCheck = time.Minute
)

// join dials the bootstrap peers and the remembered ones, and does so again for as long as this peer is alone: a laptop
// that wakes up somewhere else has lost them all at once.
func (d *DHT) join(bootstrap []peer.AddrInfo) {
	retry := rejoinFirst
	timer := time.NewTimer(retry)
	defer timer.Stop()
	for {
		d.AddPeers(bootstrap...) // costs nothing for those that are connected
		wait := joinedCheck
		if d.alone() {
			d.AddPeers(d.memory.peers()...)
			wait, retry = retry, min(2*retry, rejoinMax)
		} else {
			retry = rejoinFirst
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.ctx.Done():
			return
		}
	}
}

// alone reports whether there is nobody to ask. The table alone does not say so: it keeps peers that went silent until
// a lookup stumbles over them.
func (d *DHT) alone() bool { return d.Table() == 0 || len(d.host.Network().Peers()) == 0 }

// reachableAt returns where a peer was reached or says it can be, the addresses that worked first.
func (d *DHT) reachableAt(p peer.ID) peer.AddrInfo {
	info := peer.AddrInfo{ID: p}
	for _, c := range d.host.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirOutbound {
			info.Addrs = append(info.Addrs, c.RemoteMultiaddr())
		}
	}
	info.Addrs = append(info.Addrs, d.host.Peerstore().Addrs(p)...)
	info.Addrs = multiaddr.Unique(info.Addrs)
	return info
}

// dialer connects to peers that were offered, a few at a time.
type dialer struct {
	host *host.Host
	work chan peer.AddrInfo

	mu      sync.Mutex
	waiting map[peer.ID]bool // offered and not yet done with
}

func newDialer(h *host.Host) *dialer {
	return &dialer{host: h, work: make(chan peer.AddrInfo, dialsWaiting), waiting: make(map[peer.ID]bool)}
}

// offer queues a peer unless it is this one, has no address, is queued already, or the queue is full. Addresses of a
// queued or connected peer are noted all the same: the dial to come uses them.
func (d *dialer) offer(info peer.AddrInfo) {
	if info.ID == d.host.ID() || info.ID.Validate() != nil || len(info.Addrs) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting[info.ID] {
		d.host.Peerstore().AddAddrs(info.ID, info.Addrs, offeredAddrs)
		return
	}
	select {
	case d.work <- peer.AddrInfo{ID: info.ID, Addrs: slices.Clone(info.Addrs)}:
		d.waiting[info.ID] = true
	default: // full: whoever offers will do so again
	}
}

// offeredAddrs is how long addresses are kept that nobody has confirmed.
const offeredAddrs = 10 * time.Minute

// run dials until ctx ends.
func (d *dialer) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range dialsParallel {
		wg.Go(func() {
			for {
				select {
				case info := <-d.work:
					d.dial(ctx, info)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// dial connects to one peer. Whether it speaks our protocol, and belongs into the table, libp2p's identify and kad-dht
// find out by themselves once it is connected. A peer that cannot be reached is no error: it may be off.
func (d *dialer) dial(ctx context.Context, info peer.AddrInfo) {
	defer func() {
		d.mu.Lock()
		delete(d.waiting, info.ID)
		d.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	_ = d.host.Connect(ctx, info)
}
