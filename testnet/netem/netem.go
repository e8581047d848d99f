// Package netem is a small wide-area network on one machine: hosts of its own (Linux network namespaces with nothing in
// them but loopback and one interface) and, between any two of them, a line in each direction with delay, loss, a
// rate and a queue. It exists because measurements of a swarm mean little on loopback, and because the kernel's own
// emulator (tc netem) is missing from many machines.
//
// A *host* is a namespace with one address. A *line* is the way from one host to another; the way back is another line. Each host's
// interface is a TUN device whose other end is this process: it reads packets, holds them as long as the line says, and
// writes them to the interface of the host they are for. Packets of one line never overtake each other.
//
// The hosts have no route to anywhere else: what runs inside reaches the other hosts and nothing besides, and the machine's own
// interfaces, routes and addresses are neither used nor changed. Everything disappears with the process, even a killed one.
//
// It works on Linux, as root, for IPv4 unicast. It does not emulate reordering, duplication or multicast.
// A NAT carries TCP and UDP and nothing else: no ICMP, no fragments.
package netem

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// hostsMax bounds the hosts of a network: each has a device, and each pair two lines.
const hostsMax = 64

// Link is how one line treats packets. The zero value passes them on at once.
type Link struct {
	Delay  time.Duration // from the end of sending to arrival, one way
	Jitter time.Duration // what chance may add to Delay for each packet; order is kept, so a late one holds up those behind it
	Loss   float64       // chance that a packet vanishes, 0 to 1, each on its own
	Rate   int64         // bits per second, counting IP packets whole; 0 is unlimited
	Queue  int           // bytes that may wait for a line with a Rate; what comes on top is dropped. 0 is what the Rate carries in 100 ms, at least 64 KiB
	Down   bool          // nothing passes
}

// Config describes a network. Every line begins with Link.
type Config struct {
	Hosts  int          // 2 to 64
	Link   Link         // of every line
	Subnet netip.Prefix // the hosts' addresses, from the first on; zero is 10.77.0.0/24
	MTU    int          // bytes of the largest packet; 0 is 1500
	TCP    string       // congestion control of the hosts' TCP; empty is the machine's own. reno works everywhere, others only if the machine's tcp_allowed_congestion_control has them
	Seed   uint64       // equal seeds lose the same packets of each line, counted from its first
	Sites  []Site       // hosts behind a NAT; all others are outside
}

// Site is some hosts behind one NAT. They have private addresses, which nobody else reaches, and reach each other directly.
type Site struct {
	NAT   NAT
	Hosts []int
}

// Stats counts packets of one line since it began.
type Stats struct {
	Sent      int64 // came in
	Bytes     int64 // of these packets
	Delivered int64
	Lost      int64 // by Loss or while Down
	Dropped   int64 // because the queue was full
}

// ErrUnsupported is what New returns, wrapped with the reason, where the network cannot be made.
var ErrUnsupported = errors.New("netem: not possible here")

var subnetDefault = netip.MustParsePrefix("10.77.0.0/24")

const (
	mtuDefault = 1500
	mtuMin     = 576
	mtuMax     = 9000
	queueMin   = 64 << 10
	queueTime  = 100 * time.Millisecond
)

// complete checks a Config and fills in its defaults.
func (c Config) complete() (Config, error) {
	if c.Hosts < 2 || c.Hosts > hostsMax {
		return c, fmt.Errorf("netem: config: %d hosts, not between 2 and %d", c.Hosts, hostsMax)
	}
	if !c.Subnet.IsValid() {
		c.Subnet = subnetDefault
	}
	if c.Subnet = c.Subnet.Masked(); !c.Subnet.Addr().Is4() || 1<<(32-c.Subnet.Bits())-2 < c.Hosts {
		return c, fmt.Errorf("netem: config: %s is not an IPv4 subnet for %d hosts", c.Subnet, c.Hosts)
	}
	if c.MTU == 0 {
		c.MTU = mtuDefault
	}
	if c.MTU < mtuMin || c.MTU > mtuMax {
		return c, fmt.Errorf("netem: config: MTU %d, not between %d and %d", c.MTU, mtuMin, mtuMax)
	}
	if err := c.checkSites(); err != nil {
		return c, err
	}
	var err error
	c.Link, err = c.Link.complete()
	return c, err
}

// sitesMax bounds the sites: each has a private subnet and an address outside.
const sitesMax = 50

func (c Config) checkSites() error {
	if len(c.Sites) > sitesMax || len(c.Sites) > 0 && 1<<(32-c.Subnet.Bits())-2 < c.Hosts+len(c.Sites) {
		return fmt.Errorf("netem: config: %d sites do not fit into %s", len(c.Sites), c.Subnet)
	}
	seen := make([]bool, c.Hosts)
	for i, s := range c.Sites {
		if s.NAT == NATNone || s.NAT > NATSymmetric {
			return fmt.Errorf("netem: config: site %d has no NAT", i)
		}
		for _, h := range s.Hosts {
			if h < 0 || h >= c.Hosts || seen[h] {
				return fmt.Errorf("netem: config: host %d of site %d is not there or in two sites", h, i)
			}
			seen[h] = true
		}
	}
	return nil
}

// subnetOf is where a host of a site can send to by itself, and further what it has to have a route to.
func (c Config) subnetOf(site int) (own, more netip.Prefix) {
	if site < 0 {
		return c.Subnet, netip.Prefix{}
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(site + 1), 0}), 24), c.Subnet
}

// plan gives each host an address, and each site its gateway's: hosts outside have the subnet's first ones by their
// number, gateways those after the last host, hosts inside 192.168.(site+1).(number+1).
func (c Config) plan() (addrs []netip.Addr, site []int, gateways []netip.Addr) {
	addr := c.Subnet.Addr()
	site = make([]int, c.Hosts)
	for i := range c.Hosts {
		addr = addr.Next()
		addrs, site[i] = append(addrs, addr), -1
	}
	for n, s := range c.Sites {
		addr = addr.Next()
		gateways = append(gateways, addr)
		for k, h := range s.Hosts {
			addrs[h], site[h] = netip.AddrFrom4([4]byte{192, 168, byte(n + 1), byte(k + 1)}), n
		}
	}
	return addrs, site, gateways
}

func (l Link) complete() (Link, error) {
	if l.Delay < 0 || l.Delay > time.Minute || l.Jitter < 0 || l.Jitter > time.Minute || !(l.Loss >= 0 && l.Loss <= 1) || l.Rate < 0 || l.Queue < 0 {
		return l, fmt.Errorf("netem: link: %+v is out of range", l)
	}
	if l.Queue == 0 {
		l.Queue = max(queueMin, int(float64(l.Rate)/8*queueTime.Seconds()))
	}
	return l, nil
}
