package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/node/api"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/market"
)

// bootstrapMax bounds the peers to begin with: more than these have no use.
const bootstrapMax = 64

// Config of a peer. All but Home may be left zero.
type Config struct {
	// Home is the peer's folder, made if it is not there. One peer at a time
	// runs on a home.
	Home string
	// Name is what people call the peer. Empty is the name of the last time,
	// or the host's.
	Name string
	// Listen are multiaddresses. Empty is all interfaces, TCP and QUIC, on a
	// port that is kept for the next time.
	Listen []string
	// LAN lets the peer find others on the local network and be found. It is
	// without effect when the peer listens on loopback only.
	LAN bool
	// Bootstrap are multiaddresses, each ending in /p2p/ID, of peers to
	// connect to first. Empty is nobody but those known from before.
	Bootstrap []string
	// UPnP asks the router for a port.
	UPnP bool
	// Up and Down bound the file bytes a second served and fetched, those to and
	// from this machine and its local network exempt. 0 or less is no bound.
	Up, Down int64
	// SealAll has the bytes of files encrypted between peers of one machine, too, where the kernel alone handles them.
	SealAll bool
	// Offline keeps the peer to itself, for work on its home: it listens on
	// loopback, looks for nobody and forgets nobody, and its API is listed
	// nowhere, so that no command takes it for a peer that serves. Listen,
	// LAN, Bootstrap and UPnP are ignored.
	Offline bool
	// Lend says what the peer offers its pool.
	Lend Lend
	// Patience is how long a member may be away before the copies that it keeps are made anew elsewhere. 0 is 72 hours.
	Patience time.Duration
	// Now is the time of day, for all that is to mean something beyond this process: the times in records and certificates,
	// of files and jobs, and when something ends that outlives a restart. It may jump in both directions at any time, as a
	// machine's clock does, and is asked from many goroutines. Nil is the machine's.
	Now func() time.Time
	// Runner makes the command that starts a child of the peer, in which guests run; arguments are appended. It must call
	// tasks/exec's Child first thing in its main. Nil is this program itself, which then must do so.
	Runner func() *exec.Cmd
	// API is how commands reach the peer. Zero is a Unix socket in the home,
	// or loopback TCP with a token on Windows.
	API api.Network
	// Version is what the peer tells others that it is. Empty is "dev".
	Version string
	// Log receives warnings. Nil is nowhere.
	Log *slog.Logger

	gater connmgr.ConnectionGater // who may be connected to; nil: everybody
	bus   string                  // D-Bus address of the bus on which logind is asked; "": the system's
}

// valid is a Config that was checked, with its zero fields filled in.
type valid struct {
	Config
	bootstrap []peer.AddrInfo
	when      market.When
}

func (c Config) validate() (valid, error) {
	if c.Home == "" {
		return valid{}, client.Wrap(client.KindInvalid, errors.New("no home was given"), "")
	}
	home, err := filepath.Abs(c.Home)
	if err != nil {
		return valid{}, fmt.Errorf("home: %w", err)
	}
	c.Home = home
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Offline {
		c.Listen, c.LAN, c.Bootstrap, c.UPnP = []string{"/ip4/127.0.0.1/tcp/0"}, false, nil, false
	}
	switch c.API {
	case api.NetworkDefault, api.NetworkUnix, api.NetworkTCP:
	default:
		return valid{}, client.Errorf(client.KindInvalid, "use unix or tcp", "api: there is no network %q", string(c.API))
	}
	for _, a := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(a); err != nil {
			return valid{}, client.Errorf(client.KindInvalid, "write it like /ip4/0.0.0.0/tcp/4001", "listen: %q is not a multiaddress", a)
		}
	}
	if err := checkLabels(c.Lend.Labels); err != nil {
		return valid{}, err
	}
	when, err := parseWhen(c.Lend.When)
	if err != nil {
		return valid{}, err
	}
	bootstrap, err := parseBootstrap(c.Bootstrap)
	return valid{Config: c, bootstrap: bootstrap, when: when}, err
}

// parseBootstrap groups addresses by the peer that they lead to.
func parseBootstrap(addrs []string) ([]peer.AddrInfo, error) {
	if len(addrs) > bootstrapMax {
		return nil, client.Errorf(client.KindInvalid, "", "bootstrap: %d addresses are too many, %d are the most", len(addrs), bootstrapMax)
	}
	var all []multiaddr.Multiaddr
	for _, s := range addrs {
		a, err := multiaddr.NewMultiaddr(s)
		if err == nil {
			_, err = peer.AddrInfoFromP2pAddr(a)
		}
		if err != nil {
			return nil, client.Errorf(client.KindInvalid, "the other peer prints its addresses with `shoal id --addrs`",
				"bootstrap: %q is not a peer's address: %w", s, err)
		}
		all = append(all, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(all...)
	if err != nil {
		return nil, client.Wrap(client.KindInvalid, fmt.Errorf("bootstrap: %w", err), "")
	}
	return infos, nil
}
