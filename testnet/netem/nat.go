package netem

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// NAT is what stands between a site's hosts and all others.
type NAT uint8

// The kinds of NAT, by what RFC 4787 calls mapping and filtering. All refuse what comes unasked; none lets its own hosts
// reach each other by its outer address (no hairpinning).
const (
	NATNone      NAT = iota
	NATCone          // one port outside for each port inside, and whoever knows it gets in: endpoint-independent both ways
	NATPort          // the same port outside, but only those that were written to get in: hole punching works
	NATSymmetric     // another port for each correspondent, who alone gets in: hole punching does not work
)

const (
	// mappingsMax bounds what a gateway remembers; then one that was quiet is forgotten.
	mappingsMax = 4096
	// contactsMax bounds the correspondents of one mapping of NATPort.
	contactsMax = 1024
	// The times after which a mapping that nobody uses is forgotten (RFC 4787 asks for two minutes, RFC 5382 for hours).
	udpIdle = 2 * time.Minute
	tcpIdle = time.Hour
	// Ports outside are given from here on, unless the one inside is free.
	firstPort = 20000
	lastPort  = 60000

	protoTCP, protoUDP = 6, 17
)

// end is one end of a flow.
type end struct {
	addr [4]byte
	port uint16
}

// inside names what is mapped: a port of a host, and for NATSymmetric whom it talks to.
type inside struct {
	proto byte
	from  end
	to    end // zero unless symmetric
}

type outside struct {
	proto byte
	port  uint16
}

type mapping struct {
	inside inside
	port   uint16
	used   time.Time
	to     map[end]bool // whom it was used for
}

// gateway is the NAT of one site. It decides and rewrites packets in place; it moves none. Safe for concurrent use.
type gateway struct {
	kind NAT
	addr [4]byte // outside

	mu     sync.Mutex
	random *rand.Rand
	out    map[inside]*mapping
	in     map[outside]*mapping
}

func newGateway(kind NAT, addr [4]byte, seed uint64) *gateway {
	return &gateway{kind: kind, addr: addr, random: rand.New(rand.NewPCG(seed, 77)), out: map[inside]*mapping{}, in: map[outside]*mapping{}}
}

// leave gives a packet of a host inside the gateway's address and a port. It says no to what it cannot carry.
func (g *gateway) leave(p []byte, now time.Time) bool {
	f, ok := parseFlow(p)
	if !ok {
		return false
	}
	key := inside{proto: f.proto, from: f.src}
	if g.kind == NATSymmetric {
		key.to = f.dst
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.out[key]
	if m == nil || now.Sub(m.used) > idle(f.proto) {
		if m != nil {
			g.forget(m)
		}
		if m = g.open(key); m == nil {
			return false
		}
	}
	m.used = now
	if len(m.to) < contactsMax {
		m.to[f.dst] = true
	}
	f.setSource(p, end{g.addr, m.port})
	return true
}

// enter gives a packet for the gateway the address of the host inside that it is for, or says no.
func (g *gateway) enter(p []byte, now time.Time) bool {
	f, ok := parseFlow(p)
	if !ok {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.in[outside{f.proto, f.dst.port}]
	if m == nil || now.Sub(m.used) > idle(f.proto) || g.kind != NATCone && !m.to[f.src] {
		return false
	}
	f.setDestination(p, m.inside.from)
	return true
}

// open makes a mapping; the lock is held.
func (g *gateway) open(key inside) *mapping {
	if len(g.out) >= mappingsMax {
		g.forgetOne()
	}
	port := key.from.port
	for try := 0; g.kind == NATSymmetric && try == 0 || g.in[outside{key.proto, port}] != nil; try++ {
		if try > mappingsMax {
			return nil
		}
		port = uint16(firstPort + g.random.IntN(lastPort-firstPort))
	}
	m := &mapping{inside: key, port: port, to: map[end]bool{}}
	g.out[key], g.in[outside{key.proto, port}] = m, m
	return m
}

// forgetOne makes room: of a few mappings, the one that was quiet for the longest goes.
func (g *gateway) forgetOne() {
	var oldest *mapping
	looked := 0
	for _, m := range g.out {
		if oldest == nil || m.used.Before(oldest.used) {
			oldest = m
		}
		if looked++; looked == 8 {
			break
		}
	}
	g.forget(oldest)
}

func (g *gateway) forget(m *mapping) {
	delete(g.out, m.inside)
	delete(g.in, outside{m.inside.proto, m.port})
}

func idle(proto byte) time.Duration {
	if proto == protoTCP {
		return tcpIdle
	}
	return udpIdle
}

// flow is what of a packet a NAT looks at.
type flow struct {
	proto    byte
	header   int // bytes of the IP header
	src, dst end
}

// parseFlow reads a TCP or UDP packet over IPv4 that is no fragment; nothing else crosses a NAT here.
func parseFlow(p []byte) (f flow, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return f, false
	}
	f.header, f.proto = int(p[0]&15)*4, p[9]
	fragment := binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	least := map[byte]int{protoTCP: 20, protoUDP: 8}[f.proto]
	if f.header < 20 || fragment || least == 0 || len(p) < f.header+least {
		return f, false
	}
	f.src = end{[4]byte(p[12:16]), binary.BigEndian.Uint16(p[f.header:])}
	f.dst = end{[4]byte(p[16:20]), binary.BigEndian.Uint16(p[f.header+2:])}
	return f, true
}

func (f flow) setSource(p []byte, to end)      { f.rewrite(p, 12, f.header, to) }
func (f flow) setDestination(p []byte, to end) { f.rewrite(p, 16, f.header+2, to) }

// rewrite changes an address and a port, and the checksums by what was changed (RFC 1624).
func (f flow) rewrite(p []byte, addrAt, portAt int, to end) {
	sumAt := f.header + 16
	if f.proto == protoUDP {
		sumAt = f.header + 6
	}
	none := f.proto == protoUDP && p[sumAt] == 0 && p[sumAt+1] == 0 // UDP may go without
	for i := range 2 {
		was, is := binary.BigEndian.Uint16(p[addrAt+2*i:]), binary.BigEndian.Uint16(to.addr[2*i:])
		binary.BigEndian.PutUint16(p[addrAt+2*i:], is)
		adjust(p[10:], was, is)
		if !none {
			adjust(p[sumAt:], was, is)
		}
	}
	was := binary.BigEndian.Uint16(p[portAt:])
	binary.BigEndian.PutUint16(p[portAt:], to.port)
	if !none {
		adjust(p[sumAt:], was, to.port)
		if f.proto == protoUDP && p[sumAt] == 0 && p[sumAt+1] == 0 {
			p[sumAt], p[sumAt+1] = 0xff, 0xff // zero would mean that there is none
		}
	}
}

// adjust changes a checksum for one word that was changed.
func adjust(sum []byte, was, is uint16) {
	s := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^was) + uint32(is)
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	binary.BigEndian.PutUint16(sum, ^uint16(s))
}
