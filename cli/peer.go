package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/pflag"
)

const (
	probeTimeout = 5 * time.Second
	// startWait is how long a command waits for a peer that holds the home
	// but does not answer yet: it is starting, or ending.
	startWait     = 5 * time.Second
	startInterval = 50 * time.Millisecond
)

// peerFlags are the settings of a peer; every command that may become one has them.
type peerFlags struct {
	name      string
	listen    []string
	lan       bool
	bootstrap []string
	upnp      bool
	api       string
	up, down  bytesFlag
	sealAll   bool

	anchor            bool
	lendCores         int
	lendMemory, store bytesFlag
	owner, site       string
	patience          time.Duration
	when              string
	allowExec         bool
	allowDrill        bool
	labels            []string
}

var peerFlagNames = []string{"name", "listen", "lan", "bootstrap", "upnp", "api", "up", "down", "seal-all", "anchor", "lend-cores", "lend-memory", "store", "owner", "site", "patience", "when", "allow-exec", "allow-drill", "labels"}

func (p *peerFlags) add(f *pflag.FlagSet) {
	f.StringVar(&p.name, "name", "", "the peer's name (default the host's)")
	f.StringSliceVar(&p.listen, "listen", nil, "multiaddresses to listen on (default all interfaces, TCP and QUIC)")
	f.BoolVar(&p.lan, "lan", true, "find peers on the local network, and be found")
	f.StringSliceVar(&p.bootstrap, "bootstrap", nil, "multiaddresses of peers to connect to first, each ending in /p2p/ID")
	f.BoolVar(&p.upnp, "upnp", false, "ask the router to forward a port")
	f.StringVar(&p.api, "api", "", "how commands reach the peer: unix or tcp (default unix, on Windows tcp)")
	f.Var(&p.up, "up", "upload at most this much a second, as 2MiB, beyond the local network (default no limit)")
	f.Var(&p.down, "down", "download at most this much a second, as 10MiB, beyond the local network (default no limit)")
	f.BoolVar(&p.sealAll, "seal-all", false, "encrypt what goes between two peers of one machine, too")
	f.BoolVar(&p.anchor, "anchor", false, "mark this peer as always on")
	f.IntVar(&p.lendCores, "lend-cores", 0, "processor cores to lend the pool; -1 is none (default all)")
	f.Var(&p.lendMemory, "lend-memory", "memory to lend the pool, as 4GiB; -1 is none (default half of it)")
	f.Var(&p.store, "store", "disk that the pool's files may take here at most, as 100GiB; -1 is none (default half of what is free)")
	f.StringVar(&p.owner, "owner", "", "whose machine this is: copies of a file go to different owners first")
	f.StringVar(&p.site, "site", "", "where this machine stands: copies go to different sites next")
	f.StringVar(&p.when, "when", "", "when to lend cores: always, mains (not on battery) or idle (while nobody uses the machine) (default always)")
	f.BoolVar(&p.allowExec, "allow-exec", false, "let members run native commands here, in a folder of their own, confined as far as this system can")
	f.BoolVar(&p.allowDrill, "allow-drill", false, "let members have this peer drop out of the pool for up to 5 minutes, to see what holds (shoal drill)")
	f.StringSliceVar(&p.labels, "labels", nil, "what jobs can ask for with --needs, as gpu=nvidia; os= and arch= are there by themselves")
	f.DurationVar(&p.patience, "patience", 0, "how long a member may be away before its copies are made anew elsewhere (default 72h)")
}

func (p *peerFlags) config(a *app) node.Config {
	return node.Config{
		Home: a.home, Name: p.name, Listen: p.listen, LAN: p.lan, Bootstrap: p.bootstrap, UPnP: p.upnp,
		API: api.Network(p.api), Version: version(), Up: int64(p.up), Down: int64(p.down), SealAll: p.sealAll,
		Lend:     node.Lend{Cores: p.lendCores, Memory: int64(p.lendMemory), Space: int64(p.store), Anchor: p.anchor, Owner: p.owner, Site: p.site, When: p.when, AllowExec: p.allowExec, AllowDrill: p.allowDrill, Labels: p.labels},
		Patience: p.patience,
		Log:      newWarnings(a.err),
	}
}

// session is a client of the peer on the home, and the peer itself when this
// process is it.
type session struct {
	*client.Client
	own *node.Node // nil when another process is the peer
}

// close ends the session, and the peer if it is our own.
func (s *session) close() error {
	s.Client.Close()
	if s.own == nil {
		return nil
	}
	return s.own.Close()
}

// dial returns a client of the running peer, having heard from it.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	c, err := client.Open(a.home)
	if err != nil {
		return nil, err
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err = c.ID(probe)
	if err == nil && a.peer != "" {
		return c.At(a.peer), nil
	}
	if err == nil {
		return c, nil
	}
	c.Close()
	if ctx.Err() == nil && probe.Err() != nil {
		return nil, client.Errorf(client.KindLost, "see peer.log in the home, or end the process",
			"the peer (process %d) does not answer", c.Endpoint().PID)
	}
	return nil, err
}

// join returns a session with the running peer or, when there is none, starts
// one in this process. Two commands that start at once end up in one peer.
func (a *app) join(ctx context.Context, cfg node.Config) (*session, error) {
	deadline := time.Now().Add(startWait)
	for {
		c, err := a.dial(ctx)
		if err == nil {
			a.warnUnused()
			return &session{Client: c}, nil
		}
		if a.peer != "" {
			return nil, err
		}
		if !errors.Is(err, client.ErrNoPeer) {
			return nil, err
		}
		own, err := node.Start(ctx, cfg)
		if err == nil {
			return &session{Client: client.New(a.home, own.Endpoint()), own: own}, nil
		}
		if client.KindOf(err) != client.KindBusy || time.Now().After(deadline) {
			return nil, err
		}
		if err := pause(ctx, startInterval); err != nil {
			return nil, err
		}
	}
}

// start starts the peer in this process. A home that is held by a peer which
// does not answer is only just starting, ending, or being looked at by a short
// command: that passes.
func (a *app) start(ctx context.Context, cfg node.Config) (*node.Node, error) {
	deadline := time.Now().Add(startWait)
	for {
		n, err := node.Start(ctx, cfg)
		if client.KindOf(err) != client.KindBusy || time.Now().After(deadline) {
			return n, err
		}
		if c, dialErr := a.dial(ctx); dialErr == nil {
			c.Close()
			return nil, err
		}
		if err := pause(ctx, startInterval); err != nil {
			return nil, err
		}
	}
}

// warnUnused says that a running peer keeps the settings it was started with.
func (a *app) warnUnused() {
	var unused []string
	for _, name := range peerFlagNames {
		if a.given[name] {
			unused = append(unused, "--"+name)
		}
	}
	if len(unused) > 0 {
		a.notef("note: a peer is already running, so %s has no effect here", strings.Join(unused, ", "))
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// offline is a peer that only looks at its own home: it listens on loopback
// and talks to nobody.
func (a *app) offline() node.Config {
	return node.Config{Home: a.home, Offline: true, Version: version(), Log: newWarnings(a.err)}
}
