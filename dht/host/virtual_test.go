package host

import (
	"net"
	"testing"

	"github.com/multiformats/go-multiaddr"
)

func TestVirtualInterfacesStayOutOfLinks(t *testing.T) {
	lo, err := net.InterfaceByIndex(1)
	if err != nil {
		t.Skipf("no first interface: %v", err)
	}
	as := func(name string) func() ([]net.Interface, error) {
		i := *lo
		i.Name = name
		return func() ([]net.Interface, error) { return []net.Interface{i}, nil }
	}
	own, err := lo.Addrs()
	if err != nil || len(own) == 0 {
		t.Skip("the first interface has no address")
	}
	ip := own[0].(*net.IPNet).IP
	if ip.To4() == nil {
		t.Skip("the first interface has no IPv4 address first")
	}
	bridge := multiaddr.StringCast("/ip4/" + ip.String() + "/tcp/1")
	lan := multiaddr.StringCast("/ip4/10.9.8.7/tcp/1")
	if got := withoutVirtual([]multiaddr.Multiaddr{bridge, lan}, as("docker0")); len(got) != 1 || !got[0].Equal(lan) {
		t.Errorf("with a LAN address there remain %v", got)
	}
	if got := withoutVirtual([]multiaddr.Multiaddr{bridge}, as("docker0")); len(got) != 1 {
		t.Errorf("alone, the bridge's address becomes %v", got)
	}
	if got := withoutVirtual([]multiaddr.Multiaddr{bridge, lan}, as("eth0")); len(got) != 2 {
		t.Errorf("of an ordinary interface there remain %v", got)
	}
}
