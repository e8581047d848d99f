package dht

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrNoPeers says that the routing table is empty, so that nobody can be asked.
var ErrNoPeers = errors.New("dht: no peers known yet")

const (
	// addrsWait bounds the search for the addresses of one provider that came without.
	addrsWait = 10 * time.Second
	// providersMax bounds what one lookup yields: each is a claim of some stranger, and costs a dial to check.
	providersMax = 1000
)

// FindProviders asks the table who provides k, and yields each provider as soon as it is heard of, with addresses, this
// peer excluded. A provider may come again when more addresses became known.
//
// The sequence ends when the lookup does, usually after a few round trips; finding nobody is no error. Then the caller
// may look again later: a table that is still filling misses some. It yields one error and ends when nobody can be asked
// (ErrNoPeers) or ctx ends. It may be ranged over once; each call is a lookup of its own.
func (d *DHT) FindProviders(ctx context.Context, k Key) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		lookup, cancel := context.WithCancel(ctx)
		defer cancel() // a caller that breaks off ends the lookup
		stop := context.AfterFunc(d.ctx, cancel)
		defer stop()
		n := 0
		for info := range d.kad.FindProvidersAsync(lookup, k.cid(), 0) {
			if info.ID == d.host.ID() {
				continue
			}
			if len(info.Addrs) == 0 {
				info = d.findAddrs(lookup, info.ID)
			}
			if n++; !yield(info, nil) || n >= providersMax {
				return
			}
		}
		if err := d.lookupError(ctx, n); err != nil {
			yield(peer.AddrInfo{}, err)
		}
	}
}

// lookupError says why a lookup that yielded n providers ended, if not by itself.
func (d *DHT) lookupError(ctx context.Context, n int) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case d.ctx.Err() != nil:
		return errClosed
	case n == 0 && d.Table() == 0:
		return ErrNoPeers
	default:
		return nil
	}
}

// findAddrs looks for the addresses of a provider: here, then in the table. Without any, the bare id is returned.
func (d *DHT) findAddrs(ctx context.Context, p peer.ID) peer.AddrInfo {
	if info := d.host.Peerstore().PeerInfo(p); len(info.Addrs) > 0 {
		return info
	}
	ctx, cancel := context.WithTimeout(ctx, addrsWait)
	defer cancel()
	info, err := d.kad.FindPeer(ctx, p)
	if err != nil {
		return peer.AddrInfo{ID: p}
	}
	return info
}
