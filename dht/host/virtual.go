package host

import (
	"net"
	"slices"
	"strings"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// virtualPrefixes begin the names of interfaces that lead only to containers and virtual machines on this computer:
// their addresses mean something else, or nothing, on every other one.
var virtualPrefixes = [...]string{"docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "lxc", "lxdbr", "vmnet", "vboxnet"}

// withoutVirtual drops addresses of such interfaces, unless nothing else but loopback would be left.
func withoutVirtual(addrs []multiaddr.Multiaddr, interfaces func() ([]net.Interface, error)) []multiaddr.Multiaddr {
	list, err := interfaces()
	if err != nil {
		return addrs
	}
	var virtual []net.IP
	for _, i := range list {
		if !slices.ContainsFunc(virtualPrefixes[:], func(p string) bool { return strings.HasPrefix(i.Name, p) }) {
			continue
		}
		own, _ := i.Addrs()
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok {
				virtual = append(virtual, n.IP)
			}
		}
	}
	kept := slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool {
		ip, err := manet.ToIP(a)
		return err == nil && slices.ContainsFunc(virtual, ip.Equal)
	})
	if !slices.ContainsFunc(kept, func(a multiaddr.Multiaddr) bool { return !manet.IsIPLoopback(a) }) {
		return addrs
	}
	return kept
}
