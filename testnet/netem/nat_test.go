package netem

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// udpPacket is a whole packet with right checksums.
func udpPacket(proto byte, src, dst end, body []byte) []byte {
	length := map[byte]int{protoTCP: 20, protoUDP: 8}[proto]
	p := make([]byte, 20+length+len(body))
	p[0], p[9] = 0x45, proto
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], src.addr[:])
	copy(p[16:], dst.addr[:])
	binary.BigEndian.PutUint16(p[20:], src.port)
	binary.BigEndian.PutUint16(p[22:], dst.port)
	if proto == protoUDP {
		binary.BigEndian.PutUint16(p[24:], uint16(8+len(body)))
	} else {
		p[32] = 5 << 4
	}
	copy(p[20+length:], body)
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20], 0))
	at := map[byte]int{protoTCP: 36, protoUDP: 26}[proto]
	binary.BigEndian.PutUint16(p[at:], transportSum(p))
	return p
}

func checksum(b []byte, more uint32) uint16 {
	s := more
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// transportSum is the checksum of TCP or UDP over the pseudo header; that which is in the packet counts too.
func transportSum(p []byte) uint16 {
	pseudo := uint32(p[9]) + uint32(len(p)-20)
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	return checksum(p[20:], pseudo)
}

// sumsAreRight: the sum over everything, the checksum included, is zero.
func sumsAreRight(p []byte) bool { return checksum(p[:20], 0) == 0 && transportSum(p) == 0 }

var (
	host1  = end{[4]byte{192, 168, 1, 1}, 4001}
	host2  = end{[4]byte{192, 168, 1, 2}, 4001}
	outer  = [4]byte{1, 77, 0, 200}
	friend = end{[4]byte{1, 77, 0, 1}, 4001}
	other  = end{[4]byte{1, 77, 0, 2}, 4001}
)

func TestNATKinds(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, proto := range []byte{protoUDP, protoTCP} {
		for _, c := range []struct {
			kind                          NAT
			samePort, strangerIn, otherIn bool
		}{
			{NATCone, true, true, true},
			{NATPort, true, false, true},
			{NATSymmetric, false, false, false},
		} {
			g := newGateway(c.kind, outer, 1)
			mapped := func(from, to end) end {
				p := udpPacket(proto, from, to, []byte("hello"))
				if !g.leave(p, now) || !sumsAreRight(p) {
					t.Fatalf("kind %d: a packet does not leave, or is damaged", c.kind)
				}
				f, _ := parseFlow(p)
				if f.src.addr != outer || f.dst != to {
					t.Fatalf("kind %d: it left as %v", c.kind, f)
				}
				return f.src
			}
			enters := func(from, to end) (end, bool) {
				p := udpPacket(proto, from, to, []byte("answer"))
				ok := g.enter(p, now)
				f, _ := parseFlow(p)
				return f.dst, ok && sumsAreRight(p)
			}
			out := mapped(host1, friend)
			if again := mapped(host1, friend); again != out {
				t.Errorf("kind %d: the same flow has two ports", c.kind)
			}
			if to, ok := enters(friend, out); !ok || to != host1 {
				t.Errorf("kind %d: the answer goes to %v, %v", c.kind, to, ok)
			}
			if _, ok := enters(other, out); ok != c.strangerIn {
				t.Errorf("kind %d: a stranger gets in: %v", c.kind, ok)
			}
			second := mapped(host1, other)
			if (second == out) != c.samePort {
				t.Errorf("kind %d: the second correspondent sees the same port: %v", c.kind, second == out)
			}
			if _, ok := enters(other, out); ok != c.otherIn {
				t.Errorf("kind %d: whom was written to gets in at the first port: %v", c.kind, ok)
			}
			if mapped(host2, friend) == out {
				t.Errorf("kind %d: two hosts share a port", c.kind)
			}
			if _, ok := enters(friend, end{outer, 9}); ok {
				t.Errorf("kind %d: a port that nobody opened is open", c.kind)
			}
		}
	}
}

func TestNATForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	g := newGateway(NATCone, outer, 1)
	p := udpPacket(protoUDP, host1, friend, nil)
	g.leave(p, now)
	f, _ := parseFlow(p)
	if !g.enter(udpPacket(protoUDP, friend, f.src, nil), now.Add(udpIdle)) {
		t.Error("it was forgotten too soon")
	}
	if g.enter(udpPacket(protoUDP, friend, f.src, nil), now.Add(udpIdle+1)) {
		t.Error("it was not forgotten")
	}
	for i := range 2 * mappingsMax {
		g.leave(udpPacket(protoUDP, end{host1.addr, uint16(i)}, friend, nil), now.Add(time.Duration(i)))
	}
	if len(g.out) != mappingsMax || len(g.in) != mappingsMax {
		t.Errorf("%d and %d mappings", len(g.out), len(g.in))
	}
}

// TestNATKeepsSums rewrites random packets and looks at the checksums, those that become zero included.
func TestNATKeepsSums(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	g := newGateway(NATSymmetric, outer, 1)
	for range 100_000 {
		body := make([]byte, random.IntN(4))
		for i := range body {
			body[i] = byte(random.Uint32())
		}
		proto := []byte{protoUDP, protoTCP}[random.IntN(2)]
		p := udpPacket(proto, end{host1.addr, uint16(random.Uint32())}, end{friend.addr, uint16(random.Uint32())}, body)
		if !g.leave(p, time.Unix(1000, 0)) || !sumsAreRight(p) {
			t.Fatalf("% x", p)
		}
	}
}

func FuzzNAT(f *testing.F) {
	f.Add(udpPacket(protoTCP, host1, friend, nil))
	f.Add(udpPacket(protoUDP, host1, friend, []byte("x")))
	f.Fuzz(func(t *testing.T, p []byte) {
		g := newGateway(NATPort, outer, 1)
		g.enter(p, time.Unix(1, 0))
		g.leave(p, time.Unix(1, 0))
		g.enter(p, time.Unix(1, 0))
	})
}
