package host

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/ident"
)

const (
	tcpAny  = "/ip4/127.0.0.1/tcp/0"
	quicAny = "/ip4/127.0.0.1/udp/0/quic-v1"
	echo    = "/shoal/test/echo/1"
)

func identity(t testing.TB) ident.Identity {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ident.Identity{Key: key, ID: id, Name: "test"}
}

// start makes a host that echoes, on loopback.
func start(t *testing.T, listen ...string) *Host {
	t.Helper()
	h, err := New(Config{Identity: identity(t), Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	h.SetStreamHandler(echo, func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	return h
}

func context10(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func info(h *Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// only returns a host's addresses of one transport.
func only(h *Host, code int) peer.AddrInfo {
	out := peer.AddrInfo{ID: h.ID()}
	for _, a := range h.Addrs() {
		if hasProtocol(a, code) {
			out.Addrs = append(out.Addrs, a)
		}
	}
	return out
}

// transports names the paths from a to b, the preferred one first.
func transports(a, b *Host) string {
	var names []string
	for _, p := range a.Paths(b.ID()) {
		names = append(names, p.Transport)
	}
	return strings.Join(names, " ")
}

// sayHello sends a word over a stream and waits for it to come back.
func sayHello(t *testing.T, s network.Stream) {
	t.Helper()
	if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "hello" {
		t.Fatalf("echo: %q, %v", got, err)
	}
}

func TestConnectUsesTCPWithTLS(t *testing.T) {
	a, b := start(t, tcpAny, quicAny), start(t, tcpAny, quicAny)
	if err := a.Connect(context10(t), info(b)); err != nil {
		t.Fatal(err)
	}
	paths := a.Paths(b.ID())
	if len(paths) != 1 {
		t.Fatalf("%d paths, want one: %+v", len(paths), paths)
	}
	p := paths[0]
	if p.Transport != TransportTLS || p.Reach != ReachLoopback || p.Inbound || p.Limited || p.Opened.IsZero() {
		t.Errorf("path %+v", p)
	}
	if !hasProtocol(p.Remote, ma.P_TCP) {
		t.Errorf("remote address %s", p.Remote)
	}
	s, err := a.NewBulkStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	sayHello(t, s)
	if back := b.Paths(a.ID()); len(back) != 1 || !back[0].Inbound {
		t.Errorf("the other side sees %+v", back)
	}
}

func TestQUICAlone(t *testing.T) {
	a, b := start(t, tcpAny, quicAny), start(t, quicAny)
	if err := a.Connect(context10(t), info(b)); err != nil {
		t.Fatal(err)
	}
	if got := transports(a, b); got != TransportQUIC {
		t.Fatalf("transports %q", got)
	}
	s, err := a.NewBulkStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	sayHello(t, s)
}

// A TCP address where nobody listens must cost the connection nothing but a refused dial.
func TestQUICWhenTCPIsRefused(t *testing.T) {
	a, b := start(t, tcpAny, quicAny), start(t, quicAny)
	dead := deadTCP(t)
	addrs := append([]ma.Multiaddr{dead}, b.Addrs()...)
	if err := a.Connect(context10(t), peer.AddrInfo{ID: b.ID(), Addrs: addrs}); err != nil {
		t.Fatal(err)
	}
	if got := transports(a, b); got != TransportQUIC {
		t.Fatalf("transports %q", got)
	}
	// Identify has told where b listens, which made the dead address forgotten.
	a.Peerstore().AddAddr(b.ID(), dead, peerstore.TempAddrTTL)
	s, err := a.NewBulkStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	sayHello(t, s)
	if got := transports(a, b); got != TransportQUIC {
		t.Errorf("looking for TCP opened something: %q", got)
	}
	if a.direct.mayTry(b.ID(), time.Now()) {
		t.Error("the failure is not remembered")
	}
	if !a.direct.mayTry(b.ID(), time.Now().Add(preferTCPAgain)) {
		t.Error("the failure is remembered for ever")
	}
}

// deadTCP returns a loopback address where nobody listens any more.
func deadTCP(t *testing.T) ma.Multiaddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := withPort(ma.StringCast(tcpAny), l.Addr().(*net.TCPAddr).Port)
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return a
}

// Connected by QUIC, bulk streams find their way to TCP, and then all new streams do, although QUIC has more of them.
func TestStreamsMoveToTCP(t *testing.T) {
	a, b := start(t, tcpAny, quicAny), start(t, tcpAny, quicAny)
	if err := a.Connect(context10(t), only(b, ma.P_UDP)); err != nil {
		t.Fatal(err)
	}
	if got := transports(a, b); got != TransportQUIC {
		t.Fatalf("transports %q", got)
	}
	first, err := a.NewStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Reset() }()
	a.Peerstore().AddAddrs(b.ID(), only(b, ma.P_TCP).Addrs, peerstore.TempAddrTTL)

	s, err := a.NewBulkStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	if !isDirectTCP(s.Conn().RemoteMultiaddr()) {
		t.Errorf("the bulk stream runs over %s", s.Conn().RemoteMultiaddr())
	}
	sayHello(t, s)
	if got, want := transports(a, b), TransportTLS+" "+TransportQUIC; got != want {
		t.Errorf("transports %q, want %q", got, want)
	}
	plain, err := a.NewStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	if !isDirectTCP(plain.Conn().RemoteMultiaddr()) {
		t.Errorf("the plain stream runs over %s", plain.Conn().RemoteMultiaddr())
	}
	sayHello(t, plain)

	back, err := b.NewStream(context10(t), a.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	if !isDirectTCP(back.Conn().RemoteMultiaddr()) {
		t.Errorf("the other side's stream runs over %s", back.Conn().RemoteMultiaddr())
	}
	sayHello(t, back)
}

func TestNewBulkStreamFails(t *testing.T) {
	a, b := start(t, tcpAny), start(t, tcpAny)
	if _, err := a.NewBulkStream(context10(t), identity(t).ID, echo); err == nil {
		t.Error("a stream to a peer of no known address")
	}
	if err := a.Connect(context10(t), info(b)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.NewBulkStream(context10(t), b.ID(), "/shoal/test/unknown/1"); err == nil {
		t.Error("a stream of a protocol that the peer does not speak")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.NewBulkStream(ctx, b.ID(), echo); err == nil {
		t.Error("a stream after the context ended")
	}
}

func TestPing(t *testing.T) {
	a, b := start(t, tcpAny), start(t, tcpAny)
	if err := a.Connect(context10(t), info(b)); err != nil {
		t.Fatal(err)
	}
	rtt, err := a.Ping(context10(t), b.ID())
	if err != nil || rtt <= 0 {
		t.Fatalf("ping: %v, %v", rtt, err)
	}
	if got := a.Paths(b.ID())[0].RTT; got <= 0 {
		t.Errorf("the path shows a round trip of %v", got)
	}
	if _, err := a.Ping(context10(t), identity(t).ID); err == nil {
		t.Error("pinged a peer of no known address")
	}
}

func TestConfinedHostStaysOnLoopback(t *testing.T) {
	h, err := New(Config{Identity: identity(t), Listen: []string{tcpAny, quicAny}, LAN: true, UPnP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	if !h.Confined() {
		t.Fatal("a host on loopback is not confined")
	}
	if h.LAN() || h.LANError() != nil {
		t.Error("local discovery runs on a confined host")
	}
	for _, a := range h.ShareAddrs() {
		if !strings.HasPrefix(a.String(), "/ip4/127.0.0.1/") || !strings.HasSuffix(a.String(), "/p2p/"+h.ID().String()) {
			t.Errorf("announces %s", a)
		}
	}
	// 192.0.2.0/24 is reserved for documentation: even a failing test reaches nobody.
	for _, s := range []string{"/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/udp/4001/quic-v1", "/ip4/10.1.2.3/tcp/4001",
		"/ip4/192.0.2.1/tcp/4001/p2p/" + identity(t).ID.String() + "/p2p-circuit"} {
		who := identity(t).ID
		err := h.Connect(context10(t), peer.AddrInfo{ID: who, Addrs: []ma.Multiaddr{ma.StringCast(s)}})
		if err == nil || !strings.Contains(err.Error(), "gater disallows") {
			t.Errorf("%s was not refused beforehand: %v", s, err)
		}
	}
}

func TestWideHostIsNotConfined(t *testing.T) {
	plan, err := planListen(nil, "")
	if err != nil || plan.confined || plan.strict || len(plan.addrs) != len(listenDefault) {
		t.Errorf("default plan %+v, %v", plan, err)
	}
	plan, err = planListen([]string{tcpAny, "/ip4/0.0.0.0/tcp/0"}, "")
	if err != nil || plan.confined || !plan.strict {
		t.Errorf("mixed plan %+v, %v", plan, err)
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	busy, err := withPort(ma.StringCast(tcpAny), taken.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		listen []string
		want   string
	}{
		{[]string{"nonsense"}, "must begin with /"},
		{[]string{"/ip4/127.0.0.1/udp/0"}, "want /ip4/"},
		{[]string{"/ip4/127.0.0.1/tcp/0/ws"}, "want /ip4/"},
		{[]string{"/dns4/example.org/tcp/0"}, "want /ip4/"},
		{[]string{busy.String()}, "cannot listen on " + busy.String()},
		{[]string{quicAny, busy.String()}, "cannot listen on " + busy.String()},
		{make([]string, listenMax+1), "the limit is"},
	} {
		h, err := New(Config{Identity: identity(t), Listen: c.listen})
		if err == nil {
			_ = h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("listen %q: %v, want %q", c.listen, err, c.want)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a host without identity")
	}
}

func TestPortIsRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "port")
	cfg := Config{Identity: identity(t), Listen: []string{tcpAny, quicAny}, PortFile: file}
	ports := func() (tcp, quic int) {
		t.Helper()
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = h.Close() }()
		for _, a := range h.Network().ListenAddresses() {
			if hasProtocol(a, ma.P_TCP) {
				tcp = port(a)
			}
			if hasProtocol(a, ma.P_UDP) {
				quic = port(a)
			}
		}
		return tcp, quic
	}
	first, _ := ports()
	again, quic := ports()
	if again != first || quic != first {
		t.Errorf("ports %d and %d after %d", again, quic, first)
	}

	taken, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first)))
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := ports(); other == first {
		t.Error("listens on a taken port")
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "x", "80", "70000", "-1", strings.Repeat("9", 100)} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, ok := readPort(file); ok {
			t.Errorf("port file %q means %d", bad, n)
		}
	}
	if tcp, _ := ports(); tcp == 0 {
		t.Error("a damaged port file stops the host")
	}
}

// Many peers behind one address is the normal case of an office. Loopback is exempt in libp2p, so the limits are read
// off the resource manager rather than run into.
func TestManyPeersBehindOneAddress(t *testing.T) {
	rm, err := resourceManager()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rm.Close() }()
	from := ma.StringCast("/ip4/192.0.2.7/tcp/4001")
	var scopes []network.ConnManagementScope
	defer func() {
		for _, s := range scopes {
			s.Done()
		}
	}()
	for i := range 100 {
		s, err := rm.OpenConnection(network.DirInbound, false, from)
		if err != nil {
			t.Fatalf("connection %d from one address: %v", i+1, err)
		}
		scopes = append(scopes, s)
	}
}

func TestCloseTwice(t *testing.T) {
	h, err := New(Config{Identity: identity(t), Listen: []string{tcpAny}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
}
