package host

import (
	"io"
	"sync"

	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

const (
	// mdnsService is the name that shoal peers look for; it differs from libp2p's, so that other programs' peers are
	// not met.
	mdnsService = "_shoal._udp"
	// foundRecent is how many finds are kept for listeners that come late.
	foundRecent = 64
)

// discovery is local discovery by multicast DNS, or its absence: a discovery that was not asked for, or could not
// start, finds nothing and closes without complaint.
type discovery struct {
	err     error
	service io.Closer

	mu        sync.Mutex
	listeners []func(peer.AddrInfo)
	recent    []peer.AddrInfo
}

func newDiscovery(h p2phost.Host, on bool, found func(peer.AddrInfo)) *discovery {
	d := &discovery{}
	if found != nil {
		d.listeners = append(d.listeners, found)
	}
	if !on {
		return d
	}
	service := mdns.NewMdnsService(h, mdnsService, d)
	if err := service.Start(); err != nil {
		d.err = err
		return d
	}
	d.service = service
	return d
}

// HandlePeerFound is called by the service, from a goroutine for each find.
func (d *discovery) HandlePeerFound(info peer.AddrInfo) {
	d.mu.Lock()
	if len(d.recent) >= foundRecent {
		d.recent = d.recent[1:]
	}
	d.recent = append(d.recent, info)
	listeners := d.listeners
	d.mu.Unlock()
	for _, f := range listeners {
		f(info)
	}
}

func (d *discovery) subscribe(f func(peer.AddrInfo)) {
	d.mu.Lock()
	// A copy, as HandlePeerFound walks the old slice without the lock.
	d.listeners = append(append([]func(peer.AddrInfo){}, d.listeners...), f)
	recent := append([]peer.AddrInfo(nil), d.recent...)
	d.mu.Unlock()
	for _, info := range recent {
		f(info)
	}
}

func (d *discovery) running() bool { return d.service != nil }

func (d *discovery) close() error {
	if d.service == nil {
		return nil
	}
	return d.service.Close()
}
