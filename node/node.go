// Package node is one peer: it assembles the floors below into a thing with
// Start and Close, and answers for it at the local API.
//
// It is the only package that knows all the others. It decides nothing itself:
// what belongs to finding is dht's, what belongs to bytes is storage's. Any Go
// program can embed a peer:
//
//	n, err := node.Start(ctx, node.Config{Home: dir})
//	defer n.Close()
//	share, err := n.Share(ctx, client.ShareRequest{Path: "photos"}, nil)
package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/node/api"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/node/web"
	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/block/piece"
)

const (
	peersFile = "peers.json"
	portFile  = "port"
)

// Node is a running peer. Its methods may be called from any goroutine.
type Node struct {
	cfg     valid
	started time.Time

	lock    *lock
	ident   ident.Identity
	host    *host.Host
	dht     *dht.DHT
	pieces  *piece.Store
	idle    idleWatch
	space   int64 // bytes that it lends to pool files
	storage *storage.Storage
	web     *web.Gateway
	api     *api.Server

	current  atomic.Pointer[circle] // nil while there is none: see circle
	changing sync.Mutex             // held by who replaces it
	happened feed
	asked    questions
	gate     gate
	drills   drills
	lid      *lidWatch // nil in an offline peer

	fetching atomic.Int32 // gets under way

	stop     chan struct{}
	stopOnce sync.Once
	close    func() error
}

var (
	_ api.Peer   = (*Node)(nil)
	_ web.Source = (*Node)(nil)
)

// Start makes a peer of cfg. It returns when the peer listens, shares what it
// shared before, and answers at its API; it waits for no other peer. The
// context bounds the start only.
//
// An error of the kind [client.KindBusy] means that another peer has the home.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	checked, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := &Node{cfg: checked, started: checked.Now(), stop: make(chan struct{})}
	n.happened.init(n.cfg.Now)
	opened := closers{log: checked.Log}
	if err := n.assemble(&opened); err != nil {
		return nil, errors.Join(err, opened.close())
	}
	n.close = sync.OnceValue(opened.close)
	return n, nil
}

// assemble starts the parts, leaves first; each part is closed before those
// that it was given.
func (n *Node) assemble(opened *closers) (err error) {
	if n.lock, err = lockHome(n.cfg.Home); err != nil {
		return err
	}
	opened.add("home", n.lock.release)

	if n.ident, err = ident.LoadOrCreate(n.cfg.Home, n.cfg.Name); err != nil {
		return identityError(err)
	}

	n.gate.next = n.cfg.gater
	if n.host, err = host.New(host.Config{
		Identity: n.ident,
		Listen:   n.cfg.Listen,
		PortFile: n.file(portFile),
		LAN:      n.cfg.LAN,
		UPnP:     n.cfg.UPnP,
		Agent:    "shoal/" + n.cfg.Version,
		Gater:    &n.gate,
	}); err != nil {
		return client.Wrap(client.KindInternal, fmt.Errorf("network: %w", err), "is a port of --listen taken by another program?")
	}
	opened.addLoose("host", n.host.Close)

	if n.dht, err = dht.New(n.host, dht.Config{Bootstrap: n.cfg.bootstrap, Remembered: n.file(peersFile), Now: n.cfg.Now}); err != nil {
		return fmt.Errorf("dht: %w", err)
	}
	opened.addLoose("dht", n.dht.Close)

	if n.pieces, err = n.openPieces(); err != nil {
		return err
	}
	opened.add("pieces", n.pieces.Close)

	if n.storage, err = n.openStorage(); err != nil {
		return err
	}
	opened.add("storage", n.storage.Close)

	if !n.cfg.Offline {
		n.lid = watchLid(func(ctx context.Context) (lid, error) { return openLid(ctx, n.cfg.bus) }, n.tellSleep, n.cfg.Log)
		opened.add("lid", n.lid.close)
	}
	if err := n.startCircle(); err != nil {
		return err
	}
	opened.add("pool", n.endCircle)
	opened.add("drills", n.endDrills)

	n.web = web.New(n, n.cfg.Log)
	opened.add("web", n.web.Close)

	if n.api, err = api.Open(api.Config{Home: n.cfg.Home, Network: n.cfg.API, Web: n.web, Unlisted: n.cfg.Offline}, n); err != nil {
		return err
	}
	n.api.Serve()
	opened.add("api", n.api.Close)
	return nil
}

// file is the path of a file in the home, or none for an offline peer: what it
// sees of the network must not overwrite what a real run remembered.
func (n *Node) file(name string) string {
	if n.cfg.Offline {
		return ""
	}
	return filepath.Join(n.cfg.Home, name)
}

// Close ends transfers, stops serving and lets go of the home. It may be
// called again, with the same answer.
func (n *Node) Close() error { return n.close() }

// Stop asks for the peer's end: [Node.Done] closes. Whoever started the peer
// closes it.
func (n *Node) Stop() { n.stopOnce.Do(func() { close(n.stop) }) }

// Done is closed once somebody has asked the peer to stop.
func (n *Node) Done() <-chan struct{} { return n.stop }

// Endpoint is where the peer's API listens.
func (n *Node) Endpoint() client.Endpoint { return n.api.Endpoint() }

// identityError adds what a person can do about a key that cannot be used.
func identityError(err error) error {
	var key *ident.KeyError
	if errors.As(err, &key) {
		return client.Wrap(client.KindHome, err, key.Hint())
	}
	return err
}

// ReadIdentity returns who the peer on a home is, without starting it. A home
// that has no identity yet gets one.
func ReadIdentity(home string) (client.Identity, error) {
	if err := MakeHome(home); err != nil {
		return client.Identity{}, err
	}
	id, err := ident.LoadOrCreate(home, "")
	if err != nil {
		return client.Identity{}, identityError(err)
	}
	return client.Identity{Name: id.Name, ID: id.ID.String(), Addrs: []string{}}, nil
}
