package netem

import (
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"
)

var epoch = time.Unix(1_000_000, 0)

func mustLine(t *testing.T, l Link) *line {
	t.Helper()
	l, err := l.complete()
	if err != nil {
		t.Fatal(err)
	}
	return newLine(l, 7, 1)
}

// arrivals pops everything and returns when each packet's first byte number arrived.
func arrivals(l *line) (order []byte, due []time.Time) {
	now := epoch
	for {
		data, next := l.pop(now)
		switch {
		case data != nil:
			order, due = append(order, data[0]), append(due, now)
		case next.IsZero():
			return order, due
		default:
			now = next
		}
	}
}

func TestLineDelaysAndKeepsOrder(t *testing.T) {
	l := mustLine(t, Link{Delay: 50 * time.Millisecond})
	l.push(epoch, []byte{0})
	l.push(epoch.Add(time.Millisecond), []byte{1})
	l.set(Link{Delay: time.Millisecond}) // faster now, but no overtaking
	l.push(epoch.Add(2*time.Millisecond), []byte{2})
	order, due := arrivals(l)
	if string(order) != "\x00\x01\x02" {
		t.Fatalf("order %v", order)
	}
	for i, want := range []time.Duration{50, 51, 51} {
		if got := due[i].Sub(epoch); got != want*time.Millisecond {
			t.Errorf("packet %d arrived after %v, want %v ms", i, got, want)
		}
	}
}

func TestLineRateAndQueue(t *testing.T) {
	// 8 Mbit/s carries 1000 bytes in a millisecond; five packets fit into the queue.
	l := mustLine(t, Link{Rate: 8_000_000, Queue: 5000, Delay: 10 * time.Millisecond})
	kept := 0
	for i := range 8 {
		packet := make([]byte, 1000)
		packet[0] = byte(i)
		if l.push(epoch, packet) {
			kept++
		}
	}
	_, due := arrivals(l)
	if kept != 5 || len(due) != 5 || l.counts().Dropped != 3 {
		t.Fatalf("kept %d, arrived %d, %+v", kept, len(due), l.counts())
	}
	for i, at := range due {
		if want := time.Duration(i+1)*time.Millisecond + 10*time.Millisecond; at.Sub(epoch) != want {
			t.Errorf("packet %d arrived after %v, want %v", i, at.Sub(epoch), want)
		}
	}
	if !l.push(epoch.Add(time.Second), make([]byte, 1000)) {
		t.Error("a line that has long been idle refused a packet")
	}
}

func TestLineLosesBySeed(t *testing.T) {
	lose := func(seed uint64) (kept []bool) {
		l := newLine(Link{Loss: 0.1}, seed, 3)
		for range 20000 {
			kept = append(kept, l.push(epoch, []byte{1}))
			l.pop(epoch)
		}
		return kept
	}
	a, b, c := lose(1), lose(1), lose(2)
	lost, same, differ := 0, true, false
	for i := range a {
		if !a[i] {
			lost++
		}
		same = same && a[i] == b[i]
		differ = differ || a[i] != c[i]
	}
	if rate := float64(lost) / float64(len(a)); math.Abs(rate-0.1) > 0.01 {
		t.Errorf("lost %v of the packets, want 0.1", rate)
	}
	if !same || !differ {
		t.Errorf("equal seeds lose the same: %v; other seeds lose others: %v", same, differ)
	}
}

func TestLineIsBounded(t *testing.T) {
	l := mustLine(t, Link{Delay: time.Minute})
	packet := make([]byte, 1<<20)
	for range 100 {
		l.push(epoch, packet)
	}
	if s := l.counts(); s.Dropped != 36 || l.bytes != flightMax {
		t.Errorf("%+v with %d bytes held", s, l.bytes)
	}
}

func TestLineReusesItsQueue(t *testing.T) {
	l := mustLine(t, Link{Delay: time.Millisecond})
	for i := range 100_000 {
		now := epoch.Add(time.Duration(i) * time.Microsecond)
		l.push(now, []byte{1})
		l.pop(now)
	}
	if cap(l.queue) > 10_000 {
		t.Errorf("the queue has grown to %d for a thousand packets in flight", cap(l.queue))
	}
}

func TestConfigIsChecked(t *testing.T) {
	bad := []Config{
		{Hosts: 1},
		{Hosts: 65},
		{Hosts: 2, MTU: 100},
		{Hosts: 2, Link: Link{Loss: 1.5}},
		{Hosts: 2, Link: Link{Loss: math.NaN()}},
		{Hosts: 2, Link: Link{Delay: -1}},
		{Hosts: 3, Subnet: netip.MustParsePrefix("10.1.2.0/30")},
		{Hosts: 2, Subnet: netip.MustParsePrefix("fd00::/64")},
	}
	for _, c := range bad {
		if n, err := New(c); err == nil || errors.Is(err, ErrUnsupported) {
			t.Errorf("%+v was accepted: %v", c, err)
			if n != nil {
				n.Close()
			}
		}
	}
}
