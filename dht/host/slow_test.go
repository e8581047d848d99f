package host

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// TestABusyPeerIsWaitedFor: a machine to which many connect at once answers late. libp2p's own five seconds for peers on a
// local network are not enough.
func TestABusyPeerIsWaitedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("it lasts as long as the peer is late, six seconds")
	}
	t.Parallel()
	const late = 6 * time.Second
	a, b := start(t, tcpAny), start(t, tcpAny)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	behind, err := manet.ToNetAddr(b.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	go func() { // the kernel takes the connection at once, b's program does late
		in, err := front.Accept()
		if err != nil {
			return
		}
		time.AfterFunc(late, func() {
			out, err := net.Dial("tcp", behind.String())
			if err != nil {
				_ = in.Close()
				return
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			_, _ = io.Copy(in, out)
			_ = in.Close()
		})
	}()
	addr, err := manet.FromNetAddr(front.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{addr}}); err != nil {
		t.Fatal(err)
	}
	if a.Network().Connectedness(b.ID()) != network.Connected {
		t.Error("it is not connected")
	}
}
