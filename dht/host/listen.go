package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// listenDefault is all interfaces. Some machines have no IPv6, so of these not every one must succeed.
var listenDefault = [...]string{
	"/ip4/0.0.0.0/tcp/0",
	"/ip4/0.0.0.0/udp/0/quic-v1",
	"/ip6/::/tcp/0",
	"/ip6/::/udp/0/quic-v1",
}

const (
	// listenMax bounds Config.Listen.
	listenMax = 32
	// portFileMax bounds what is read of the port file, in bytes.
	portFileMax = 64
	// portMin keeps a damaged port file from naming a port that needs privileges.
	portMin = 1024
)

// listenPlan is where to listen, and what to check and remember afterwards.
type listenPlan struct {
	addrs    []ma.Multiaddr // with the remembered port filled in
	strict   bool           // whether each address must succeed
	confined bool           // whether all are loopback
	portFile string         // "" for no memory
}

// planListen parses and checks the addresses and fills in the port of last time.
func planListen(listen []string, portFile string) (listenPlan, error) {
	plan := listenPlan{strict: len(listen) > 0, confined: len(listen) > 0}
	if len(listen) == 0 {
		listen = listenDefault[:]
	}
	if len(listen) > listenMax {
		return plan, fmt.Errorf("host: listen: %d addresses, the limit is %d", len(listen), listenMax)
	}
	wantsPort := false
	for _, s := range listen {
		a, err := parseListen(s)
		if err != nil {
			return plan, fmt.Errorf("host: listen: %q: %w", s, err)
		}
		plan.addrs = append(plan.addrs, a)
		if plan.strict && port(a) != 0 && !available(a) {
			return plan, errCannotListen(a)
		}
		plan.confined = plan.confined && manet.IsIPLoopback(a)
		wantsPort = wantsPort || port(a) == 0
	}
	if portFile == "" || !wantsPort {
		return plan, nil
	}
	plan.portFile = portFile
	if n, ok := readPort(portFile); ok {
		plan.usePort(n)
	}
	return plan, nil
}

// parseListen accepts /ip/tcp and /ip/udp/quic-v1 and nothing more.
func parseListen(s string) (ma.Multiaddr, error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return nil, err
	}
	protos := a.Protocols()
	ok := len(protos) >= 2 && (protos[0].Code == ma.P_IP4 || protos[0].Code == ma.P_IP6)
	switch {
	case ok && len(protos) == 2 && protos[1].Code == ma.P_TCP:
	case ok && len(protos) == 3 && protos[1].Code == ma.P_UDP && protos[2].Code == ma.P_QUIC_V1:
	default:
		return nil, errors.New("want /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or ip6)")
	}
	return a, nil
}

// usePort puts port n in place of every port 0, if all of those can be had now.
func (p *listenPlan) usePort(n int) {
	filled := make([]ma.Multiaddr, len(p.addrs))
	for i, a := range p.addrs {
		filled[i] = a
		if port(a) != 0 {
			continue
		}
		b, err := withPort(a, n)
		if err != nil {
			return
		}
		filled[i] = b
		// An address that cannot be had with any port (no IPv6) says nothing about this one.
		if !available(b) && available(a) {
			return
		}
	}
	p.addrs = filled
}

// available reports whether an address can be listened on at this moment.
func available(a ma.Multiaddr) bool {
	if hasProtocol(a, ma.P_TCP) {
		l, err := manet.Listen(a)
		return err == nil && l.Close() == nil
	}
	udp, _ := ma.SplitLast(a)
	c, err := manet.ListenPacket(udp)
	return err == nil && c.Close() == nil
}

// withPort returns a with its port replaced.
func withPort(a ma.Multiaddr, n int) (ma.Multiaddr, error) {
	parts := strings.Split(a.String(), "/")
	parts[4] = strconv.Itoa(n) // "", ip4, ADDRESS, tcp, PORT, …
	return ma.NewMultiaddr(strings.Join(parts, "/"))
}

// check compares what was asked for with what libp2p listens on: it is content when one of many succeeds, so a taken
// port would silently cost a transport.
func (p *listenPlan) check(n network.Network) error {
	have := n.ListenAddresses()
	missing := 0
	for _, want := range p.addrs {
		if listensOn(have, want) {
			continue
		}
		missing++
		if p.strict {
			return errCannotListen(want)
		}
	}
	if missing == len(p.addrs) {
		return errors.New("host: cannot listen on any address")
	}
	return nil
}

func errCannotListen(a ma.Multiaddr) error {
	return fmt.Errorf("host: cannot listen on %s: the port is in use, or the address is not of this machine", a)
}

func listensOn(have []ma.Multiaddr, want ma.Multiaddr) bool {
	for _, a := range have {
		if sameButPort(a, want) && (port(want) == 0 || port(a) == port(want)) {
			return true
		}
	}
	return false
}

// sameButPort compares the address and the transport.
func sameButPort(a, b ma.Multiaddr) bool {
	ipA, errA := manet.ToIP(a)
	ipB, errB := manet.ToIP(b)
	return errA == nil && errB == nil && ipA.Equal(ipB) && hasProtocol(a, ma.P_TCP) == hasProtocol(b, ma.P_TCP)
}

// remember stores the port for next time. It is a convenience: when it fails, links hold for one run only.
func (p *listenPlan) remember(n network.Network) {
	if p.portFile == "" {
		return
	}
	best := 0
	for _, a := range n.ListenAddresses() {
		if hasProtocol(a, ma.P_TCP) || best == 0 && hasProtocol(a, ma.P_UDP) { // a relay client listens too, on no port
			best = port(a)
		}
	}
	if old, ok := readPort(p.portFile); ok && old == best || best < portMin {
		return
	}
	temp := p.portFile + ".new"
	if os.MkdirAll(filepath.Dir(p.portFile), 0o700) != nil {
		return
	}
	if os.WriteFile(temp, []byte(strconv.Itoa(best)+"\n"), 0o600) != nil {
		return
	}
	_ = os.Rename(temp, p.portFile)
}

// readPort reads the port of last time. Anything unexpected counts as none.
func readPort(path string) (int, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close() // only read from, so a failing close loses nothing
	data, err := io.ReadAll(io.LimitReader(f, portFileMax))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return n, err == nil && n >= portMin && n < 1<<16
}
