package netem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// network makes a network or skips with the reason.
func network(t *testing.T, c Config) *Net {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// echo answers every datagram that reaches a host, and returns where.
func echo(t *testing.T, h *Host) netip.AddrPort {
	t.Helper()
	conn := listenUDP(t, h)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func listenUDP(t *testing.T, h *Host) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr(), 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ping sends numbered datagrams, one each gap, and returns the round-trip times of those that came back, in order. It ends
// when all have, or when none has for as long as wait.
func ping(t *testing.T, from *Host, to netip.AddrPort, count int, gap, wait time.Duration) (times []time.Duration, order []uint32) {
	t.Helper()
	conn := listenUDP(t, from)
	sent := make([]atomic.Int64, count)
	began := time.Now()
	go func() {
		tick := time.NewTicker(gap)
		defer tick.Stop()
		for i := range count {
			<-tick.C
			sent[i].Store(int64(time.Since(began)))
			conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, uint32(i)), to)
		}
	}()
	buf := make([]byte, 64)
	for len(times) < count {
		conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(buf)
		if err != nil || n != 4 {
			break
		}
		i := binary.BigEndian.Uint32(buf)
		times = append(times, time.Since(began)-time.Duration(sent[i].Load()))
		order = append(order, i)
	}
	return times, order
}

func TestRoundTripIsTwiceTheDelay(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond} {
		n := network(t, Config{Hosts: 2, Link: Link{Delay: delay}})
		times, order := ping(t, n.Host(0), echo(t, n.Host(1)), 50, 5*time.Millisecond, 5*time.Second)
		if len(times) != 50 || !slices.IsSorted(order) {
			t.Fatalf("delay %v: %d of 50 came back, in order: %v", delay, len(times), slices.IsSorted(order))
		}
		slices.Sort(times)
		// The emulator may only add to the delay. How much it adds at worst depends on what else the machine does.
		if least := times[0]; least < 2*delay || least > 2*delay+10*time.Millisecond {
			t.Errorf("delay %v: round trip at least %v", delay, least)
		}
		t.Logf("delay %v: round trip at least %v, median %v, at most %v", delay, times[0], times[25], times[49])
	}
}

func TestLossIsAsAsked(t *testing.T) {
	n := network(t, Config{Hosts: 2, Link: Link{Loss: 0.1}, Seed: 5})
	times, _ := ping(t, n.Host(0), echo(t, n.Host(1)), 2000, 200*time.Microsecond, time.Second)
	s := n.Stats(0, 1)
	if lost := float64(s.Lost) / float64(s.Sent); s.Sent < 2000 || lost < 0.07 || lost > 0.13 {
		t.Errorf("lost %.3f of %d packets, want 0.1", lost, s.Sent)
	}
	// Both ways have to succeed: 0.81 of the datagrams.
	if back := float64(len(times)) / 2000; back < 0.76 || back > 0.86 {
		t.Errorf("%.3f of the datagrams came back, want 0.81", back)
	}
}

// transfer sends size bytes over one TCP connection and returns the seconds from the dial to the last.
func transfer(t *testing.T, from, to *Host, size int) float64 {
	t.Helper()
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(to.Addr(), 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	var conn net.Conn
	if err := from.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer conn.Close()
		chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		for left := size; left > 0; left -= len(chunk) {
			if _, err := conn.Write(chunk[:min(left, len(chunk))]); err != nil {
				return
			}
		}
	}()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	in.SetDeadline(time.Now().Add(time.Minute))
	if got, err := io.Copy(io.Discard, in); err != nil || got != int64(size) {
		t.Fatalf("%d of %d bytes arrived: %v", got, size, err)
	}
	return time.Since(began).Seconds()
}

func TestTCPThroughput(t *testing.T) {
	n := network(t, Config{Hosts: 2})
	const size = 128 << 20
	free := transfer(t, n.Host(0), n.Host(1), size)
	t.Logf("unlimited: %.0f Mbit/s, %+v", size*8/1e6/free, n.Stats(0, 1))

	const rate = 50e6
	if err := n.SetAll(Link{Rate: rate, Delay: 5 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	const limited = 8 << 20
	seconds := transfer(t, n.Host(0), n.Host(1), limited)
	got := limited * 8 / seconds
	t.Logf("limited to %.0f Mbit/s: %.1f Mbit/s", rate/1e6, got/1e6)
	// Headers take 4 %, and a start from nothing some more; what arrives faster than the line is an error in any case.
	if got > rate || got < rate*0.4 {
		t.Errorf("%.1f Mbit/s came over a line of %.0f", got/1e6, rate/1e6)
	}
	if free > seconds*size/limited {
		t.Errorf("without a limit it took %v s, at the limit's rate it would be %v s", free, seconds*size/limited)
	}
}

func TestHostsSeeOnlyEachOther(t *testing.T) {
	n := network(t, Config{Hosts: 3, Subnet: netip.MustParsePrefix("10.99.7.0/24")})
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), "10.99.7.") {
				t.Errorf("the machine itself has got %v on %s", a, i.Name)
			}
		}
	}
	err = n.Host(0).Do(func() error {
		ifaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range ifaces { // a kernel may put idle tunnels into every namespace
			if addrs, _ := i.Addrs(); len(addrs) > 0 && i.Name != "lo" && i.Name != deviceName {
				t.Errorf("a host has another interface, %s with %v", i.Name, addrs)
			}
		}
		// 192.0.2.0/24 is for documentation (RFC 5737): nobody is there, and the host must not even try.
		conn, err := net.Dial("udp4", "192.0.2.1:9")
		if err == nil {
			conn.Close()
			t.Error("a host has a route to the outside")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := n.Host(2).Addr(), netip.MustParseAddr("10.99.7.3"); got != want {
		t.Errorf("the third host is %v, want %v", got, want)
	}
}

func TestPartition(t *testing.T) {
	n := network(t, Config{Hosts: 3})
	one, two := echo(t, n.Host(1)), echo(t, n.Host(2))
	const patience, silence = 10 * time.Second, 200 * time.Millisecond
	reaches := func(to netip.AddrPort, wait time.Duration) bool {
		times, _ := ping(t, n.Host(0), to, 3, time.Millisecond, wait)
		return len(times) == 3
	}
	if !reaches(one, patience) || !reaches(two, patience) {
		t.Fatal("the hosts do not reach each other")
	}
	n.Partition([]int{0, 1}, []int{2})
	if !reaches(one, patience) || reaches(two, silence) {
		t.Error("the partition does not separate the groups, or separates their members")
	}
	n.Heal()
	if !reaches(two, patience) {
		t.Error("the network has not healed")
	}
}

func TestCommandRunsInside(t *testing.T) {
	n := network(t, Config{Hosts: 2})
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip(err)
	}
	out, err := n.Host(1).Command(cat, "/proc/net/fib_trie").CombinedOutput()
	if err != nil || !strings.Contains(string(out), n.Host(1).Addr().String()) || strings.Contains(string(out), n.Host(0).Addr().String()+"\n") {
		t.Errorf("%v: %s", err, out)
	}
	var exit *exec.ExitError
	if err := n.Host(1).Command(cat, "/nowhere").Run(); !errors.As(err, &exit) {
		t.Errorf("a failing command returned %v", err)
	}
}

func TestCongestionControlIsTheHosts(t *testing.T) {
	before, err := os.ReadFile(tcpSetting)
	if err != nil {
		t.Skip(err)
	}
	n := network(t, Config{Hosts: 2, TCP: "reno"})
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip(err)
	}
	if out, err := n.Host(0).Command(cat, tcpSetting).Output(); err != nil || strings.TrimSpace(string(out)) != "reno" {
		t.Errorf("a host has %q: %v", out, err)
	}
	if after, err := os.ReadFile(tcpSetting); err != nil || string(after) != string(before) {
		t.Errorf("the machine had %q and now has %q: %v", before, after, err)
	}
	if _, err := New(Config{Hosts: 2, TCP: "no-such-thing"}); err == nil {
		t.Error("an unknown congestion control was accepted")
	}
}

func TestCloseTwice(t *testing.T) {
	n := network(t, Config{Hosts: 4, Link: Link{Delay: time.Second}})
	ping(t, n.Host(0), netip.AddrPortFrom(n.Host(1).Addr(), 9), 3, time.Millisecond, 10*time.Millisecond)
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Error(err)
	}
}

// TestNATBetweenHosts: a real datagram goes out through a NAT and its answer comes back; nobody gets in unasked, and hosts
// of one site reach each other as they are.
func TestNATBetweenHosts(t *testing.T) {
	n := network(t, Config{Hosts: 4, Subnet: netip.MustParsePrefix("1.77.0.0/24"), Sites: []Site{{NATPort, []int{1, 2}}, {NATSymmetric, []int{3}}}})
	const patience, silence = 10 * time.Second, 200 * time.Millisecond
	reaches := func(from int, to netip.AddrPort, wait time.Duration) bool {
		times, _ := ping(t, n.Host(from), to, 3, time.Millisecond, wait)
		return len(times) == 3
	}
	public, inside, symmetric := echo(t, n.Host(0)), echo(t, n.Host(1)), echo(t, n.Host(3))
	for from := 1; from <= 3; from++ {
		if !reaches(from, public, patience) {
			t.Errorf("host %d does not reach the one outside", from)
		}
	}
	if !reaches(2, inside, patience) {
		t.Error("hosts of one site do not reach each other")
	}
	for _, to := range []netip.AddrPort{inside, symmetric, netip.AddrPortFrom(netip.MustParseAddr("1.77.0.5"), inside.Port())} {
		if reaches(0, to, silence) {
			t.Errorf("the host outside reaches %v unasked", to)
		}
	}
	// TCP crosses it, too, there and back.
	transfer(t, n.Host(3), n.Host(0), 1<<20)
}

func TestStartIsKilledWithTheNetwork(t *testing.T) {
	n := network(t, Config{Hosts: 2})
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(sleep, "1000")
	if err := n.Host(0).Start(cmd); err != nil {
		t.Fatal(err)
	}
	space, err := os.Readlink("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net")
	own, _ := os.Readlink("/proc/self/ns/net")
	if err != nil || space == own {
		t.Errorf("it runs in %s, and this test in %s: %v", space, own, err)
	}
	n.Close()
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
	if err := n.Host(0).Start(exec.Command(sleep, "1")); err == nil {
		t.Error("a closed network started something")
	}
}
