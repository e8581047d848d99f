// Package dht owns shoal's Kademlia: how a peer joins it, how it announces the roots that it serves, and how it finds
// the providers of a root. It is a private table of its own, /shoal/kad/1.0.0, open to every peer, and every peer serves.
//
// What the table says is a hint and never truth: that a peer once claimed to have something. Nothing is kept in it but
// provider records, which fade after an hour; there are no values, because a table without compare-and-set cannot
// hold any that matter. DESIGN.md beside this file has the reasons.
//
// The floor above talks to it in keys, peer ids and addresses. The Kademlia implementation stays behind this package.
package dht

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/host"
)

// Protocol is the id under which peers speak Kademlia with each other.
const Protocol protocol.ID = kadPrefix + "/kad/1.0.0"

// kadPrefix is what kad-dht wants; it appends /kad/1.0.0 itself.
const kadPrefix = "/shoal"

const (
	// RecordLife is how long a provider record lives at those who hold it, and the provider's addresses with it.
	// Laptops leave without a word: the public network's 48 hours would leave two days of dead providers in each answer.
	RecordLife = time.Hour
	// recordSweep is how often dead records are removed. They are not served in the meantime.
	recordSweep = 10 * time.Minute
)

// Key is what providers are found by: a sha2-256 digest, that of a root for public shares.
type Key [32]byte

// cid dresses a key as kad-dht wants it. The codec is of no effect, as the table goes by the multihash alone.
func (k Key) cid() cid.Cid {
	const sha256Code, sha256Length = 0x12, 32 // the multihash header, https://github.com/multiformats/multicodec
	return cid.NewCidV1(cid.Raw, append([]byte{sha256Code, sha256Length}, k[:]...))
}

// Config says how to join. The zero value joins through nobody and remembers nothing.
type Config struct {
	// Bootstrap holds peers to join through, beside those remembered.
	Bootstrap []peer.AddrInfo
	// Remembered is the path of the file in which peers that spoke our protocol are kept for the next start. Empty:
	// none are kept.
	Remembered string
	// Now is the time of day, for that file. Nil: time.Now.
	Now func() time.Time
}

// DHT is a running member of the table. All methods are safe for concurrent use. Close ends it; the host stays open.
type DHT struct {
	host *host.Host
	kad  *kad.IpfsDHT

	dialer *dialer
	memory *memory
	seeder *seeder

	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// PeerInfo is one peer of the routing table.
type PeerInfo struct {
	ID        peer.ID
	Addrs     []multiaddr.Multiaddr
	Connected bool
	Since     time.Time // when it entered the table
}

// New joins the table: it serves at once, and in the background dials the bootstrap peers, those remembered from before
// and those that local discovery finds. It fails only when the table cannot be set up, never for want of peers. An
// unreadable file of remembered peers counts as empty: it holds nothing that cannot be found again.
func New(h *host.Host, cfg Config) (*DHT, error) {
	d := &DHT{host: h}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.memory = newMemory(cfg.Remembered, cfg.Now)
	d.dialer = newDialer(h)
	d.seeder = newSeeder(d.provide, d.Table)
	watched := watchTable(h, tableEvents{added: d.peerAdded})
	table, err := kad.New(watched, kadOptions()...)
	if err != nil {
		d.cancel()
		return nil, fmt.Errorf("dht: start: %w", err)
	}
	d.kad = table
	d.run(cfg.Bootstrap)
	h.OnFound(func(info peer.AddrInfo) { d.AddPeers(info) })
	return d, nil
}

// kadOptions sets the table up. Server mode is forced: the automatic mode serves only where a peer knows itself to be
// publicly reachable, so on a private network nobody would. There is no address filter and no diversity filter, because
// loopback and private addresses, and many peers behind one address, are the normal case here.
func kadOptions() []kad.Option {
	return []kad.Option{
		kad.ProtocolPrefix(kadPrefix),
		kad.Mode(kad.ModeServer),
		kad.DisableValues(),
		kad.ProviderDatastore(newRecordStore(recordsMax, recordsPerPeer)),
		kad.ProviderManagerOpts(
			records.ProvideValidity(RecordLife),
			records.ProviderAddrTTL(RecordLife),
			records.CleanupInterval(recordSweep),
		),
	}
}

// run starts the background work.
func (d *DHT) run(bootstrap []peer.AddrInfo) {
	d.wg.Go(func() { d.dialer.run(d.ctx) })
	d.wg.Go(func() { d.seeder.run(d.ctx) })
	d.wg.Go(func() { d.memory.run(d.ctx) })
	d.wg.Go(func() { d.join(bootstrap) })
}

// peerAdded is called by the table, from its own goroutine, for each peer that entered it.
func (d *DHT) peerAdded(p peer.ID) {
	d.memory.seen(d.reachableAt(p), d.memory.now())
	d.seeder.tableGrew()
}

// Table returns the number of peers in the routing table.
func (d *DHT) Table() int { return d.kad.RoutingTable().Size() }

// Peers returns the peers of the routing table, in no order.
func (d *DHT) Peers() []PeerInfo {
	var out []PeerInfo
	for _, p := range d.kad.RoutingTable().GetPeerInfos() {
		out = append(out, PeerInfo{
			ID:        p.Id,
			Addrs:     d.host.Peerstore().Addrs(p.Id),
			Connected: d.host.Network().Connectedness(p.Id) == network.Connected,
			Since:     p.AddedAt,
		})
	}
	return out
}

// AddPeers offers peers that were heard of: from a link, a discovery, a flag. They are dialled in the background; those
// that speak our protocol enter the table and are remembered. When very many are waiting already, more are dropped.
func (d *DHT) AddPeers(infos ...peer.AddrInfo) {
	for _, info := range infos {
		d.dialer.offer(info)
	}
}

// Close stops the background work, stores the remembered peers and leaves the table. It may be called more than once.
func (d *DHT) Close() error {
	d.closeOnce.Do(func() {
		d.cancel()
		d.wg.Wait()
		d.closeErr = errors.Join(d.memory.save(d.memory.now()), d.kad.Close())
	})
	return d.closeErr
}
