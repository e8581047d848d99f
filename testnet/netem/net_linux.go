package netem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"
)

// The waiting for a packet's time is done in two steps, because the Go runtime's timers are only good to a
// millisecond when nothing else goes on: coarse by a timer until coarseMargin before, then in naps.
const (
	coarseMargin = 2 * time.Millisecond
	nap          = 100 * time.Microsecond
)

// burst is how many packets one line delivers before it is the next line's turn.
const burst = 32

// Net is a running network. Its methods are safe for concurrent use.
type Net struct {
	config Config
	hosts  []*Host
	lines  [][]*line // [from][to]; nil on the diagonal
	pool   sync.Pool // *[]byte of the MTU
	stop   context.CancelFunc
	done   sync.WaitGroup
	once   sync.Once
}

// Host is one host of a Net.
type Host struct {
	addr  netip.Addr
	space *namespace
	wake  chan struct{} // a packet for this host was put on an empty line
}

// Supported tells whether a network can be made here; if not, the error says why and wraps ErrUnsupported.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnsupported)
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return fmt.Errorf("%w: it needs the command nsenter", ErrUnsupported)
	}
	s, err := newNamespace(subnetDefault, subnetDefault.Addr().Next(), mtuDefault, "")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	s.close()
	return nil
}

// New makes the hosts and joins them. The caller must Close the network.
func New(c Config) (*Net, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	n := &Net{config: c}
	n.pool.New = func() any { b := make([]byte, c.MTU); return &b }
	addr := c.Subnet.Addr()
	for from := range c.Hosts {
		addr = addr.Next()
		space, err := newNamespace(c.Subnet, addr, c.MTU, c.TCP)
		if err != nil {
			n.closeHosts()
			return nil, fmt.Errorf("netem: host %d: %w", from, err)
		}
		n.hosts = append(n.hosts, &Host{addr, space, make(chan struct{}, 1)})
		row := make([]*line, c.Hosts)
		for to := range row {
			if to != from {
				row[to] = newLine(c.Link, c.Seed, uint64(from)<<32|uint64(to))
			}
		}
		n.lines = append(n.lines, row)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	for i := range n.hosts {
		n.done.Go(func() { n.read(i) })
		n.done.Go(func() { n.deliver(ctx, i) })
	}
	return n, nil
}

// Close ends the network. Processes inside keep running, without one: stopping them is up to whoever started them.
func (n *Net) Close() error {
	n.once.Do(func() {
		n.stop()
		n.closeHosts()
		n.done.Wait()
	})
	return nil
}

func (n *Net) closeHosts() {
	for _, h := range n.hosts {
		h.space.close()
	}
}

// Host returns a host by its number, from 0.
func (n *Net) Host(i int) *Host { return n.hosts[i] }

// Set changes the lines between two hosts, in both directions, from the next packet on.
func (n *Net) Set(a, b int, l Link) error {
	return errors.Join(n.SetOneWay(a, b, l), n.SetOneWay(b, a, l))
}

// SetOneWay changes the line from one host to another.
func (n *Net) SetOneWay(from, to int, l Link) error {
	l, err := l.complete()
	if err != nil {
		return err
	}
	n.lines[from][to].set(l)
	return nil
}

// SetAll changes every line.
func (n *Net) SetAll(l Link) error {
	l, err := l.complete()
	if err != nil {
		return err
	}
	n.each(func(_, _ int, line *line) { line.set(l) })
	return nil
}

// Partition cuts every line between hosts of different groups and mends every other one. A host in no group is alone.
func (n *Net) Partition(groups ...[]int) {
	group := make([]int, len(n.hosts))
	for i := range group {
		group[i] = -1 - i
	}
	for g, members := range groups {
		for _, i := range members {
			group[i] = g
		}
	}
	n.each(func(from, to int, l *line) { l.setDown(group[from] != group[to]) })
}

// Heal mends every line.
func (n *Net) Heal() { n.each(func(_, _ int, l *line) { l.setDown(false) }) }

// Stats returns what passed from one host to another.
func (n *Net) Stats(from, to int) Stats { return n.lines[from][to].counts() }

func (n *Net) each(do func(from, to int, l *line)) {
	for from, row := range n.lines {
		for to, l := range row {
			if l != nil {
				do(from, to, l)
			}
		}
	}
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Command is exec.Command for a process inside the host. Its process id is that of the named program itself.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	// The namespace is named by this process's descriptor of it, so that nothing has to be mounted or cleaned up.
	return exec.Command("nsenter", append([]string{"--net=" + h.space.path(), "--", name}, args...)...)
}

// Do calls f on a thread inside the host and returns its error. Sockets that f opens belong to the host for good; f must open them
// itself, not in goroutines that it starts.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// read takes the packets that a host sends and puts each on its line.
func (n *Net) read(from int) {
	dev := n.hosts[from].space.device
	base := n.config.Subnet.Addr().As4()
	first := binary.BigEndian.Uint32(base[:]) + 1
	for {
		buf := n.pool.Get().(*[]byte)
		size, err := dev.Read((*buf)[:n.config.MTU])
		if err != nil {
			return // closed
		}
		to, ok := destination((*buf)[:size], first, len(n.hosts))
		if !ok || to == from {
			n.pool.Put(buf)
			continue
		}
		now := time.Now()
		if !n.lines[from][to].push(now, (*buf)[:size]) {
			n.pool.Put(buf)
			continue
		}
		select {
		case n.hosts[to].wake <- struct{}{}:
		default:
		}
	}
}

// destination is the number of the host that an IPv4 packet is for.
func destination(p []byte, first uint32, hosts int) (to int, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return 0, false
	}
	i := binary.BigEndian.Uint32(p[16:20]) - first
	return int(i), i < uint32(hosts)
}

// deliver writes the packets that are due to one host's device.
func (n *Net) deliver(ctx context.Context, to int) {
	h := n.hosts[to]
	var lines []*line
	for from := range n.hosts {
		if from != to {
			lines = append(lines, n.lines[from][to])
		}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, busy := time.Time{}, false
		for _, l := range lines {
			due, more := n.drain(h, l)
			busy = busy || more
			if !due.IsZero() && (next.IsZero() || due.Before(next)) {
				next = due
			}
		}
		if busy {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = time.Until(next)
		}
		if wait <= coarseMargin {
			sleepExactly(min(max(wait, 0), nap))
			if ctx.Err() != nil {
				return
			}
			continue
		}
		timer.Reset(wait - coarseMargin)
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-timer.C:
		}
	}
}

// drain delivers at most a burst from a line, and says whether it may have more now or when it will.
func (n *Net) drain(h *Host, l *line) (due time.Time, more bool) {
	now := time.Now()
	for range burst {
		data, due := l.pop(now)
		if data == nil {
			return due, false
		}
		// A host whose device is full or down loses the packet, as a real one does.
		_, _ = h.space.device.Write(data)
		data = data[:cap(data)]
		n.pool.Put(&data)
	}
	return time.Time{}, true
}
