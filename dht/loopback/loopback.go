// Package loopback owns what the HTTP faces that only this machine may reach have in common: which addresses they may
// listen at, and by which names a request must call them. A page on the web whose own name was re-bound to 127.0.0.1 reaches
// such a port through a browser, but does not call it by one of these.
package loopback

import (
	"errors"
	"net"
	"net/netip"
	"strings"
)

// ErrNot tells of an address that others than this machine could reach.
var ErrNot = errors.New("only a loopback address can be served: 127.0.0.1:PORT, [::1]:PORT or localhost:PORT")

// Check tells whether host:port is an address of this machine alone: [ErrNot], or why it is no address.
func Check(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() && ip.Zone() == "" {
		return nil
	}
	return ErrNot
}

// Hosts are the Host headers of requests that are meant for an address, in lower case, its own first. The errors are those
// of Check.
func Hosts(addr string) ([]string, error) {
	if err := Check(addr); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	hosts := []string{addr, "localhost:" + port}
	if port == "80" {
		hosts = append(hosts, strings.TrimSuffix(addr, ":80"), "localhost")
	}
	return hosts, nil
}
